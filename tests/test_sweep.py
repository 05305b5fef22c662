"""Arms: changes applied, references resolved, mistakes refused before anything runs; and tables by hand."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ncfair_jax.config import ConfigError, base_config
from ncfair_jax.judge import arms_table, flat, mean_sd
from ncfair_jax.sweep import arm_config, before_folder

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


def test_mean_and_sd_over_seeds():
    assert mean_sd([50.0, 52.0, 54.0]) == "52.00 ± 2.00"
    assert mean_sd([50.0]) == "50.00"
    assert mean_sd([50.0, None]) == "–"


def test_table_has_a_row_a_figure_and_a_column_an_arm():
    def figures(value):
        collapse = {
            "nc3": [0.4, 0.3, 0.5],
            "unc3": [0.1, None, None],
            "nc1": [0.2, 0.1, 0.3],
            "classes": [7.0, None, None],
        }
        return {"benchmarks": [], "collapse": {"transform": collapse | {"nc3": [value, 0.3, 0.5]}}}

    results = {
        arm: [{"before": figures(0.4), "after": figures(x)} for x in values]
        for arm, values in {"a": (0.5, 0.7), "b": (0.9, 0.9)}.items()
    }
    table = arms_table({"a": [WORK], "b": [WORK]}, results)
    assert (
        "| NC3, transform features | 7 words | 0.4000 [0.3000, 0.5000] | 0.6000 ± 0.1414 | 0.9000 ± 0.0000 |" in table
    )
    assert flat(figures(0.4))["UNC3, transform features"] == (0.1, None, "7 words")
