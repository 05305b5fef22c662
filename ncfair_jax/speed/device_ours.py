"""What a process of ours measures on the device at hand; `device` says what, and when to stop."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from ncfair_jax.config import TrainConfig
from ncfair_jax.lexicons.synthetic import synthetic_classes
from ncfair_jax.models import attention
from ncfair_jax.models.bert import BertConfig
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.models.presets import preset_model
from ncfair_jax.speed import kernels
from ncfair_jax.speed.bare import bare_rate
from ncfair_jax.speed.contestants import LeftOutError, Result, spread
from ncfair_jax.speed.data import pipeline_of, sentences_of
from ncfair_jax.speed.idle import idle_share
from ncfair_jax.speed.timing import ROUNDS, outcome, timed_each
from ncfair_jax.speed.train_step import TrainStep
from ncfair_jax.tracker import Tracker, track

DTYPE = "bfloat16"
TURNS = 6  # of each step whose costs are compared


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        preset: size of the model.
        row_tokens: T.
        rows: R; half as many, and again, if the device's memory is too small.
        attention: implementation; "auto": the default of the device.
        attention_dropout: of the probabilities. BERT ships with 0.1, which no kernel has.
        dropout_bits, layers: as of `config.ModelSource`, without "auto".
    """

    preset: str
    row_tokens: int
    rows: int
    attention: str = "auto"
    attention_dropout: float = 0.0
    dropout_bits: str = "threefry"
    layers: str = "scanned"


