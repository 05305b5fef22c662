"""Outputs of a fine-tuned classifier for texts: packed rows, in float32 at the highest precision.

Letters: R rows, T tokens a row, P places of first tokens a row, E examples, D hidden, C classes.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from rich.console import Console
from rich.progress import track

from ncfair_jax.benchmarks.batching import default_batch_tokens, fetched
from ncfair_jax.benchmarks.naming import quoted
from ncfair_jax.data.packing import pack_for_inference
from ncfair_jax.finite import require_finite
from ncfair_jax.inference import judging_config, untuned_jit
from ncfair_jax.models.encoder import ModelConfig, Params, encode
from ncfair_jax.models.heads import class_outputs
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import gathered, put_rows, replicate
from ncfair_jax.tasks.classification.labelled import Encoded, Labelled, encode_labelled


def outputs(
    model: Pretrained,
    head: Params,
    examples: Sequence[Labelled],
    max_tokens: int,
    row_tokens: int,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Logits of the classes, or the predicted value, of each example: f32[E,C] in the order of the examples.

    Args:
        head: the classifier's parameters, as `models.heads.class_outputs` takes them.
        row_tokens: T, at least `max_tokens`; examples share rows.
        mesh: the rows lie over all its devices. Every process calls with the same examples and gets all outputs.
    Raises:
        NonFiniteError: if an output is not finite, quoting the text.
    """
    if not examples:
        return np.zeros((0, head["classifier"]["kernel"].shape[1]), np.float32)
    encoded = encode_labelled(examples, model.tokenizer, max_tokens)
    config = judging_config(model.config)
    params, head = replicate((model.params, head), mesh)
    with jax.default_matmul_precision("highest"):
        values = _packed_outputs(config, params, head, encoded, row_tokens, mesh, progress)
    require_finite(values, lambda i: f"the classifier's output for {quoted(examples[i].first)}")
    return values


def _packed_outputs(
    config: ModelConfig,
    params: Params,
    head: Params,
    encoded: Encoded,
    row_tokens: int,
    mesh: Mesh | None,
    progress: bool,
) -> np.ndarray:
    devices = 1 if mesh is None else mesh.size
    batch_rows = max(1, default_batch_tokens() // row_tokens) * devices  # one shape for every call, so one compilation
    packed = pack_for_inference(encoded.tokens, row_tokens, batch_rows, encoded.token_types)
    # An example has two special tokens at least.
    places = np.zeros((len(packed.tokens), row_tokens // 2), np.int32)
    slot = packed.segment_ids[packed.row, packed.offset] - 1
    places[packed.row, slot] = packed.offset
    arrays = (packed.tokens, packed.segment_ids, packed.positions, packed.token_types, places)
    starts_of_batches: Sequence[int] = range(0, len(packed.tokens), batch_rows)
    console = Console(stderr=True)
    shown = track(starts_of_batches, description="classifying", console=console, disable=not progress)

    def classified(start: int) -> Array:
        batch = tuple(array[start : start + batch_rows] for array in arrays)
        return _outputs(config, mesh, params, head, *put_rows(batch, mesh))

    return np.concatenate(list(fetched(map(classified, shown))))[packed.row, slot]


@partial(untuned_jit, static_argnums=(0, 1))
def _outputs(
    config: ModelConfig,
    mesh: Mesh | None,
    params: Params,
    head: Params,
    tokens: Int[Array, "R T"],
    segment_ids: Int[Array, "R T"],
    positions: Int[Array, "R T"],
    token_types: Int[Array, "R T"],
    places: Int[Array, "R P"],
) -> Float[Array, "R P C"]:
    hidden = encode(config, params, tokens, segment_ids, positions, token_types=token_types).hidden_states
    first = jnp.take_along_axis(hidden, places[..., None], axis=1)  # [R,P,D]
    values = class_outputs(config, head, first)
    return gathered(values, mesh)


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities f64[E,C] of the classes."""
    wide = logits.astype(np.float64)
    top = wide.max(1, keepdims=True)
    return wide - top - np.log(np.exp(wide - top).sum(1, keepdims=True))
