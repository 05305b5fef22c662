"""Every figure against the golden definitions in float32 and float64, degenerate selections, tiles, and invariances."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.collapse import Agreement, ClassStats, measure, measures, pairs, update, update_agreement
from ncfair_jax.collapse.agreement import nc4_chance, nc4_decisions, nc4_macro, nc4_rate
from ncfair_jax.finite import NonFiniteError
from tests.rounding import rounding

# golden name of each key of `measure`
KEYS = {
    "nc1": "cdnv_mean",
    "nc1_std": "cdnv_std",
    "nc1_min2": "cdnv_min2_mean",
    "nc1_min2_std": "cdnv_min2_std",
    "nc1_w": "cdnv_w_mean",
    "nc1_w_std": "cdnv_w_std",
    "nc2_norm_mean": "norms_mean",
    "nc2_norm_cv": "norms_cv",
    "nc2_norm_log_std": "norms_log_std",
    "nc2_interference_mean": "interference_mean",
    "nc2_interference_std": "interference_std",
    "nc2_interference_rmse": "interference_rmse",
    "gnc2": "logk_centred_mean",
    "gnc2_std": "logk_centred_std",
    "gnc2_riesz": "riesz1_centred_mean",
    "gnc2_riesz_std": "riesz1_centred_std",
    "gnc2_w": "logk_w_raw_mean",
    "gnc2_w_std": "logk_w_raw_std",
    "nc3": "nc3",
    "unc3": "unc3",
    "nc3_centred": "nc3_wcentred",
    "unc3_centred": "unc3_wcentred",
    "dual_distance": "dual_dist_mean",
    "dual_distance_std": "dual_dist_std",
    "dual_frobenius": "dual_frob",
}
CASES = (
    "syn_small",
    "syn_imbalanced",
    "syn_imbalanced_subset",
    "syn_collapsed",
    "syn_near_collapsed",
    "syn_large_offset",
    "real_shift1",
    "real_shift0",
    "real_shift1_masked",
    "real_shift0_maskedlabels_orig",
)
COLLAPSED = ("syn_collapsed", "syn_near_collapsed")


class Case:
    """A golden file with its moments gathered in one precision; `stats` and `weights` are those of the selection."""

    def __init__(self, shared, name, dtype):
        self.name, self.dtype = name, dtype
        self.golden = np.load(shared(f"golden/nc/{name}.npz"))
        source = np.load(shared("golden/nc/syn_imbalanced.npz")) if name == "syn_imbalanced_subset" else self.golden
        if "W" in source:
            rows = source["W"]
        else:
            rows = np.load(shared("golden/nc/real_inputs.npz"))["W_fair"]
        empty = ClassStats.zeros(*rows.shape, dtype=dtype)
        self.all_stats = jax.jit(update)(empty, jnp.asarray(source["X"], dtype), source["Y"])
        self.all_weights = jnp.asarray(rows, dtype)
        chosen = self.golden["idxs"]
        self.stats = jax.tree.map(lambda x: np.asarray(x)[chosen], self.all_stats)
        self.weights = np.asarray(self.all_weights)[chosen]

    def expect(self, found, name):
        """Compares with `name` of the file at the tolerance of golden/nc/README.md for this file and precision."""
        golden = self.golden[name]
        wide = self.dtype == np.float64 and golden.dtype != np.float32
        tolerance = {"rtol": 1e-9, "atol": 1e-12} if wide else {"rtol": 5e-5, "atol": 2e-6}
        if self.name in COLLAPSED and not wide:
            cdnv, dual = name.startswith("cdnv"), name.startswith("dual")
            tolerance["atol"] = 1e-9 if cdnv and golden.max() < 1e-6 else 1e-3 if dual else 2e-6
        elif self.name == "syn_collapsed":
            tolerance["atol"] = (
                1e-7 if name.startswith("dual") else 1e-8
            )  # zeros of the file are roots of rounding noise
        if self.name == "syn_large_offset" and not wide:
            cosines = name.startswith(("sim", "dual", "nc3", "unc3"))
            tolerance = {"rtol": 2e-3, "atol": 2e-4} if cosines else {"rtol": 2e-4, "atol": 2e-6}
        np.testing.assert_allclose(found, golden, **tolerance, err_msg=f"{self.name} {name}")


@pytest.fixture(scope="module", params=["float32", "float64"])
def precision(request):
    """float64 with x64 on; numpy's types keep the name of the mode."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param).type


