"""One contestant in a process of its own: so its peak memory is its own, and contestants can take turns.

`python -m ncfair_jax.speed.worker` reads one JSON line that says what it is, answers when it is ready, and then answers
one JSON line to every command: {"run": [start, count]} does steps (or scores pairs, or runs benchmarks), {"run": [name,
arguments]} measures what is named on a device, {"matmul": size} times a bare product.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.speed.padded import Scored, Sentence, load_ragged
from ncfair_jax.speed.timing import Answer, matmul_rate, outcome, peak_mib, timed_each


class Contestant(NamedTuple):
    """What a worker does on command, and the facts it tells when it is ready."""

    run: Callable[..., Answer]
    make_matmul: Callable[[int], Callable[[], None]]
    facts: Answer


def torch_training(spec: Answer) -> Contestant:
    """PyTorch's train step on the stored sentences of each step."""
    from ncfair_jax.speed import torch_side

    groups = load_ragged(Path(spec["sentences"]), Sentence)
    settings = torch_side.TorchSettings(**spec["settings"])
    torch_side.make_step(spec["style"], settings)(groups[0][:2])  # first calls start threads
    step = torch_side.make_step(spec["style"], settings)

    def run(start: int, count: int) -> Answer:
        return timed_each(step, groups[start : start + count])

    return Contestant(run, torch_side.make_matmul, {})


def our_training(spec: Answer) -> Contestant:
    """The package's own train step."""
    from ncfair_jax.speed import bare, ours

    steps = range(spec["steps"])
    training = ours.Training(ours.config_from_dict(spec["config"]), steps)

    def run(start: int, count: int) -> Answer:
        return timed_each(training.step, range(start, start + count))

    facts = {"work": [training.work(step) for step in steps], "compile_seconds": training.compile_seconds}
    return Contestant(run, bare.make_matmul, facts | {"programs": len(training.compiled)})


def nc3_cost(spec: Answer) -> Contestant:
    """The package's train step with several settings of NC3, taking turns step by step in one process."""
    from ncfair_jax.speed import bare, ours

    steps = range(spec["steps"])
    variants = {name: ours.Training(ours.config_from_dict(tree), steps) for name, tree in spec["configs"].items()}

    def run(start: int, count: int) -> Answer:
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for step in range(start, start + count):
            # Whoever comes first finds caches and clock as the last one left them: so the order turns.
            names = list(variants)
            names = names[step % len(names) :] + names[: step % len(names)]
            for name in names:
                seconds[name] += timed_each(variants[name].step, [step])["seconds"]
        tracking = timed_each(lambda _: ours.track_once(variants["none"]), range(4))["seconds"]
        return {"seconds": seconds, "tracking": tracking[1:]}  # the first one compiles

    return Contestant(run, bare.make_matmul, {})


def collapse_cost(spec: Answer) -> Contestant:
    """One of `collapse.MEASUREMENTS`; done when ready, the facts are the answer."""
    from ncfair_jax.speed import bare, collapse

    facts = collapse.MEASUREMENTS[spec["measurement"]](**spec["arguments"])
    return Contestant(nothing, bare.make_matmul, facts | {"peak_mib": peak_mib()})


def nothing(start: int, count: int) -> Answer:
    """For contestants that are done when they are ready."""
    del start, count
    return {}


def torch_scoring(spec: Answer) -> Contestant:
    """PyTorch's scorer on stored requests, one group a pair."""
    from ncfair_jax.speed import torch_side

    groups = load_ragged(Path(spec["requests"]), Scored)
    score = torch_side.make_scorer(spec["model"])
    score(groups[0])
    return Contestant(scoring(score, groups), torch_side.make_matmul, {})


def our_scoring(spec: Answer) -> Contestant:
    """The package's scorer on the same requests."""
    from ncfair_jax.engine import Request
    from ncfair_jax.speed import bare, ours

    groups = load_ragged(Path(spec["requests"]), Scored)
    score = ours.make_scorer(spec["model"])

    def score_stored(requests: list[Scored]) -> Any:
        return score([Request(*request) for request in requests])

    began = time.perf_counter()
    for count in spec["counts"]:  # compile for every size
        score_stored([request for group in groups[:count] for request in group])
    facts = {"compile_seconds": time.perf_counter() - began}
    return Contestant(scoring(score_stored, groups), bare.make_matmul, facts)


