"""A run that would train nothing is refused while it is prepared, before anything is compiled."""

import dataclasses

import pytest

from ncfair_jax.config import ConfigError
from ncfair_jax.methods.mlm import MlmRun
from ncfair_jax.prepare import prepare
from ncfair_jax.registry import validate
from ncfair_jax.sharding import make_mesh
from tests import tiny_text


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return tiny_text.write(tmp_path_factory.mktemp("setting"), count=40)


def prepared(setting, **changes):
    model, text = setting
    parts = {
        "model": {"path": str(model)},
        "data": {"corpus": "text", "path": str(text), "max_tokens": 32, "row_tokens": 32},
        "train": {"batch_size": 8, "steps": 3, "collapse_every": 0},
    }
    base = MlmRun()
    config = dataclasses.replace(
        base,
        **{
            name: dataclasses.replace(getattr(base, name), **parts.get(name, {}) | changes.get(name, {}))
            for name in parts.keys() | changes.keys()
        },
    )
    validate(config)
    return prepare(config, make_mesh(config.mesh))


def test_a_run_that_trains_is_prepared(setting):
    run = prepared(setting, optimizer={"freeze": "^(embeddings|mlm)/", "warmup_steps": 2})
    assert run.total_steps == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"freeze": "emebddings"}}, "'emebddings' matches no parameter"),
        ({"optimizer": {"freeze": "embeddings|encoder|mlm"}}, "matches every parameter: nothing is left to train"),
        ({"optimizer": {"warmup_steps": 500}}, "the run ends within the warm-up"),
        ({"optimizer": {"warmup_steps": 5}, "train": {"steps": 0, "epochs": 1.0}}, "the run ends within the warm-up"),
        ({"optimizer": {"method_learning_rate": 1e-3}}, "the method has no parameters of its own"),
    ],
)
def test_settings_without_effect_are_refused(setting, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepared(setting, **changes)


def test_a_corpus_without_a_known_word_is_refused(setting, tmp_path):
    (tmp_path / "text.txt").write_text("zebra zebra\nquagga\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the corpus holds only special tokens"):
        prepared(setting, data={"path": str(tmp_path / "text.txt")})