@pytest.fixture(params=CASES)
def case(request, shared, precision):
    return Case(shared, request.param, precision)


def test_golden_figures(case):
    figures = measure(case.stats, case.weights)
    for key, name in KEYS.items():
        case.expect(figures[key], f"{name}_def")
    assert figures["classes"] == len(case.golden["idxs"])
    assert figures["singletons"] == (case.golden["counts_def"][case.golden["idxs"]] == 1).sum()
    assert figures["pairs_skipped"] == 0
    upper = np.triu_indices(len(case.golden["idxs"]), 1)
    median = np.median(case.golden["cdnv_def"][upper])
    np.testing.assert_allclose(figures["nc1_median"], median, rtol=2e-4, atol=1e-9)


def test_golden_per_class_figures(case):
    golden, stats, weights = case.golden, case.stats, case.weights
    np.testing.assert_array_equal(
        case.all_stats.count if case.name != "syn_imbalanced_subset" else golden["counts_def"], golden["counts_def"]
    )
    if "masked" not in case.name:  # those files hold no means
        case.expect(stats.mean, "means_def")
    case.expect(measures.global_mean(stats), "mean_G_def")
    case.expect(measures.row_mean(stats), "mean_G_weighted_def")
    if case.name in COLLAPSED:
        np.testing.assert_allclose(measures.variances(stats), golden["var_def"], rtol=5e-5, atol=2e-6)
    else:
        case.expect(measures.variances(stats), "var_def")
        case.expect(measures.variances(stats, ddof=1), "var_unbiased_def")
    norms = measures.nc2_norms(stats)
    case.expect(norms, "norms_def")
    case.expect(norms / np.sqrt(stats.mean.shape[1]), "norms_scl_def")
    case.expect(np.log(norms).mean(), "norms_log_mean_def")
    case.expect(np.std(norms, ddof=1), "norms_std_def")
    case.expect(measures.similarities(stats, weights), "sim_def")
    case.expect(measures.similarities(stats, weights, centre=True), "sim_wcentred_def")
    case.expect(measures.dual_distances(stats, weights), "dual_dist_def")


def grid(vectors, kernel) -> np.ndarray:
    """All pairs as the golden grids have them, with the diagonal and what is undefined NaN."""
    tile = functools.partial(pairs._reduced_tile, shifts=jnp.zeros(1), kernels=(kernel,), detail="values")
    ((_, values),) = pairs._tile_results(vectors, tile, upper=True)
    upper = np.asarray(values)
    upper = upper[: vectors.classes, : vectors.classes]
    return np.where(np.isnan(upper), upper.T, upper)


def off_diagonal(matrix) -> np.ndarray:
    return np.asarray(matrix)[~np.eye(len(matrix), dtype=bool)]


