"""Training on one accelerator beside PyTorch on the same one, measured within a time that is given: what `--device` runs.

Measurements follow each other in the order of their importance. One that the time left is too short for is skipped by name, and
one that fails becomes a line of the table. Ours and PyTorch's never hold the device together: each has a process of its own,
which ends before the other begins.
"""

import dataclasses
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from ncfair_jax.config import OptimizerConfig
from ncfair_jax.files.atomic import write_json, write_text
from ncfair_jax.lexicons.synthetic import synthetic_classes
from ncfair_jax.models.attention import KERNELS
from ncfair_jax.models.dropout import GENERATORS
from ncfair_jax.models.presets import preset_model
from ncfair_jax.speed.contestants import Result, SpeedError, Worker
from ncfair_jax.speed.data import MASK_ID, pipeline_of, sentences_of
from ncfair_jax.speed.device_table import device_table
from ncfair_jax.speed.flops import train_flops
from ncfair_jax.speed.padded import save_ragged, unpack
from ncfair_jax.speed.train_step import NC3_WEIGHT, TOTAL_STEPS

OURS, TORCH = "our_device", "torch_device"  # kinds of worker
LENGTHS = (128, 512)
BEGIN = 15.0  # seconds until a process has loaded its libraries and has the device
PATIENCE, SHORTEST_PATIENCE = 3.0, 120.0  # a measurement is ended after so many times its estimate; seconds at least
OPTIONAL = {"torch": "PyTorch's side is left out", "grain": "a thread of the script's own makes the batches ahead"}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        presets: sizes of the model; costs and choices are measured at the first.
        rows: of 128 tokens a step of the first model; of longer rows there are fewer in proportion, of further models half.
        sentences: a step of PyTorch's, padded to the longest; a quarter of them padded to 256.
        steps: queued in each of three rounds.
        seconds: of the clock, for all of it.
        only: regular expression; measurements of other names are left out.
        on_cpu: whether a CPU will do, on which only a small model is done in time.
    """

    presets: tuple[str, ...] = ("bert-base", "bert-large")
    rows: int = 256
    sentences: int = 512
    steps: int = 20
    seconds: float = 540.0
    only: str = ""
    on_cpu: bool = False


def small(preset: str, settings: Settings) -> Settings:
    """The same of one size of the model, and little of it: to try the command on a CPU."""
    return dataclasses.replace(settings, presets=(preset,), rows=4, sentences=8, steps=1, on_cpu=True)


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        side: `OURS` or `TORCH`.
        call: what the worker of that side is asked for.
        seconds: that it takes on an H100, by estimate, compiling included.
        preset: size of the model, if there is one.
    """

    name: str
    side: str
    call: str
    arguments: Result
    seconds: float
    preset: str = ""


def run(settings: Settings, file: Path) -> Result:
    """Measures what the time allows. The file, and the table beside it (.md), are written again after every measurement.

    Raises:
        SpeedError: if `only` is no regular expression, or leaves nothing.
    """
    began = time.monotonic()
    jax.config.update("jax_platforms", "cpu")  # of this process alone: the device is for those that measure
    missing = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    result: Result = {"settings": dataclasses.asdict(settings), "missing": missing, "facts": {}, "measurements": {}}
    todo = chosen(settings)
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(Path(folder), result["facts"], settings.on_cpu)
        try:
            for each in todo:
                left = settings.seconds - (time.monotonic() - began)
                found = one(each, settings, sides, left, missing, Path(folder))
                result["measurements"][each.name] = found
                tell(each.name, found, time.monotonic() - began)
                write_json(file, result)
                write_text(file.with_suffix(".md"), device_table(result))
        finally:
            sides.end()
    return result


def one(
    each: Measurement, settings: Settings, sides: "Sides", left: float, missing: Sequence[str], folder: Path
) -> Result:
    """What came of a measurement, with what the table needs to know of it."""
    about = {"side": each.side, "call": each.call, "preset": each.preset}
    if each.side == OURS:
        return about | sides.measure(each, left)
    if "torch" in missing:
        return about | {"skipped": "PyTorch is not installed"}
    file = folder / f"{each.preset}.npz"
    if not file.exists():
        store_sentences(each.preset, settings, file)
    with_file = dataclasses.replace(each, arguments=each.arguments | {"sentences": str(file)})
    found = sides.measure(with_file, left)
    if "tokens" in found:
        found["flops"] = padded_flops(each, found)
    return about | {"style": each.arguments["style"], "bfloat16": each.arguments["bfloat16"]} | found


