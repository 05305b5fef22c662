"""The families of models: a new one is its file and one line here."""

from ncfair_jax.models.base import Family, ModelConfig
from ncfair_jax.models.bert import BERT, ROBERTA

FAMILIES: list[Family] = [
    BERT,
    ROBERTA,
]


def model_types() -> list[str]:
    """All values of config.json's model_type that are supported."""
    return [model_type for family in FAMILIES for model_type in family.model_types]


def family_of(config: ModelConfig) -> Family:
    """The family of a model.

    Raises:
        ValueError: if there is none.
    """
    return family_named(config.model_type)


def family_named(model_type: str) -> Family:
    """The family of a model_type.

    Raises:
        ValueError: if there is none.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    raise ValueError(f"model_type={model_type!r}; choose from {sorted(model_types())}")