def test_golden_grids_and_variants(case):
    centred, raw = measures._centred_means(case.stats), measures._uncentred_means(case.stats)
    rows = measures._classifier_rows(case.stats, case.weights, centre=False)
    found = {
        "cdnv": grid(centred, pairs.cdnv),
        "interference": grid(centred, pairs.cosine),
        "logk_raw": grid(raw, pairs.log_kernel),
        "logk_centred": grid(centred, pairs.log_kernel),
        "cdnv_w": grid(rows, pairs.cdnv),
    }
    for name, matrix in found.items():
        if f"{name}_def" in case.golden:
            golden = case.golden[f"{name}_def"]
            wide = case.dtype == np.float64 and golden.dtype == np.float64
            tolerance = {"rtol": 1e-9, "atol": 1e-9} if wide else {"rtol": 5e-5, "atol": 2e-6}
            if case.name == "syn_large_offset" and not wide:
                tolerance = {"rtol": 2e-3, "atol": 2e-4} if name == "interference" else {"rtol": 2e-4, "atol": 2e-6}
                if name.startswith("logk"):  # the distance's relative error is an absolute one of its logarithm
                    tolerance = {"rtol": 0, "atol": 2e-4}
            np.testing.assert_allclose(off_diagonal(matrix), off_diagonal(golden), **tolerance, err_msg=name)
    variants = {
        "logk_raw": measures.gnc2(case.stats, centre=False),
        "riesz1_raw": measures.gnc2_riesz(case.stats, centre=False),
        "logk_w_centred": measures.gnc2_w(case.stats, case.weights, centre=True),
        "cdnv_sq": measures.nc1(case.stats, power=2),
    }
    for name, summary in variants.items():
        case.expect(summary.mean, f"{name}_mean_def")
        case.expect(summary.std, f"{name}_std_def")
    classes = len(case.golden["idxs"])
    np.testing.assert_allclose(case.golden["interference_target_def"], -1 / (classes - 1))
    np.testing.assert_allclose(case.golden["logk_etf_target_def"], -0.5 * np.log(2 * classes / (classes - 1)))


@pytest.mark.parametrize("name", CASES)
def test_what_the_release_computes_under_a_meaningful_option(shared, name):
    """Its CDNV is power 2, its kernel uncentred; counts, means, cosines and variances are the same figures."""
    case = Case(shared, name, np.float32)
    released = {
        "cdnv": measures.nc1(case.stats, power=2),
        "interference": measures.nc2_interference(case.stats),
        "logk_raw": measures.gnc2(case.stats, centre=False),
    }
    for quantity, summary in released.items():
        case.expect(summary.mean, f"{quantity}_mean_ref")
        case.expect(summary.std, f"{quantity}_std_ref")
    case.expect(measures.similarities(case.stats, case.weights), "sim_ref")
    case.expect(measures.nc3(case.stats, case.weights), "nc3_ref")
    case.expect(measures.unc3(case.stats, case.weights), "unc3_ref")
    if "masked" not in name:
        case.expect(case.stats.mean, "means_ref")
    case.expect(measures.global_mean(case.stats), "mean_G_ref")
    case.expect(measures.row_mean(case.stats)[None, :], "mean_G_weighted_ref")
    if name != "syn_collapsed":
        case.expect(case.stats.m2, "var_sums_ref")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("syn_imbalanced_subset", "syn_large_offset")])
def test_golden_nc4(shared, precision, name):
    case = Case(shared, name, precision)
    golden, chosen = case.golden, case.golden["idxs"]
    features = jnp.asarray(golden["X_dev"], precision)
    linear, nearest = jax.jit(nc4_decisions)(case.all_stats, case.all_weights, features)
    np.testing.assert_array_equal(linear, golden["nc4_pred_lin_def"])
    np.testing.assert_array_equal(nearest, golden["nc4_pred_ncc_def"])
    agreement = Agreement.zeros(len(golden["counts_def"]))
    count = jax.jit(update_agreement)
    for start in range(0, len(features), 50):
        rows = slice(start, start + 50)
        agreement = count(agreement, case.all_stats, case.all_weights, features[rows], golden["Y_dev"][rows])
    np.testing.assert_array_equal(agreement.matches, golden["nc4_matches_def"])
    np.testing.assert_array_equal(agreement.misses, golden["nc4_misses_def"])
    figures = measure(case.all_stats, case.all_weights, nc4={"nc4": agreement})
    np.testing.assert_allclose(figures["nc4"], golden["nc4_rate_def"], rtol=1e-9)
    np.testing.assert_allclose(figures["nc4_macro"], golden["nc4_macro_def"], rtol=1e-9)
    assert figures["nc4_rows"] == len(features)
    votes = [np.bincount(x, minlength=len(golden["counts_def"])) / len(features) for x in (linear, nearest)]
    np.testing.assert_allclose(figures["nc4_chance"], votes[0] @ votes[1], rtol=1e-9)
    assert set(np.flatnonzero(case.all_stats.count)) == set(chosen)
    if "b" in golden:
        biased = count(
            Agreement.zeros(len(votes[0])),
            case.all_stats,
            case.all_weights,
            features,
            golden["Y_dev"],
            jnp.asarray(golden["b"], precision),
        )
        np.testing.assert_allclose(nc4_rate(biased), golden["nc4_rate_bias_def"], rtol=1e-9)


