"""Running class moments: golden vectors, batch and shard order, decay, devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax.collapse import ClassStats, all_reduce, decay, merge, nc3_loss, update
from ncfair_jax.collapse import class_stats as module
from ncfair_jax.collapse.class_stats import remove
from tests.rounding import rounding

step = jax.jit(update)


def moments(features, slots, num_classes) -> ClassStats:
    return step(ClassStats.zeros(num_classes, features.shape[1]), features, slots)


def in_batches(features, slots, num_classes, size) -> ClassStats:
    stats = ClassStats.zeros(num_classes, features.shape[1])
    for start in range(0, len(features), size):
        stats = step(stats, features[start : start + size], slots[start : start + size])
    return stats


@pytest.mark.parametrize("classes", [50, 126, 127, 200, 254, 255, 300])
def test_counts_never_wrap(shared, classes):
    golden = np.load(shared("golden/nc/syn_int_overflow.npz"))
    stats = moments(golden[f"X_C{classes}"], golden[f"Y_C{classes}"], classes)
    np.testing.assert_array_equal(stats.count[:6], golden["counts_def"])
    assert not stats.count[6:].any()
    np.testing.assert_allclose(stats.mean[:6], golden[f"means_C{classes}_def"], rtol=5e-5, atol=2e-6)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_shards_merge_in_any_order(shared, order):
    golden = np.load(shared("golden/nc/syn_merge.npz"))
    bounds, slots = golden["shard_bounds"], golden["Y"]
    num_classes = len(golden["counts_def"])
    shards = [moments(golden["X"][a:b], slots[a:b], num_classes) for a, b in itertools.pairwise(bounds)]
    for number, shard in enumerate(shards):
        np.testing.assert_array_equal(shard.count, golden["shard_counts_def"][number])
        filled = np.asarray(shard.count) > 0
        np.testing.assert_allclose(shard.mean[filled], golden["shard_means_def"][number][filled], rtol=5e-5, atol=2e-6)
        np.testing.assert_allclose(shard.m2[filled], golden["shard_M2_def"][number][filled], rtol=5e-5, atol=2e-6)
    total = ClassStats.zeros(num_classes, golden["X"].shape[1])
    for number in order:
        total = merge(total, shards[number])
    filled = golden["counts_def"] > 0
    assert not filled.all()
    np.testing.assert_array_equal(total.count, golden["counts_def"])
    np.testing.assert_allclose(total.mean[filled], golden["means_def"][filled], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(total.m2[filled], golden["M2_def"][filled], rtol=1e-5, atol=2e-6)


def test_a_large_offset_does_not_cancel(shared):
    golden = np.load(shared("golden/nc/syn_large_offset.npz"))
    stats = in_batches(golden["X"], golden["Y"], len(golden["counts_def"]), 96)
    np.testing.assert_allclose(stats.m2 / stats.count, golden["var_def"], rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(stats.mean, golden["means_def"], rtol=2e-4, atol=2e-6)
    assert np.abs(golden["var_naive_f32_bad"] - golden["var_def"]).max() > 1  # what sums of squares would give


MEAN = rounding(100, size=5)  # of the rows of one class of nine of `random_rows`, the largest of which are about 5


def random_rows(rows=800, dim=12, classes=9, seed=0):
    rng = np.random.default_rng(seed)
    slots = rng.integers(-1, classes + 1, rows).astype(np.int32)  # -1 and K: not a class
    return (rng.normal(size=(rows, dim)) + rng.normal(size=(classes + 1, dim))[slots]).astype(np.float32), slots


@pytest.mark.parametrize("size", [1, 37, 256])
def test_order_and_size_of_batches_do_not_matter(size):
    features, slots = random_rows(200 if size == 1 else 800)
    whole = moments(features, slots, 9)
    shuffled = np.random.default_rng(1).permutation(len(features))
    split = in_batches(features[shuffled], slots[shuffled], 9, size)
    np.testing.assert_array_equal(whole.count, split.count)
    np.testing.assert_allclose(whole.mean, split.mean, rtol=1e-5, atol=MEAN)
    np.testing.assert_allclose(whole.m2, split.m2, rtol=1e-5)


def test_equals_a_plain_loop():
    features, slots = random_rows()
    stats = moments(features, slots, 9)
    for k in range(9):
        rows = features[slots == k].astype(np.float64)
        assert stats.count[k] == len(rows)
        np.testing.assert_allclose(stats.mean[k], rows.mean(axis=0), rtol=1e-5, atol=MEAN)
        np.testing.assert_allclose(stats.m2[k], np.square(rows - rows.mean(axis=0)).sum(), rtol=1e-5)


def test_classes_without_rows_are_unchanged_bit_for_bit():
    features, slots = random_rows()
    before = moments(features, slots, 9)
    after = update(before, features, np.where(slots < 4, slots, 9))
    assert all((old[4:] == new[4:]).all() for old, new in zip(before, after, strict=True))
    assert (after.count[:4] == 2 * before.count[:4]).all()


def test_rows_of_no_class_are_never_read():
    """NaN and infinity there reach neither the value nor the gradient, in the scatter and in the matmul form."""
    features, slots = random_rows()
    bad = np.where(((slots < 0) | (slots >= 9))[:, None], np.array([np.nan, np.inf] * 6, np.float32), features)
    clean = moments(features, slots, 9)
    for left, right in zip(moments(bad, slots, 9), clean, strict=True):
        np.testing.assert_array_equal(left, right)
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(moments(x, slots, 9).mean)))(jnp.asarray(bad))
    assert np.isfinite(gradient).all()


def test_the_matmul_form_of_accelerators_equals_the_scatter(monkeypatch):
    features, slots = random_rows()

    def value(x):
        stats = update(ClassStats.zeros(9, 12), x, slots)
        return jnp.sum(jnp.square(stats.mean)) + jnp.sum(stats.m2), stats

    (_, scatter), scatter_gradient = jax.value_and_grad(value, has_aux=True)(features)
    with monkeypatch.context() as patch:
        patch.setattr(module.jax.lax, "platform_dependent", lambda *args, default, **forms: default(*args))
        (_, matmul), matmul_gradient = jax.value_and_grad(value, has_aux=True)(features)
    np.testing.assert_array_equal(scatter.count, matmul.count)
    np.testing.assert_allclose(scatter.mean, matmul.mean, rtol=1e-5, atol=MEAN)
    np.testing.assert_allclose(scatter.m2, matmul.m2, rtol=1e-5)
    np.testing.assert_allclose(scatter_gradient, matmul_gradient, rtol=1e-4, atol=1e-5)


def test_decay_is_a_weighted_sum_and_keeps_types():
    features, slots = random_rows(300)
    stats = ClassStats.zeros(9, 12, decayed=True)
    decayed_step = jax.jit(lambda stats, x, s: update(decay(stats, 0.7), x, s))
    for start in range(0, 300, 100):
        before = jax.tree.map(lambda x: (x.shape, x.dtype), stats)
        stats = decayed_step(stats, features[start : start + 100], slots[start : start + 100])
        assert jax.tree.map(lambda x: (x.shape, x.dtype), stats) == before
    weight = np.repeat(0.7 ** np.array([2, 1, 0]), 100)
    for k in range(9):
        kept = slots == k
        mean = np.average(features[kept].astype(np.float64), axis=0, weights=weight[kept])
        np.testing.assert_allclose(stats.count[k], weight[kept].sum(), rtol=1e-5)
        np.testing.assert_allclose(stats.mean[k], mean, rtol=1e-5, atol=MEAN)
        m2 = weight[kept] @ np.square(features[kept] - mean).sum(axis=1)
        np.testing.assert_allclose(stats.m2[k], m2, rtol=1e-5)


def test_counts_near_two_to_the_31st_stay_exact():
    past = ClassStats(jnp.array([2**31 - 5], jnp.int32), jnp.ones((1, 2)), jnp.zeros(1))
    stats = update(past, jnp.full((4, 2), 3.0), jnp.zeros(4, jnp.int32))
    assert stats.count[0] == 2**31 - 1
    np.testing.assert_allclose(stats.mean, 1.0, rtol=rounding(4))  # one update: -, ·, / and +
    np.testing.assert_allclose(stats.m2, 4 * 8.0, rtol=1e-5)  # four rows at squared distance 8 from the rest


def test_bfloat16_rows_accumulate_in_float32():
    rows = jnp.asarray(np.linspace(1, 2, 300)[:, None], jnp.bfloat16)
    stats = update(ClassStats.zeros(1, 1), rows, jnp.zeros(300, jnp.int32))
    assert stats.mean.dtype == stats.m2.dtype == jnp.float32
    np.testing.assert_allclose(stats.mean[0], np.asarray(rows, np.float64).mean(axis=0), rtol=rounding(300))


def test_wrong_calls_name_both_sides():
    stats = ClassStats.zeros(3, 4)
    with pytest.raises(ValueError, match=r"features \(2, 5\).*expected \(N, 4\)"):
        update(stats, jnp.zeros((2, 5)), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        merge(stats, ClassStats.zeros(2, 4))
    with pytest.raises(TypeError, match=r"decay needs real-valued counts, got int32"):
        decay(stats, 0.9)


# jit, shard_map and pmap on eight devices: the same moments, loss and gradients


def eight_way_case():
    features, slots = random_rows(640, seed=3)
    past = moments(*random_rows(100, seed=4), 9)
    weights = np.random.default_rng(5).normal(size=(9, 12)).astype(np.float32)

    def whole(weights, features, slots):
        stats = update(past, features, slots)
        return nc3_loss(stats, weights)[0], stats

    def device(weights, features, slots):
        batch = all_reduce(update(ClassStats.zeros(9, 12), features, slots), "data")
        stats = merge(past, batch)
        return nc3_loss(stats, weights)[0], stats

    return whole, device, weights, features, slots


def test_jit_on_a_sharded_batch_and_shard_map_and_pmap_agree():
    whole, device, weights, features, slots = eight_way_case()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    differentiate = lambda f: jax.value_and_grad(f, argnums=(0, 1), has_aux=True)  # noqa: E731
    expected = jax.jit(differentiate(whole))(weights, features, slots)

    sharded = jax.jit(differentiate(whole))(weights, jax.device_put(features, rows), jax.device_put(slots, rows))
    mapped_over_rows = jax.shard_map(
        differentiate(device),
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=((P(), P()), (P(), P("data"))),
    )
    inside = jax.jit(mapped_over_rows)(weights, features, slots)
    split = lambda x: x.reshape(8, -1, *x.shape[1:])  # noqa: E731
    (loss, stats), (to_weights, to_features) = jax.pmap(differentiate(device), axis_name="data", in_axes=(None, 0, 0))(
        weights, split(features), split(slots)
    )
    for leaf in jax.tree.leaves((loss, stats, to_weights)):
        assert all((leaf[0] == leaf[n]).all() for n in range(8))  # the same on every device
    # Inside pmap each device's feature gradient comes out times eight, for the mean over devices to be right.
    mapped = (loss[0], jax.tree.map(lambda x: x[0], stats)), (to_weights[0], to_features.reshape(features.shape) / 8)

    def close(one, other):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(one).max())

    for other in (sharded, inside, mapped):
        jax.tree.map(close, expected, other)
    assert all(np.abs(gradient).max() > 0 for gradient in expected[1])


def test_pmean_of_parameter_gradients_is_right_under_pmap():
    """Features that a parameter makes, averaged over devices as a data-parallel loop does."""
    whole, device, weights, features, slots = eight_way_case()
    parameter = np.float32(1.3) * np.ones(12, np.float32)
    expected = jax.grad(lambda p: whole(weights * p[None, :], jnp.tanh(features * p[None, :]), slots)[0])(parameter)

    def step(p, features, slots):
        gradient = jax.grad(lambda p: device(weights * p[None, :], jnp.tanh(features * p[None, :]), slots)[0])(p)
        return jax.lax.pmean(gradient, "data")

    split = lambda x: x.reshape(8, -1, *x.shape[1:])  # noqa: E731
    found = jax.pmap(step, axis_name="data", in_axes=(None, 0, 0))(parameter, split(features), split(slots))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=rounding(len(features), np.abs(expected).max()))


def test_remove_undoes_merge():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(90, 5)) + 10).astype(np.float32)
    slots = rng.integers(0, 8, 90)
    slots[[3, 7, 70]] = 8  # a single row of this class is left
    slots[80] = 9  # this one the removed part never had; nobody has class 10
    first, second = moments(rows[:50], slots[:50], 11), moments(rows[50:], slots[50:], 11)
    left = remove(merge(first, second), first)
    np.testing.assert_array_equal(left.count, second.count)
    # Means of about ten rows a class; taking two rows of three away triples the error of what is left.
    np.testing.assert_allclose(left.mean, second.mean, rtol=3 * rounding(10))
    np.testing.assert_allclose(left.m2, second.m2, rtol=1e-4, atol=1e-4)
    assert left.m2[8] == 0
    assert not remove(first, first).mean.any()
    with pytest.raises(ValueError, match="no part"):
        remove(first, merge(first, second))
