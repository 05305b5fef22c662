"""Whether a training run diverged: its losses stayed finite, but grew.

Training losses are compared by their means over the first and the last twentieth of the steps, and over one log interval where
that is longer. They are read from what was logged, so a run that was stopped and resumed is judged as one that was not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_GROWTH = 1.5
PARTS = 20
HELD_OUT = "Held-out loss, nats"


class DivergedError(ValueError):
    """A run that was stopped because its loss grew; one line."""


def training_growth(logged: Sequence[Mapping[str, Any]], total_steps: int) -> tuple[float, float] | None:
    """Mean training loss over the first twentieth of a run, and over the last twentieth of what is logged of it.

    Args:
        logged: the entries of metrics.jsonl, each with its step and the mean loss since the one before it.
        total_steps: of the whole run, which need not have come so far.
    Returns:
        None while the two would overlap.
    """
    entries = [entry for entry in logged if "loss" in entry]
    if len(entries) < 2:
        return None
    length = max(total_steps // PARTS, 1)
    begins = [0, *(entry["step"] for entry in entries)]  # each entry is about the steps after the one before it
    first = [i for i, entry in enumerate(entries) if entry["step"] <= length] or [0]
    last = [i for i in range(len(entries)) if begins[i] >= entries[-1]["step"] - length] or [len(entries) - 1]
    if last[0] <= first[-1]:
        return None

    def mean(chosen: Sequence[int]) -> float:
        steps = [entries[i]["step"] - begins[i] for i in chosen]
        return float(sum(entries[i]["loss"] * n for i, n in zip(chosen, steps, strict=True)) / sum(steps))

    return mean(first), mean(last)


def training_diverged(logged: Sequence[Mapping[str, Any]], total_steps: int) -> str:
    """One sentence if the training loss grew to more than 1.5 times what it was; else ""."""
    growth = training_growth(logged, total_steps)
    if growth is None or not growth[1] > MOST_GROWTH * growth[0]:
        return ""
    first, last = growth
    return (
        f"The training diverged: its loss went from {first:.4g} (first twentieth of the steps) to {last:.4g} (last twentieth); "
        "lower optimizer.learning_rate or nc3.weight"
    )


def held_out_diverged(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One sentence if the held-out loss grew by more than half, by the figures of `judge`; else ""."""
    start, end = (_held_out_loss(figures) for figures in (before, after))
    if start is None or end is None or not end > MOST_GROWTH * start:
        return ""
    return (
        f"The model was damaged: its held-out loss went from {start:.4g} to {end:.4g} nats; "
        "lower optimizer.learning_rate or nc3.weight"
    )


def _held_out_loss(figures: Mapping[str, Any]) -> float | None:
    return {line[0]: line[1] for line in figures.get("benchmarks", ())}.get(HELD_OUT)


def diverged(
    logged: Sequence[Mapping[str, Any]], total_steps: int, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[str]:
    """What a finished run has to say of this: no, one or two sentences."""
    return [text for text in (training_diverged(logged, total_steps), held_out_diverged(before, after)) if text]