def facts() -> Result:
    """The device, and what it does at most."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.devices()[0].platform,
        "bare_flops": bare_rate(DTYPE),
        "versions": {package: version(package) for package in ("jax", "jaxlib", "flax")},
    }


def model_of(setting: Setting) -> BertConfig:
    """The model's config.

    Raises:
        LeftOutError: if the implementation of attention cannot train it here.
    """
    asked: dict[str, Any] = {
        "platform": jax.devices()[0].platform,
        "dropout_rate": setting.attention_dropout,
        "activation_dtype": DTYPE,
        "row_tokens": setting.row_tokens,
    }
    name = attention.default(**asked) if setting.attention == "auto" else setting.attention
    if reason := attention.refusal(name, **asked):
        raise LeftOutError(f"attention={name!r} {reason}")
    model = preset_model(setting.preset, DTYPE, name, setting.layers)
    return dataclasses.replace(model, attention_dropout=setting.attention_dropout)


def built(setting: Setting, **changes: bool) -> TrainStep:
    """The compiled step; `changes` as of `TrainStep`."""
    model = model_of(setting)
    examples = sentences_of(setting.rows, setting.row_tokens, model.vocab_size)
    sizes = {"row_tokens": setting.row_tokens, "vocab_size": model.vocab_size}
    pipeline = pipeline_of(examples, "rows", setting.rows, **sizes)
    return TrainStep(model, pipeline, dropout_bits=setting.dropout_bits, **changes)


_together: dict[Setting, Future[TrainStep]] = {}  # steps that wait for their turn


def compile_together(settings: list[Result]) -> Result:
    """Compiles several steps at the same time, for the measurements that follow; one that fails says so in its own turn."""
    _together.clear()
    ready.cache_clear()
    began = time.perf_counter()
    with ThreadPoolExecutor(max_workers=len(settings)) as pool:
        started = {setting: pool.submit(built, setting) for setting in (Setting(**each) for each in settings)}
    _together.update(started)
    number = sum(each.exception() is None for each in started.values())
    return {"programs": number, "together_seconds": time.perf_counter() - began}


@lru_cache(maxsize=1)  # what is measured next is often about the same step
def ready(setting: Setting) -> TrainStep:
    """The compiled step after its first two runs, with as many rows as the device's memory holds."""
    while True:
        try:
            step = _together.pop(setting).result() if setting in _together else built(setting)
            step.again(2)
            return step
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or setting.rows < 2:
                raise
        setting = dataclasses.replace(setting, rows=setting.rows // 2)


def training(steps: int, host: bool, **setting: Any) -> Result:
    """Speed of the train step.

    Args:
        steps: queued in each of three rounds.
        host: also measure what the host's work on the batches costs, and profile the device.
        setting: fields of `Setting`.
    """
    alone = Setting(**setting) not in _together
    step = ready(Setting(**setting))
    seconds = [step.again(steps) for _ in range(ROUNDS)]
    result = {
        "attention": step.model.attention,
        "rows": int(step.batch["tokens"].shape[1]),
        "row_tokens": int(step.batch["tokens"].shape[2]),
        "tokens": step.tokens,
        "flops": step.flops,
        "seconds": spread(seconds),
        "compile_seconds": step.compile_seconds if alone else None,
        "peak_bytes": step.peak_bytes,
        "loss": step.loss(),
    }
    if host:
        result["host"] = outcome(lambda: host_share(step, steps, float(np.median(seconds))))
        result["profile"] = outcome(lambda: {"idle": idle_share(lambda: step.fresh(min(steps, 10)))})
    return result


def host_share(step: TrainStep, steps: int, again: float) -> Result:
    """How much of the time in which the host makes a batch the device hides; `again`: seconds of a step without that."""
    made = step.batch_seconds(3)
    fresh = float(np.median([step.fresh(steps) for _ in range(ROUNDS)]))
    return {"batch_seconds": made, "fresh_seconds": fresh, "hidden": 1 - (fresh - again) / made}


def costs(steps: int, **setting: Any) -> Result:
    """What NC3, the guard and the norm of the gradient, and tracking add to a step, as shares of it.

    Steps with and without take turns, since a device's clock drifts. "host_reads": whether a step reads anything from the
    device, which jax would refuse here.
    """
    whole = ready(Setting(**setting))
    rows = int(whole.batch["tokens"].shape[1])
    as_ready = dataclasses.replace(Setting(**setting), rows=rows)
    with ThreadPoolExecutor(max_workers=2) as pool:
        compiled = {name: pool.submit(built, as_ready, **{name: False}) for name in ("nc3", "guarded")}
    without = {name: each.result() for name, each in compiled.items()}
    contestants = {"whole": whole, **without}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for step in without.values():
        step.again(2)
    for turn in range(TURNS):
        names = list(contestants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(contestants[name].again(steps))
    extra = {name: float(np.median(np.divide(seconds["whole"], seconds[name])) - 1) for name in without}
    with jax.transfer_guard_device_to_host("disallow_explicit"):
        reads = outcome(lambda: {"seconds": whole.again(2)})
    return {
        "extra": extra,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "host_reads": reads,
        "tracking": outcome(lambda: tracking_share(whole, float(np.median(seconds["whole"])))),
    }


def tracking_share(step: TrainStep, seconds: float) -> Result:
    """What reading neural collapse adds to the steps between two readings, by the defaults of a run."""
    config = TrainConfig()
    classes = synthetic_classes(step.model.vocab_size)
    examples = list(step.pipeline.examples.sequences[: config.collapse_sentences])
    without_tokenizer = Pretrained(step.model, {}, None)  # type: ignore[arg-type]
    slots = {"lexicon": np.arange(classes.num_classes)}
    tracker = Tracker(without_tokenizer, examples, classes, slots, step.batch["tokens"].shape[-1], step.mesh)
    taken = timed_each(lambda _: bool(track(tracker, step.state.params)), range(3))["seconds"][1:]  # the first compiles
    reading = float(np.median(taken))
    return {
        "reading_seconds": reading,
        "every": config.collapse_every,
        "extra": reading / config.collapse_every / seconds,
    }


MEASUREMENTS: dict[str, Callable[..., Result]] = {
    "kernel": kernels.check,
    "training": training,
    "compile_together": compile_together,
    "costs": costs,
}


def measure(name: str, arguments: Result) -> Result:
    """One of `MEASUREMENTS`; an error becomes {"error": …}, and what cannot be measured here {"skipped": …}."""
    found = outcome(lambda: MEASUREMENTS[name](**arguments))
    if "error" in found:
        ready.cache_clear()  # a step that failed has given its state away
    return found
