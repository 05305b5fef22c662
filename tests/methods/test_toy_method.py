"""Methods that the package does not know: a run of each trains or edits, judges, exports and reports."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.config import ConfigError, to_dict
from ncfair_jax.engine import forward_of
from ncfair_jax.models.edits import Edit, folded
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import METHODS, freeze, of_another, validate
from ncfair_jax.train import train_and_evaluate
from tests import tiny, tiny_text, toy_benchmark, toy_method


@pytest.fixture
def config_of(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "flatten", toy_method.FLATTEN)
    monkeypatch.setitem(METHODS, "shrink", toy_method.SHRINK)
    monkeypatch.setitem(METHODS, "opposite", toy_method.OPPOSITE)
    model, text = tiny_text.write(tmp_path, count=20)

    def config(method):
        made = base_config(method=method)
        made.model.path = str(model)
        made.data.update(corpus="text", path=str(text), max_tokens=32, row_tokens=32)
        return made

    return config


def test_an_edited_model_is_judged_exported_and_found_again(config_of, tmp_path):
    config = config_of("flatten")
    config.flatten.divisor = 4.0
    run = freeze(config)
    assert set(to_dict(run)) == {"name", "seed", "model", "data", "objective", "mesh", "evals", "world", "flatten"}
    result = train_and_evaluate(run, tmp_path / "run")
    start, edited = (load_pretrained(str(path)) for path in (config.model.path, tmp_path / "run" / "export"))
    edit = toy_method.flatten(run, start, toy_method.examples_of(run, start)[0], forward_of(start))
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 16)), jnp.float32)

    def predicted(model, states):
        family = family_of(model.config)
        return np.asarray(
            family.logits(model.config, model.params, family.features(model.config, model.params, states))
        )

    expected = predicted(start, hidden @ edit.matrix + edit.bias[None, None])
    np.testing.assert_allclose(predicted(edited, hidden), expected, atol=1e-5)
    assert np.abs(expected - predicted(start, hidden)).max() > 0.1
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "edited with ncfair" in card and "objective flatten, text: text (" in card
    assert (tmp_path / "run" / "report.html").exists()
    assert train_and_evaluate(run, tmp_path / "run") == result


def test_a_trained_model_learns_what_its_method_says(config_of, tmp_path):
    config = config_of("shrink")
    config.nc3.weight = 1.0
    config.optimizer.learning_rate = 1e-2
    config.train.update(steps=16, batch_size=10, log_every=1, save_every=16, collapse_every=0)
    train_and_evaluate(freeze(config), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["size"] < 0.9 * lines[0]["size"] and np.isfinite(lines[-1]["nc3_loss"])
    assert "fine-tuned with ncfair" in (tmp_path / "run" / "export" / "README.md").read_text()


def test_a_model_is_judged_through_the_method_that_wraps_it_and_exported_as_it_is(config_of, tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "toy", toy_benchmark.BENCHMARK)
    pairs = [[f"the {noun} sees the [MASK]", "man", "woman"] for noun in ("man", "woman", "nurse", "doctor", "dog")]
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "data" / "toy" / "pairs.json").write_text(json.dumps(pairs))
    config = config_of("opposite")
    config.evals.update(benchmarks="toy", data=str(tmp_path / "data"))
    run = freeze(config)
    result = train_and_evaluate(run, tmp_path / "run")
    before, after = (dict(line[:2] for line in result[side]["benchmarks"]) for side in ("before", "after"))
    assert before.keys() == after.keys() and len(before) == 1
    for name, value in before.items():
        assert after[name] == 100 - value and value in (0, 20, 40, 60, 80, 100)
    start, exported = (load_pretrained(str(path)).params for path in (config.model.path, tmp_path / "run" / "export"))
    jax.tree.map(np.testing.assert_array_equal, start, exported)
    assert "the weights here are without it" in (tmp_path / "run" / "export" / "README.md").read_text()
    assert train_and_evaluate(run, tmp_path / "run") == result


def test_a_new_method_is_told_of_like_any_other(config_of):
    config = config_of("flatten")
    assert "train" not in config and "optimizer" not in config and "nc3" not in config
    told = of_another("train.steps", "flatten")
    assert told.startswith("config.train.steps: flatten has no such field; it is one of mlm, mabel, ")
    assert of_another("shrink.weight", "mlm") == "config.shrink.weight: mlm has no such field; it is one of shrink"
    config.flatten.divisor = 0.0
    with pytest.raises(ConfigError, match=r"config\.flatten\.divisor=0\.0: must be above 0"):
        validate(freeze(config))


def test_an_edit_that_changes_nothing_leaves_the_model_as_it_was():
    params, size = tiny.params(), tiny.MODEL.hidden_size
    same = folded(params, Edit(jnp.eye(size), jnp.zeros(size)), family_of(tiny.MODEL).fold)
    np.testing.assert_allclose(same["mlm"]["transform"]["kernel"], params["mlm"]["transform"]["kernel"], atol=1e-6)
    np.testing.assert_array_equal(same["mlm"]["transform"]["bias"], params["mlm"]["transform"]["bias"])
