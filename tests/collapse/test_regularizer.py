"""NC3 as a loss: golden trajectories in value and gradient, and every degenerate case."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.collapse import ClassStats, all_reduce, decay, merge, nc3_loss, update
from ncfair_jax.models.hf import load_pretrained
from tests.rounding import rounding
from tests.tiny import encode

LOSS = {"rtol": 5e-5, "atol": 2e-6}


def assert_gradient(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6 * np.abs(expected).max())


@jax.jit
def step(past: ClassStats, features, slots, weights):
    """Loss, aux and stats with the batch in, and the gradients to weights and to the batch's features."""

    def loss(weights, features):
        stats = update(past, features, slots)
        value, aux = nc3_loss(stats, weights)
        return value, (aux, stats)

    (value, (aux, stats)), (to_weights, to_features) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        weights, features
    )
    return value, aux, stats, to_weights, to_features


class Trajectory:
    """syn_trajectory with its vocabulary mapped to slots."""

    def __init__(self, shared):
        self.golden = np.load(shared("golden/nc/syn_trajectory.npz"))
        self.ids = self.golden["fair_ids"]
        slot_of_token = np.full(len(self.golden["W"]), len(self.ids), np.int32)
        slot_of_token[self.ids] = np.arange(len(self.ids))
        self.features, self.slots = self.golden["X"], slot_of_token[self.golden["Y"]]
        self.weights = self.golden["W"][self.ids]
        self.steps, self.dim = len(self.features), self.features.shape[-1]

    def empty(self, **kwargs) -> ClassStats:
        return ClassStats.zeros(len(self.ids), self.dim, **kwargs)


@pytest.fixture(scope="module")
def trajectory(shared):
    return Trajectory(shared)


def test_trajectory_of_a_whole_run(trajectory):
    golden, stats = trajectory.golden, trajectory.empty()
    for n in range(trajectory.steps):
        loss, aux, stats, to_weights, to_features = step(
            stats, trajectory.features[n], trajectory.slots[n], trajectory.weights
        )
        for suffix in ("ref", "def"):
            np.testing.assert_allclose(loss, golden[f"loss_{suffix}"][n], **LOSS)
            np.testing.assert_allclose(aux["nc3"], golden[f"nc3mean_{suffix}"][n], **LOSS)
            assert_gradient(to_weights, golden[f"gradW_{suffix}"][n])
        assert_gradient(to_features, golden["gradX_both_def"][n])
        np.testing.assert_array_equal(stats.count > 0, golden["seen_ref"][n])
        assert aux["classes_seen"] == golden["seen_ref"][n].sum()
        np.testing.assert_allclose(aux["grad_norm"], np.linalg.norm(golden["gradW_def"][n]), rtol=1e-5)
        population = loss * np.sqrt(1 - 1 / aux["classes_seen"])
        np.testing.assert_allclose(population, golden["loss_ddof0_def"][n], **LOSS)


def test_trajectory_under_gradient_descent(trajectory):
    golden, stats, weights = trajectory.golden, trajectory.empty(), trajectory.weights
    for n in range(trajectory.steps):
        loss, aux, stats, to_weights, _ = step(stats, trajectory.features[n], trajectory.slots[n], weights)
        weights = weights - golden["sgd_lr"] * golden["sgd_lambda"] * to_weights
        np.testing.assert_allclose(loss, golden["sgd_loss_ref"][n], **LOSS)
        np.testing.assert_allclose(loss, golden["sgd_loss_def"][n], **LOSS)
        np.testing.assert_allclose(aux["nc3"], golden["sgd_nc3mean_ref"][n], **LOSS)
        np.testing.assert_allclose(weights, golden["sgd_W_fair_after_ref"][n], rtol=5e-5, atol=2e-5)


def test_windows_of_statistics(trajectory):
    """Per batch, decayed by 0.9, started anew every four, and the last four by merging: all from the same pieces."""
    golden, loss = trajectory.golden, jax.jit(nc3_loss)
    batches = [update(trajectory.empty(), x, s) for x, s in zip(trajectory.features, trajectory.slots, strict=True)]
    ema, epoch = trajectory.empty(decayed=True), trajectory.empty()
    for n, batch in enumerate(batches):
        ema = update(decay(ema, 0.9), trajectory.features[n], trajectory.slots[n])
        epoch = batch if n % 4 == 0 else merge(epoch, batch)
        last = trajectory.empty()
        for previous in batches[max(0, n - 3) : n + 1]:
            last = merge(last, previous)
        for name, stats in (("perbatch", batch), ("ema09", ema), ("epochreset_every4", epoch), ("window4", last)):
            np.testing.assert_allclose(
                loss(stats, trajectory.weights)[0], golden[f"loss_{name}_def"][n], **LOSS, err_msg=f"{name} {n}"
            )


