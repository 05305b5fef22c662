"""Comparison of result folders with hand-made scores, against Student's paired test."""

import shutil

import numpy as np
import pytest
from scipy import stats

from ncfair_jax.benchmarks import crows_pairs, masked_lm
from ncfair_jax.benchmarks.compare import compare, compare_many
from ncfair_jax.benchmarks.results import Result, write_result
from ncfair_jax.files.sources import DataError
from ncfair_jax.report.comparisons import NO_INTERVAL, comparison_table
from ncfair_jax.report.render import table_text
from ncfair_jax.statistics.intervals import summarise, summarise_sample
from ncfair_jax.statistics.paired import holm


def write_masked_lm(folder, loss, lines=None):
    """A result of one sentence of ten masked positions per loss."""
    count = len(loss)
    table = {
        "line": list(range(count)) if lines is None else lines,
        "sentence": list(range(count)),
        "positions": [10] * count,
        "correct": [float(i % 3) for i in range(count)],
        "loss_sum": [10 * float(x) for x in loss],
        "pseudo_positions": [5] * count,
        "pseudo_loss_sum": [5 * float(x) for x in loss],
    }
    metrics, intervals = summarise_sample(masked_lm.samples(table)[""])
    write_result(folder, "masked_lm", "m", Result(metrics, intervals, count, {}, {}, table, {}), {})
    return folder


def write_crows(folder, more, less, types):
    """A result whose two metrics have the same scores; all pairs are of direction "stereo"."""
    count = len(types)
    table = {"index": list(range(count)), "bias_type": list(types), "direction": ["stereo"] * count}
    table |= {"score_more": more, "score_less": less, "shared_more": more, "shared_less": less}
    metrics, intervals = summarise(crows_pairs.samples(table))
    write_result(folder, "crows_pairs", "m", Result(metrics, intervals, count, {}, {}, table, {}), {})
    return folder


def rows_by_name(a, b):
    return {row.name: row for row in compare(a, b)}


def test_difference_interval_and_p_of_a_mean(tmp_path):
    before = np.array([2.0, 3.0, 2.5, 1.5, 4.0, 3.5, 2.2, 2.9])
    change = np.array([-0.5, -0.7, 0.2, -0.4, -0.9, 0.1, -0.3, -0.6])
    row = rows_by_name(write_masked_lm(tmp_path / "a", before), write_masked_lm(tmp_path / "b", before + change))[
        "Held-out loss, nats"
    ]
    assert row.n == 80
    np.testing.assert_allclose([row.value_a, row.value_b], [before.mean(), (before + change).mean()])
    np.testing.assert_allclose(row.difference, change.mean())
    expected = stats.ttest_1samp(change, 0)
    np.testing.assert_allclose(row.p, expected.pvalue)
    np.testing.assert_allclose(row.interval, expected.confidence_interval())


