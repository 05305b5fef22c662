"""ASE's losses by hand, its gradients by differences, its Fisher information, eight devices, and a whole tiny run."""

import dataclasses
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import BertTokenizerFast

from ncfair_jax.config import MeshConfig, OptimizerConfig
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.lexicons.lexicon import make_lexicon
from ncfair_jax.methods.ase.config import AseConfig, AseRun
from ncfair_jax.methods.ase.inputs import direction_rows, fisher_rows
from ncfair_jax.methods.ase.loss import (
    AseInputs,
    ase_objective,
    ewc_penalty,
    fisher_diagonal,
    gender_direction,
    mean_one,
    neutralisation_sums,
)
from ncfair_jax.methods.ase.rows import EncodedRows, made_of
from ncfair_jax.methods.nc3 import ALIGNED, with_nc3
from ncfair_jax.models import bert
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.sharding import make_mesh, put_batch, put_tree, state_shardings, to_host
from ncfair_jax.state import init_state, make_train_step
from ncfair_jax.train import train_and_evaluate
from tests import tiny, tiny_text
from tests.rounding import encoder_operations, rounding
from tests.tiny import encode

MODEL = dataclasses.replace(tiny.MODEL, num_layers=1)
PARAMS = tiny.params(0, MODEL)
FULL = AseConfig(sn_weight=0.7, ewc_weight=0.3)


def data(seed: int = 0):
    """Sequences of the tiny vocabulary with one or two masked tokens and some marked ones."""
    rng = np.random.default_rng(seed)
    sequences = tiny.examples(24, seed)
    masked, marked = [], []
    for sequence in sequences:
        chosen = rng.choice(np.arange(1, len(sequence) - 1), 4, replace=False)
        masked.append(np.isin(np.arange(len(sequence)), chosen[: rng.integers(1, 3)]))
        marked.append(np.isin(np.arange(len(sequence)), chosen[2:]))
    return sequences, masked, marked


def pipeline(**settings) -> Pipeline:
    config = PipelineConfig(seed=1, row_tokens=32, **{"batch_size": 8, "row_multiple": 2} | settings)
    return Pipeline(
        made_of(EncodedRows(*data())),
        config,
        special_ids=[tiny.PAD, tiny.CLS, tiny.SEP, tiny.MASK],
        mask_token_id=tiny.MASK,
        vocab_size=tiny.VOCAB,
        slot_of_token=tiny.classes().slot_of_token,
    )


def words() -> dict:
    """Two words a side, one of them of two pieces."""
    tokens = np.array([[1, 6, 2, 1, 9, 10, 2, 0], [1, 20, 2, 1, 33, 2, 0, 0]], np.int32)
    return {
        "tokens": tokens,
        "segment_ids": np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 2, 2, 2, 0, 0]], np.int32),
        "positions": np.array([[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, 0, 1, 2, 0, 0]], np.int32),
        "weights": np.array([[0, -0.5, 0, 0, -0.25, -0.25, 0, 0], [0, 0.5, 0, 0, 0.5, 0, 0, 0]], np.float32),
    }


def inputs(number: int = 5) -> AseInputs:
    sequences, masked, _ = data()
    return AseInputs(words(), fisher_rows(sequences, masked, number, tiny.MASK))


def objective(config: AseConfig = FULL):
    return ase_objective(MODEL, config, inputs())


@jax.jit
def states_of(params, ids, segments):
    hidden = encode(MODEL, params, ids, segments, jnp.arange(ids.shape[1], dtype=jnp.int32)[None]).hidden_states
    return hidden, family_of(MODEL).logits(MODEL, params, family_of(MODEL).features(MODEL, params, hidden))


def alone(params, sequence) -> tuple[np.ndarray, np.ndarray]:
    """Last layer [L, D] and logits [L, V] of one sequence by itself."""
    length = len(sequence)
    ids, segments = np.zeros((2, 1, 16), np.int32)
    ids[0, :length], segments[0, :length] = sequence, 1
    return tuple(np.asarray(x[0, :length], np.float64) for x in states_of(params, ids, segments))


def test_neutralisation_by_hand():
    hidden = jnp.array([[[1.0, 2.0], [3.0, -4.0], [5.0, 0.0]], [[0.0, 7.0], [-1.0, -1.0], [2.0, 2.0]]])
    direction = jnp.array([0.6, 0.8])
    sums = neutralisation_sums(hidden, direction, jnp.array([[1, 1, 0], [0, 1, 0]]))
    # |0.6 + 1.6| + |1.8 - 3.2| + |-0.6 - 0.8|
    np.testing.assert_allclose(sums["projection"], 2.2 + 1.4 + 1.4, rtol=rounding(3 * 3))
    assert float(sums["marked"]) == 3.0
    orthogonal = jnp.array([[[-4.0, 3.0], [8.0, -6.0]]])
    np.testing.assert_allclose(
        neutralisation_sums(orthogonal, direction, jnp.ones((1, 2), jnp.int32))["projection"],
        0,
        atol=rounding(4, size=4.8),
    )


