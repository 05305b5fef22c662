"""A new family is one file and one line: a toy is registered, written, read, looked at, written again and refused."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncfair_jax.models import families, load_pretrained, logits, save_pretrained
from ncfair_jax.models.base import Ask, Family, Rows, Tensor
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import ModelFolderError, load_pooler
from ncfair_jax.models.tensor_table import layers_of, written_out
from ncfair_jax.models.tensors import with_shapes
from tests import tiny, tiny_hub, toy_family

WEIGHTS = "model.safetensors"


@pytest.fixture
def registered(monkeypatch) -> None:
    toy_family.register(monkeypatch)


def rewrite(folder: Path, change) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def by_numpy(params, ids: list[int]) -> np.ndarray:
    """Logits of one sequence, in float64."""
    p = jax.tree.map(np.float64, params)
    x = p["embeddings"]["word"]["embedding"][ids]
    for layer in p["layers"].values():
        x = x + np.tanh(x.mean(0) @ layer["kernel"] + layer["bias"])
    return (x @ p["head"]["kernel"] + p["head"]["bias"]) @ p["embeddings"]["word"]["embedding"].T + p["decoder"]["bias"]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_family_that_the_package_does_not_know(tmp_path, registered, depth):
    model = toy_family.pretrained(depth=depth)
    folder = toy_family.write(tmp_path / "bag", depth=depth)
    content = json.loads((folder / "config.json").read_text())
    assert (content["model_type"], content["depth"], content["dtype"]) == ("bag", depth, "float32")
    stored = load_file(folder / WEIGHTS)
    assert len(stored) == 4 + 2 * depth
    np.testing.assert_array_equal(stored["bag.layers.0.weight"].T, model.params["layers"]["layer_0"]["kernel"])

    loaded = load_pretrained(folder)
    assert loaded.config == model.config
    tiny_hub.assert_same_params(loaded.params, jax.tree.map(jnp.asarray, model.params))
    ids = loaded.tokenizer(["she was tired", "the nurse said that he was tired."], padding=True, return_tensors="np")
    found = np.asarray(logits(loaded, ids["input_ids"], ids["attention_mask"]))
    for row, (tokens, mask) in enumerate(zip(ids["input_ids"], ids["attention_mask"], strict=True)):
        real = tokens[mask == 1].tolist()
        np.testing.assert_allclose(found[row, : len(real)], by_numpy(model.params, real), atol=1e-4)

    save_pretrained(tmp_path / "again", loaded)
    tiny_hub.assert_same_params(load_pretrained(tmp_path / "again").params, loaded.params)


def test_it_needed_one_file_and_one_line():
    """The file stands on models/ alone, and on helpers of the tests; without the line nobody knows of it."""
    assert toy_family.BAG not in families.FAMILIES
    tree = ast.parse(Path(toy_family.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in names if name.startswith("ncfair_jax")} - {"ncfair_jax.files.digests"}
    assert all(name.startswith("ncfair_jax.models") for name in ours)


def test_it_is_refused_where_it_is_not_registered(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        toy_family.register(patch)
        folder = toy_family.write(tmp_path / "bag")
    with pytest.raises(ModelFolderError, match="model_type='bag'; only models of the families bert and roberta"):
        load_pretrained(folder)
    with pytest.raises(ValueError, match=r"model_type='bag'; choose from \['bert', 'roberta'\]"):
        save_pretrained(tmp_path / "other", toy_family.pretrained())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: v for n, v in t.items() if n != "bag.layers.0.bias"}, r"missing tensor layers\.0\.bias"),
        (lambda t: t | {"bag.layers.1.bias": t["bag.layers.0.bias"]}, r"unexpected tensor bag\.layers\.1\.bias \[16\]"),
        (lambda t: t | {"head.weight": np.ones((3, 16), np.float32)}, r"head\.weight has shape \[3, 16\]"),
        (
            lambda t: t | {"decoder.weight": t["bag.words.weight"] + 1},
            r"decoder\.weight differs from bag\.words\.weight",
        ),
        (lambda t: t | {"head.bias": np.full(16, np.nan, np.float32)}, r"not finite .*head\.bias \(16 of 16 values\)"),
        (
            lambda t: {n: v for n, v in t.items() if "layers" not in n},
            "num_hidden_layers=1, but there are tensors of 0",
        ),
        (
            lambda t: {n: v for n, v in t.items() if n.startswith("bag.")},
            r"no masked-LM head \(head\.weight, head\.bias, decoder\.bias\)",
        ),
    ],
)
def test_its_folders_are_checked_as_all_are(tmp_path, registered, change, message):
    folder = toy_family.write(tmp_path / "bag")
    rewrite(folder, change)
    with pytest.raises(ModelFolderError, match=message):
        load_pretrained(folder)


def test_other_forms_of_its_folders_are_read(tmp_path, registered):
    folder = toy_family.write(tmp_path / "bag")
    expected = jax.tree.map(jnp.asarray, toy_family.pretrained().params)
    rewrite(folder, lambda t: {f"module.{n.removeprefix('bag.')}": v for n, v in t.items()})
    tiny_hub.assert_same_params(load_pretrained(folder).params, expected)
    rewrite(folder, lambda t: {n.replace("module.words", "decoder"): v for n, v in t.items()})
    tiny_hub.assert_same_params(load_pretrained(folder).params, expected)
    rewrite(folder, lambda t: {n: v for n, v in t.items() if "layers" in n} | {"words.weight": t["decoder.weight"]})
    head = load_pretrained(folder, head="identity").params["head"]
    np.testing.assert_array_equal(head["kernel"], np.eye(16))
    assert load_pooler(folder, toy_family.pretrained().config) is None


def test_wrong_fields_of_its_config_are_listed_at_once(tmp_path, registered):
    folder = toy_family.write(tmp_path / "bag")
    tiny_hub.edit_config(folder, width="16", depth=0, tie_word_embeddings=1)
    with pytest.raises(ModelFolderError, match="3 problems") as error:
        load_pretrained(folder)
    assert all(name in str(error.value) for name in ("width=", "depth=0", "tie_word_embeddings=1"))


def test_a_prefix_beside_it_is_refused(tmp_path, registered):
    folder = toy_family.write(tmp_path / "bag")
    save_file({"prefix": np.zeros((1, 2, 3, 2, 8), np.float32)}, folder / "prefix.safetensors")
    with pytest.raises(ModelFolderError, match="a bag model takes no prefix"):
        load_pretrained(folder)


@pytest.fixture(params=["bert", "roberta", "bag"])
def any_model(request, monkeypatch):
    toy_family.register(monkeypatch)
    return toy_family.pretrained() if request.param == "bag" else tiny_hub.pretrained(request.param)


def test_what_every_family_promises(any_model):
    """The shapes of its functions, its table against its parameters, and paths that exist."""
    config, params, _ = any_model
    family = family_of(config)
    assert isinstance(family, Family)
    assert config.model_type in family.model_types
    rows = Rows(*np.array([[[5, 6, 7, 0]], [[1, 1, 1, 0]], [[0, 1, 2, 0]]], np.int32))
    ask = Ask(all_layers=True, received_attention=True)
    out = family.hidden(config, params, rows, ask)
    assert out.hidden_states.shape == (1, 4, config.hidden_size)
    assert [layer.shape for layer in out.all_layers] == [(1, 4, config.hidden_size)] * (config.num_layers + 1)
    np.testing.assert_allclose(out.received_attention[0, :3].sum(), 1, atol=1e-5)
    assert family.hidden(config, params, rows, Ask()).all_layers is None
    with pytest.raises(ValueError, match="received_attention"):
        family.hidden(config, params, rows, ask._replace(read=jnp.array([[1]])))
    features = family.features(config, params, out.hidden_states)
    weight, bias = family.classifier(params)
    assert weight.shape == (config.vocab_size, features.shape[-1])
    assert family.logits(config, params, features).shape == (1, 4, config.vocab_size)
    assert bias is None or bias.shape == (config.vocab_size,)
    assert family.embedding(params).shape[0] == config.vocab_size

    paths = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
             for path, leaf in jax.tree_util.tree_leaves_with_path(params)}  # fmt: skip
    table = written_out(with_shapes(config), range(config.num_layers))
    assert {tensor.path: tensor.shape for tensor in table if tensor.path and not tensor.extra} == paths
    assert family.fold.kernel in paths
    assert family.fold.bias in paths
    for pattern in family.adapters.values():
        assert any(re.search(pattern, path) for path in paths)


def test_rows_of_a_batch():
    batch = {
        name: np.full((1, 2), number) for number, name in enumerate(["tokens", "segment_ids", "positions", "labels"])
    }
    assert [part if part is None else int(part[0, 0]) for part in Rows.of(batch)] == [0, 1, 2, None]
    assert Rows.of(batch | {"token_types": np.ones((1, 2))}).token_types is not None


def test_layers_in_names():
    tensors = [
        Tensor("m.h.{}.a", "h/layer_{}/a"),
        Tensor("m.h.{}.b", "h/layer_{}/b", first_layer=1),
        Tensor("m.c", "c"),
    ]
    found = [(tensor.name, tensor.path) for tensor in written_out(tensors, [0, 1])]
    assert found == [
        ("m.h.0.a", "h/layer_0/a"), ("m.h.1.a", "h/layer_1/a"), ("m.h.1.b", "h/layer_1/b"), ("m.c", "c"),
    ]  # fmt: skip
    assert layers_of(["h.0.a", "h.12.b", "h.01.a", "x.3.a", "c"], tensors, "m") == {0, 12}
    assert layers_of(["h.0.a"], tensors[2:], "m") == set()


def test_equal_configs_of_two_families_are_two():
    assert dataclasses.replace(tiny.MODEL) == tiny.MODEL
    assert toy_family.pretrained().config != tiny.MODEL
