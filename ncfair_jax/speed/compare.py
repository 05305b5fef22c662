"""Runs the contestants in turns and puts their figures side by side.

All contestants start from the same weights and do the same optimizer steps on the same sentences with the same masks.
A round asks each of them for the same few steps, one after the other, so that a slow minute of the machine hits all;
ratios are taken within rounds. Figures are medians over rounds with the range.
"""

import dataclasses
import importlib.util
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ncfair_jax.benchmarks import crows_pairs
from ncfair_jax.config import to_dict
from ncfair_jax.data.encoding import encode_texts
from ncfair_jax.engine.requests import Request, mask_id
from ncfair_jax.files.sources import GAP
from ncfair_jax.models.base import ModelConfig
from ncfair_jax.models.hf import Pretrained, load_pretrained
from ncfair_jax.prepare import prepare_training
from ncfair_jax.sharding import make_mesh
from ncfair_jax.speed import ours
from ncfair_jax.speed.contestants import Result, SpeedError, Worker, spread, workers
from ncfair_jax.speed.flops import score_flops, train_flops
from ncfair_jax.speed.padded import RELEASED_LENGTH, Scored, Sentence, save_ragged, unpack
from ncfair_jax.vocabulary import template_of

OURS, RELEASE, FAIR = "ncfair_jax", "torch_release", "torch_fair"
LARGER = 10  # ours scores so many times the pairs that PyTorch scores, besides the same ones


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        model: Hugging Face folder.
        data: folder with gap/ and crows_pairs/.
        batches: sentences a step, one comparison each.
        rounds: turns of every contestant.
        steps: optimizer steps in a turn.
        nc3_steps: alternating steps for the cost of NC3.
        pairs: CrowS-Pairs pairs that both sides score; ours also scores ten times as many.
        compare: "torch" or "none" (ours alone, no PyTorch needed).
        matmul: size of the bare product.
    """

    model: str
    data: str
    batches: tuple[int, ...] = (16, 64)
    rounds: int = 5
    steps: int = 2
    nc3_steps: int = 20
    pairs: int = 40
    compare: str = "torch"
    matmul: int = 2048

    def __post_init__(self) -> None:
        if self.compare not in ("torch", "none"):
            raise SpeedError(f"compare={self.compare!r}; choose from torch, none")
        for name in ("rounds", "steps", "nc3_steps", "pairs", "matmul"):
            if getattr(self, name) < 1:
                raise SpeedError(f"{name}={getattr(self, name)}; must be at least 1")


def run(settings: Settings) -> Result:
    """All measurements; the result is plain JSON.

    Raises:
        SpeedError: if PyTorch is asked for and missing, a file is missing, or a contestant dies.
    """
    if settings.compare == "torch":
        require_torch()
    for path in (settings.model, gap_file(settings), crows_file(settings)):
        if not Path(path).exists():
            raise SpeedError(f"{path} does not exist; give --model a model folder and --data the data folder")
    result: Result = {"settings": dataclasses.asdict(settings), "machine": machine(settings.compare)}
    with tempfile.TemporaryDirectory() as folder:
        result["training"] = [train_side_by_side(settings, size, Path(folder)) for size in settings.batches]
        result["nc3_cost"] = [nc3_side_by_side(settings, size) for size in settings.batches]
        result["crows_pairs"] = score_side_by_side(settings, Path(folder))
    return result


def require_torch() -> None:
    """Raises SpeedError, naming the remedy, where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise SpeedError(
            "PyTorch is not installed: pip install 'ncfair_jax[parity]', or --compare=none to time ncfair_jax alone"
        )


