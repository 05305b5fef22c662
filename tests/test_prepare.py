"""A run that would train nothing is refused while it is prepared, before anything is compiled."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from ncfair_jax.config import ConfigError
from ncfair_jax.methods.mlm import MlmRun
from ncfair_jax.prepare import abstract_state, prepare, start_state, with_runtime_choices
from ncfair_jax.registry import validate
from ncfair_jax.sharding import make_mesh
from tests import tiny, tiny_text


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return tiny_text.write(tmp_path_factory.mktemp("setting"), count=40)


def prepared(setting, mesh=None, **changes):
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
    return prepare(config, mesh or make_mesh(config.mesh))


def test_a_run_that_trains_is_prepared(setting):
    run = prepared(setting, optimizer={"freeze": "^(embeddings|mlm)/", "warmup_steps": 2})
    assert run.total_steps == 3


class Devices:
    """A mesh of devices that are not here."""

    def __init__(self, platform):
        self.devices = np.array([[[types.SimpleNamespace(platform=platform)]]])


@pytest.mark.parametrize(
    ("platform", "choices", "expected"),
    [
        ("cpu", {}, ("xla", False)),
        ("tpu", {}, ("xla", True)),
        ("gpu", {}, ("xla", True)),  # the default kernel has no float32
        ("gpu", {"activation_dtype": "bfloat16"}, ("cudnn", True)),
        ("gpu", {"activation_dtype": "bfloat16", "attention_dropout": 0.1}, ("xla", True)),
        ("cpu", {"layers": "scanned"}, ("xla", True)),
        ("gpu", {"layers": "unrolled", "attention": "xla"}, ("xla", False)),
        ("tpu", {"attention": "splash"}, ("splash", True)),
    ],
)
def test_what_auto_means_on_a_device(platform, choices, expected, unchecked_shapes):
    config = dataclasses.replace(MlmRun(), model=dataclasses.replace(MlmRun().model, **choices))
    dtype = config.model.activation_dtype
    model = with_runtime_choices(config, dataclasses.replace(tiny.MODEL, activation_dtype=dtype), Devices(platform))
    assert (model.attention, model.scan_layers) == expected


def test_an_attention_that_cannot_do_what_the_model_asks_is_refused(setting):
    with pytest.raises(
        ConfigError, match=r"config\.model\.attention='splash': is for a tpu, and this is a cpu; use 'xla'"
    ):
        prepared(setting, model={"path": str(setting[0]), "attention": "splash"})


@pytest.mark.parametrize(("name", "implementation"), [("threefry", "threefry2x32"), ("rbg", "rbg")])
def test_the_generator_is_part_of_the_state_and_of_the_identity(setting, name, implementation):
    """The start parameters do not depend on it."""
    run = prepared(setting, model={"path": str(setting[0]), "dropout_bits": name})
    state, _ = start_state(run)
    assert str(jax.random.key_impl(state.rng)) == implementation
    assert run.identity["config"]["model"].get("dropout_bits", "threefry") == name
    usual = prepared(setting)
    jax.tree.map(np.testing.assert_array_equal, state.params, start_state(usual)[0].params)
    abstract = abstract_state(run)
    assert jax.tree.map(kind, abstract) == jax.tree.map(kind, state)


def kind(leaf):
    return leaf.shape, leaf.dtype, leaf.sharding


def test_how_the_layers_are_run_is_no_part_of_the_identity(setting):
    loops = [prepared(setting, model={"path": str(setting[0]), "layers": name}) for name in ("scanned", "unrolled")]
    assert loops[0].identity == loops[1].identity
    assert loops[0].model.config.scan_layers and not loops[1].model.config.scan_layers
    assert "step" in loops[0].identity  # an unfinished run of a version with other dropout keys has none


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
