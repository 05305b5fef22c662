"""config.json of a Hugging Face folder to a config and back; its family says what the fields mean."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from ncfair_jax.models.base import FieldsError, ModelConfig
from ncfair_jax.models.families import family_named, family_of, model_types
from ncfair_jax.models.fields import shown, wrong_flag
from ncfair_jax.models.folders import CONFIG, ModelFolderError, read_json, refuse


class HubConfig(NamedTuple):
    """What config.json says: the model, and whether copies of tied tensors need not be stored."""

    model: ModelConfig
    tied: bool


def read_config(folder: Path, activation_dtype: str, remat: bool) -> HubConfig:
    """Reads and checks config.json.

    Raises:
        ModelFolderError: for a family that is not supported, told alone; else listing all fields that are missing or wrong.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelFolderError(f"{folder} has no {CONFIG}; give a folder written by save_pretrained, or add the file")
    raw = read_json(path)
    if (model_type := raw.get("model_type")) not in model_types():
        said = f"has model_type={shown(model_type)}" if "model_type" in raw else "has no model_type"
        raise ModelFolderError(
            f"{folder}: {CONFIG} {said}; only models of the families {_listed(model_types())} are supported: "
            "choose another model"
        )
    problems = wrong_flag(raw, "tie_word_embeddings")
    try:
        model = family_named(model_type).read_config(raw)
    except FieldsError as error:
        problems = [*error.problems, *problems]
    refuse(folder, problems)
    model = dataclasses.replace(model, activation_dtype=activation_dtype, remat=remat)
    return HubConfig(model, raw.get("tie_word_embeddings", True))


def write_config(path: Path, config: ModelConfig, tokenizer: PreTrainedTokenizerBase, dtype: str) -> None:
    """Writes the config.json that transformers reads; `dtype` is that of the stored weights."""
    content = family_of(config).write_config(config, tokenizer) | {"dtype": dtype}
    path.write_text(json.dumps(content, indent=2) + "\n")


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
