"""Affine edits of a model, and how they are folded into the linear layer that reads what they change."""

from typing import NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from ncfair_jax.models.base import Fold, Params


class Edit(NamedTuple):
    """What becomes of the last hidden states before the masked-LM head reads them: h · matrix + bias."""

    matrix: Float[Array, "D D"]
    bias: Float[Array, " D"]


def folded(params: Params, edit: Edit, fold: Fold | None) -> Params:
    """The parameters of a model that does by itself what the edit does to the masked-LM head: exact but for rounding.

    The hidden states stay as they are; the family's linear layer that reads them reads them edited.

    Raises:
        ValueError: if there is no such layer.
    """
    if fold is None or fold.bias is None:
        raise ValueError("this family of models has no linear layer with a bias that an edit could be folded into")
    flat = flatten_dict(params, sep="/")
    kernel = flat[fold.kernel]
    found = {fold.kernel: edit.matrix @ kernel, fold.bias: edit.bias @ kernel + flat[fold.bias]}
    return unflatten_dict(flat | found, sep="/")