def test_collapse_is_seen_as_such(shared):
    """An exact simplex with an offset: every figure at its ideal value."""
    case = Case(shared, "syn_collapsed", np.float32)
    figures = measure(case.stats, case.weights, jnp.asarray(case.golden["b"]))
    classes = figures["classes"]
    ideal = {
        "nc1": 0,
        "nc2_norm_cv": 0,
        "nc2_interference_mean": -1 / (classes - 1),
        "nc2_interference_std": 0,
        "nc2_interference_rmse": 0,
        "gnc2": -0.5 * np.log(2 * classes / (classes - 1)),
        "gnc2_std": 0,
        "nc3": 1,
        "unc3": 0,
        "nc4_means": 1,
    }
    for name, value in ideal.items():
        np.testing.assert_allclose(figures[name], value, atol=2e-6, err_msg=name)
    assert figures["dual_distance"] < 1e-3
    assert measures.nc4_means(case.stats, case.weights) < 1  # without the bias, the offset decides


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 9])
def test_triangle_means(shared, size):
    """Mean and deviation of the strict upper triangle, through the reduction that all pair figures use."""
    golden = np.load(shared("golden/nc/triu_reduce.npz"))
    matrix = golden[f"A{size}"]
    summary = (0.0, 0.0, 0.0)
    for row in range(size):
        values = matrix[row, row + 1 :].astype(np.float64)
        shift = 0.25
        moments = tuple(np.array([x]) for x in (values.size, np.sum(values - shift), np.square(values - shift).sum()))
        summary = pairs._merge_moments(summary, moments, shift)
    count, mean, m2 = summary
    np.testing.assert_allclose(mean, golden[f"mean{size}_def"], rtol=1e-9)
    np.testing.assert_allclose(mean, golden[f"mean{size}_ref"], rtol=5e-5)
    np.testing.assert_allclose(np.sqrt(m2 / count), golden[f"std0_{size}_def"], rtol=1e-9, atol=1e-12)
    if size > 2:
        np.testing.assert_allclose(np.sqrt(m2 / (count - 1)), golden[f"std{size}_def"], rtol=1e-9)


# Degenerate selections


def degenerate(golden, selection):
    chosen = golden[f"idxs_{selection}"]
    stats = update(ClassStats.zeros(*golden["W"].shape), golden["X"], golden["Y"])
    return jax.tree.map(lambda x: x[chosen], stats), golden["W"][chosen]


def test_coincident_means_are_skipped_and_counted(shared):
    golden = np.load(shared("golden/nc/degenerate.npz"))
    stats = update(ClassStats.zeros(3, 5), golden["X_coincident"], golden["Y_coincident"])
    found = measures.nc1(stats)
    np.testing.assert_allclose(found.mean, golden["cdnv_mean_coincident_finite_def"], rtol=5e-5)
    assert found.skipped == golden["cdnv_coincident_excluded_pairs_def"] == 1
    values = grid(measures._centred_means(stats), pairs.cdnv)
    finite = np.isfinite(golden["cdnv_coincident_def"])
    np.testing.assert_allclose(values[finite], golden["cdnv_coincident_def"][finite], rtol=5e-5)
    np.testing.assert_allclose(measures.variances(stats), golden["var_coincident_ref"], rtol=5e-5)
    kernel = measures.gnc2(stats, centre=False)
    np.testing.assert_allclose(kernel.mean, golden["logk_coincident_ref"][0, 2], rtol=5e-5)
    assert kernel.skipped == 1


