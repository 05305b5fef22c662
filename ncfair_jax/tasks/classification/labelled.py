"""What a task of labelled text is, its encoded examples and its batches."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import note_cut, tokenized
from ncfair_jax.data.packing import FlatIndex, scatter_rows
from ncfair_jax.data.pipeline import Batch, Examples, Pipeline, PipelineConfig, Sequences
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.vocabulary import WordBoundaries


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
    if max_tokens <= (least := tokenizer.num_special_tokens_to_add(pair=True)):
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
    task.read(config, "test")  # what is missing is missed now and not after the training
    if data.dev_examples:
        from ncfair_jax.methods.corpus import (
            set_aside,
        )  # here: corpus.py reads a benchmark's text, and benchmarks read tasks

        dev = task.read(config, "dev")
        if not dev:
            train, dev = set_aside(train, data.dev_examples, config.seed)
        elif len(dev) > data.dev_examples:
            _, dev = set_aside(dev, data.dev_examples, config.seed)

    def encoded(examples: list[Labelled]) -> Examples:
        tokens, types = encode_labelled(examples, model.tokenizer, data.max_tokens)
        labels = np.array([example.label for example in examples], np.float32)
        return Examples(tokens, kind=LabelledPipeline, arguments={"token_types": types, "labels": labels})

    return encoded(train), encoded(dev) if dev else None


class LabelledPipeline(Pipeline):
    """Examples with labels; nothing is masked.

    The batch's "masked_positions" and "masked_weights" name each example's first token, `token_types` are i32[R,T], and
    `labels` f32[R,T] have each example's label at its first token.
    """

    def __init__(
        self,
        examples: Sequence[np.ndarray],
        config: PipelineConfig,
        *,
        token_types: Sequence[np.ndarray],
        labels: np.ndarray,
        special_ids: Sequence[int],
        mask_token_id: int,
        vocab_size: int,
        slot_of_token: np.ndarray | None = None,
        boundaries: WordBoundaries | None = None,
        views: int = 1,
    ):
        super().__init__(
            examples,
            config,
            special_ids=special_ids,
            mask_token_id=mask_token_id,
            vocab_size=vocab_size,
            slot_of_token=slot_of_token,
            boundaries=boundaries,
            views=views,
        )
        self._token_types, self._labels = token_types, labels

    @cached_property
    def fingerprint(self) -> str:
        """As of every pipeline, and of the token types and labels."""
        digest = hashlib.sha256(super().fingerprint.encode())
        digest.update(np.concatenate(self._token_types).astype("<i4").tobytes())
        digest.update(self._labels.astype("<f4").tobytes())
        return digest.hexdigest()[:16]

    def sequences(self, ids: np.ndarray, step: int) -> Sequences:
        """The examples as they are, their first tokens selected."""
        del step
        lengths, tokens, counted = self.laid_end_to_end(ids)
        first = np.zeros(len(tokens), bool)
        first[np.cumsum(lengths) - lengths] = True
        return Sequences(lengths, tokens, tokens, first, counted)

    def places(self, ids: np.ndarray, index: FlatIndex, rows: int) -> Batch:
        """`token_types` and `labels`."""
        shape = (rows, self.config.row_tokens)
        types = scatter_rows(np.concatenate([self._token_types[i] for i in ids]), index, *shape)
        labels = np.zeros(shape, np.float32)
        first = np.flatnonzero(index.position == 0)
        labels[index.row[first], index.column[first]] = self._labels[ids]
        return {"token_types": types, "labels": labels}
