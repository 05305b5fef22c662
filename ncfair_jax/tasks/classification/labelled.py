"""What a task of labelled text is, its encoded examples and its batches."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import note_cut, tokenized
from ncfair_jax.data.layout import Batch, Drawn, Sequences, Setting, packed, selecting
from ncfair_jax.data.packing import FlatIndex, scatter_rows
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.methods.corpus import set_aside
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.vocabulary import template_of


class Labelled(NamedTuple):
    """An example: a text or a pair of texts, its label (number of the class, or the value to predict), and which group or
    part of the data it belongs to, where figures are split by that."""

    first: str
    second: str | None
    label: float
    group: str = ""


class Task(NamedTuple):
    """What the name of a task stands for.

    Attributes:
        classes: how many; 1: a value is predicted.
        read: (config, "train", "dev" or "test") -> examples in file order; an empty development part is set aside from
            training.
        files: (config, part) -> the local files that `read` reads.
        describe: config.data.path -> the training text in words.
    """

    classes: int
    read: Callable[[ClassificationRun, str], list[Labelled]]
    files: Callable[[ClassificationRun, str], list[Path]]
    describe: Callable[[str], str]


class Encoded(NamedTuple):
    """Token ids and token types of examples, i32[L] each."""

    tokens: list[np.ndarray]
    token_types: list[np.ndarray]


def encode_labelled(examples: Sequence[Labelled], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Encoded:
    """Encodes texts as [CLS] a [SEP] and pairs as [CLS] a [SEP] b [SEP] of types 0 and 1 (RoBERTa: its own marks, types 0).

    What is too long loses tokens at the end, of a pair the longer text first; that is noted (see `notes`).

    Raises:
        ConfigError: if `max_tokens` leaves no room for text.
    """
    if max_tokens <= (least := template_of(tokenizer).specials(texts=2)):
        raise ConfigError(f"config.data.max_tokens={max_tokens}; more than {least} are needed for pairs of texts")
    tokens: list[np.ndarray] = []
    types: list[np.ndarray] = []
    if not examples:
        return Encoded(tokens, types)
    texts: list[list[str]] = [[example.first for example in examples]]
    if examples[0].second is not None:
        texts.append([example.second or "" for example in examples])
    options: dict[str, Any] = {"truncation": "longest_first", "max_length": max_tokens}
    encoded = tokenized(tokenizer, *texts, return_token_type_ids=True, **options)
    for ids, of_types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
        tokens.append(np.array(ids, np.int32))
        types.append(np.array(of_types, np.int32))

    def uncut(chosen: list[int]) -> list[list[int]]:
        return list(tokenized(tokenizer, *([text[i] for i in chosen] for text in texts), verbose=False)["input_ids"])

    note_cut([len(ids) for ids in tokens], max_tokens, uncut)
    return Encoded(tokens, types)


def labelled_examples(task: Task, config: ClassificationRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    """Training and development examples, encoded.

    Raises:
        ConfigError, DataError: the data are not there, cannot be read, or clash with the config.
    """
    data = config.data
    if data.counterfactual != "none":
        raise ConfigError(
            f"config.data.counterfactual={data.counterfactual!r}: labelled tasks have no swap; set it to 'none'"
        )
    train, dev = task.read(config, "train")[: data.max_examples or None], list[Labelled]()
    task.read(config, "test")  # fail early if a file is missing
    if data.dev_examples:
        dev = task.read(config, "dev")
        if not dev:
            train, dev = set_aside(train, data.dev_examples, config.seed)
        elif len(dev) > data.dev_examples:
            _, dev = set_aside(dev, data.dev_examples, config.seed)

    def encoded(examples: list[Labelled]) -> Examples:
        return made_of(
            encode_labelled(examples, model.tokenizer, data.max_tokens), [example.label for example in examples]
        )

    return encoded(train), encoded(dev) if dev else None


def made_of(encoded: Encoded, labels: Sequence[float]) -> Examples:
    """Examples with labels; nothing is masked."""
    of_examples = {"labels": np.array(labels, np.float32)}
    return Examples(
        encoded.tokens,
        of_tokens={"token_types": encoded.token_types},
        of_examples=of_examples,
        layout=LAYOUT,
        apart=True,
        predicted=1,
    )


def first_selected(drawn: Drawn, setting: Setting) -> Sequences:
    """The examples as they are, their first tokens selected."""
    del setting
    first = np.zeros(len(drawn.tokens), bool)
    first[np.cumsum(drawn.lengths) - drawn.lengths] = True
    return selecting(drawn, first)


def types_and_labels(drawn: Drawn, index: FlatIndex, rows: int, row_tokens: int) -> Batch:
    """`token_types` i32[R,T], and `labels` f32[R,T]: each example's label at its first token."""
    types = scatter_rows(drawn.of_tokens["token_types"], index, rows, row_tokens)
    labels = np.zeros((rows, row_tokens), np.float32)
    first = np.flatnonzero(index.position == 0)
    labels[index.row[first], index.column[first]] = drawn.of_examples["labels"]
    return {"token_types": types, "labels": labels}


LAYOUT = partial(packed, sequences=first_selected, arrays=types_and_labels)
