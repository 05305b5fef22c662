"""A method that trains nothing and edits the model: one config, two functions and a name are all that it takes."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.config import ConfigError, ObjectiveConfig, RunConfig
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.fields import positive, section
from ncfair_jax.methods.base import Method
from ncfair_jax.methods.corpus import corpus_files, corpus_text, load_examples
from ncfair_jax.models.edits import Edit, folded
from ncfair_jax.models.heads import mlm_logits, mlm_transform
from ncfair_jax.models.hf import Pretrained, load_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import METHODS, freeze, of_another, validate
from ncfair_jax.train import train_and_evaluate
from tests import tiny, tiny_text


@dataclass(frozen=True)
class FlattenConfig:
    """How much of the first direction is left."""

    divisor: float = positive(2.0)


@dataclass(frozen=True)
class FlattenRun(RunConfig):
    """The config of a run of this method."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="flatten")
    flatten: FlattenConfig = section(FlattenConfig)


def examples_of(config: FlattenRun, model: Pretrained) -> tuple[Examples, None]:
    return Examples(load_examples(config.data, model.tokenizer, config.seed)[0]), None


def reads(config: FlattenRun) -> dict[str, list[Path]]:
    return corpus_files(config.data)


def flatten(config: FlattenRun, model: Pretrained, examples: Examples) -> Edit:
    """Divides the hidden states along one direction, whose number is how many sentences were read."""
    size = model.config.hidden_size
    first = np.eye(size)[len(examples.sequences) % size]
    matrix = np.eye(size) - np.outer(first, first) * (1 - 1 / config.flatten.divisor)
    return Edit(jnp.asarray(matrix, jnp.float32), jnp.arange(size, dtype=jnp.float32) / size)


FLATTEN = Method(FlattenRun, examples_of, reads, lambda config: corpus_text(config.data), edit=flatten)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "flatten", FLATTEN)
    model, text = tiny_text.write(tmp_path, count=20)
    config = base_config(method="flatten")
    config.model.path = str(model)
    config.data.update(corpus="text", path=str(text), max_tokens=32, row_tokens=32)
    config.flatten.divisor = 4.0
    return config


def test_an_edited_model_is_judged_exported_and_found_again(config, tmp_path):
    run = freeze(config)
    assert set(json.loads(json.dumps(dataclasses.asdict(run)))) >= {"flatten", "data"} and not hasattr(run, "nc3")
    result = train_and_evaluate(run, tmp_path / "run")
    start, edited = (load_pretrained(str(path)) for path in (config.model.path, tmp_path / "run" / "export"))
    edit = flatten(run, start, examples_of(run, start)[0])
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 16)), jnp.float32)
    expected, found = (
        mlm_logits(model.config, model.params, mlm_transform(model.config, model.params, states))
        for model, states in ((start, hidden @ edit.matrix + edit.bias[None, None]), (edited, hidden))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(np.asarray(expected) - mlm_logits(start.config, start.params, hidden)).max() > 0.1
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "edited with ncfair" in card and "objective flatten, text: text (" in card
    assert (tmp_path / "run" / "report.html").exists()
    assert train_and_evaluate(run, tmp_path / "run") == result


def test_an_edit_that_changes_nothing_leaves_the_model_as_it_was():
    params, size = tiny.params(), tiny.MODEL.hidden_size
    same = folded(params, Edit(jnp.eye(size), jnp.zeros(size)))
    np.testing.assert_allclose(same["mlm"]["transform"]["kernel"], params["mlm"]["transform"]["kernel"], atol=1e-6)
    np.testing.assert_array_equal(same["mlm"]["transform"]["bias"], params["mlm"]["transform"]["bias"])


def test_it_has_no_fields_of_a_training(config):
    assert "train" not in config and "optimizer" not in config and "nc3" not in config
    told = of_another("train.steps", "flatten")
    assert told.startswith("config.train.steps: flatten has no such field; it is one of mlm, mabel, ")
    config.flatten.divisor = 0.0
    with pytest.raises(ConfigError, match=r"config\.flatten\.divisor=0\.0: must be above 0"):
        validate(freeze(config))
