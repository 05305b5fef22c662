"""Affine edits of a model, and how they are folded into the linear layer that reads what they change."""

from typing import NamedTuple

from jaxtyping import Array, Float

from ncfair_jax.models.encoder import Params


class Edit(NamedTuple):
    """What becomes of the last hidden states before the masked-LM head reads them: h · matrix + bias."""

    matrix: Float[Array, "D D"]
    bias: Float[Array, " D"]


def folded(params: Params, edit: Edit) -> Params:
    """The parameters of a model that does by itself what the edit does to the masked-LM head: exact but for rounding.

    The hidden states stay as they are; the first linear layer of the head reads them edited.
    """
    transform = params["mlm"]["transform"]
    kernel = edit.matrix @ transform["kernel"]
    bias = edit.bias @ transform["kernel"] + transform["bias"]
    return params | {"mlm": params["mlm"] | {"transform": transform | {"kernel": kernel, "bias": bias}}}
