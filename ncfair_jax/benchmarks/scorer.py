"""The engine of every likelihood benchmark: log-probabilities of given tokens at given positions of given sequences.

A benchmark makes a list of requests and gets the log-probabilities back in the same order. In between, equal sequences
are encoded once, several to a row (segment masks keep them apart), by one program per row length, which computes the last
layer at the scored columns only. A second program projects the scored columns of all rows onto the vocabulary: each column
once, whatever the number of its targets.

Letters: R rows of a batch, T tokens a row, P scored columns a row, N scored columns of all rows, C of a batch of them,
K targets a column, L tokens of a request, V vocabulary, D hidden.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.batching import (
    batch_size,
    buckets,
    default_batch_tokens,
    fetched,
    pad_rows,
    regroup,
)
from ncfair_jax.benchmarks.naming import text_of
from ncfair_jax.benchmarks.observation import observable
from ncfair_jax.benchmarks.requests import Asked, Packed, Request, check, merge, pack
from ncfair_jax.finite import require_finite
from ncfair_jax.inference import judging_config, untuned_jit
from ncfair_jax.models.encoder import ModelConfig, Params, encode
from ncfair_jax.models.heads import mlm_logits, mlm_transform, nsp_logits, nsp_transform
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import gathered, put_rows, replicate

# What is made of the hidden state at a scored position: features, then logits of the targets.
HEADS = {"mlm": (mlm_transform, mlm_logits), "nsp": (nsp_transform, nsp_logits)}
CPU_LOGITS = 2**22  # at most so many exist at a time: 16 MiB stay in the cache
ACCELERATOR_LOGITS = 2**25  # per device


class Scores(NamedTuple):
    """Per request, in request order.

    Attributes:
        log_probs: natural log-probabilities of the targets, f32[P].
        top1: whether the target is the most probable, bool[P].
        attention: that the scored tokens are paid (`EncoderOutput.received_attention`), f32[P]; [] if not asked for.
    """

    log_probs: list[np.ndarray]
    top1: list[np.ndarray]
    attention: list[np.ndarray]


def score(
    pretrained: Pretrained, requests: Sequence[Request], *, mesh: Mesh | None = None, progress: bool = False
) -> list[np.ndarray]:
    """Log-probabilities (nats, f32[P] per request, in request order) of the targets at the scored positions.

    See `score_with_top1`, whose first half this is.
    """
    return score_with_top1(pretrained, requests, mesh=mesh, progress=progress).log_probs


@observable
def score_with_top1(
    pretrained: Pretrained,
    requests: Sequence[Request],
    *,
    mesh: Mesh | None = None,
    progress: bool = False,
    batch_tokens: int | None = None,
    head: str = "mlm",
    attention: bool = False,
) -> Scores:
    """Scores the requests in float32 at the highest matmul precision, whatever precision the model trains in.

    Args:
        mesh: shard the rows over all its devices; parameters are replicated unless they lie on it already. With several
            processes every process calls with the same requests and gets all scores.
        progress: show a progress bar on stderr.
        batch_tokens: R·T per device; bounds the memory. None: a default for the backend.
        head: "mlm", or "nsp": the target at a sequence's first position is 0 (next sentence) or 1 (random sentence).
        attention: also return how much attention the scored tokens are paid.
    Raises:
        ScorerError: for a sequence longer than the model takes, an id beyond its vocabulary, a position outside the
            sequence or not attended to, or lists of unequal length.
        NonFiniteError: if a log-probability, or the attention paid, is not finite; both quote the text.
    """
    config = judging_config(pretrained.config)
    check(requests, config, pretrained.tokenizer)
    sequences, slots_of_request = merge(requests)
    params = replicate(pretrained.params, mesh)
    found = [Found(np.zeros((0, 1, 2), np.float32), np.zeros(0, np.float32))] * len(sequences)
    scored = np.array([i for i, sequence in enumerate(sequences) if sequence.columns], np.int64)
    lengths = np.array([len(sequences[i].request.tokens) for i in scored], np.int64)
    readout = Readout(head, attention)
    with jax.default_matmul_precision("highest"):
        for row_tokens, members in buckets(lengths, config.hidden_size):
            bucket = [sequences[i] for i in scored[members]]
            answers = _score_bucket(config, readout, params, bucket, row_tokens, mesh, batch_tokens, progress)
            for i, answer in zip(scored[members], answers, strict=True):
                found[i] = answer
    values = [found[number].values[columns, places] for number, columns, places in slots_of_request]
    paid = [found[number].attention[columns] for number, columns, _ in slots_of_request] if attention else []
    _require_finite(requests, [v[:, 0] for v in values], pretrained.tokenizer, "a log-probability")
    _require_finite(requests, paid, pretrained.tokenizer, "the attention paid to a token")
    return Scores([v[:, 0] for v in values], [v[:, 1] > 0.5 for v in values], paid)


def _require_finite(
    requests: Sequence[Request], answers: Sequence[np.ndarray], tokenizer: PreTrainedTokenizerBase, what: str
) -> None:
    lengths = [len(answer) for answer in answers]
    owner = np.repeat(np.arange(len(answers)), lengths)  # request of every value
    values = np.concatenate([*answers, np.zeros(0, np.float32)])
    require_finite(values, lambda i: f"{what} of {text_of(requests[owner[i]].tokens, tokenizer)}")


class Readout(NamedTuple):
    """What is read at the scored positions: a name in HEADS, and whether also the attention paid to them."""

    head: str
    attention: bool


class Found(NamedTuple):
    """Of the columns of one sequence: log-probability and top-1 flag of their targets, f32[P,K,2]; attention, f32[P] or []."""

    values: np.ndarray
    attention: np.ndarray


def _score_bucket(
    config: ModelConfig,
    readout: Readout,
    params: Params,
    sequences: list[Asked],
    row_tokens: int,
    mesh: Mesh | None,
    batch_tokens: int | None,
    progress: bool,
) -> list[Found]:
    """What every sequence of one bucket asks for, batch by batch."""
    devices = 1 if mesh is None else mesh.size
    packed = pack(sequences, row_tokens)
    num_rows = len(packed.rows["tokens"])
    batch_rows = devices * batch_size(num_rows, (batch_tokens or default_batch_tokens()) // row_tokens, devices)
    all_columns = reads_everything(packed, readout.attention)
    rows = packed.rows if all_columns else packed.rows | {"read": packed.read}
    starts: Sequence[int] = range(0, num_rows, batch_rows)
    shown = track(
        starts, description=f"scoring, rows of {row_tokens}", console=Console(stderr=True), disable=not progress
    )
    paid: list[np.ndarray] = []

    def encoded(start: int) -> tuple[Array, Array | None]:
        batch = {name: pad_rows(value[start : start + batch_rows], batch_rows) for name, value in rows.items()}
        return _encode_batch(config, readout.attention, mesh, params, put_rows(batch, mesh))

    def scored_columns() -> Iterator[np.ndarray]:
        for start, (hidden, attention) in zip(starts, fetched(map(encoded, shown)), strict=True):
            here = slice(*np.searchsorted(packed.row, [start, start + batch_rows]))
            row, column = packed.row[here] - start, packed.column[here]
            if attention is not None:
                paid.append(attention[row, column])
            yield hidden[row, column if all_columns else packed.rank[here]]  # [·,D]

    chunk = devices * head_columns(len(packed.targets), config.vocab_size, devices)

    def projected() -> Iterator[Array]:
        for hidden, targets in zip(regroup(scored_columns(), chunk), regroup([packed.targets], chunk), strict=True):
            batch = {"hidden": hidden, "targets": targets}
            yield _project(config, readout.head, mesh, params, put_rows(batch, mesh))

    values = np.concatenate(list(fetched(projected())))  # [N and padding,K,2]
    attention = np.concatenate(paid) if readout.attention else np.zeros(len(values), np.float32)
    return [
        Found(values[first : first + len(sequence.columns)], attention[first : first + len(sequence.columns)])
        for first, sequence in zip(packed.first, sequences, strict=True)
    ]


def reads_everything(packed: Packed, attention: bool) -> bool:
    """Whether the last layer is computed at all T columns: where attention is read, and where nearly all are scored."""
    return attention or packed.read.shape[1] >= packed.rows["tokens"].shape[1]


def head_columns(columns: int, vocab_size: int, devices: int = 1) -> int:
    """C per device: scored columns that are projected onto the vocabulary at a time."""
    logits = CPU_LOGITS if jax.default_backend() == "cpu" else ACCELERATOR_LOGITS
    return batch_size(columns, min(logits // vocab_size, 1024), devices)


@partial(untuned_jit, static_argnums=(0, 1, 2))
def _encode_batch(
    config: ModelConfig,
    attention: bool,
    mesh: Mesh | None,
    params: Params,
    batch: dict[str, Array],
) -> tuple[Float[Array, "R P D"], Float[Array, "R T"] | None]:
    """Last hidden states of packed rows, at the columns `read` or else at all T; and the attention paid, if asked for."""
    encoded = encode(
        config,
        params,
        batch["tokens"],
        batch["segment_ids"],
        batch["positions"],
        token_types=batch["token_types"],
        received_attention=attention,
        read=batch.get("read"),
    )
    found = (encoded.hidden_states, encoded.received_attention)
    return gathered(found, mesh)


@partial(untuned_jit, static_argnums=(0, 1, 2))
def _project(
    config: ModelConfig,
    head: str,
    mesh: Mesh | None,
    params: Params,
    batch: dict[str, Array],
) -> Float[Array, "C K 2"]:
    """Log-probability and top-1 flag of every target of hidden states [C,D]."""
    transform, project = HEADS[head]
    logits = project(config, params, transform(config, params, batch["hidden"]))  # [C,V]
    asked = jnp.take_along_axis(logits, batch["targets"], axis=1)
    log_probs = asked - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    is_top = asked >= logits.max(1, keepdims=True)
    values = jnp.stack([log_probs, is_top.astype(jnp.float32)], axis=-1)
    return gathered(values, mesh)