def test_elastic_penalty_by_hand():
    params = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([[3.0]])}}
    anchor = {"a": jnp.array([0.0, 4.0]), "b": {"c": jnp.array([[2.5]])}}
    fisher = {"a": jnp.array([0.5, 2.0]), "b": {"c": jnp.array([[4.0]])}}
    np.testing.assert_allclose(ewc_penalty(params, anchor, fisher), 0.5 * 1 + 2 * 4 + 4 * 0.25)
    gradient = jax.grad(ewc_penalty)(params, anchor, fisher)
    np.testing.assert_allclose(gradient["a"], [2 * 0.5 * 1, 2 * 2 * -2])
    np.testing.assert_allclose(gradient["b"]["c"], [[2 * 4 * 0.5]])
    at_anchor = jax.value_and_grad(ewc_penalty)(anchor, anchor, fisher)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(at_anchor))


def test_mean_one_weighs_every_parameter_alike():
    scaled = mean_one({"a": jnp.array([1.0, 3.0, 0.0]), "b": jnp.array([[12.0]])})
    np.testing.assert_allclose(scaled["a"], [0.25, 0.75, 0])
    np.testing.assert_allclose(scaled["b"], [[3.0]])
    assert np.all(np.asarray(mean_one({"a": jnp.zeros(3)})["a"]) == 0)


def test_direction_is_the_mean_difference_of_words_encoded_alone():
    params = PARAMS
    female, male = ([1, 6, 2], [1, 9, 10, 2]), ([1, 20, 2], [1, 33, 2])
    means = [[alone(params, word)[0][1:-1].mean(0) for word in side] for side in (female, male)]
    expected = np.mean(means[1], axis=0) - np.mean(means[0], axis=0)
    found = gender_direction(MODEL, params, words())
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_joined_direction_sums_the_pieces_of_two_texts():
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(tiny_text.SPECIAL + tiny_text.WORDS)})
    lexicon = make_lexicon("g", {"f": ["she", "woman"], "m": ["he", "man"]}, [("he", "she"), ("woman", "man")])
    model = tiny_text.pretrained()
    rows = direction_rows(lexicon, tokenizer, "joined", 40)
    found = gender_direction(model.config, model.params, rows)
    sums = []
    for text in ("she woman", "he man"):
        ids = jnp.array([[1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2]])
        states = encode(model.config, model.params, ids, jnp.ones_like(ids), jnp.arange(4)[None]).hidden_states
        sums.append(np.asarray(states[0, 1:-1]).sum(0))
    expected = (sums[1] - sums[0]) / 2
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_fisher_of_the_output_bias_in_closed_form():
    params, (sequences, masked, _) = PARAMS, data()
    rows = fisher_rows(sequences, masked, 5, tiny.MASK)
    expected = np.zeros(tiny.VOCAB)
    for i in np.linspace(0, len(sequences) - 1, 5).round().astype(int):
        _, logits = alone(params, np.where(masked[i], tiny.MASK, sequences[i]))
        logits = logits[masked[i]]
        share = np.exp(logits - logits.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        share[np.arange(len(share)), sequences[i][masked[i]]] -= 1  # gradient of cross-entropy: p - one-hot
        expected += share.mean(0) ** 2 / 5
    found = fisher_diagonal(MODEL, params, rows)
    np.testing.assert_allclose(found["mlm"]["bias"], expected, rtol=1e-4, atol=1e-9)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    # Squared one by one: the square of the mean gradient, or of gradients added up, is another figure.
    swapped = {name: value[::-1] for name, value in rows.items()}
    again = fisher_diagonal(MODEL, params, swapped)
    np.testing.assert_allclose(again["mlm"]["transform"]["kernel"], found["mlm"]["transform"]["kernel"], rtol=1e-4)


@cache
def refreshed(config: AseConfig = FULL):
    made = objective(config)
    return made, PARAMS, made.refresh(PARAMS, made.init(PARAMS))


def test_refresh_fills_what_init_shapes_and_the_step_keeps_it():
    made, params, carry = refreshed()
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (made.init(params), carry))
    assert shapes[0] == shapes[1]
    np.testing.assert_allclose(np.linalg.norm(carry["direction"]), 1, rtol=rounding(MODEL.hidden_size))
    for a, b in zip(jax.tree.leaves(carry["anchor"]), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    total = sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(carry["fisher"]))
    np.testing.assert_allclose(total / sum(leaf.size for leaf in jax.tree.leaves(params)), 1, rtol=1e-4)
    raw = refreshed(dataclasses.replace(FULL, fisher_scale="raw"))[2]["fisher"]["mlm"]["bias"]
    expected = fisher_diagonal(MODEL, params, inputs().fisher)["mlm"]["bias"]
    np.testing.assert_allclose(raw, expected, rtol=1e-5)
    _, (_, after) = tiny.evaluate(made, tiny.params(1, MODEL), carry, pipeline().batch(0), None)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(carry), strict=True):
        np.testing.assert_array_equal(a, b)
    assert made.refresh_due(0) and not made.refresh_due(1)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_whole_loss_against_numpy(reduce):
    made, start, carry = refreshed(dataclasses.replace(FULL, sn_reduce=reduce))
    params = jax.tree.map(lambda x: x + 0.01, start)
    source, (sequences, masked, marked) = pipeline(), data()
    loss, (metrics, _) = tiny.evaluate(made, params, carry, source.batch(0), None)
    direction = np.asarray(carry["direction"], np.float64)
    entropies, projections = [], []
    for i in source.example_ids(0):
        hidden, logits = alone(params, np.where(masked[i], tiny.MASK, sequences[i]))
        logits = logits[masked[i]]
        labels = sequences[i][masked[i]]
        entropies += list(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels])
        projections += list(np.abs(hidden[marked[i]] @ direction))
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(start), jax.tree.leaves(carry["fisher"]), strict=True)
    penalty = sum((np.asarray(f, np.float64) * (np.asarray(p, np.float64) - a) ** 2).sum() for p, a, f in pairs)
    sn = np.sum(projections) if reduce == "sum" else np.mean(projections)
    np.testing.assert_allclose(loss, np.mean(entropies) + 0.7 * sn + 0.3 * penalty, rtol=1e-4)
    np.testing.assert_allclose(metrics["sn"][0] / metrics["sn"][1], np.mean(projections), rtol=1e-4)
    np.testing.assert_allclose(metrics["ewc"][0], penalty, rtol=1e-4)
    assert metrics["mlm_loss"][1] == len(entropies)


