"""Until every caller asks the family: what was imported from here."""

from jaxtyping import Array, Int, Key

from ncfair_jax.models.base import PREFIX, Ask, Hidden, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.layers import at_columns, per_feature

__all__ = ["PREFIX", "EncoderOutput", "ModelConfig", "Params", "at_columns", "encode", "per_feature"]
EncoderOutput = Hidden


def encode(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "R T"],
    segment_ids: Int[Array, "R T"],
    positions: Int[Array, "R T"],
    *,
    token_types: Int[Array, "R T"] | None = None,
    dropout_rng: Key[Array, ""] | None = None,
    all_layers: bool = False,
    received_attention: bool = False,
    read: Int[Array, "R Q"] | None = None,
) -> Hidden:
    """`Family.hidden`."""
    rows = Rows(tokens, segment_ids, positions, token_types)
    return family_of(config).hidden(config, params, rows, Ask(read, all_layers, received_attention, dropout_rng))