def test_degenerate_selections(shared):
    golden = np.load(shared("golden/nc/degenerate.npz"))
    stats, weights = degenerate(golden, "seen")
    figures = measure(stats, weights)
    assert figures["classes"] == 5
    assert figures["singletons"] == 1
    assert figures["pairs_skipped"] == 1  # classes 0 and 1 are the same
    assert all(np.isfinite(value) for value in figures.values())
    cosines = measures.similarities(stats, weights)
    assert np.isnan(cosines[2])  # its row is zero: not 0, as in the release, but left out
    np.testing.assert_allclose(np.delete(cosines, 2), np.delete(golden["sim_seen_ref"], 2), rtol=5e-5, atol=2e-6)
    assert figures["nc3"] == pytest.approx(np.delete(golden["sim_seen_ref"], 2).mean(), rel=5e-5)
    kernel = measures.gnc2(stats, centre=False)
    assert kernel.skipped == 1 + 4  # the coincident pair, and those of class 3, whose mean is zero
    values = grid(measures._uncentred_means(stats), pairs.log_kernel)
    kept = np.isfinite(values)
    np.testing.assert_allclose(values[kept], golden["logk_seen_ref"][kept], rtol=5e-5, atol=2e-6)
    cosine = grid(measures._centred_means(stats), pairs.cosine)
    np.testing.assert_allclose(
        off_diagonal(cosine), off_diagonal(golden["interference_seen_ref"]), rtol=5e-5, atol=2e-6
    )

    with_empty, more_weights = degenerate(golden, "withempty")
    # Means of five numbers over pairs of five classes, of size 1.
    same = rounding(5 * 25)
    assert measure(with_empty, more_weights) == pytest.approx(figures, rel=same, abs=same)


def test_two_classes(shared):
    golden = np.load(shared("golden/nc/degenerate.npz"))
    stats, weights = degenerate(golden, "pair")
    figures = measure(stats, weights)
    assert figures["nc2_interference_mean"] == pytest.approx(-1, abs=rounding(3 * 5))  # a cosine of five numbers
    assert figures["nc2_interference_rmse"] == pytest.approx(0, abs=rounding(3 * 5))
    for name in ("nc1_std", "nc2_interference_std", "gnc2_std"):
        assert np.isnan(figures[name]), name
    assert figures["unc3"] == pytest.approx(golden["unc3_pair_ref"], rel=5e-5)
    stats, weights = degenerate(golden, "duppair")
    figures = measure(stats, weights)
    assert figures["pairs_skipped"] == 1
    for name in (
        "nc1",
        "nc1_median",
        "nc2_interference_mean",
        "gnc2",
        "nc3",
        "unc3",
        "dual_distance",
        "dual_frobenius",
    ):
        assert np.isnan(figures[name]), name


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_classes(classes):
    stats = ClassStats.zeros(4, 3)
    stats = update(stats, jnp.ones((2, 3)), jnp.full(2, 1 if classes else 4))
    figures = measure(stats, jnp.asarray(np.eye(4, 3, dtype=np.float32)))
    assert figures["classes"] == classes
    assert figures["pairs_skipped"] == 0
    numbers = {"classes", "singletons", "pairs_skipped"} | ({"nc2_norm_mean", "nc4_means"} if classes else set())
    assert {name for name, value in figures.items() if not np.isnan(value)} == numbers


def test_no_held_out_rows_is_nan():
    empty = Agreement.zeros(3)
    assert np.isnan([nc4_rate(empty), nc4_macro(empty), nc4_chance(empty)]).all()


def test_held_out_rows_of_unseen_classes_are_left_out():
    stats = update(ClassStats.zeros(4, 3), jnp.eye(3), jnp.arange(3))
    agreement = update_agreement(
        Agreement.zeros(4), stats, jnp.eye(4, 3), jnp.eye(3)[jnp.array([0, 1, 2, 0])], jnp.array([0, 3, 4, -1])
    )
    assert sum(agreement.matches) + sum(agreement.misses) == sum(agreement.linear) == sum(agreement.nearest) == 1


