"""Arms: changes applied, references resolved, mistakes refused before anything runs."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ncfair_jax.arms import arm_config, before_folder
from ncfair_jax.config import ConfigError
from ncfair_jax.recipes import base_config

WORK = Path("work")


def sweep_config():
    config = base_config("aligned")
    config.name = "x"
    config.arms = ConfigDict(
        {
            "zero": {"model": {"path": "@world/model"}},
            "cda": {"model": {"path": "@zero"}, "data": {"counterfactual": "two_sided"}},
            "nc": {"model": {"path": "@zero"}, "nc3": {"weight": 2.0}},
        }
    )
    config.run_arms = "zero,cda,nc"
    return config


def test_an_arm_changes_its_fields_and_its_references_become_paths():
    cda = arm_config(sweep_config(), "cda", 3, WORK)
    assert cda.data.counterfactual == "two_sided"
    assert cda.model.path == str(WORK / "zero-seed3" / "export")
    assert (cda.seed, cda.name, cda.nc3.weight) == (3, "x-cda", 0.0)
    assert arm_config(sweep_config(), "zero", 0, WORK).model.path == str(WORK / "world" / "model")


def test_the_arm_to_compare_with_is_no_field_of_the_run():
    config = sweep_config()
    plain = arm_config(config, "nc", 0, WORK)
    config.arms.nc.against = "cda"
    assert arm_config(config, "nc", 0, WORK) == plain


def test_runs_from_one_model_share_its_figures():
    folders = {name: before_folder(arm_config(sweep_config(), name, 0, WORK), WORK) for name in ("zero", "cda", "nc")}
    assert folders["cda"] == folders["nc"] != folders["zero"]


def test_mistakes_are_named():
    config = sweep_config()
    config.arms.cda.data = ConfigDict({"counterfctual": "two_sided"})
    with pytest.raises(ConfigError, match="arm 'cda', data changes 'counterfctual'"):
        arm_config(config, "cda", 0, WORK)
    config = sweep_config()
    config.run_arms = "cda,zero"
    with pytest.raises(ConfigError, match="refers to arm 'zero'; earlier arms: none"):
        arm_config(config, "cda", 0, WORK)
    config.run_arms = "zero,cad"
    with pytest.raises(ConfigError, match="names 'cad'; choose from"):
        arm_config(config, "zero", 0, WORK)
