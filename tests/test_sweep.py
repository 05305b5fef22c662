"""Arms: changes applied, references resolved, mistakes refused before anything runs; and tables by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ncfair_jax import launcher
from ncfair_jax.config import ConfigError, base_config
from ncfair_jax.judge import arms_table, comparison_table, flat, mean_sd
from ncfair_jax.sweep import arm_config, before_folder, run_arms
from tests import tiny_text
from tests.evals.test_compare import write_masked_lm

WORK = Path("work")
ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_arms": ""}, "names no arm; choose from"),
        ({"run_arms": "zero,zero"}, "names an arm twice"),
        ({"seeds": "0,1,0"}, "names a seed twice"),
        ({"seeds": "0,one"}, "'one' is not a whole number from 0"),
        ({"seeds": "-1"}, "'-1' is not a whole number from 0"),
        ({"arms.nc.against": "control"}, "arm 'nc' is compared against 'control', which is no arm"),
        ({"arms.nc.against": "nc"}, "arm 'nc' is compared against itself"),
    ],
)
def test_arms_and_seeds_that_cannot_be_meant_are_refused(changes, message, tmp_path):
    config = sweep_config()
    for name, value in changes.items():
        *path, field = name.split(".")
        target = config
        for part in path:
            target = target[part]
        target[field] = value
    with pytest.raises(ConfigError, match=message):
        run_arms(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_seeds_and_worlds_need_arms(tmp_path):
    for changes in ({"seeds": "0,1"}, {"world": {"sentences": 10}}):
        config = base_config()
        config.update(changes)
        with pytest.raises(ConfigError, match=r"has no effect without arms; name them in config\.run_arms"):
            launcher.run(config, tmp_path)


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


def test_three_arms_have_adjusted_p_values(tmp_path):
    losses = {"a": [1.0, 2.0, 3.0], "b": [2.0, 3.5, 5.0], "c": [1.1, 2.0, 2.9]}
    for arm, loss in losses.items():
        write_masked_lm(tmp_path / arm / "evals" / "after", loss)
    figures = {"benchmarks": [["Held-out loss, nats", 2.0, [1.0, 3.0], 30]], "collapse": {}}
    results = {arm: [{"before": figures, "after": figures}] for arm in losses}
    table = arms_table({arm: [tmp_path / arm] for arm in losses}, results)
    assert table.count("| p | p (Holm) |") == 2
    assert "**c** against **a**" in table
    two = arms_table({arm: [tmp_path / arm] for arm in "ab"}, {arm: results[arm] for arm in "ab"})
    assert "Holm" not in two
    named = arms_table({arm: [tmp_path / arm] for arm in losses}, results, {"c": "b"})
    assert "**c** against **b**" in named
    assert "**b** against **a**" in named
    assert "| Held-out loss, nats | 30 | 3.5000 | 2.0000 |" in named.split("**c**")[1]
    results["b"] = [{"before": figures, "after": figures | {"benchmarks": []}}]
    unjudged = arms_table({arm: [tmp_path / arm] for arm in losses}, results, {"c": "b"})
    assert "**c** against **a**" in unjudged


def test_figures_that_only_trained_models_have_stand_without_a_start():
    nothing = {"benchmarks": [], "collapse": {}}
    results = {
        "debias": [{"before": nothing, "after": nothing}],  # only makes the model of the next arm
        "bios": [
            {"before": nothing, "after": nothing | {"benchmarks": [["acc", x, [60.0, 90.0], 80]]}} for x in (70, 74)
        ],
    }
    table = arms_table({"debias": [WORK], "bios": [WORK, WORK]}, results)
    assert "| acc | 80 | – – | – | 72.00 ± 2.83 |" in table
    shown = comparison_table(WORK, WORK, nothing, results["bios"][0]["after"])
    assert "| acc | 70.00 | [60.00, 90.00] | 80 |" in shown


CONFIG = """
from ml_collections import ConfigDict
from ncfair_jax.config import base_config

def get_config(arg=None):
    config = base_config("aligned")
    config.name = "tiny"
    config.model.path = {model!r}
    config.data.corpus = "text"
    config.data.path = {text!r}
    config.data.max_tokens = config.data.row_tokens = 32
    config.train.steps = 3
    config.evals.collapse_text = {text!r}
    config.arms = ConfigDict({{
        "plain": {{"nc3": {{"weight": 0.0}}}},
        "nc": {{"model": {{"path": "@plain"}}, "nc3": {{"weight": 1.0}}}},
        "lost": {{"model": {{"path": {model!r} + "-lost"}}}},
    }})
    config.run_arms = "plain,nc"
    config.seeds = "0,1"
    return config
"""


@pytest.mark.slow
def test_one_process_a_run_and_a_failure_leaves_the_others_alone(tmp_path):
    model, text = tiny_text.write(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG.format(model=str(model), text=str(text)))
    script = str(ROOT / "launch" / "sweep.py")
    options = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'work'}"]
    command = [sys.executable, script, *options, f"--compilation_cache={tmp_path / 'xla'}", "--jobs=2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}

    def run(*flags):
        return subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, timeout=300)

    failed = run("--config.run_arms=plain,lost")
    assert failed.returncode == 1
    assert "error: these runs failed: lost-seed0 (status 1), lost-seed1 (status 1)" in failed.stderr
    assert "model-3-lost" in failed.stderr
    assert "Traceback" not in failed.stderr
    finished = (tmp_path / "work" / "plain-seed1" / "result.json").stat().st_mtime_ns
    done = run()
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "work" / "plain-seed1" / "result.json").stat().st_mtime_ns == finished
    table = (tmp_path / "work" / "table.md").read_text(encoding="utf-8")
    assert table.strip() in done.stdout
    assert "| figure | n | start | plain | nc |" in table
    assert " ± " in table
    assert (tmp_path / "work" / "figures" / "over_steps.png").exists()