def test_wrong_calls_name_both_sides(unchecked_shapes):
    stats = ClassStats.zeros(3, 4)
    with pytest.raises(ValueError, match=r"classifier \(9, 4\), statistics \(3, 4\)"):
        measure(stats, jnp.ones((9, 4)))
    with pytest.raises(ValueError, match=r"bias \(9,\), classifier \(3, 4\)"):
        nc4_decisions(stats, jnp.ones((3, 4)), jnp.ones((2, 4)), jnp.ones(9))
    with pytest.raises(ValueError, match=r"power=3"):
        measures.nc1(stats, power=3)


def test_no_figure_of_moments_or_rows_that_are_not_finite():
    stats, rows = random_stats(classes=5)
    stats = stats._replace(count=np.array([2, 3, 0, 2, 2], np.int32))
    bias = np.zeros(5, np.float32)

    def changed(values, *place):
        values = np.array(values)
        values[place] = np.nan
        return values

    measure(stats._replace(mean=changed(stats.mean, 2)), changed(rows, 2), changed(bias, 2))  # class 2 was not seen
    for change, message in (
        (lambda: measure(stats._replace(mean=changed(stats.mean, 3, 1)), rows), "the moments of class 3 is nan"),
        (lambda: measure(stats._replace(m2=changed(stats.m2, 1)), rows), "the moments of class 1 is nan"),
        (lambda: measure(stats, changed(rows, 4, 0)), "the output embedding of class 4 is nan"),
        (lambda: measure(stats, rows, changed(bias, 0)), "the output bias of class 0 is nan"),
    ):
        with pytest.raises(NonFiniteError, match=message):
            change()


# Tiles, median bins, invariances


def random_stats(classes=150, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 5, classes).astype(np.int32)
    mean = rng.normal(size=(classes, dim)).astype(np.float32)
    mean[3] = mean[4] + 1e-4  # close: to be told apart by differences
    m2 = (np.maximum(count - 1, 0) * rng.uniform(0.5, 2, classes)).astype(np.float32)
    return ClassStats(count, mean, m2), rng.normal(size=(classes, dim)).astype(np.float32)


def test_figures_against_a_plain_loop_over_pairs():
    stats, weights = random_stats()
    seen = np.flatnonzero(stats.count)
    mean, rows = stats.mean[seen].astype(np.float64), weights[seen].astype(np.float64)
    variance = stats.m2[seen] / stats.count[seen]
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    directions, row_directions = unit(mean - mean.mean(axis=0)), unit(rows)
    expected = {
        name: [] for name in ("nc1", "nc1_min2", "nc1_w", "nc2_interference_mean", "gnc2", "gnc2_riesz", "gnc2_w")
    }
    for a, b in itertools.combinations(range(len(seen)), 2):
        cdnv = (variance[a] + variance[b]) / 2 / np.square(mean[a] - mean[b]).sum()
        expected["nc1"].append(cdnv)
        if min(stats.count[seen[a]], stats.count[seen[b]]) >= 2:
            expected["nc1_min2"].append(cdnv)
        expected["nc1_w"].append((variance[a] + variance[b]) / 2 / np.square(rows[a] - rows[b]).sum())
        expected["nc2_interference_mean"].append(directions[a] @ directions[b])
        expected["gnc2"].append(-np.log(np.linalg.norm(directions[a] - directions[b])))
        expected["gnc2_riesz"].append(1 / np.linalg.norm(directions[a] - directions[b]))
        expected["gnc2_w"].append(-np.log(np.linalg.norm(row_directions[a] - row_directions[b])))
    figures = measure(stats, weights)
    for name, values in expected.items():
        np.testing.assert_allclose(figures[name], np.mean(values), rtol=5e-5, err_msg=name)
    np.testing.assert_allclose(figures["nc1_median"], np.median(expected["nc1"]), rtol=1e-5)


