"""The engine of every likelihood benchmark: log-probabilities of given tokens at given positions of given sequences.

A benchmark makes a list of requests and gets the log-probabilities back in the same order. In between, equal sequences
are scored once, the sequences are packed several to a row (segment masks keep them apart), and one jitted function per
row length computes the last layer and the projection onto the vocabulary at the scored positions only.

Letters: R rows of a batch, T tokens a row, P scored slots a row, L tokens of a request, V vocabulary, D hidden.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float
from rich.console import Console
from rich.progress import track

from ncfair_jax.data.packing import first_fit_decreasing, flat_index, round_up, scatter_rows
from ncfair_jax.evals.observation import observable
from ncfair_jax.models.encoder import ModelConfig, Params, at_columns, encode
from ncfair_jax.models.heads import mlm_logits, mlm_transform, nsp_logits, nsp_transform
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import put_rows, replicate
from ncfair_jax.untuned import untuned_jit

SHORTEST_ROW = 64
CPU_BATCH_TOKENS = 2048  # of 1024 to 8192 the fastest (MiniLM, two cores)
ACCELERATOR_BATCH_TOKENS = 65536  # per device
# What is made of the hidden state at a scored position: features, then logits of the targets.
HEADS = {"mlm": (mlm_transform, mlm_logits), "nsp": (nsp_transform, nsp_logits)}
CPU_LOGITS = 2**22  # at most so many exist at a time: 16 MiB stay in the cache
ACCELERATOR_LOGITS = 2**25  # per device


class ScorerError(ValueError):
    """A request that this model cannot score; the message names the request."""


class Request(NamedTuple):
    """One sequence and what to score in it.

    Attributes:
        tokens: i32[L], special tokens included; whether a scored position is masked is the caller's business.
        positions: i32[P], where to score; may repeat.
        targets: i32[P], the token id whose log-probability is asked for at each position.
        attention_mask: i32[L], 0 where nobody may look (such a position cannot be scored); None: all 1.
        token_types: i32[L]; None: all 0.
    """

    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    attention_mask: np.ndarray | None = None
    token_types: np.ndarray | None = None


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
    """
    config = dataclasses.replace(pretrained.config, activation_dtype="float32", attention="xla", remat=False)
    for number, request in enumerate(requests):
        _check(number, request, config)
    sequences, slots_of_request = _unique(requests)
    params = replicate(pretrained.params, mesh)
    lengths = np.array([len(sequence.request.tokens) for sequence in sequences], np.int64)
    found = [np.zeros((0, 3), np.float32)] * len(sequences)
    readout = Readout(head, attention)
    with jax.default_matmul_precision("highest"):
        for row_tokens, members in buckets(lengths, config.hidden_size):
            bucket = [sequences[i] for i in members]
            for i, pairs in zip(
                members,
                _score_bucket(config, readout, params, bucket, row_tokens, mesh, batch_tokens, progress),
                strict=True,
            ):
                found[i] = pairs
    values = [found[sequence][slots] for sequence, slots in slots_of_request]
    paid = [v[:, 2] for v in values] if attention else []
    return Scores([v[:, 0] for v in values], [v[:, 1] > 0.5 for v in values], paid)


class Readout(NamedTuple):
    """What is read at the scored positions: a name in HEADS, and whether also the attention paid to them."""

    head: str
    attention: bool


class _Sequence(NamedTuple):
    """A distinct sequence, and its distinct (position, target) pairs, each the key of its slot number."""

    request: Request
    slots: dict[tuple[int, int], int]


def _unique(requests: Sequence[Request]) -> tuple[list[_Sequence], list[tuple[int, np.ndarray]]]:
    """Merges requests about the same sequence: BEC-Pro needs 12 times fewer forward passes, StereoSet 2 times fewer.

    Returns:
        The distinct sequences, and for every request its sequence and slots i64[P].
    """
    index: dict[tuple[bytes, bytes, bytes], int] = {}
    sequences: list[_Sequence] = []
    places = []
    for request in requests:
        key = tuple(
            b"" if part is None else np.asarray(part, np.int32).tobytes()
            for part in (request.tokens, request.attention_mask, request.token_types)
        )
        number = index.setdefault(key, len(sequences))  # type: ignore[arg-type]
        if number == len(sequences):
            sequences.append(_Sequence(request, {}))
        slots = sequences[number].slots
        pairs = zip(np.asarray(request.positions).tolist(), np.asarray(request.targets).tolist(), strict=True)
        places.append((number, np.array([slots.setdefault(pair, len(slots)) for pair in pairs], np.int64)))
    return sequences, places


