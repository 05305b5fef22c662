"""How fast the host makes batches: sentences a second of one process, batch shapes, padding, and what one of 16 processes does.

The sentences are generated; their lengths are those of GAP's, or of the lines of a file, a word a token.
"""

import dataclasses
import time
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from ncfair_jax.config import ROW_GROUPS
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Examples, Pipeline
from ncfair_jax.files.reading import read_lines
from ncfair_jax.lexicons.synthetic import FIRST_WORD, synthetic_classes
from ncfair_jax.speed.contestants import Result, SpeedError

VOCAB, ROW_TOKENS = 30522, 128
SPECIAL_IDS, MASK_ID = (0, 100, 101, 102, 103), 103
MEAN_LENGTH, SD_LENGTH = 30, 13  # word pieces of a GAP sentence
PROCESSES = 16
STEPS = 1000  # over which shapes and padding are counted
LOOKED_AT = 2**20  # sentences, if those of so many steps are more
SECONDS = 1.0  # for the batches of one measurement, which are those of an epoch at least


def lengths_of(number: int, text: str = "") -> np.ndarray:
    """Tokens of so many sentences: as GAP's are distributed, or of a text's lines again and again, with two special tokens."""
    if not text:
        drawn = np.random.default_rng(0).normal(MEAN_LENGTH, SD_LENGTH, number)
        return drawn.clip(5, ROW_TOKENS).astype(np.int64)
    lines = [len(line.split()) + 2 for line in read_lines(Path(text)) if line.strip()]
    if not lines:
        raise SpeedError(f"lengths={text!r}: the file has no lines")
    return np.resize(np.clip(lines, 3, ROW_TOKENS), number).astype(np.int64)


def examples_of(lengths: np.ndarray, vocab_size: int = VOCAB) -> Examples:
    """Sentences of random words."""
    first = min(FIRST_WORD, vocab_size // 2)
    tokens = np.random.default_rng(1).integers(first, vocab_size, lengths.sum(), dtype=np.int32)
    return Examples(np.split(tokens, np.cumsum(lengths)[:-1]))


def sentences_of(rows: int, row_tokens: int, vocab_size: int) -> Examples:
    """Sentences for four steps of so many rows; those of a smaller batch are the first of them."""
    return examples_of(lengths_of(4 * rows * row_tokens // MEAN_LENGTH).clip(max=row_tokens), vocab_size)


def pipeline_of(
    examples: Examples,
    by: str,
    size: int,
    multiple: int = 1,
    row_tokens: int = ROW_TOKENS,
    vocab_size: int = VOCAB,
) -> Pipeline:
    """Batches of masked-language modelling with classes, so many examples or rows each."""
    slots = synthetic_classes(vocab_size).slot_of_token
    config = PipelineConfig(seed=0, batch_size=size, row_tokens=row_tokens, row_multiple=multiple)
    if by == "rows":
        config = dataclasses.replace(config, batch_size=0, batch_rows=size, groups=min(ROW_GROUPS, size))
    return Pipeline(
        examples, config, special_ids=SPECIAL_IDS, mask_token_id=MASK_ID, vocab_size=vocab_size, slot_of_token=slots
    )


def measure(examples: Examples, by: str, size: int) -> Result:
    """Batches of one size: whole epochs are timed, since an epoch by rows begins with its plan."""
    pipeline = pipeline_of(examples, by, size)
    steps = int(np.clip(LOOKED_AT * pipeline.steps_per_epoch // pipeline.num_examples, 1, STEPS))
    shapes, pads = set(), []
    for step in range(steps):
        batch = pipeline.batch(step)
        shapes.add((batch["tokens"].shape, batch["masked_labels"].shape))
        pads.append((np.sum(batch["segment_ids"] == 0), batch["segment_ids"].size))
    waste, places = np.sum(pads, axis=0)
    alone = pipeline_of(examples, by, size, PROCESSES) if by == "examples" else pipeline
    of_all, share = (seconds_of(alone, *place) for place in ((0, 1), (PROCESSES - 1, PROCESSES)))
    return {
        "by": by,
        "size": size,
        "sentences_per_second": 1 / seconds_of(pipeline, 0, 1),
        "shapes": len(shapes),
        "padding": float(waste / places),
        "share_of_one_in_16": share / of_all,
    }


def seconds_of(pipeline: Pipeline, index: int, processes: int) -> float:
    """Processor's seconds for a sentence of the whole batch, over whole epochs behind one that warms up."""
    sentences, steps = 0, count(1)
    pipeline.batch(0, index, processes)
    began = time.process_time()
    while not sentences or time.process_time() - began < SECONDS:
        for step in islice(steps, pipeline.steps_per_epoch):
            sentences += int(pipeline.batch(step, index, processes)["num_examples"])
    return (time.process_time() - began) / sentences


def run(sizes: Sequence[int], sentences: int, text: str = "") -> Result:
    """Measures both ways at each size: so many examples, and the rows that they fill, about a quarter as many.

    Args:
        sizes: examples a step.
        sentences: of the corpus.
        text: file whose lines give the lengths; "" = those of GAP.
    Raises:
        SpeedError: a corpus smaller than a batch, or an empty file.
    """
    if max(sizes) > sentences:
        raise SpeedError(f"sentences={sentences}: a batch of {max(sizes)} needs more of them")
    lengths = lengths_of(sentences, text)
    examples = examples_of(lengths)
    rows = [max(PROCESSES, 2 ** round(np.log2(size * lengths.mean() / ROW_TOKENS))) for size in sizes]
    asked = [("examples", size) for size in sizes] + [("rows", size) for size in dict.fromkeys(rows)]
    return {"data": [measure(examples, by, size) for by, size in asked]}


def data_table(result: Result) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| batches by | size | sentences/s | shapes | padding | share of one process in 16 |",
        "|---|---|---|---|---|---|",
    ]
    for item in result["data"]:
        figures: list[Any] = [item["by"], f"{item['size']:,}", f"{item['sentences_per_second']:,.0f}", item["shapes"]]
        figures += [f"{100 * item['padding']:.1f}%", f"{item['share_of_one_in_16']:.3f}"]
        lines.append(f"| {' | '.join(map(str, figures))} |")
    return "\n".join(lines)