def test_without_weights_it_is_pronoun_mlm_alone():
    made = ase_objective(MODEL, AseConfig(sn_weight=0.0, ewc_weight=0.0), AseInputs(None, None))
    params = PARAMS
    assert made.init(params) == {} and made.refresh is None
    loss, (metrics, _) = tiny.evaluate(made, params, {}, pipeline().batch(0), None)
    np.testing.assert_allclose(loss, metrics["mlm_loss"][0] / metrics["mlm_loss"][1], rtol=rounding(2))
    assert "sn" not in metrics and "ewc" not in metrics


def test_no_marked_token_adds_nothing():
    made, params, carry = refreshed(dataclasses.replace(FULL, sn_reduce="mean"))
    batch = pipeline().batch(0)
    batch["marked"] = np.zeros_like(batch["marked"])
    loss, (metrics, _) = tiny.evaluate(made, params, carry, batch, None)
    np.testing.assert_allclose(loss, metrics["mlm_loss"][0] / metrics["mlm_loss"][1], rtol=rounding(4))


def widen(x):
    return jnp.asarray(x, jnp.float64)


def test_gradient_against_finite_differences():
    batch = pipeline().batch(1)
    made, start, carry = refreshed()
    with jax.enable_x64(True):
        params, carry = jax.tree.map(lambda x: widen(x) + 0.003, start), jax.tree.map(widen, carry)

        def loss(p):
            return tiny.evaluate(made, p, carry, batch, None)[0]

        grads = jax.jit(jax.grad(loss))(params)
        direction = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape)), params)
        step = 1e-4  # small, for the kinks of |<h, g>|; LayerNorm and softmax in float32 bound the quotient below
        ahead, back = (loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction)) for s in (step, -step))
        slope = sum(
            float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
        )
    np.testing.assert_allclose((float(ahead) - float(back)) / (2 * step), slope, rtol=2e-3)


