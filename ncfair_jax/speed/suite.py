"""All intrinsic benchmarks of the registry, beside PyTorch scoring one row at a time as the released scorers do.

Ours runs every benchmark whole, as `evaluate` does, in one process on one loaded model. PyTorch scores a fixed, evenly
spaced sample of the requests that the benchmark made, before our engines merge equal ones; its time is scaled by their
number. It neither reads files nor encodes text nor computes figures.
Both take turns, benchmark by benchmark; ratios are taken within a round.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ncfair_jax.speed.compare import OURS, RELEASE, machine, require_torch
from ncfair_jax.speed.contestants import Result, SpeedError, spread, workers


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        model: Hugging Face folder.
        data: folder with crows_pairs/, stereoset/, …
        rounds: warm runs of every benchmark.
        sample: requests of a benchmark that PyTorch scores.
        compare: "torch" or "none" (ours alone, no PyTorch needed).
    """

    model: str
    data: str
    rounds: int = 5
    sample: int = 200
    compare: str = "torch"

    def __post_init__(self) -> None:
        if self.compare not in ("torch", "none"):
            raise SpeedError(f"compare={self.compare!r}; choose from torch, none")
        for name in ("rounds", "sample"):
            if getattr(self, name) < 1:
                raise SpeedError(f"{name}={getattr(self, name)}; must be at least 1")
        for folder in (self.model, self.data):
            if not Path(folder).is_dir():
                raise SpeedError(f"{folder!r} is no folder; give --model a model folder and --data the data folder")


def run(settings: Settings) -> Result:
    """All measurements; the result is plain JSON.

    Raises:
        SpeedError: if PyTorch is asked for and missing, no benchmark runs on the model, or a contestant dies.
    """
    if settings.compare == "torch":
        require_torch()
    where = machine(settings.compare) | {"load_average": os.getloadavg()[0]}  # before we add to it
    with tempfile.TemporaryDirectory() as folder:
        stored = str(Path(folder) / "requests.npz")
        spec = {"kind": "our_suite", "model": settings.model, "data": settings.data, "sample": settings.sample}
        with workers({OURS: spec | {"requests": stored}}) as ours:
            facts = ours[OURS].facts
            if not facts["benchmarks"]:
                raise SpeedError(f"no benchmark runs on {settings.model}: {facts['refused']}")
            engines = [fact["engine"] for fact in facts["benchmarks"].values()]
            theirs = {"kind": "torch_suite", "model": settings.model, "requests": stored, "engines": engines}
            with workers({RELEASE: theirs} if settings.compare == "torch" else {}) as torch:
                contestants = ours | torch
                where |= {"torch_threads": torch[RELEASE].facts["threads"]} if torch else {}
                answers: list[dict[str, list[Result]]] = [{name: [] for name in contestants} for _ in engines]
                for index in range(settings.rounds):
                    for number, answer in enumerate(answers):
                        for name in list(contestants)[:: -1 if index % 2 else 1]:
                            answer[name].append(contestants[name].ask({"run": [number, 1]}))
    found = {
        name: figures(fact, answer) for (name, fact), answer in zip(facts["benchmarks"].items(), answers, strict=True)
    }
    return {
        "settings": asdict(settings),
        "machine": where,
        "load_seconds": facts["load_seconds"],
        "benchmarks": found,
        "refused": facts["refused"],
        "all": together(list(found.values())),
    }


def figures(fact: Result, answers: dict[str, list[Result]]) -> Result:
    """One benchmark: what was counted when it ran cold, seconds of its warm rounds, and how PyTorch compares.

    `torch_seconds` are scaled to all requests. `speed` compares them with the seconds of our engine, `whole_speed` with those
    of our whole run; `operations` is what `speed` would be if both computed equally many operations a second.
    """
    warm = answers[OURS]
    result = {name: value for name, value in fact.items() if name != "answers"} | {
        "seconds_of_rounds": [answer["seconds"][0] for answer in warm],
        "engine_seconds_of_rounds": [answer["engine_seconds"][0] for answer in warm],
        "warm_programs": sum(answer["programs"][0] for answer in warm),
        "operations": fact["row_flops"] / fact["flops"],
    }
    if RELEASE in answers:
        scale = fact["requests"] / fact["sample"]
        result["torch_seconds_of_rounds"] = [scale * answer["seconds"][0] for answer in answers[RELEASE]]
        differences = [
            np.abs(np.subtract(mine, other)).max(initial=0)
            for mine, other in zip(fact["answers"], answers[RELEASE][0]["answers"][0], strict=True)
        ]
        result["largest_difference"] = float(max(differences))
    return result | speeds([result])


def together(benchmarks: Sequence[Result]) -> Result:
    """The same of all benchmarks, one after the other."""
    added = ("requests", "distinct", "sample", "cold_seconds", "cold_engine_seconds", "cold_programs", "warm_programs")
    operations = [sum(benchmark[name] for benchmark in benchmarks) for name in ("row_flops", "flops")]
    return {
        **{name: sum(benchmark[name] for benchmark in benchmarks) for name in added},
        "operations": operations[0] / operations[1],
        **speeds(benchmarks),
    }


def speeds(benchmarks: Sequence[Result]) -> Result:
    """Seconds and ratios of some benchmarks, summed within each round, as medians with range."""
    requests = sum(benchmark["requests"] for benchmark in benchmarks)

    def rounds(name: str) -> list[float]:
        each = [benchmark[f"{name}_of_rounds"] for benchmark in benchmarks]
        return [sum(values) for values in zip(*each, strict=True)]

    whole, engine = rounds("seconds"), rounds("engine_seconds")
    result = {
        "seconds": spread(whole),
        "engine_seconds": spread(engine),
        "requests_per_second": spread([requests / value for value in engine]),
    }
    if "torch_seconds_of_rounds" in benchmarks[0]:
        other = rounds("torch_seconds")
        result |= {
            "torch_seconds": spread(other),
            "torch_requests_per_second": spread([requests / value for value in other]),
            "speed": spread([theirs / mine for theirs, mine in zip(other, engine, strict=True)]),
            "whole_speed": spread([theirs / mine for theirs, mine in zip(other, whole, strict=True)]),
        }
    return result
