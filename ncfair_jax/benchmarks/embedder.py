"""The engine of benchmarks about sentence vectors: one vector per sequence, from the encoder's last layer.

As in the scorer, equal sequences are embedded once and sequences are packed several to a row, with segment masks to keep
them apart; one jitted function per row length pools every segment of a row on the device.

Letters: R rows of a batch, T tokens a row, S segments a row, L tokens of a sequence, D hidden, E sequences.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import track

from ncfair_jax.benchmarks.batching import batch_size, buckets, default_batch_tokens, fetched, power_of_two
from ncfair_jax.benchmarks.naming import text_of
from ncfair_jax.benchmarks.observation import observable
from ncfair_jax.data.packing import PackedRows, pack_for_inference
from ncfair_jax.finite import require_finite
from ncfair_jax.inference import judging_config, untuned_jit
from ncfair_jax.models.encoder import ModelConfig, Params, encode
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import gathered, put_rows, replicate

POOLS = ("mean", "cls")


class EmbedderError(ValueError):
    """A sequence that this model cannot embed; the message quotes its text."""


@observable
def embed(
    pretrained: Pretrained,
    sequences: Sequence[np.ndarray],
    *,
    pool: str = "mean",
    mesh: Mesh | None = None,
    progress: bool = False,
    batch_tokens: int | None = None,
    names: Sequence[str] = (),
) -> Float[np.ndarray, "E D"]:
    """Vectors f32[E,D] of token sequences i32[L], special tokens included, in their order.

    float32 at the highest matmul precision, whatever precision the model trains in.

    Args:
        pool: "mean" over all positions of a sequence, special tokens included, or "cls", its first position.
        mesh: shard the rows over all its devices; with several processes every one calls with the same sequences and gets
            all vectors.
        progress: show a progress bar on stderr.
        batch_tokens: R·T per device; bounds the memory. None: a default for the backend.
        names: what messages call the sequences; () = by their texts.
    Raises:
        ValueError: for an unknown pool.
        EmbedderError: for an empty sequence, one longer than the model takes, or an id beyond its vocabulary.
        NonFiniteError: if a vector is not finite, quoting the text.
    """
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r}; choose from {POOLS}")
    config = judging_config(pretrained.config)
    for number, tokens in enumerate(sequences):
        if problem := _problem(tokens, config):
            raise EmbedderError(f"{names[number] if names else text_of(tokens, pretrained.tokenizer)} {problem}")
    index: dict[bytes, int] = {}
    place = [index.setdefault(np.asarray(tokens, np.int32).tobytes(), len(index)) for tokens in sequences]
    distinct = [np.frombuffer(key, np.int32) for key in index]
    lengths = np.array([len(tokens) for tokens in distinct], np.int64)
    vectors = np.zeros((len(distinct), config.hidden_size), np.float32)
    params = replicate(pretrained.params, mesh)
    with jax.default_matmul_precision("highest"):
        for row_tokens, members in buckets(lengths, config.hidden_size):
            packed = pack_for_inference([distinct[i] for i in members], row_tokens)
            vectors[members] = _embed_rows(config, params, pool, packed, mesh, batch_tokens, progress)
    require_finite(vectors, lambda i: f"the vector of {text_of(distinct[i], pretrained.tokenizer)}")
    return vectors[place]


def _embed_rows(
    config: ModelConfig,
    params: Params,
    pool: str,
    packed: PackedRows,
    mesh: Mesh | None,
    batch_tokens: int | None,
    progress: bool,
) -> np.ndarray:
    """Vectors f32[sequences,D] of one bucket, batch by batch."""
    num_rows, row_tokens = packed.tokens.shape
    devices = 1 if mesh is None else mesh.size
    batch_rows = devices * batch_size(num_rows, (batch_tokens or default_batch_tokens()) // row_tokens, devices)
    padding = ((0, -num_rows % batch_rows), (0, 0))
    rows = {name: np.pad(getattr(packed, name), padding) for name in ("tokens", "segment_ids", "positions")}
    segments = power_of_two(int(packed.segment_ids.max()))  # one for all batches, so one compilation
    starts: Sequence[int] = range(0, num_rows, batch_rows)
    shown = track(
        starts, description=f"embedding, rows of {row_tokens}", console=Console(stderr=True), disable=not progress
    )

    def embedded(start: int) -> Array:
        batch = {name: value[start : start + batch_rows] for name, value in rows.items()}
        return _embed_batch(config, pool, segments, mesh, params, put_rows(batch, mesh))

    vectors = np.concatenate(list(fetched(map(embedded, shown))))  # [rows,S,D]
    number = packed.segment_ids[packed.row, packed.offset] - 1  # of every sequence, in its row
    return vectors[packed.row, number]


@partial(untuned_jit, static_argnums=(0, 1, 2, 3))
def _embed_batch(
    config: ModelConfig,
    pool: str,
    segments: int,
    mesh: Mesh | None,
    params: Params,
    batch: dict[str, Array],
) -> Float[Array, "R S D"]:
    """Pooled vectors of every segment of packed rows; 0 where a row has fewer."""
    hidden = encode(config, params, batch["tokens"], batch["segment_ids"], batch["positions"]).hidden_states
    numbers = 1 + jnp.arange(segments)
    inside = batch["segment_ids"][:, None, :] == numbers[None, :, None]  # [R,S,T]
    if pool == "cls":
        inside &= batch["positions"][:, None, :] == 0
    weights = inside.astype(hidden.dtype)
    weights /= jnp.maximum(weights.sum(-1, keepdims=True), 1)
    vectors = jnp.einsum("rst,rtd->rsd", weights, hidden)
    return gathered(vectors, mesh)


def _problem(tokens: np.ndarray, config: ModelConfig) -> str:
    """What keeps the model from reading a sequence; "" if nothing does."""
    if not 0 < len(tokens) <= config.max_tokens:
        return f"has {len(tokens)} tokens, but the model takes 1 to {config.max_tokens}; shorten it or leave it out"
    if np.min(tokens) < 0 or np.max(tokens) >= config.vocab_size:
        return (
            f"has ids from {np.min(tokens)} to {np.max(tokens)}, outside the vocabulary of {config.vocab_size}; "
            "was it made with the model's own tokenizer?"
        )
    return ""