def chosen(settings: Settings) -> list[Measurement]:
    """The plan, as far as `only` wants it."""
    try:
        wanted = [each for each in plan(settings) if re.search(settings.only, each.name)]
    except re.error as error:
        raise SpeedError(f"only={settings.only!r} is no regular expression: {error}") from None
    if not wanted:
        names = ", ".join(each.name for each in plan(settings))
        raise SpeedError(f"only={settings.only!r} matches no measurement; there are: {names}")
    return wanted


def plan(settings: Settings) -> list[Measurement]:
    """All measurements, the most important first, and as few changes between the two sides as that allows."""
    first, *others = settings.presets
    check = [Measurement(f"check {name}", OURS, "kernel", {"name": name}, 5) for name in KERNELS]
    costs = Measurement(f"{first} costs", OURS, "costs", of_step(settings, first, 128), 40, first)
    return [
        *check,
        *(headline(settings, first, tokens) for tokens in LENGTHS),
        costs,
        *(headline(settings, preset, tokens) for preset in others for tokens in LENGTHS),
        *beside(settings, first, 60),
        *choices(settings, first, LENGTHS[0]),
        *choices(settings, first, LENGTHS[1]),
        *(each for preset in others for each in beside(settings, preset, 75)),
    ]


def of_step(settings: Settings, preset: str, tokens: int) -> Result:
    """Arguments of our measurements."""
    rows = settings.rows if preset == settings.presets[0] else settings.rows // 2
    return {"preset": preset, "row_tokens": tokens, "rows": max(1, rows * 128 // tokens), "steps": settings.steps}


def headline(settings: Settings, preset: str, tokens: int) -> Measurement:
    """The train step at the defaults."""
    arguments = of_step(settings, preset, tokens) | {"host": True}
    seconds = 30 if preset == settings.presets[0] else 40
    return Measurement(f"{preset} {tokens}", OURS, "training", arguments, seconds, preset)


def choices(settings: Settings, preset: str, tokens: int) -> list[Measurement]:
    """The train step with one choice changed: another attention, another generator, or layers one after the other.

    All are compiled together first, which takes little longer than one of them.
    """
    changes: dict[str, Result] = {f"attention={name}": {"attention": name} for name in ("xla", *KERNELS)}
    changes["attention=xla, dropout in it"] = {"attention": "xla", "attention_dropout": 0.1}
    changes |= {f"dropout_bits={name}": {"dropout_bits": name} for name in GENERATORS if name != "threefry"}
    changes["layers=unrolled"] = {"layers": "unrolled"}
    name, arguments = f"{preset} {tokens}", of_step(settings, preset, tokens)
    steps = max(1, arguments.pop("steps") // 2)
    together = {"settings": [arguments | change for change in changes.values()]}
    return [
        Measurement(f"{name}, choices compiled", OURS, "compile_together", together, 50, preset),
        *(
            Measurement(
                f"{name}, {what}", OURS, "training", arguments | change | {"steps": steps, "host": False}, 5, preset
            )
            for what, change in changes.items()
        ),
    ]


def beside(settings: Settings, preset: str, seconds: float) -> list[Measurement]:
    """PyTorch on the sentences of one of our batches: padded to the longest, as released, and so in bfloat16."""

    def measurement(name: str, style: str, part: int, seconds: float, **how: bool) -> Measurement:
        """`part`: of the sentences and the steps; one of the release takes many times as long."""
        number = settings.sentences // part if preset == settings.presets[0] else settings.sentences // part // 2
        arguments: Result = {"style": style, "number": max(1, number), "steps": max(1, settings.steps // part), **how}
        arguments["settings"] = torch_settings(preset)
        return Measurement(f"{preset} PyTorch, {name}", TORCH, "training", arguments, seconds, preset)

    return [
        measurement("padded", "fair", 1, seconds, bfloat16=True, compiled=True),
        measurement("as released", "release", 4, 20, bfloat16=False, compiled=False),
        measurement("as released, in bfloat16", "release", 4, 15, bfloat16=True, compiled=False),
    ]


def torch_settings(preset: str) -> Result:
    """Fields of `torch_side.TorchSettings`: the model as ours is timed, without dropout of attention probabilities."""
    model = preset_model(preset, "bfloat16", "xla")
    sizes = {
        "model_type": model.model_type,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "intermediate_size": model.intermediate_size,
        "max_position_embeddings": model.max_positions,
        "hidden_dropout_prob": model.hidden_dropout,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": model.pad_token_id,
    }
    return {
        "folder": "",
        "sizes": sizes,
        "token_ids": synthetic_classes(model.vocab_size).token_ids.tolist(),
        "mask_token_id": MASK_ID,
        "pad_token_id": model.pad_token_id,
        "weight": NC3_WEIGHT,
        "learning_rate": OptimizerConfig().learning_rate,
        "total_steps": TOTAL_STEPS,
    }


def store_sentences(preset: str, settings: Settings, file: Path) -> None:
    """Writes the masked sentences of a batch of ours, of rows of 128 tokens."""
    vocab_size = preset_model(preset, "bfloat16", "xla").vocab_size
    examples = sentences_of(settings.rows, 128, vocab_size)
    batch = pipeline_of(examples, "rows", settings.rows, vocab_size=vocab_size).batch(0)
    save_ragged(file, [unpack(batch)])


def padded_flops(each: Measurement, found: Result) -> int:
    """Operations of PyTorch's step: it computes every place of a row, the head included; as released also class sums."""
    model, rows, tokens = preset_model(each.preset, "bfloat16", "xla"), found["rows"], found["row_tokens"]
    one_hot = (rows * (tokens - 1), model.vocab_size) if each.arguments["style"] == "release" else (0, 0)
    return train_flops(model, rows=rows, tokens=tokens, scored=rows * tokens, one_hot=one_hot)


def tell(name: str, found: Result, seconds: float) -> None:
    """A line on stderr, so that whoever waits sees how far it is."""
    state = next((f"{word}: {found[word]}" for word in ("skipped", "error") if word in found), "done")
    print(f"{seconds:5.0f} s  {name}: {state}", file=sys.stderr, flush=True)


class Sides:
    """The one process that has the device, ours or PyTorch's.

    Args:
        folder: for what compilers keep, so that a later process searches for no kernel again.
        facts: filled with what each side says of the device.
        on_cpu: as of `Settings`.
    """

    def __init__(self, folder: Path, facts: Result, on_cpu: bool):
        name = "JAX_COMPILATION_CACHE_DIR"
        self._environment = {name: os.environ.get(name, str(folder / "cache"))}
        self._facts, self._on_cpu = facts, on_cpu
        self._side = ""
        self._worker: Worker | None = None
        self._cannot: dict[str, str] = {}  # sides that do not start, and why

    def measure(self, each: Measurement, left: float) -> Result:
        """The figures; or {"skipped": …} if so many seconds are too few, or {"error": …}."""
        if each.side in self._cannot:
            return {"error": self._cannot[each.side]}
        there = self._worker is not None and self._side == each.side
        if left < (needed := each.seconds + (0 if there else BEGIN)):
            return {"skipped": f"{max(left, 0):.0f} s are left, it takes about {needed:.0f}"}
        began = time.monotonic()
        try:
            worker = self._of(each.side, left)
        except SpeedError as error:
            self._cannot[each.side] = str(error)
            return {"error": str(error)}
        left -= time.monotonic() - began
        try:
            most = left if self._on_cpu else max(PATIENCE * each.seconds, SHORTEST_PATIENCE)
            return worker.ask({"run": [each.call, each.arguments]}, min(left, most))
        except SpeedError as error:
            self.end()
            return {"error": str(error)}

    def _of(self, side: str, left: float) -> Worker:
        if self._worker is None or self._side != side:
            self.end()
            self._worker, self._side = Worker(side, {"kind": side}, left, self._environment), side
            self._facts[side] = self._worker.facts
            if self._worker.facts["platform"] == "cpu" and not self._on_cpu:
                self.end()
                library = "jax" if side == OURS else "PyTorch"
                raise SpeedError(f"{library} finds no accelerator; install it for this one, or try --preset=tiny")
        return self._worker

    def end(self) -> None:
        """Ends the process, whatever it does; nothing of it is needed any more."""
        if self._worker is not None:
            self._worker.kill()
        self._worker = None