def machine(compare: str) -> Result:
    """Where the figures were taken."""
    packages = ("jax", "jaxlib", "flax", "transformers", *(("torch",) if compare == "torch" else ()))
    model_name = ""
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model_name = lines[0].split(":", 1)[1].strip() if lines else ""
    return {
        "processor": model_name or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def gap_file(settings: Settings) -> str:
    """The training sentences."""
    return f"{settings.data}/{GAP.name}"


def crows_file(settings: Settings) -> str:
    """The pairs to score."""
    return f"{settings.data}/{crows_pairs.FILE.name}"


# --- training


def train_side_by_side(settings: Settings, batch_size: int, folder: Path) -> Result:
    """The train step of every contestant at one batch size."""
    total = settings.rounds * settings.steps
    config = ours.training_config(settings.model, gap_file(settings), batch_size, total, "paper")
    prepared = prepare_training(config, make_mesh(config.mesh))
    specs: dict[str, Result] = {OURS: {"kind": "our_training", "config": to_dict(config), "steps": total}}
    sentences = [unpack(prepared.pipeline.batch(step)) for step in range(total)]
    if settings.compare == "torch":
        classes = prepared.classes
        assert classes is not None  # the config has a weight
        stored = folder / f"sentences-{batch_size}.npz"
        save_ragged(stored, sentences)
        torch_settings = {
            "folder": settings.model,
            "token_ids": classes.token_ids.tolist(),
            "mask_token_id": prepared.model.tokenizer.mask_token_id,
            "pad_token_id": prepared.model.config.pad_token_id,
            "weight": prepared.config.nc3.weight,
            "learning_rate": prepared.config.optimizer.learning_rate,
            "total_steps": total,
        }
        for name, style in ((RELEASE, "release"), (FAIR, "fair")):
            specs[name] = {
                "kind": "torch_training",
                "style": style,
                "sentences": str(stored),
                "settings": torch_settings,
            }
    with workers(specs) as contestants:
        answers, matmul = take_turns(contestants, settings)
        facts = contestants[OURS].facts
    work = {
        OURS: facts["work"],
        **{
            name: [padded_work(prepared.model.config, name, step) for step in sentences]
            for name in specs
            if name != OURS
        },
    }
    bare = max(spread["median"] for spread in matmul.values())
    figures = {name: training_figures(answers[name], work[name], settings, bare) for name in contestants}
    figures[OURS] |= {
        "compile_seconds": facts["compile_seconds"],
        "programs": facts["programs"],
        "xla_flops_per_step": float(np.mean([step["xla_flops"] for step in facts["work"]])),
    }
    return {
        "batch_size": batch_size,
        "matmul_gflops": matmul,
        "contestants": figures,
        "ratios": {name: ratios(figures[name], figures[OURS]) for name in specs if name != OURS},
    }


def take_turns(contestants: dict[str, Worker], settings: Settings) -> tuple[dict[str, list[Result]], Result]:
    """Every contestant does `steps` steps a round; in between, the bare product of each framework is timed."""
    answers: dict[str, list[Result]] = {name: [] for name in contestants}
    gflops: dict[str, list[float]] = {}
    timed = {"jax": OURS, "torch": FAIR}
    for index in range(settings.rounds):
        for name, worker in contestants.items():
            answers[name].append(worker.ask({"run": [index * settings.steps, settings.steps]}))
        for framework, name in timed.items():
            if name in contestants:
                rate = contestants[name].ask({"matmul": settings.matmul})["gflops"]
                gflops.setdefault(framework, []).append(rate)
    return answers, {framework: spread(rates) for framework, rates in gflops.items()}


def padded_work(model: ModelConfig, name: str, sentences: Sequence[Sentence]) -> Result:
    """What a PyTorch contestant computes in a step."""
    lengths = [len(sentence.tokens) for sentence in sentences]
    length = RELEASED_LENGTH if name == RELEASE else max(lengths)
    rows = len(sentences)
    one_hot = (rows * (length - 1), model.vocab_size) if name == RELEASE else (0, 0)
    return {
        "sentences": rows,
        "tokens": sum(lengths),
        "places": rows * length,
        "flops": train_flops(model, rows=rows, tokens=length, scored=rows * length, one_hot=one_hot),
    }


def training_figures(answers: Sequence[Result], work: Sequence[Result], settings: Settings, bare: float) -> Result:
    """Rates of one contestant over its rounds, beside the bare product's GFLOP/s."""
    seconds = [sum(answer["seconds"]) for answer in answers]

    def rate(quantity: str) -> list[float]:
        per_round = np.reshape([step[quantity] for step in work], (settings.rounds, settings.steps)).sum(1)
        return [float(amount / duration) for amount, duration in zip(per_round, seconds, strict=True)]

    gflops = [value / 1e9 for value in rate("flops")]
    return {
        "sentences_per_second": spread(rate("sentences")),
        "sentences_per_second_of_rounds": rate("sentences"),
        "tokens_per_second": spread(rate("tokens")),
        "step_seconds": spread([duration / settings.steps for duration in seconds]),
        "pad_fraction": 1 - sum(step["tokens"] for step in work) / sum(step["places"] for step in work),
        "flops_per_step": float(np.mean([step["flops"] for step in work])),
        "gflops_per_second": spread(gflops),
        "fraction_of_matmul": float(np.median(gflops)) / bare,
        "peak_mib": max(answer["peak_mib"] for answer in answers),
    }


def ratios(theirs: Result, ours: Result) -> Result:
    """How many times ours is faster (within each round), and how many times fewer operations and less memory it takes."""
    rounds = zip(ours["sentences_per_second_of_rounds"], theirs["sentences_per_second_of_rounds"], strict=True)
    return {
        "speed": spread([mine / other for mine, other in rounds]),
        "flops": theirs["flops_per_step"] / ours["flops_per_step"],
        "memory": theirs["peak_mib"] / ours["peak_mib"],
    }


# --- the cost of NC3


def nc3_side_by_side(settings: Settings, batch_size: int) -> Result:
    """Step time with NC3 over step time without, same process, step by step in turns."""
    configs = {
        name or "none": to_dict(
            ours.training_config(settings.model, gap_file(settings), batch_size, settings.nc3_steps, name)
        )
        for name in ("", "paper", "aligned")
    }
    spec = {"kind": "nc3_cost", "configs": configs, "steps": settings.nc3_steps}
    with workers({"nc3": spec}) as contestants:
        answer = contestants["nc3"].ask({"run": [0, settings.nc3_steps]})
    seconds, without = answer["seconds"], np.array(answer["seconds"]["none"])
    every = configs["none"]["train"]["collapse_every"]
    return {
        "batch_size": batch_size,
        "step_seconds_without": spread(seconds["none"]),
        # The same step of all in turn: batches differ in their rows, so ratios are taken step by step.
        "extra": {name: float(np.median(seconds[name] / without) - 1) for name in ("paper", "aligned")},
        "tracking": float(np.median(answer["tracking"]) / (every * np.median(without))),
        "tracking_every": every,
        "extra_of_fastest": {name: float(min(seconds[name]) / without.min() - 1) for name in ("paper", "aligned")},
    }


# --- scoring


def score_side_by_side(settings: Settings, folder: Path) -> Result:
    """CrowS-Pairs pairs a second: ours in packed batches, PyTorch one masked row at a time."""
    pretrained = load_pretrained(settings.model, offline=True)
    pairs = crows_requests(pretrained, settings)
    few, many = min(settings.pairs, len(pairs)), len(pairs)
    stored = folder / "requests.npz"
    save_ragged(stored, pairs)
    specs: dict[str, Result] = {
        OURS: {"kind": "our_scoring", "model": settings.model, "requests": str(stored), "counts": [few, many]}
    }
    if settings.compare == "torch":
        specs[RELEASE] = {"kind": "torch_scoring", "model": settings.model, "requests": str(stored)}
    answers: dict[str, list[Result]] = {name: [] for name in specs}
    larger: list[Result] = []
    with workers(specs) as contestants:
        for _ in range(settings.rounds):
            for name, worker in contestants.items():
                answers[name].append(worker.ask({"run": [0, few]}))
            larger.append(contestants[OURS].ask({"run": [0, many]}))
        compile_seconds = contestants[OURS].facts["compile_seconds"]
    figures = {name: scoring_figures(rounds, few) for name, rounds in answers.items()}
    figures[OURS] |= {
        "flops": ours.packed_flops_of(pretrained.config, [Request(*scored) for scored in flat(pairs[:few])]),
        "compile_seconds": compile_seconds,
    }
    all_pairs = scoring_figures(larger, many)
    result: Result = {"pairs": few, "rows": len(flat(pairs[:few])), "contestants": figures, "ratios": {}}
    if RELEASE in figures:
        theirs, mine = figures[RELEASE], figures[OURS]
        theirs["flops"] = sum(
            score_flops(pretrained.config, rows=1, tokens=len(r.tokens), scored=len(r.tokens))
            for r in flat(pairs[:few])
        )
        rounds = zip(mine["pairs_per_second_of_rounds"], theirs["pairs_per_second_of_rounds"], strict=True)
        difference = np.subtract(answers[OURS][0]["log_probs"], answers[RELEASE][0]["log_probs"])
        result["ratios"][RELEASE] = {
            "speed": spread([a / b for a, b in rounds]),
            "speed_on_larger": all_pairs["pairs_per_second"]["median"] / theirs["pairs_per_second"]["median"],
            "flops": theirs["flops"] / mine["flops"],
            "memory": theirs["peak_mib"] / mine["peak_mib"],
            "largest_difference": float(np.abs(difference).max()),
        }
    return result | {"larger": {"pairs": many, **all_pairs}}


def crows_requests(pretrained: Pretrained, settings: Settings) -> list[list[Scored]]:
    """The rows of each of the first pairs, one token masked in each: ten times as many pairs as PyTorch scores."""
    pairs = crows_pairs.read_pairs(crows_file(settings))[: LARGER * settings.pairs]
    mask, template = mask_id(pretrained), template_of(pretrained.tokenizer)
    return [
        [
            Scored(*(np.asarray(part, np.int64) for part in request[:3]))
            for tokens in encode_texts(crows_pairs.ordered(pair), pretrained.tokenizer)
            for request in crows_pairs.one_mask_each(tokens, mask, template)
        ]
        for pair in pairs
    ]


def flat(groups: Sequence[Sequence[Scored]]) -> list[Scored]:
    """All requests of all pairs."""
    return [request for group in groups for request in group]


def scoring_figures(answers: Sequence[Result], pairs: int) -> Result:
    """Pairs a second of one contestant over its rounds."""
    rates = [pairs / answer["seconds"][0] for answer in answers]
    return {
        "pairs_per_second": spread(rates),
        "pairs_per_second_of_rounds": rates,
        "peak_mib": max(answer["peak_mib"] for answer in answers),
    }
