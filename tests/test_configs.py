"""Every shipped config builds, validates and takes the arguments it promises."""

import runpy
from pathlib import Path

import pytest

from ncfair_jax.arms import arm_config, arm_names
from ncfair_jax.config import ConfigError
from ncfair_jax.methods.nc3 import PRESETS
from ncfair_jax.registry import freeze, validate

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
WITH_PRESETS = ("bert_nc", "roberta_nc", "bec_nc", "cda_nc", "ase_nc")


def get_config(name: str):
    (path,) = [path for path in CONFIGS if path.stem == name]
    return runpy.run_path(str(path))["get_config"]


@pytest.mark.parametrize("name", [path.stem for path in CONFIGS])
def test_builds_validates_and_refuses_unknown_arguments(name):
    config = get_config(name)()
    validate(freeze(config))
    for arm in arm_names(config):
        validate(arm_config(config, arm, 0, Path("work")))
    with pytest.raises(ConfigError, match="choose from"):
        get_config(name)("papre")


@pytest.mark.parametrize("name", WITH_PRESETS)
def test_presets_set_the_regulariser(name):
    assert get_config(name)() == get_config(name)("aligned")
    for preset, fields in PRESETS.items():
        config = get_config(name)(preset)
        assert config.nc3.weight > 0
        assert {field: config.nc3[field] for field in fields} == fields
    assert get_config(name)("paper").nc3.weight == 100.0


@pytest.mark.parametrize("name", [*WITH_PRESETS, "mabel_nc", "adept_nc"])
def test_control_is_aligned_on_other_words(name):
    aligned, control = (get_config(name)(arg) for arg in ("aligned", "control"))
    validate(freeze(control))
    assert control.name == f"{name}-control" and control.nc3.lexicon == "gender:frequency-matched"
    control.name, control.nc3.lexicon = aligned.name, "gender"
    assert control == aligned


def test_the_arms_of_the_methods():
    config = get_config("methods_minilm")()
    arms = {name: arm_config(config, name, 0, Path("work")) for name in arm_names(config)}
    assert len(arms) == 20
    for method, weight, own in (
        ("bec", 100.0, {}),
        ("mabel", 10.0, {"labels": "original"}),
        ("adept", 5.0, {"labels": "original", "window": "epoch"}),
        ("ase", 100.0, {}),
    ):
        none, paper, aligned, control = (arms[f"{method}_{arm}"].nc3 for arm in ("none", "paper", "aligned", "control"))
        assert (none.weight, paper.weight) == (0.0, weight)
        assert {field: getattr(paper, field) for field in PRESETS["paper"]} == PRESETS["paper"] | own
        assert (control.weight, control.lexicon) == (aligned.weight, "gender:frequency-matched")


def test_the_search_of_the_weights_builds_and_validates():
    config = get_config("methods_minilm")("search")
    runs = {name: arm_config(config, name, 0, Path("work")) for name in arm_names(config)}
    for run in runs.values():
        validate(run)
    assert (runs["adept_1"].nc3.weight, runs["ase_100"].nc3.weight, runs["ase_100"].ase.ewc_weight) == (1.0, 100.0, 1.0)
    assert (runs["ase_10_ewc_100"].nc3.weight, runs["ase_10_ewc_100"].ase.ewc_weight) == (10.0, 100.0)
    assert len(runs) == 12


def test_mabel_presets():
    paper, aligned = (get_config("mabel_nc")(preset) for preset in ("paper", "aligned"))
    assert get_config("mabel_nc")() == aligned
    assert (paper.nc3.weight, paper.nc3.labels, paper.train.batch_size) == (10.0, "original", 96)
    assert {name: paper.nc3[name] for name in PRESETS["paper"]} == PRESETS["paper"] | {"labels": "original"}
    assert {name: aligned.nc3[name] for name in PRESETS["aligned"]} == PRESETS["aligned"]
    assert aligned.objective.name == "mabel" and aligned.mabel.pairs


def test_adept_presets():
    paper, aligned = (get_config("adept_nc")(preset) for preset in ("paper", "aligned"))
    assert (paper.nc3.weight, paper.adept.rho, aligned.adept.rho) == (5.0, 10.0, 15.0)
    own = {"labels": "original", "window": "epoch"}  # nothing is masked, and the release forgets the means every epoch
    assert {field: paper.nc3[field] for field in PRESETS["paper"]} == PRESETS["paper"] | own
    assert {field: aligned.nc3[field] for field in PRESETS["aligned"]} == PRESETS["aligned"]
    assert get_config("adept_nc")("paper,") == paper
    prefix = get_config("adept_nc")()
    prefix.adept.prefix_tokens = 40
    prefix.optimizer.freeze = "^(embeddings|encoder|mlm)/"
    validate(freeze(prefix))