def test_four_devices_with_global_statistics(trajectory, shared):
    golden = np.load(shared("golden/nc/syn_ddp4.npz"))
    stats = trajectory.empty()

    def device(past, weights, features, slots):
        merged = merge(past, all_reduce(update(trajectory.empty(), features, slots), "rank"))
        return nc3_loss(merged, weights)[0], merged

    run = jax.pmap(
        jax.value_and_grad(device, argnums=1, has_aux=True),
        axis_name="rank",
        in_axes=(None, None, 0, 0),
        devices=jax.devices()[:4],
    )
    for n, batches in enumerate(golden["rank_batches"]):
        (loss, merged), gradient = run(
            stats, trajectory.weights, trajectory.features[batches], trajectory.slots[batches]
        )
        stats = jax.tree.map(lambda x: x[0], merged)
        np.testing.assert_allclose(loss, np.full(4, golden["loss_global_def"][n]), **LOSS)
        assert_gradient(gradient[0], golden["gradW_global_def"][n])
    # What the release does instead, each rank on its own, is the same function without the reduction.
    alone = [update(trajectory.empty(), trajectory.features[b], trajectory.slots[b]) for b in golden["rank_batches"][0]]
    own = [nc3_loss(rank, trajectory.weights)[0] for rank in alone]
    np.testing.assert_allclose(own, golden["loss_rank_ref"][0], **LOSS)
    mean = np.mean([jax.grad(lambda w, s=s: nc3_loss(s, w)[0])(trajectory.weights) for s in alone], axis=0)
    assert_gradient(mean, golden["gradW_mean_over_ranks_ref"][0])


@pytest.mark.parametrize("kind", ["unmasked", "masked"])
def test_released_loop_on_a_real_model(shared, kind):
    """Preset `paper` through our own encoder: MiniLM, next-token labels from the model's input, released id list."""
    golden = np.load(shared(f"golden/nc/real_trajectory_{kind}.npz"))
    inputs = np.load(shared("golden/nc/real_inputs.npz"))
    config, params, _ = load_pretrained(str(shared("models/minilm6-mlm")), offline=True)
    tokens = inputs["input_ids" if kind == "unmasked" else "masked_input_ids"].astype(np.int32)
    mask, fair_ids = inputs["attention_mask"].astype(np.int32), inputs["fair_ids"]
    slot_of_token = np.full(config.vocab_size, len(fair_ids), np.int32)
    slot_of_token[fair_ids] = np.arange(len(fair_ids))
    weights = params["embeddings"]["word"]["embedding"][fair_ids]
    np.testing.assert_array_equal(weights, inputs["W_fair"])

    @jax.jit
    def forward(params, tokens, mask):  # weights as an argument: as constants they would be copied into the program
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape)
        return encode(config, params, tokens, mask, positions).hidden_states

    stats = ClassStats.zeros(len(fair_ids), config.hidden_size)
    checked = []
    for n in range(len(golden["loss_def"])):
        rows = slice(25 * n, 25 * n + 25)
        hidden = forward(params, tokens[rows], mask[rows])
        if n == 0:
            name = "hidden_first2" if kind == "unmasked" else "hidden_masked_first2"
            kept = mask[:2].astype(bool)
            np.testing.assert_allclose(hidden[:2][kept], inputs[name][kept], rtol=1e-4, atol=1e-5)
        slots = np.where(mask[rows, 1:] > 0, slot_of_token[tokens[rows, 1:]], len(fair_ids)).reshape(-1)
        assert (slots < len(fair_ids)).sum() == golden["n_fair_rows"][n]
        assert mask[rows, 1:].sum() == golden["n_rows"][n]
        features = hidden[:, :-1].reshape(-1, config.hidden_size)
        loss, aux, stats, to_weights, to_features = step(stats, features, slots, weights)
        np.testing.assert_array_equal(stats.count > 0, golden["seen_ref"][n])
        for suffix in ("ref", "def"):
            np.testing.assert_allclose(loss, golden[f"loss_{suffix}"][n], **LOSS)
            np.testing.assert_allclose(aux["nc3"], golden[f"nc3mean_{suffix}"][n], **LOSS)
            np.testing.assert_allclose(aux["grad_norm"], golden[f"gradW_norm_{suffix}"][n], rtol=2e-4)
        np.testing.assert_allclose(np.linalg.norm(to_features), golden["gradX_both_norm_def"][n], rtol=2e-4)
        if n in golden["grad_steps"]:
            assert_gradient(to_weights, golden["gradW_ref"][list(golden["grad_steps"]).index(n)])
            checked.append(n)
    assert len(checked) == len(golden["grad_steps"])


