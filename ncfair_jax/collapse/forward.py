"""What both passes over a corpus share: packed batches, and the features and classes of their tokens.

Letters: E examples, R rows of a batch, T tokens a row, N = R T, D hidden, K classes, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from ncfair_jax.data.packing import PackedRows, round_up
from ncfair_jax.models.encoder import ModelConfig, Params, encode
from ncfair_jax.models.heads import mlm_transform
from ncfair_jax.sharding import put_rows
from ncfair_jax.strings import several_strings
from ncfair_jax.vocabulary import WordBoundaries, whole_words

LAYER = "layer_"
ALIGNMENTS = ("same", "next")


class Rows(NamedTuple):
    """A batch of packed rows; `counted` is where a token may count as a class: nowhere at pads."""

    tokens: Int[Array, "R T"]
    segment_ids: Int[Array, "R T"]
    positions: Int[Array, "R T"]
    counted: Bool[Array, "R T"]


def check_choices(config: ModelConfig, features: Sequence[str], alignment: str) -> None:
    """Refuses features and alignments that do not exist.

    Raises:
        TypeError: `features` is a single string.
        ValueError: naming what there is.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment={alignment!r}; choose from {', '.join(ALIGNMENTS)}")
    known = ["transform", "hidden", *layer_names(config)]
    for name in several_strings("features", features):
        if name not in known:
            raise ValueError(f"features={name!r}; choose from {', '.join(known)}")
    if not features or len(set(features)) < len(features):
        raise ValueError(f"features={tuple(features)}; name one or more, each once")


def layer_names(config: ModelConfig) -> list[str]:
    """`layer_0`, the embeddings, to `layer_L`, the last hidden state (which "hidden" also names)."""
    return [f"{LAYER}{layer}" for layer in range(config.num_layers + 1)]


def token_features(
    config: ModelConfig, params: Params, rows: Rows, features: Sequence[str]
) -> dict[str, Float[Array, "N D"]]:
    """Features of every token by one deterministic forward pass.

    Args:
        features: "hidden", the last hidden state; "transform", what the decoder multiplies; "layer_i", the output of
            layer i with the embeddings as layer 0.
    """
    output = encode(config, params, rows.tokens, rows.segment_ids, rows.positions, all_layers=True)
    assert output.all_layers is not None
    found = {}
    for name in features:
        if name == "transform":
            values = mlm_transform(config, params, output.hidden_states)
        elif name == "hidden":
            values = output.hidden_states
        else:
            values = output.all_layers[int(name.removeprefix(LAYER))]
        found[name] = values.reshape(-1, values.shape[-1])
    return found


def token_slots(rows: Rows, slot_of_token: Int[Array, "V"], num_classes: int, alignment: str) -> Int[Array, "N"]:
    """Class of every token, K for none.

    Args:
        alignment: "same", a word's feature is the one at its own token; "next", the one at the token before it (the
            released code's shift).
    """
    slots = jnp.where(rows.counted, slot_of_token[rows.tokens], num_classes)
    if alignment == "next":
        follows = rows.segment_ids[:, 1:] == rows.segment_ids[:, :-1]
        ahead = jnp.where(follows, slots[:, 1:], num_classes)
        slots = jnp.pad(ahead, ((0, 0), (0, 1)), constant_values=num_classes)
    return slots.reshape(-1)


def batches(packed: PackedRows, rows: int, boundaries: WordBoundaries | None, mesh: Mesh | None) -> Iterator[Rows]:
    """Batches of R rows, the last filled up with pads, shared out over the mesh: each process gives its devices' rows.

    Args:
        boundaries: of the classes, which say where a token counts (`FairnessClasses`).
    """
    counted = packed.segment_ids > 0
    if boundaries is not None:
        whole = whole_words(packed.tokens.ravel(), packed.positions.ravel(), boundaries)
        counted = counted & whole.reshape(counted.shape)
    arrays = (packed.tokens, packed.segment_ids, packed.positions, counted)
    for start in range(0, len(packed.tokens), rows):
        parts = [x[start : start + rows] for x in arrays]
        yield Rows(*put_rows([np.pad(x, ((0, rows - len(x)), (0, 0))) for x in parts], mesh))


def rows_of_batch(largest: int, batch_rows: int, devices: int) -> int:
    """R, one for all parts, so one program: the largest part cut evenly into as few batches as `batch_rows` allows.

    Args:
        largest: rows of the largest part.
    """
    batches = -(-largest // round_up(batch_rows, devices))
    return round_up(-(-largest // batches), devices)
