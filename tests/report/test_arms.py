"""The table of a sweep's arms by hand, and made again from what its file keeps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ncfair_jax.files.reading import DataError
from ncfair_jax.report.arms import arms_figures, arms_text, flat, mean_sd, read_figures
from ncfair_jax.report.comparisons import before_and_after
from tests.benchmarks.test_compare import write_masked_lm
from tests.started import ROOT, environment

WORK = Path("work")


def test_mean_and_sd_over_seeds():
    assert mean_sd([50.0, 52.0, 54.0]) == "52.00 ± 2.00"
    assert mean_sd([50.0]) == "50.00"
    assert mean_sd([50.0, None]) == "–"


def table_of(folders, results, against=None) -> str:
    """The table of arms, made of what a file keeps of them."""
    return arms_text(json.loads(json.dumps(arms_figures(folders, results, against or {}), allow_nan=False)))


def test_table_has_a_row_a_figure_and_a_column_an_arm():
    def figures(value):
        collapse = {
            "nc3": [0.4, 0.3, 0.5],
            "unc3": [0.1, None, None],
            "nc1": [0.2, 0.1, 0.3],
            "classes": [7.0, None, None],
            "nc3_corrected": [0.45, 0.35, 0.55],
            "unc3_corrected": [0.08, None, None],
            "nc1_corrected": [0.25, 0.15, 0.35],
            "corrected_words": [5.0, None, None],
        }
        return {"benchmarks": [], "collapse": {"transform": collapse | {"nc3": [value, 0.3, 0.5]}}}

    results = {
        arm: [{"before": figures(0.4), "after": figures(x)} for x in values]
        for arm, values in {"a": (0.5, 0.7), "b": (0.9, 0.9)}.items()
    }
    table = table_of({"a": [WORK], "b": [WORK]}, results)
    assert (
        "| NC3, transform features | 7 words | 0.4000 [0.3000, 0.5000] | 0.6000 ± 0.1414 | 0.9000 ± 0.0000 |" in table
    )
    assert "| NC1 corrected, transform features | 5 words | 0.2500 [0.1500, 0.3500] |" in table
    assert flat(figures(0.4))["UNC3, transform features"] == (0.1, None, "7 words")


def test_three_arms_have_adjusted_p_values(tmp_path):
    losses = {"a": [1.0, 2.0, 3.0], "b": [2.0, 3.5, 5.0], "c": [1.1, 2.0, 2.9]}
    for arm, loss in losses.items():
        write_masked_lm(tmp_path / arm / "evals" / "after", loss)
    figures = {"benchmarks": [["Held-out loss, nats", 2.0, [1.0, 3.0], 30]], "collapse": {}}
    results = {arm: [{"before": figures, "after": figures}] for arm in losses}
    table = table_of({arm: [tmp_path / arm] for arm in losses}, results)
    assert table.count("| p | p (Holm) |") == 2
    assert "**c** against **a**" in table
    two = table_of({arm: [tmp_path / arm] for arm in "ab"}, {arm: results[arm] for arm in "ab"})
    assert "Holm" not in two
    named = table_of({arm: [tmp_path / arm] for arm in losses}, results, {"c": "b"})
    assert "**c** against **b**" in named
    assert "**b** against **a**" in named
    assert "| Held-out loss, nats | 30 | 3.5000 | 2.0000 |" in named.split("**c**")[1]
    results["b"] = [{"before": figures, "after": figures | {"benchmarks": []}}]
    unjudged = table_of({arm: [tmp_path / arm] for arm in losses}, results, {"c": "b"})
    assert "**c** against **a**" in unjudged


def test_figures_that_only_trained_models_have_stand_without_a_start():
    nothing = {"benchmarks": [], "collapse": {}}
    results = {
        "debias": [{"before": nothing, "after": nothing}],  # only makes the model of the next arm
        "bios": [
            {"before": nothing, "after": nothing | {"benchmarks": [["acc", x, [60.0, 90.0], 80]]}} for x in (70, 74)
        ],
    }
    table = table_of({"debias": [WORK], "bios": [WORK, WORK]}, results)
    assert "| acc | 80 | – – | – | 72.00 ± 2.83 |" in table
    shown = before_and_after(WORK, WORK, nothing, results["bios"][0]["after"])
    assert "| acc | 70.00 | [60.00, 90.00] | 80 |" in shown


def test_the_command_prints_the_table_again_and_refuses_other_files(tmp_path):
    write_masked_lm(tmp_path / "a" / "evals" / "after", [1.0, 2.0, 3.0])
    write_masked_lm(tmp_path / "b" / "evals" / "after", [2.0, 3.5, 5.0])
    figures = {"benchmarks": [["Held-out loss, nats", 2.0, [1.0, 3.0], 30]], "collapse": {}}
    results = {arm: [{"before": figures, "after": figures}] for arm in "ab"}
    made = arms_figures({arm: [tmp_path / arm] for arm in "ab"}, results)
    (tmp_path / "figures.json").write_text(json.dumps(made))
    command = [sys.executable, str(ROOT / "launch/report.py"), f"--table={tmp_path / 'figures.json'}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == arms_text(made).strip()
    (tmp_path / "figures.json").write_text('{"metrics": {}}')
    with pytest.raises(
        DataError, match=r"figures\.json: the file lacks 'start'; name the figures\.json in a sweep's folder"
    ):
        read_figures(tmp_path / "figures.json")