# Degenerate cases: value, gradient to the rows, gradient to the features


def loss_and_gradients(features, slots, weights):
    empty = ClassStats.zeros(*weights.shape)
    value, _, _, to_weights, to_features = step(empty, features, np.asarray(slots, np.int32), weights)
    assert np.isfinite(value)
    assert np.isfinite(to_weights).all()
    assert np.isfinite(to_features).all()
    return float(value), np.asarray(to_weights), np.asarray(to_features)


def test_fewer_than_two_classes_give_zero_and_no_gradient():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    for slots in (np.full(6, 3), np.full(6, 1)):  # none, one
        value, to_weights, to_features = loss_and_gradients(features, slots, weights)
        assert value == 0
        assert not to_weights.any()
        assert not to_features.any()
    empty = ClassStats.zeros(3, 5)
    _, aux = nc3_loss(empty, jnp.asarray(weights))
    assert {name: float(value) for name, value in aux.items()} == {"nc3": 0, "classes_seen": 0, "grad_norm": 0}


def test_no_rows_at_all():
    value, to_weights, to_features = loss_and_gradients(
        np.zeros((0, 5), np.float32), np.zeros(0, np.int32), np.ones((3, 5), np.float32)
    )
    assert value == 0
    assert not to_weights.any()
    assert to_features.shape == (0, 5)


def degenerate_case(golden, selection):
    """The selected classes of the degenerate file as slots of their own, others as no class."""
    chosen = golden[f"idxs_{selection}"]
    slots = np.full(len(golden["W"]) + 1, len(chosen), np.int32)
    slots[chosen] = np.arange(len(chosen))
    return golden["X"], slots[golden["Y"]], golden["W"][chosen], chosen


@pytest.mark.parametrize("selection", ["seen", "pair", "triple", "zerow"])
def test_degenerate_values_agree_with_the_release(shared, selection):
    """Where the release is finite. A zero row has cosine 0 in both; ours has no gradient there, theirs 10^6."""
    golden = np.load(shared("golden/nc/degenerate.npz"))
    features, slots, weights, chosen = degenerate_case(golden, selection)
    value, to_weights, _ = loss_and_gradients(features, slots, weights)
    np.testing.assert_allclose(value, golden[f"unc3_{selection}_ref"], **LOSS)
    if f"grad_{selection}_ref" in golden:
        expected = np.where((weights != 0).any(axis=1)[:, None], golden[f"grad_{selection}_ref"][chosen], 0)
        np.testing.assert_allclose(to_weights, expected, rtol=2e-4, atol=2e-6 * np.abs(expected).max())
    aux = step(ClassStats.zeros(*weights.shape), features, slots, weights)[1]
    np.testing.assert_allclose(aux["grad_norm"], np.linalg.norm(to_weights), rtol=1e-4, atol=1e-7)


def test_an_empty_class_is_never_in_the_selection(shared):
    golden = np.load(shared("golden/nc/degenerate.npz"))
    features, slots, weights, _ = degenerate_case(golden, "withempty")
    value, to_weights, _ = loss_and_gradients(features, slots, weights)
    np.testing.assert_allclose(value, golden["unc3_seen_ref"], **LOSS)  # as if it were not listed
    assert not to_weights[5].any()


def test_coincident_means_have_no_direction(shared):
    golden = np.load(shared("golden/nc/degenerate.npz"))
    features, slots, weights, _ = degenerate_case(golden, "duppair")
    value, to_weights, to_features = loss_and_gradients(features, slots, weights)
    assert value == golden["unc3_duppair_ref"] == 0
    assert not to_weights.any()
    assert not to_features.any()