def test_micro_batches_change_nothing_but_memory():
    made, params, carry = refreshed()
    moved = jax.tree.map(lambda x: x + 0.003, params)

    def value_and_grad(accumulation):
        batch = pipeline(row_multiple=4, accumulation=accumulation).batch(0)
        return jax.jit(jax.value_and_grad(lambda p: tiny.evaluate(made, p, carry, batch, None)[0]))(moved)

    (one, grads_one), (four, grads_four) = value_and_grad(1), value_and_grad(4)
    # The way through the encoder (and back), the sum over the tokens and the softmax over the vocabulary.
    operations, largest = (
        encoder_operations(MODEL) + tiny.VOCAB + 128,
        max(np.abs(g).max() for g in jax.tree.leaves(grads_four)),
    )
    np.testing.assert_allclose(one, four, rtol=rounding(operations))
    for a, b in zip(jax.tree.leaves(grads_one), jax.tree.leaves(grads_four), strict=True):
        np.testing.assert_allclose(a, b, atol=rounding(2 * operations, largest))


def three_steps(devices):
    mesh = make_mesh(MeshConfig(), devices)
    # A large eps: with the usual one Adam turns the rounding noise of zero gradients (key biases) into whole steps.
    tx, _ = make_optimizer(OptimizerConfig(learning_rate=1e-2, eps=1e-2), 10)
    nc3 = dataclasses.replace(AseRun().nc3, weight=5.0, **ALIGNED)
    made = with_nc3(objective(), nc3, tiny.classes(), MODEL, 3)
    rng = jax.random.key(0)
    abstract = jax.eval_shape(lambda p: init_state(p, made, tx, rng), PARAMS)
    shardings = state_shardings(abstract, mesh, bert.BERT.sharding)
    state = jax.jit(lambda p: init_state(p, made, tx, rng), out_shardings=shardings)(put_tree(PARAMS, shardings.params))
    carry = jax.device_put(made.refresh(state.params, state.carry), shardings.carry)
    state = dataclasses.replace(state, carry=carry)
    step = jax.jit(make_train_step(made, tx), donate_argnums=0, out_shardings=(shardings, None))
    source, losses = pipeline(row_multiple=8), []
    for index in range(3):
        state, metrics = step(state, put_batch(source.batch(index), mesh))
        losses.append((float(metrics["loss"][0]), float(metrics["grad_norm"][0])))
    return losses, to_host(state.params), to_host(state.carry["task"])


def test_eight_devices_do_what_one_does():
    losses, params, carry = three_steps(8)
    expected_losses, expected, expected_carry = three_steps(1)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(expected_carry), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def run_config(folder, **ase) -> AseRun:
    model, _ = tiny_text.write(folder)
    rng = np.random.default_rng(0)
    flip = {"he": "she", "him": "her"}
    rows = []
    for _ in range(40):  # the word before the mask tells the pronoun's form, nothing tells its gender
        pronoun = str(rng.choice(["he", "him"]))
        before = "bara" if pronoun == "he" else "dolo"
        rows.append((f"[CLS] {' '.join(rng.choice(tiny_text.NEUTRAL, 4))} {before} [MASK] kitek [SEP]", pronoun))
    for name, of in (("original_data.csv", lambda p: p), ("flipped_data.csv", flip.get)):
        lines = ["text,pronouns", *(f"{text},{of(pronoun)}" for text, pronoun in rows)]
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "words.tsv").write_text("kitek\tbara\n")
    base = AseRun()
    part = dataclasses.replace
    return part(
        base,
        model=part(base.model, path=str(model)),
        data=part(
            base.data, path=str(folder), counterfactual="two_sided", max_tokens=32, row_tokens=32, dev_examples=5
        ),
        ase=part(base.ase, source="csv", stereotypes=str(folder / "words.tsv"), fisher_examples=16, **ase),
        nc3=part(base.nc3, weight=1.0),
        optimizer=part(base.optimizer, learning_rate=2e-3),
        train=part(base.train, batch_size=10, steps=30, log_every=10, dev_every=30, save_every=30, collapse_every=0),
    )


def test_a_tiny_run_learns_pronouns(tmp_path):
    config = run_config(tmp_path, sn_weight=0.1, ewc_weight=1e-4)
    train_and_evaluate(config, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["mlm_loss"] < log[0]["mlm_loss"]
    assert log[-1]["sn"] < log[0]["sn"]
    assert log[-1]["ewc"] > 0
    assert np.isfinite(log[-1]["dev_loss"])
    before, after = (load_pretrained(str(path)).params for path in (config.model.path, tmp_path / "run" / "export"))
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), after, before)
    still = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(moved) if x < 1e-6]
    assert not [path for path in still if "['key']['bias']" not in path]  # key biases have no gradient