def test_examples_of_a_paragraph_count_once(tmp_path):
    means = np.array([1.0, 0.2, 0.9, 0.4, 0.8, 1.1])
    lines = [i // 3 for i in range(18)]
    before = np.zeros(18)
    row = rows_by_name(
        write_masked_lm(tmp_path / "a", before, lines), write_masked_lm(tmp_path / "b", np.repeat(means, 3), lines)
    )["Held-out loss, nats"]
    np.testing.assert_allclose(row.p, stats.ttest_1samp(means, 0).pvalue)


def test_seeds_are_averaged_example_by_example(tmp_path):
    rng = np.random.default_rng(1)
    seeds = [rng.normal(3, 1, 12) for _ in range(3)]
    folders = [write_masked_lm(tmp_path / f"a{i}", loss) for i, loss in enumerate(seeds)]
    mean = write_masked_lm(tmp_path / "mean", np.mean(seeds, axis=0))
    other = write_masked_lm(tmp_path / "b", rng.normal(2.5, 1, 12))
    averaged = rows_by_name(folders, other)["Held-out loss, nats"]
    alone = rows_by_name(mean, [other])["Held-out loss, nats"]
    np.testing.assert_allclose(averaged[2:5], alone[2:5], rtol=1e-12)
    np.testing.assert_allclose(averaged.interval, alone.interval, rtol=1e-9)
    assert averaged.p == pytest.approx(alone.p, rel=1e-9)


def test_bias_is_compared_by_its_distance_from_no_bias(tmp_path):
    # Of 4 gender pairs the first model prefers 4 stereotypes (100%), the second 1 (25%): less biased by 25 points.
    types = ["gender"] * 4 + ["age"] * 2
    a = write_crows(tmp_path / "a", [1.0] * 6, [0.0] * 6, types)
    b = write_crows(tmp_path / "b", [1.0, -1, -1, -1, 1, 1], [0.0] * 6, types)
    rows = rows_by_name(a, b)
    assert rows["CrowS-Pairs gender, %"][1:5] == (4, 100.0, 25.0, -75.0)
    assert rows["|CrowS-Pairs gender, % − 50|"][1:5] == (4, 50.0, 25.0, -25.0)
    assert rows["CrowS-Pairs all, %"][1:5] == (6, 100.0, 50.0, -50.0)
    assert rows["|CrowS-Pairs gender, % − 50|"].interval is None
    text = table_text(comparison_table(compare(a, b), "first", "second")).splitlines()
    assert text[0] == "| figure | n | first | second | difference | 95% interval | p |"
    assert text[3].startswith("| \\|CrowS-Pairs gender, % − 50\\| | 4 | 50.00 | 25.00 | -25.00 |")


def test_fewer_than_five_clusters_have_neither_interval_nor_p(tmp_path):
    a, b = (write_masked_lm(tmp_path / name, [1.0, 2.0, 4.0, x]) for name, x in (("a", 2.0), ("b", 3.0)))
    rows = compare(a, b)
    loss = next(row for row in rows if row.name == "Held-out loss, nats")
    assert loss.difference == 0.25 and loss.interval is None and np.isnan(loss.p)
    text = table_text(comparison_table(rows))
    assert "| +0.2500 | – | – |" in text and text.endswith(f"\n\n{NO_INTERVAL}\n")


def test_a_model_equals_itself(tmp_path):
    a = write_masked_lm(tmp_path / "a", [1.0, 2.0, 4.0, 3.0, 1.5])
    for row in compare(a, a):
        assert (row.difference, row.p) == (0.0, 1.0)
        assert row.interval is not None and row.interval[0] <= 0 <= row.interval[1]
        if row.name == "Held-out loss, nats":
            assert row.interval == (0.0, 0.0)


def test_different_examples_are_refused(tmp_path):
    a = write_crows(tmp_path / "a", [1.0, 2.0], [0.0, 0.0], ["gender", "age"])
    fewer = write_crows(tmp_path / "fewer", [1.0], [0.0], ["gender"])
    other = write_crows(tmp_path / "other", [1.0, 2.0], [0.0, 0.0], ["gender", "religion"])
    for folders in ((a, fewer), (a, other), ([a, fewer], a)):
        with pytest.raises(DataError, match="different examples"):
            compare(*folders)


def test_broken_and_unrelated_folders_are_refused(tmp_path):
    a = write_masked_lm(tmp_path / "a", [1.0, 2.0])
    with pytest.raises(DataError, match="in common"):
        compare(a, write_crows(tmp_path / "c", [1.0], [0.0], ["gender"]))
    shutil.copytree(a, tmp_path / "cut")
    text = (a / "masked_lm.csv").read_text()
    (tmp_path / "cut/masked_lm.csv").write_text(text[: text.rindex(",")])
    with pytest.raises(DataError, match=r"masked_lm\.csv:3: 6 cells, but the header has 7"):
        compare(a, tmp_path / "cut")
    (tmp_path / "cut/masked_lm.csv").write_text(text.replace("loss_sum", "loss", 1))
    with pytest.raises(DataError, match="no column 'loss_sum'"):
        compare(a, tmp_path / "cut")


def test_many_models_are_compared_with_the_first_and_adjusted_together(tmp_path):
    rng = np.random.default_rng(0)
    losses = rng.normal(3, 1, 12)
    shifted = {"base": 0.0, "little": 0.05, "much": 0.6}
    folders = {
        name: write_masked_lm(tmp_path / name, losses + shift + 0.1 * rng.normal(size=12))
        for name, shift in shifted.items()
    }
    rows = compare_many(folders)
    assert list(rows) == ["little", "much"]
    everything = [row for name in rows for row in rows[name]]
    assert [row.p_holm for row in everything] == holm([row.p for row in everything])
    for name, listed in rows.items():
        assert [row._replace(p_holm=None) for row in listed] == compare(folders["base"], folders[name])
    smallest = min(everything, key=lambda row: row.p)
    assert smallest.p_holm == pytest.approx(len(everything) * smallest.p)
    assert table_text(comparison_table(rows["much"])).splitlines()[0].endswith("| p | p (Holm) |")


def test_two_models_need_no_adjustment(tmp_path):
    losses = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    folders = {name: write_masked_lm(tmp_path / name, [*losses, x]) for name, x in (("a", 3.0), ("b", 4.0))}
    assert compare_many(folders) == {"b": compare(folders["a"], folders["b"])}
    assert "Holm" not in table_text(comparison_table(compare_many(folders)["b"]))
