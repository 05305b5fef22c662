"""The encoder: stored numbers of a RoBERTa and a BERT, packing, attention holes, dropout, remat and bfloat16."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncfair_jax.models import bert
from ncfair_jax.models.attention import Segments, attend
from ncfair_jax.models.bert import BertConfig
from ncfair_jax.models.dropout import keep_mask
from ncfair_jax.models.hf import load_pretrained, save_pretrained
from tests import tiny, tiny_hub
from tests.rounding import encoder_operations, rounding
from tests.tiny import encode

NUMBERS = Path(__file__).parents[1] / "golden" / "model_numbers.npz"

ROUNDING = rounding(encoder_operations(tiny.MODEL))  # of hidden states and probabilities, which are of size 1
DROPPING = dataclasses.replace(tiny.MODEL, hidden_dropout=0.1, attention_dropout=0.2)


def rows(*segments: list[int], tokens: int = 24):
    """One row holding the segments one after the other: tokens, segment_ids, positions, each [1, T]."""
    out = np.zeros((3, 1, tokens), np.int32)
    start = 0
    for number, ids in enumerate(segments, start=1):
        stop = start + len(ids)
        out[:, 0, start:stop] = ids, np.full(len(ids), number), np.arange(len(ids))
        start = stop
    return out


def hidden(*segments, config=tiny.MODEL, params=None, **kwargs):
    return encode(config, tiny.params() if params is None else params, *rows(*segments), **kwargs).hidden_states


def stored(kind: str, folder: Path):
    """The stored numbers of one family, and its model loaded from a folder made of the stored weights."""
    with np.load(NUMBERS, allow_pickle=False) as archive:
        numbers = {name.removeprefix(f"{kind}/"): archive[name] for name in archive if name.startswith(f"{kind}/")}
    weights = {name.removeprefix("weights/"): value for name, value in numbers.items() if name.startswith("weights/")}
    tiny_hub.tokenizer(kind).save_pretrained(folder)
    (folder / "config.json").write_text(str(numbers["config"]))
    save_file(weights, folder / "model.safetensors")
    return numbers, load_pretrained(folder)


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_stored_numbers_of_pytorch(kind, tmp_path):
    numbers, model = stored(kind, tmp_path)
    ids, mask, types, labels = (numbers[name] for name in ("input_ids", "attention_mask", "token_type_ids", "labels"))
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)

    @jax.jit
    def loss(params):
        out = encode(model.config, params, ids, mask, positions, token_types=types, all_layers=True)
        logits = bert.logits(model.config, params, bert.features(model.config, params, out.hidden_states))
        nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        return jnp.sum(nats * (labels >= 0)) / (labels >= 0).sum(), (out, logits)

    (value, (out, logits)), grads = jax.value_and_grad(loss, has_aux=True)(model.params)
    real = mask == 1
    for ours, name in ((out.all_layers[0], "embeddings"), (out.hidden_states, "hidden_states"), (logits, "logits")):
        np.testing.assert_allclose(np.asarray(ours)[real], numbers[name][real], atol=2e-5, rtol=0, err_msg=name)
    np.testing.assert_allclose(value, numbers["loss"], atol=2e-5)
    # Saved as if they were weights, the gradients come under the names of the stored norms.
    save_pretrained(tmp_path / "grads", model._replace(params=jax.device_get(grads)))
    largest = max(numbers[name] for name in numbers if name.startswith("grad_norm/"))
    zero = rounding(2 * encoder_operations(model.config) + ids.size, largest)
    for name, gradient in load_file(tmp_path / "grads" / "model.safetensors").items():
        # Key biases have gradient zero by symmetry: what is left there is rounding.
        np.testing.assert_allclose(
            np.linalg.norm(gradient), numbers[f"grad_norm/{name}"], rtol=1e-4, atol=zero, err_msg=name
        )


def test_roberta_reproduces_the_golden_batch(shared):
    golden = np.load(shared("golden/evals_roberta/logits.npz"), allow_pickle=False)
    config, params, _ = load_pretrained(shared("models/roberta-tiny-random"))
    ids, mask = golden["input_ids"], golden["attention_mask"]
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    out = encode(config, params, ids, mask, positions, all_layers=True)
    logits = np.asarray(
        bert.logits(config, params, bert.features(config, params, out.hidden_states)),
        np.float64,
    )
    real = mask == 1
    for ours, theirs in zip(out.all_layers, golden["hidden_states"], strict=True):
        np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], atol=1e-4)
    picked = np.take_along_axis(logits, golden["top20_ids"], axis=-1)
    np.testing.assert_allclose(picked[real], golden["top20_logits"][real], atol=1e-4)
    np.testing.assert_allclose(np.log(np.exp(logits).sum(-1))[real], golden["logsumexp"][real], atol=1e-4)
    at_input = np.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(at_input[real], golden["logit_of_input"][real], atol=1e-4)


def test_minilm_gives_the_three_stated_probabilities(shared):
    config, params, tokenizer = load_pretrained(shared("models/minilm6-mlm"))
    ids = tokenizer("The nurse said that [MASK] was tired.")["input_ids"]
    assert ids == [101, 1996, 6821, 2056, 2008, 103, 2001, 5458, 1012, 102]
    tokens, segments, positions = rows(ids, tokens=10)
    states = encode(config, params, tokens, segments, positions).hidden_states[0, 5]
    probs = jax.nn.softmax(bert.logits(config, params, bert.features(config, params, states)))
    top = np.argsort(-np.asarray(probs))[:3]
    assert tokenizer.convert_ids_to_tokens(top) == ["trooper", "bert", "[CLS]"]
    np.testing.assert_allclose(np.asarray(probs)[top], [0.0029316, 0.0022574, 0.0020561], rtol=5e-5)


def test_a_packed_row_equals_its_sentences_alone():
    one, two, three = [1, 7, 8, 2], [1, 20, 2], [1, 30, 31, 32, 33, 2]
    packed = hidden(one, two, three)[0]
    start = 0
    for ids in (one, two, three):
        np.testing.assert_allclose(packed[start : start + len(ids)], hidden(ids)[0, : len(ids)], atol=1e-5)
        start += len(ids)


def test_nobody_looks_at_a_token_of_segment_zero():
    tokens, segments, positions = rows([1, 7, 8, 9, 2])
    segments[0, 2] = 0
    other = tokens.copy()
    other[0, 2] = 40
    a, b = (encode(tiny.MODEL, tiny.params(), t, segments, positions).hidden_states for t in (tokens, other))
    keep = [0, 1, 3, 4]
    np.testing.assert_array_equal(a[0, keep], b[0, keep])
    assert float(jnp.abs(a[0, 2] - b[0, 2]).max()) > 0.01


def test_roberta_positions_start_after_the_pad_id():
    roberta = dataclasses.replace(tiny.MODEL, model_type="roberta", pad_token_id=1, type_vocab_size=1)
    assert (roberta.position_offset, roberta.max_tokens) == (2, 38)
    params = tiny.params(model=roberta)
    shifted = jax.tree.map(lambda x: x, params)
    table = params["embeddings"]["position"]["embedding"]
    shifted["embeddings"] = params["embeddings"] | {"position": {"embedding": jnp.roll(table, -2, axis=0)}}
    as_bert = dataclasses.replace(roberta, model_type="bert")
    np.testing.assert_allclose(
        hidden([1, 7, 2], config=roberta, params=params)[0, :3],
        hidden([1, 7, 2], config=as_bert, params=shifted)[0, :3],
        atol=ROUNDING,
    )


def test_ids_beyond_a_table_are_seen_not_clamped():
    assert not np.isfinite(np.asarray(hidden([1, tiny.VOCAB, 2]))[0, :3]).all()


def test_dropout_rate_within_four_sigma_and_differs_by_layer_and_key():
    shape, rate = (64, 33, 50), 0.1
    kept = np.asarray(keep_mask(jax.random.key(0), rate, shape))
    sigma = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs((1 - kept.mean()) - rate) < 4 * sigma
    assert 0.7 < (kept == np.asarray(keep_mask(jax.random.key(1), rate, shape))).mean() < 0.9
    assert abs(np.corrcoef(kept[..., 0::2].ravel(), kept[..., 1::2].ravel())[0, 1]) < 0.02


def test_dropout_repeats_by_key_and_ignores_rows_appended_later():
    key = jax.random.key(5)
    tokens, segments, positions = np.repeat(rows([1, 7, 8, 9, 2], [1, 11, 2]), 3, axis=1)
    few = encode(DROPPING, tiny.params(), tokens[:2], segments[:2], positions[:2], dropout_rng=key).hidden_states
    many = encode(DROPPING, tiny.params(), tokens, segments, positions, dropout_rng=key).hidden_states
    again = encode(DROPPING, tiny.params(), tokens, segments, positions, dropout_rng=key).hidden_states
    np.testing.assert_array_equal(many, again)
    np.testing.assert_allclose(few, many[:2], atol=ROUNDING)  # the masks are equal; matmuls of another size may round
    assert float(jnp.abs(many[0] - many[1]).max()) > 0.01  # equal rows, each with its own masks
    plain = encode(DROPPING, tiny.params(), tokens, segments, positions).hidden_states
    assert float(jnp.abs(plain - many).max()) > 0.01


def test_remat_changes_no_value_and_no_gradient():
    def loss(params, config):
        return jnp.sum(
            jnp.sin(encode(config, params, *rows([1, 7, 8, 2]), dropout_rng=jax.random.key(0)).hidden_states)
        )

    values = [
        jax.jit(jax.value_and_grad(loss), static_argnums=1)(tiny.params(), dataclasses.replace(DROPPING, remat=remat))
        for remat in (False, True)
    ]
    for a, b in zip(jax.tree.leaves(values[0]), jax.tree.leaves(values[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_bfloat16_activations_stay_near_float32():
    half = dataclasses.replace(tiny.MODEL, activation_dtype="bfloat16")
    exact, near = hidden([1, 7, 8, 9, 2]), hidden([1, 7, 8, 9, 2], config=half)
    assert near.dtype == jnp.bfloat16
    # Eight bits of mantissa: 2^-8 per rounding, a few dozen roundings deep, on values of order 1.
    np.testing.assert_allclose(near.astype(jnp.float32)[0, :5], exact[0, :5], atol=0.15)


def test_choices_are_refused_by_name():
    with pytest.raises(ValueError, match="attention='flash'; choose from"):
        dataclasses.replace(tiny.MODEL, attention="flash")
    with pytest.raises(ValueError, match="not a multiple of num_heads=3"):
        dataclasses.replace(tiny.MODEL, num_heads=3)
    with pytest.raises(ValueError, match="num_heads=0; at least 1"):
        dataclasses.replace(tiny.MODEL, num_heads=0)
    heads, rng = jnp.zeros((1, 4, 2, 8)), jax.random.key(0)
    with pytest.raises(ValueError, match="attention='cudnn' has no dropout"):
        attend(
            heads,
            heads,
            heads,
            Segments(*[jnp.ones((1, 4), jnp.int32)] * 2),
            dropout_rate=0.1,
            rng=rng,
            implementation="cudnn",
        )


def test_config_is_hashable():
    assert len({tiny.MODEL, dataclasses.replace(tiny.MODEL), DROPPING}) == 2
    assert isinstance(tiny.MODEL, BertConfig)


def test_a_prefix_of_a_tokens_keys_and_values_stands_for_the_token():
    """Tokens 2 and 3 of a sentence see token 1 in the prefix as they see it in the sentence, at their own positions."""
    params = tiny.params()
    tokens, segments, positions = rows([7, 11, 23], tokens=3)
    layers = encode(tiny.MODEL, params, tokens, segments, positions, all_layers=True).all_layers
    prefix = []
    for index, hidden in enumerate(layers[:-1]):
        attention = params["encoder"][f"layer_{index}"]["attention"]
        both = [hidden[0, 0] @ attention[name]["kernel"] + attention[name]["bias"] for name in ("key", "value")]
        prefix.append(jnp.stack(both).reshape(2, 1, tiny.MODEL.num_heads, -1))
    rest = [x[:, 1:] for x in (tokens, segments, positions)]
    found = encode(tiny.MODEL, params | {"prefix": jnp.stack(prefix)}, *rest).hidden_states
    np.testing.assert_allclose(found, layers[-1][:, 1:], atol=ROUNDING)
    without = encode(tiny.MODEL, params, *rest).hidden_states
    assert np.abs(np.asarray(without - found)).max() > 1e-3


def test_a_prefix_is_dropped_in_part_and_shared_by_the_segments_of_a_row():
    params = tiny.params()
    params["prefix"] = jax.random.normal(jax.random.key(1), (2, 2, 3, tiny.MODEL.num_heads, 8))
    packed = hidden([7, 11, 23], [9, 9], params=params)
    np.testing.assert_allclose(packed[0, 3:5], hidden([9, 9], params=params)[0, :2], atol=ROUNDING)
    rng = jax.random.key(0)  # the model itself has no dropout
    remat = dataclasses.replace(tiny.MODEL, remat=True)
    dropped = hidden([7, 11, 23], params=params, dropout_rng=rng)
    assert np.abs(np.asarray(dropped - hidden([7, 11, 23], params=params)))[0, :3].max() > 1e-3
    again = hidden([7, 11, 23], config=remat, params=params, dropout_rng=rng)
    np.testing.assert_allclose(dropped, again, atol=ROUNDING)


def test_attention_received_by_hand():
    config = dataclasses.replace(tiny.MODEL, num_layers=1)
    params, (tokens, segments, positions) = tiny.params(model=config), rows([5, 6, 7, 8], [9, 10])
    segments[0, 1] = 0  # a hole
    out = encode(config, params, tokens, segments, positions, all_layers=True, received_attention=True)
    attention = jax.device_get(params["encoder"]["layer_0"]["attention"])
    x = np.asarray(out.all_layers[0][0], np.float64)
    query, key = (
        (x @ attention[name]["kernel"] + attention[name]["bias"]).reshape(len(x), config.num_heads, -1)
        for name in ("query", "key")
    )
    for members in ([0, 2, 3], [4, 5]):
        logits = np.einsum("thc,shc->hts", query[members], key[members]) / np.sqrt(query.shape[-1])
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(out.received_attention[0, members], probs.mean((0, 1)), atol=ROUNDING)
    plainly = encode(config, params, tokens, segments, positions)
    assert plainly.received_attention is None
    np.testing.assert_array_equal(plainly.hidden_states, out.hidden_states)


def test_attention_received_is_the_layers_mean_with_remat_and_prefix():
    inputs = rows([5, 6, 7, 8], [9, 10])
    model = tiny.MODEL
    shape = (model.num_layers, 2, 3, model.num_heads, model.hidden_size // model.num_heads)
    params = tiny.params() | {"prefix": jax.random.normal(jax.random.key(0), shape)}
    paid, remat = (
        encode(dataclasses.replace(model, remat=remat), params, *inputs, received_attention=True).received_attention
        for remat in (False, True)
    )
    np.testing.assert_allclose(paid, remat, atol=ROUNDING)
    assert paid.shape == inputs[0].shape
    assert (paid[0, :4].sum(), paid[0, 4:6].sum()) < (0.99, 0.99)  # the prefix takes its part


@pytest.mark.parametrize("remat", [False, True])
def test_columns_read_are_those_of_the_whole(remat):
    """With a prefix, a hole of the mask, columns in any order and twice; another key of the last layer still matters."""
    config = dataclasses.replace(tiny.MODEL, remat=remat)
    shape = (config.num_layers, 2, 3, config.num_heads, config.hidden_size // config.num_heads)
    params = tiny.params() | {"prefix": jax.random.normal(jax.random.key(0), shape)}
    tokens, segments, positions = rows([5, 6, 7, 8], [9, 10])
    segments[0, 1] = 0
    columns = jnp.array([[5, 0, 2, 2]])
    whole = encode(config, params, tokens, segments, positions).hidden_states
    read = encode(config, params, tokens, segments, positions, read=columns).hidden_states
    np.testing.assert_allclose(read[0], whole[0, columns[0]], atol=ROUNDING)
    with pytest.raises(ValueError, match="received_attention"):
        encode(config, params, tokens, segments, positions, received_attention=True, read=columns)


def test_gradients_through_columns_read_are_those_of_the_whole():
    inputs, columns = rows([5, 6, 7, 8], [9, 10]), jnp.array([[1, 4]])

    def loss(params, read):
        found = encode(tiny.MODEL, params, *inputs, read=read).hidden_states
        return jnp.square(found if read is not None else found[:, columns[0]]).sum()

    whole, read = (jax.grad(loss)(tiny.params(), chosen) for chosen in (None, columns))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, read)


@pytest.mark.parametrize(
    ("layers", "prefix", "read"), [(1, False, True), (2, True, False), (4, False, False), (4, True, True)]
)
def test_layers_in_a_loop_are_those_one_by_one(layers, prefix, read):
    config = dataclasses.replace(tiny.MODEL, num_layers=layers)
    looped = dataclasses.replace(config, scan_layers=True)
    params = tiny.params(model=config)
    if prefix:
        params["prefix"] = jax.random.normal(jax.random.key(1), (layers, 2, 3, config.num_heads, 8))
    inputs = rows([1, 7, 8, 2], [1, 9, 2], tokens=10)
    wanted = {"all_layers": True, "read": jnp.array([[1, 5, 4]]) if read else None, "received_attention": not read}
    ours, expected = (encode(each, params, *inputs, **wanted) for each in (looped, config))
    assert len(ours.all_layers) == layers + 1
    tolerance = rounding(encoder_operations(config))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, expected)
    if layers > 1:
        assert "scan" in str(jax.make_jaxpr(lambda: encode(looped, params, *inputs).hidden_states)())


@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
@pytest.mark.parametrize(("remat", "prefix"), [(False, False), (True, False), (True, True)])
def test_layers_in_a_loop_learn_as_those_one_by_one(remat, prefix, generator):
    """Values and gradients with the same dropout, of every parameter and of a prefix, all of it drawn anew in each layer."""
    config = dataclasses.replace(DROPPING, num_layers=3, remat=remat)
    params = tiny.params(model=config)
    if prefix:
        params["prefix"] = jax.random.normal(jax.random.key(1), (3, 2, 3, config.num_heads, 8))
    inputs = rows([1, 7, 8, 2], [1, 9, 2], tokens=10)
    weights = np.random.default_rng(0).normal(size=(1, 10, config.hidden_size)).astype(np.float32)

    def loss(params, config):
        rng = jax.random.key(4, impl=generator)
        found = encode(config, params, *inputs, dropout_rng=rng).hidden_states
        return jnp.sum(weights * found), found

    (_, found), grads = jax.value_and_grad(loss, has_aux=True)(params, dataclasses.replace(config, scan_layers=True))
    (_, expected), wanted = jax.value_and_grad(loss, has_aux=True)(params, config)
    tolerance = rounding(2 * encoder_operations(config))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(wanted), strict=True):
        size = float(jnp.abs(theirs).max()) + 1.0  # key biases have gradient zero by symmetry
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * size, rtol=tolerance, err_msg=name)
    plain = encode(config, params, *inputs).hidden_states
    assert float(jnp.abs(plain - found).max()) > 0.01
