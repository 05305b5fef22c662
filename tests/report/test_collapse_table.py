"""Tables from figures given by hand: gaps, ratios, intervals, and the random lists."""

import dataclasses

import pytest

from ncfair_jax.collapse.jackknife import Measured
from ncfair_jax.collapse.model_measures import ModelMeasures, from_json, to_json
from ncfair_jax.report.collapse_table import comparison_table, measured_text, permutation_table
from ncfair_jax.report.render import table_text


def model(name: str, unc3: float, gnc2: float, lists: list[float]) -> ModelMeasures:
    measured = Measured(
        {"unc3": unc3, "gnc2": gnc2, "classes": 7.0, "nc4": float("nan")},
        {"unc3": [unc3] * 3, "gnc2": [gnc2, gnc2 + 0.1, gnc2 + 0.2], "classes": [7.0] * 3, "nc4": [float("nan")] * 3},
    )
    return ModelMeasures(name, {"lexicon": 7}, 90, 10, {"lexicon": measured}, {}, [{"unc3": value} for value in lists])


BEFORE = model("before", 0.2, -0.3, [0.10, 0.20, 0.30])
AFTER = model("after", 0.1, -0.2, [0.10, 0.19, 0.31])


def test_first_model_with_interval_and_the_other_with_gap_and_ratio():
    lines = table_text(comparison_table([BEFORE, AFTER])).splitlines()
    assert lines[0] == "| words | n | figure | before | corrected | after | corrected | gap | ratio |"
    (unc3,) = (line for line in lines if "| UNC3 |" in line)
    assert unc3 == (
        "| lexicon | 7 | UNC3 | 0.2000 [0.2000, 0.2000] | – | 0.1000 | – | "
        "-0.1000 [-0.1000, -0.1000] | 0.5000 [0.5000, 0.5000] |"
    )
    (gnc2,) = (line for line in lines if "| GNC2 |" in line)
    assert gnc2.endswith("| –|") or gnc2.endswith("| – |")  # negative figures have no ratio
    (nc4,) = (line for line in lines if "| NC4 |" in line)
    assert "| – [–, –] |" in nc4


def test_lists_of_one_model_and_of_the_change():
    lines = table_text(permutation_table([BEFORE, AFTER])).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in rows] == [["UNC3", "before"], ["UNC3", "after"], ["UNC3", "after − before"]]
    assert rows[0][2:] == ["0.2000", "0.2000 ± 0.1000", "1.000", "3"]
    assert rows[2][2:] == ["-0.1000", "+0.0000 ± 0.0100", "0.500", "3"]  # below all three changes: 2 · 1 / 4


def test_random_lists_stand_in_a_second_table_where_they_were_drawn():
    text = measured_text([BEFORE, AFTER])
    figures, lists = text.split("\nThe lexicon among random lists")
    assert figures.startswith(table_text(comparison_table([BEFORE, AFTER])) + "\nIntervals are 95%")
    assert lists.endswith(table_text(permutation_table([BEFORE, AFTER])))
    assert "random lists of" not in measured_text([dataclasses.replace(BEFORE, lists=[])])


def test_json_keeps_everything():
    again = from_json(to_json(BEFORE, {"seed": 0}))
    assert repr(again) == repr(BEFORE)


def test_corrected_figures_stand_beside_the_plain_ones():
    frequent = Measured(
        {"unc3": 0.3, "gnc2": -0.3, "classes": 4.0},
        {"unc3": [0.31, 0.33, 0.32], "gnc2": [-0.3] * 3, "classes": [4.0] * 3},
    )
    measured = BEFORE.sets["lexicon"]._replace(frequent=frequent)
    model = dataclasses.replace(BEFORE, sets={"lexicon": measured})
    (unc3,) = (line for line in table_text(comparison_table([model])).splitlines() if "| UNC3 |" in line)
    # 3 · 0.3 - 2 · 0.32, with an interval of 4.303 times sqrt(2 · var) on both sides
    assert unc3.endswith("| 0.2000 [0.2000, 0.2000] | 0.2600 [0.2103, 0.3097], 4 words |")
    content = to_json(model, {})
    assert content["corrected_words"] == {"lexicon": 4}
    assert content["sets"]["lexicon"]["unc3"]["corrected"] == pytest.approx(0.26)
    assert content["sets"]["lexicon"]["unc3"]["corrected_interval"] == pytest.approx([0.2103, 0.3097], abs=1e-4)
    assert "corrected" not in content["sets"]["lexicon"]["nc4"]
    assert repr(from_json(content)) == repr(model)
