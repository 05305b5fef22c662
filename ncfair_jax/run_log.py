"""What a run says while it runs: metrics.jsonl, TensorBoard, one progress bar. The only file that prints during a run."""

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ncfair_jax.files.atomic import write_text
from ncfair_jax.files.bucket import copy_file, scratch
from ncfair_jax.files.lines import Lines
from ncfair_jax.files.records import metrics_lines

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Writes one line per log point. Only the process with `writes` writes and prints; the others stay silent."""

    def __init__(self, workdir: Path, total_steps: int, start_step: int, writes: bool):
        """Opens the logs, first dropping lines past `start_step`, which a killed run wrote after its last checkpoint."""
        self._writes = writes
        self.logged: list[dict[str, Any]] = []  # every log point of the run so far, in the process that writes
        self._console = Console(stderr=True)
        if not writes:
            return
        path = workdir / METRICS_FILE
        self.logged = truncate(path, start_step or -1)  # a run that starts anew also logs its step 0 anew
        self._lines = Lines(path)
        self._board_folder = workdir / "tensorboard"
        self._opened = ExitStack()
        self._board_there = self._opened.enter_context(scratch(self._board_folder))
        from tensorboardX import SummaryWriter  # here alone: most of those that only say something need not load it

        self._board = SummaryWriter(str(self._board_there), purge_step=start_step)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("training", total=total_steps, completed=start_step, figures="compiling")
        self._progress.start()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Appends the figures of a log point and moves the bar."""
        if not self._writes:
            return
        self.logged.append({"step": step} | values)
        self._lines.add(json.dumps({"step": step} | values))
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        shown = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        shown += [f"NC3 {values['nc3_loss']:.4f}"] if "nc3_loss" in values else []
        shown += [f"{values['tokens_per_second']:,.0f} tokens/s"] if "tokens_per_second" in values else []
        self._progress.update(self._task, completed=step, figures="  ".join(shown))

    def sync(self) -> None:
        """Returns when all that was logged outlasts a kill; asked before a checkpoint, so that the two fit."""
        if not self._writes:
            return
        self._lines.sync()
        if self._board_there != self._board_folder:
            self._board.flush()
            for path in self._board_there.iterdir():
                copy_file(path, self._board_folder / path.name)

    def say(self, text: str) -> None:
        """Prints one line above the bar."""
        if self._writes:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Flushes everything; safe to call after an error."""
        if self._writes:
            self._progress.stop()
            self.sync()
            self._board.close()
            self._lines.close()
            self._opened.close()


def say(text: str) -> None:
    """Prints one line on stderr, in process 0."""
    if jax.process_index() == 0:
        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def truncate(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Keeps the whole lines up to `last_step`; a torn last line goes too, and other damaged ones, which are told. Atomic.

    Returns:
        The figures of the lines that are kept.
    """
    if not path.exists():
        return []
    lines, faults = metrics_lines(path)
    for fault in faults:
        say(f"warning: {fault}")
    kept = [line for line in lines if line.figures["step"] <= last_step]
    write_text(path, "".join(line.text + "\n" for line in kept))
    return [line.figures for line in kept]


def finite(value: float) -> float | None:
    """The number, or None (JSON's null) if it is none."""
    return float(value) if math.isfinite(value) else None