def test_equal_cosines_have_no_gradient(shared):
    golden = np.load(shared("golden/nc/degenerate.npz"))
    value, to_weights, to_features = loss_and_gradients(golden["X_equal"], np.array([0, 1]), golden["W_equal"])
    assert value == golden["unc3_equal_ref"] == 0
    np.testing.assert_array_equal(to_weights, golden["grad_equal_ref"])
    assert not to_features.any()


def test_decayed_counts_below_the_threshold_are_unseen():
    rng = np.random.default_rng(0)
    mean, weights = rng.normal(size=(2, 3, 5)).astype(np.float32)
    stats = ClassStats(jnp.array([1.0, 0.5, 1e-7]), jnp.asarray(mean), jnp.ones(3))
    loss, aux = nc3_loss(stats, jnp.asarray(weights))
    assert aux["classes_seen"] == 2
    without = jax.tree.map(lambda x: x[:2], stats)
    np.testing.assert_allclose(loss, nc3_loss(without, jnp.asarray(weights[:2]))[0], rtol=0, atol=rounding(3 * 5 + 2))


# Gradients against finite differences, and invariances


def random_case(seed=0, classes=7, dim=9, rows=60):
    rng = np.random.default_rng(seed)
    slots = rng.integers(0, classes + 1, rows)
    features = rng.normal(size=(rows, dim)) + 2 * rng.normal(size=(classes + 1, dim))[slots]
    return features.astype(np.float32), slots, rng.normal(size=(classes, dim)).astype(np.float32)


def test_gradients_against_finite_differences_in_float64():
    features, slots, weights = random_case()
    with jax.enable_x64(True):
        wide = np.float64
        loss = jax.jit(lambda w, x: nc3_loss(update(ClassStats.zeros(7, 9, dtype=wide), x, jnp.asarray(slots)), w)[0])
        arguments = [jnp.asarray(weights, wide), jnp.asarray(features, wide)]
        gradients = jax.grad(loss, argnums=(0, 1))(*arguments)
        assert gradients[1].dtype == wide
        rng = np.random.default_rng(1)
        for which in (0, 1):
            direction = rng.normal(size=arguments[which].shape)
            moved = [
                loss(*(x + sign * 1e-6 * direction if n == which else x for n, x in enumerate(arguments)))
                for sign in (1, -1)
            ]
            np.testing.assert_allclose((moved[0] - moved[1]) / 2e-6, np.sum(gradients[which] * direction), rtol=1e-6)


def test_gradient_is_orthogonal_to_the_rows():
    features, slots, weights = random_case()
    _, to_weights, _ = loss_and_gradients(features, slots, weights)
    np.testing.assert_allclose(np.einsum("kd,kd->k", to_weights, weights), 0, atol=rounding(3 * 9))


@pytest.mark.parametrize("seed", range(3))
def test_invariances(seed):
    """Rows permuted, features moved, scaled and turned with the weights: the same loss."""
    features, slots, weights = random_case(seed)
    rng = np.random.default_rng(seed + 10)
    loss = jax.jit(lambda x, s, w: nc3_loss(update(ClassStats.zeros(7, 9), x, s), w)[0])
    expected = loss(features, slots, weights)
    order = rng.permutation(len(features))
    turn = np.linalg.qr(rng.normal(size=(9, 9)))[0].astype(np.float32)
    for other in (
        loss(features[order], slots[order], weights),
        loss(features + rng.normal(size=(1, 9)).astype(np.float32), slots, weights),
        loss(3.7 * features, slots, 0.2 * weights),
        loss(features @ turn, slots, weights @ turn),
    ):
        np.testing.assert_allclose(other, expected, rtol=2e-5)
    names = rng.permutation(7)
    np.testing.assert_allclose(
        loss(features, np.append(np.argsort(names), 7)[slots], weights[names]), expected, rtol=2e-5
    )


def test_wrong_rows_are_refused():
    with pytest.raises(ValueError, match=r"classifier \(60, 4\), statistics \(3, 4\)"):
        partial(nc3_loss, ClassStats.zeros(3, 4))(jnp.ones((60, 4)))