def test_tiles_do_not_change_figures(monkeypatch):
    stats, weights = random_stats()
    whole = measure(stats, weights)
    jax.clear_caches()  # the tile's size is a constant of the compiled programs
    monkeypatch.setattr(pairs, "TILE", 32)
    assert measure(stats, weights) == pytest.approx(whole, rel=1e-5)
    monkeypatch.setattr(pairs, "EXACT_MEDIAN_PAIRS", 10)
    assert measures.nc1_median(stats) == pytest.approx(whole["nc1_median"], rel=1.2e-3)
    jax.clear_caches()


def test_binned_median_at_the_ends():
    def counted(values):
        return np.bincount(np.asarray(pairs._bin(np.array([values], np.float32)))[0], minlength=pairs.BINS)

    assert np.isnan(pairs._binned_median(np.zeros(pairs.BINS, np.int64)))
    assert pairs._binned_median(counted([0, 0, 1])) == 0
    assert pairs._binned_median(counted([0.1, 2.5, 2.5])) == pytest.approx(2.5, rel=1e-3)
    assert pairs._binned_median(counted([1, np.inf, np.inf])) == np.inf


def test_words_against_a_plain_loop_over_pairs(monkeypatch):
    stats, weights = random_stats()
    jax.clear_caches()
    monkeypatch.setattr(pairs, "TILE", 32)
    found = measures.pair_means_by_word(stats, weights)
    jax.clear_caches()
    seen = np.flatnonzero(stats.count)
    mean, variance = stats.mean[seen].astype(np.float64), stats.m2[seen] / stats.count[seen]
    centred = mean - mean.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    rows = weights[seen] / np.linalg.norm(weights[seen], axis=1, keepdims=True)
    for a in range(0, len(seen), 7):
        others = np.arange(len(seen)) != a
        spread = (variance[a] + variance) / 2
        expected = {
            "nc1": spread / np.square(mean[a] - mean).sum(axis=1).clip(1e-30),
            "nc1_w": spread / np.square(weights[seen][a] - weights[seen]).sum(axis=1).clip(1e-30),
            "interference": centred @ centred[a],
            "gnc2": -np.log(np.linalg.norm(centred - centred[a], axis=1).clip(1e-30)),
            "gnc2_w": -np.log(np.linalg.norm(rows - rows[a], axis=1).clip(1e-30)),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(
                found[name][a], values[others].mean(), rtol=5e-5, atol=rounding(100), err_msg=name
            )


@pytest.mark.parametrize("seed", range(2))
def test_invariances(seed):
    """Section 13 of the specification: translation, scale of features and rows, rotation, order of classes."""
    rng = np.random.default_rng(seed)
    slots = rng.integers(0, 12, 400)
    features = (rng.normal(size=(400, 8)) + 3 * rng.normal(size=(12, 8))[slots]).astype(np.float32)
    weights = rng.normal(size=(12, 8)).astype(np.float32)
    gather = jax.jit(lambda x, s: update(ClassStats.zeros(12, 8), x, s))

    def figures(features, weights, slots=slots):
        return measure(gather(features, slots), weights)

    base = figures(features, weights)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    names = rng.permutation(12)
    moved = figures(features + 5 * rng.normal(size=(1, 8)).astype(np.float32), weights)
    scaled = figures(0.25 * features, 3 * weights)
    turned = figures(features @ turn, weights @ turn)
    renamed = figures(features, weights[np.argsort(names)], names[slots])
    order = rng.permutation(400)
    reordered = figures(features[order], weights, slots[order])
    for other, changed in (
        (moved, {"nc4_means"}),  # the offset enters the logits
        (scaled, {"nc1_w", "nc1_w_std", "nc2_norm_mean"}),
        (turned, set()),
        (renamed, set()),
        (reordered, set()),
    ):
        assert base.keys() == other.keys()
        for name in base.keys() - changed:
            np.testing.assert_allclose(other[name], base[name], rtol=5e-5, atol=2e-6, err_msg=name)
    squared = measures.nc1(gather(features, slots), power=2).mean
    np.testing.assert_allclose(measures.nc1(gather(0.25 * features, slots), power=2).mean, 16 * squared, rtol=5e-5)