def buckets(lengths: np.ndarray, hidden_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Row lengths (powers of two) and the sequences that go there: one compilation each."""
    if len(lengths) == 0:
        return
    shortest = 2 ** np.ceil(np.log2(np.maximum(lengths, SHORTEST_ROW))).astype(int)
    rows = shortest.copy()
    for row_tokens in np.unique(shortest):
        members = shortest == row_tokens
        rows[members] = cheaper_row(lengths[members], int(row_tokens), hidden_size)
    for row_tokens in np.unique(rows):
        yield int(row_tokens), np.flatnonzero(rows == row_tokens)


def cheaper_row(lengths: np.ndarray, row_tokens: int, hidden_size: int) -> int:
    """T or 2T, whichever makes fewer operations: long rows have fewer pads, short rows less attention across segments.

    A layer makes 24 D² + 4 T D operations a token, a multiple of 6 D + T.
    """

    def operations(tokens: int) -> int:
        return first_fit_decreasing(lengths, tokens).num_rows * tokens * (6 * hidden_size + tokens)

    return min(row_tokens, 2 * row_tokens, key=operations)


def default_batch_tokens() -> int:
    """R·T of a batch on each device of this backend."""
    return CPU_BATCH_TOKENS if jax.default_backend() == "cpu" else ACCELERATOR_BATCH_TOKENS


def rows_per_device(num_rows: int, row_tokens: int, devices: int = 1, batch_tokens: int | None = None) -> int:
    """Rows of a batch on each device, at most what `batch_tokens` (R·T; None: a default) allow.

    As few batches as fit, equally large, and rounded up by less than a quarter: so small sets have few empty rows, and sets
    of other sizes few other shapes to compile.
    """
    most = max(1, (batch_tokens or default_batch_tokens()) // row_tokens)
    needed = -(-num_rows // (devices * -(-num_rows // (devices * most))))
    return min(most, round_up(needed, max(1, 2 ** (needed - 1).bit_length() // 8)))


def fetch_rows(batches: Iterable[Array]) -> np.ndarray:
    """Results of batches, one below the other; each is fetched while the device computes the next."""
    results, pending = [], None
    for ahead in batches:
        if pending is not None:
            results.append(np.asarray(pending))
        pending = ahead
    return np.concatenate([*results, np.asarray(pending)])


def _score_bucket(
    config: ModelConfig,
    readout: Readout,
    params: Params,
    sequences: list[_Sequence],
    row_tokens: int,
    mesh: Mesh | None,
    batch_tokens: int | None,
    progress: bool,
) -> list[np.ndarray]:
    """(log-probability, is top-1, attention if read) f32[slots,2 or 3] of every sequence of one bucket, batch by batch."""
    devices = 1 if mesh is None else mesh.size
    rows, place = pack(sequences, row_tokens)
    num_rows = len(rows["tokens"])
    per_device = rows_per_device(num_rows, row_tokens, devices, batch_tokens)
    batch_rows = per_device * devices
    logits = CPU_LOGITS if jax.default_backend() == "cpu" else ACCELERATOR_LOGITS
    chunk = _slot_chunk(rows["slot_target"].shape[1], logits // (config.vocab_size * per_device))
    everywhere = None if mesh is None else NamedSharding(mesh, P())
    starts: Sequence[int] = range(0, num_rows, batch_rows)
    shown = track(
        starts, description=f"scoring, rows of {row_tokens}", console=Console(stderr=True), disable=not progress
    )

    def scored(start: int) -> Array:
        batch = {name: _pad_rows(value[start : start + batch_rows], batch_rows) for name, value in rows.items()}
        return _score_batch(config, readout, chunk, everywhere, params, put_rows(batch, mesh))

    values = fetch_rows(map(scored, shown))  # [rows,P,2 or 3]
    return [
        values[row, first : first + len(sequence.slots)]
        for (row, first), sequence in zip(place, sequences, strict=True)
    ]


def _slot_chunk(slots: int, most: int) -> int:
    """Largest divisor of `slots` that is at most `most`."""
    return max(divisor for divisor in range(1, slots + 1) if slots % divisor == 0 and divisor <= max(1, most))


def _pad_rows(value: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([value, np.zeros((rows - len(value), *value.shape[1:]), value.dtype)])


def pack(sequences: Sequence[_Sequence], row_tokens: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Packs sequences into rows with room for T tokens and P slots; one P for all rows, so one compilation.

    Returns:
        tokens, segment_ids, positions, token_types i32[R,T] and slot_position, slot_target i32[R,P] (0 where unused);
        and for every sequence its row and its first slot there, i64[S,2].
    """
    lengths = np.array([len(sequence.request.tokens) for sequence in sequences], np.int64)
    slots = np.array([len(sequence.slots) for sequence in sequences], np.int64)
    density = slots.sum() / lengths.sum()
    row_slots = round_up(max(1, int(slots.max()), int(1.25 * row_tokens * density)), 4)
    placement = first_fit_decreasing(lengths, row_tokens, slots, row_slots)
    index = flat_index(placement, lengths)
    attended = np.concatenate([_or_fill(s.request.attention_mask, len(s.request.tokens), 1) for s in sequences])
    types = np.concatenate([_or_fill(s.request.token_types, len(s.request.tokens), 0) for s in sequences])
    tokens = np.concatenate([s.request.tokens for s in sequences])

    def rows(values: np.ndarray) -> np.ndarray:
        return scatter_rows(values, index, placement.num_rows, row_tokens)

    first_slot = np.zeros(len(sequences), np.int64)
    filled = np.zeros(placement.num_rows, np.int64)
    slot_position = np.zeros((placement.num_rows, row_slots), np.int32)
    slot_target = np.zeros((placement.num_rows, row_slots), np.int32)
    for i, (sequence, row, offset) in enumerate(zip(sequences, placement.row, placement.offset, strict=True)):
        first_slot[i] = filled[row]
        pairs = np.array(list(sequence.slots), np.int32).reshape(-1, 2)
        here = slice(filled[row], filled[row] + len(pairs))
        slot_position[row, here], slot_target[row, here] = pairs[:, 0] + offset, pairs[:, 1]
        filled[row] += len(pairs)
    packed = {
        "tokens": rows(tokens),
        "segment_ids": rows(np.where(attended > 0, index.segment, 0)),
        "positions": rows(index.position),
        "token_types": rows(types),
        "slot_position": slot_position,
        "slot_target": slot_target,
    }
    return packed, np.stack([placement.row, first_slot], axis=1)


def _or_fill(values: np.ndarray | None, length: int, fill: int) -> np.ndarray:
    return np.full(length, fill, np.int32) if values is None else np.asarray(values, np.int32)


def reads_everything(slots: int, row_tokens: int, attention: bool) -> bool:
    """Whether the last layer is computed at all T columns: where attention is read, and where as many slots share columns."""
    return attention or slots >= row_tokens


@partial(untuned_jit, static_argnums=(0, 1, 2, 3))
def _score_batch(
    config: ModelConfig,
    readout: Readout,
    chunk: int,
    everywhere: NamedSharding | None,
    params: Params,
    batch: dict[str, Array],
) -> Float[Array, "R P F"]:
    """Log-probability, top-1 flag and, if read, attention of every slot of a batch of packed rows."""
    transform, project_features = HEADS[readout.head]
    slots = batch["slot_position"]
    read = None if reads_everything(slots.shape[1], batch["tokens"].shape[1], readout.attention) else slots
    encoded = encode(
        config,
        params,
        batch["tokens"],
        batch["segment_ids"],
        batch["positions"],
        token_types=batch["token_types"],
        received_attention=readout.attention,
        read=read,
    )
    scored = at_columns(encoded.hidden_states, slots) if read is None else encoded.hidden_states  # [R,P,D]
    features = transform(config, params, scored)

    def project(piece: tuple[Array, Array]) -> Float[Array, "R p 2"]:
        logits = project_features(config, params, piece[0])  # [R,p,V]
        target = jnp.take_along_axis(logits, piece[1][..., None], axis=-1)[..., 0]
        is_top: Bool[Array, "R p"] = target >= logits.max(-1)
        return jnp.stack([target - jax.nn.logsumexp(logits, axis=-1), is_top.astype(jnp.float32)], axis=-1)

    def pieces(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    values = jax.lax.map(project, (pieces(features), pieces(batch["slot_target"])))  # [P/p,R,p,2]
    values = jnp.moveaxis(values, 0, 1).reshape(*batch["slot_target"].shape, 2)
    if encoded.received_attention is not None:
        paid = jnp.take_along_axis(encoded.received_attention, slots, axis=1)  # [R,P]
        values = jnp.concatenate([values, paid[..., None]], axis=-1)
    return values if everywhere is None else jax.lax.with_sharding_constraint(values, everywhere)


def _check(number: int, request: Request, config: ModelConfig) -> None:
    length = len(request.tokens)
    problem = ""
    if length > config.max_tokens:
        problem = f"has {length} tokens, but the model takes {config.max_tokens}; shorten it or leave it out"
    elif len(request.positions) != len(request.targets):
        problem = f"has {len(request.positions)} positions, but {len(request.targets)} targets; give one target each"
    elif any(part is not None and len(part) != length for part in (request.attention_mask, request.token_types)):
        problem = f"has {length} tokens, but an attention_mask or token_types of another length"
    elif len(unknown := _outside(config.vocab_size, request.tokens, request.targets)):
        problem = (
            f"has id {unknown[0]}, outside the vocabulary of {config.vocab_size}; "
            "was it made with the model's own tokenizer?"
        )
    elif len(request.positions) == 0:
        return
    elif np.min(request.positions) < 0 or np.max(request.positions) >= length:
        problem = f"asks for positions {list(request.positions)} of {length} tokens; count from 0"
    elif request.attention_mask is not None and not np.all(np.asarray(request.attention_mask)[request.positions]):
        problem = "asks for a position that its attention_mask hides; score attended positions only"
    if problem:
        raise ScorerError(f"request {number} {problem}")


def _outside(vocab_size: int, *parts: np.ndarray) -> np.ndarray:
    ids = np.concatenate([np.asarray(part, np.int64) for part in parts])
    return ids[(ids < 0) | (ids >= vocab_size)]


def mask_id(pretrained: Pretrained) -> int:
    """The id of the mask token.

    Raises:
        ScorerError: if the tokenizer has none.
    """
    found = pretrained.tokenizer.mask_token_id
    if found is None:
        raise ScorerError(
            "the tokenizer has no mask token, which masked-LM benchmarks need; use the tokenizer of a BERT or RoBERTa model"
        )
    return int(found)