def our_suite(spec: Answer) -> Contestant:
    """The benchmarks themselves, by number; the cold runs are done when it is ready, and tell what they asked."""
    from ncfair_jax.speed import bare, suite_ours

    suite = suite_ours.Suite(spec["model"], spec["data"], spec["sample"], Path(spec["requests"]))

    def run(start: int, count: int) -> Answer:
        taken = [suite.run(number) for number in range(start, start + count)]
        return {name: [each[name] for each in taken] for name in taken[0]}

    return Contestant(run, bare.make_matmul, suite.facts)


def torch_suite(spec: Answer) -> Contestant:
    """PyTorch on the stored sample of each benchmark, one row at a time."""
    from ncfair_jax.speed import torch_side

    groups = load_ragged(Path(spec["requests"]), Scored)
    make = {"scores": torch_side.make_scorer, "vectors": torch_side.make_embedder}
    engines = {name: make[name](spec["model"]) for name in set(spec["engines"])}
    for name, group in zip(spec["engines"], groups, strict=True):
        engines[name](group[:2])  # first calls start threads
    threads = torch_side.choose_threads(lambda: engines[spec["engines"][0]](groups[0][:10]))

    def run(start: int, count: int) -> Answer:
        seconds, answers = [], []
        for number in range(start, start + count):
            began = time.perf_counter()
            found = engines[spec["engines"][number]](groups[number])
            seconds.append(time.perf_counter() - began)
            answers.append([values.tolist() for values in found])
        return {"seconds": seconds, "answers": answers}

    return Contestant(run, torch_side.make_matmul, {"threads": threads})


def our_device(spec: Answer) -> Contestant:
    """What the package measures on an accelerator, by name."""
    from ncfair_jax.speed import bare, device_ours

    del spec
    return Contestant(device_ours.measure, bare.make_matmul, device_ours.facts())


def torch_device(spec: Answer) -> Contestant:
    """What PyTorch measures on an accelerator, by name."""
    from ncfair_jax.speed import device_torch, torch_side

    del spec

    def run(name: str, arguments: Answer) -> Answer:
        return outcome(lambda: device_torch.MEASUREMENTS[name](**arguments))

    return Contestant(run, torch_side.make_matmul, device_torch.facts())


def scoring(score: Callable[[list[Scored]], Any], groups: list[list[Scored]]) -> Callable[[int, int], Answer]:
    """Times the scoring of a range of pairs; the answer holds all log-probabilities."""

    def run(start: int, count: int) -> Answer:
        requests = [request for group in groups[start : start + count] for request in group]
        began = time.perf_counter()
        log_probs = score(requests)
        seconds = time.perf_counter() - began
        return {"seconds": [seconds], "log_probs": [float(x) for values in log_probs for x in values]}

    return run


KINDS = {
    "torch_training": torch_training,
    "our_training": our_training,
    "nc3_cost": nc3_cost,
    "collapse_cost": collapse_cost,
    "torch_scoring": torch_scoring,
    "our_scoring": our_scoring,
    "torch_suite": torch_suite,
    "our_suite": our_suite,
    "our_device": our_device,
    "torch_device": torch_device,
}


def load_without_torch() -> None:
    """Loads the libraries that import PyTorch where they find it: the package needs none, and its memory is to hold none."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    for name in ("transformers", "tensorboardX", "datasets", "ncfair_jax.models.hf"):
        if importlib.util.find_spec(name) is not None:  # `--device` needs none but the first
            importlib.import_module(name)
    del sys.modules["torch"]  # scipy asks whether it is loaded, and takes None for a module


def main() -> None:
    """Answers on the real stdout; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: Answer) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    spec = json.loads(sys.stdin.readline())
    if not spec["kind"].startswith("torch"):
        load_without_torch()
    contestant = KINDS[spec["kind"]](spec)
    answer(contestant.facts)
    for line in sys.stdin:
        command = json.loads(line)
        if "matmul" in command:
            answer({"gflops": matmul_rate(contestant.make_matmul, command["matmul"])})
        else:
            done = contestant.run(*command["run"])
            answer(done | {"peak_mib": peak_mib()})


if __name__ == "__main__":
    main()
