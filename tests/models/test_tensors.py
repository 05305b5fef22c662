"""Weights: names that wrappers and other tasks leave behind, tied and untied decoders, and numbers that are not finite."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncfair_jax.models.hf import ModelFolderError, load_head, load_pooler, load_pretrained, save_pretrained
from tests import tiny_hub

WEIGHTS = "model.safetensors"
WORDS = "{0}.embeddings.word_embeddings.weight"
DECODER = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}
BIAS = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}


@pytest.fixture(params=tiny_hub.KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def folder(kind, tmp_path) -> Path:
    return tiny_hub.write(tmp_path / "model", kind)


def rewrite(folder: Path, change) -> None:
    """Replaces the tensors by change(tensors)."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def assert_as_written(folder: Path, kind: str, **options) -> None:
    expected = jax.tree.map(jnp.asarray, tiny_hub.pretrained(kind).params)
    tiny_hub.assert_same_params(load_pretrained(folder, **options).params, expected)


def renamed(names: dict[str, str]):
    return lambda tensors: {names.get(name, name): value for name, value in tensors.items()}


def test_a_decoder_stored_instead_of_the_embeddings(folder, kind):
    decoder = DECODER[kind]
    rewrite(folder, renamed({WORDS.format(kind): f"{decoder}.weight"}))
    assert_as_written(folder, kind)
    rewrite(folder, renamed({BIAS[kind]: f"{decoder}.bias"}))
    assert_as_written(folder, kind)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("encoder.", "_orig_mod.encoder.").replace("layer.1.", "layer.1._orig_mod."),
        lambda name: f"_fsdp_wrapped_module.{name.replace('.attention.', '.attention._checkpoint_wrapped_module.')}",
    ],
    ids=["module", "compiled", "both", "inside", "fsdp"],
)
def test_names_of_wrappers(folder, kind, wrapped):
    rewrite(folder, lambda tensors: {wrapped(name): value for name, value in tensors.items()})
    assert_as_written(folder, kind)


def test_wrapped_and_plain_names_of_one_tensor_are_refused(folder, kind):
    rewrite(folder, lambda tensors: tensors | {f"module.{BIAS[kind]}": tensors[BIAS[kind]]})
    with pytest.raises(ModelFolderError, match="is there twice"):
        load_pretrained(folder)


def untied(folder: Path, kind: str, *parts: str) -> None:
    """Says that the decoder is not tied, and stores copies of the tied tensors as these parts of it."""
    originals = {"weight": WORDS.format(kind), "bias": BIAS[kind]}
    rewrite(folder, lambda t: t | {f"{DECODER[kind]}.{part}": t[originals[part]].copy() for part in parts})
    tiny_hub.edit_config(folder, tie_word_embeddings=False)


@pytest.mark.parametrize(
    ("parts", "missing"), [((), "{0}.weight and no {0}.bias"), (("weight",), "{0}.bias"), (("bias",), "{0}.weight")]
)
def test_an_untied_model_without_a_whole_decoder_is_refused(folder, kind, parts, missing):
    untied(folder, kind, *parts)
    with pytest.raises(ModelFolderError) as error:
        load_pretrained(folder)
    assert "tie_word_embeddings=false, but there is no " + missing.format(DECODER[kind]) in str(error.value)


def test_an_untied_model_whose_decoder_is_the_embedding_table_is_read(folder, kind):
    untied(folder, kind, "weight", "bias")
    assert_as_written(folder, kind)
    rewrite(folder, lambda t: {name: value for name, value in t.items() if name != BIAS[kind]})
    assert_as_written(folder, kind)
    rewrite(folder, lambda t: t | {f"{DECODER[kind]}.weight": 2 * t[f"{DECODER[kind]}.weight"]})
    with pytest.raises(ModelFolderError, match=r"decoder\.weight differs from .*: the model is untied"):
        load_pretrained(folder)
    rewrite(folder, lambda t: {name: value for name, value in t.items() if name != WORDS.format(kind)})
    with pytest.raises(ModelFolderError, match=r"missing tensor embeddings\.word_embeddings\.weight"):
        load_pretrained(folder)


CLASSIFIERS = {
    "texts or tokens": ("classifier.weight", "classifier.bias"),
    "texts (RoBERTa)": tuple(f"classifier.{p}.{part}" for p in ("dense", "out_proj") for part in ("weight", "bias")),
    "questions": ("qa_outputs.weight", "qa_outputs.bias"),
}


@pytest.mark.parametrize("names", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_classifier_is_left_out_and_told(folder, kind, names, caplog):
    classifier = {name: np.ones((2, 16) if name.endswith("weight") else 2, np.float32) for name in names}
    heads = ("cls.", "lm_head.")
    rewrite(folder, lambda t: {n: v for n, v in t.items() if not n.startswith(heads)} | classifier)
    with pytest.raises(ModelFolderError, match=r'no masked-LM head .*, but a classifier \(.*head="identity"'):
        load_pretrained(folder)
    caplog.clear()
    params = load_pretrained(folder, head="identity").params
    np.testing.assert_array_equal(params["mlm"]["transform"]["kernel"], np.eye(params["mlm"]["bias"].ndim * 16))
    assert f"the classifier ({', '.join(sorted(names))}) is not part of a masked LM and is left out" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_not_finite_are_refused(folder, kind, value, dtype):
    scale = f"{kind}.encoder.layer.1.output.LayerNorm.weight"

    def damage(tensors):
        tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
        tensors[scale][7] = value
        tensors[WORDS.format(kind)][3] = value
        return tensors

    rewrite(folder, damage)
    with pytest.raises(ModelFolderError) as error:
        load_pretrained(folder)
    text, size = str(error.value), tiny_hub.config(kind).vocab_size * 16
    assert f"{scale} (1 of 16 values)" in text
    assert f"{WORDS.format(kind)} (16 of {size:,} values)" in text
    assert "\n" not in text


def test_a_model_of_nothing_but_nan_is_refused_in_one_line(folder):
    rewrite(folder, lambda tensors: {name: np.full_like(tensor, np.nan) for name, tensor in tensors.items()})
    with pytest.raises(ModelFolderError, match=r"and \d+ more tensors; every figure") as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_copy_that_is_not_finite_is_told_so_and_not_called_untied(folder, kind):
    rewrite(folder, lambda t: t | {f"{DECODER[kind]}.bias": np.full_like(t[BIAS[kind]], np.inf)})
    with pytest.raises(ModelFolderError, match=rf"not finite .*: {DECODER[kind]}\.bias"):
        load_pretrained(folder)


def test_shards_with_a_value_that_is_not_finite(folder, kind):
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    tensors[names[-1]].flat[0] = np.nan
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelFolderError, match=rf"not finite .*: {names[-1]} \(1 of"):
        load_pretrained(folder)
    for broken in ({"weight_map": [names[0]]}, {"weight_map": {names[0]: 1}}, {"weight_map": {}}, {}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(broken))
        with pytest.raises(ModelFolderError, match=r"index\.json names no file"):
            load_pretrained(folder)


def test_pooler_prefix_and_head_must_be_finite(folder, kind):
    rewrite(folder, lambda t: t | {"pooler.dense.weight": np.eye(16, dtype=np.float32) * np.nan,
                                   "pooler.dense.bias": np.zeros(16, np.float32)})  # fmt: skip
    model = load_pretrained(folder)  # does not read the pooler
    with pytest.raises(ModelFolderError, match=r"pooler\.dense\.weight \(256 of 256 values\)"):
        load_pooler(folder, model.config)
    heads = model.config.num_heads
    prefix = np.full((model.config.num_layers, 2, 3, heads, 16 // heads), np.nan, np.float32)
    save_file({"prefix": prefix}, folder / "prefix.safetensors")
    with pytest.raises(ModelFolderError, match=r"prefix\.safetensors: not finite"):
        load_pretrained(folder)
    save_file({"classifier/bias": np.array([0, np.inf], np.float32)}, folder / "head.safetensors")
    with pytest.raises(ModelFolderError, match=r"head\.safetensors: not finite .* classifier/bias \(1 of 2 values\)"):
        load_head(folder)


def test_nothing_that_is_not_finite_is_written(kind, tmp_path):
    model = tiny_hub.pretrained(kind)
    scale = model.params["encoder"]["layer_1"]["norm"]["scale"]
    scale[3] = 70_000
    with pytest.raises(ModelFolderError, match=r"layer\.1\.output\.LayerNorm\.weight has values up to 7e\+04.*float16"):
        save_pretrained(tmp_path / "out", model, dtype="float16")
    save_pretrained(tmp_path / "wide", model, dtype="bfloat16")
    scale[3] = np.finfo(np.float32).max  # rounds up to infinity
    with pytest.raises(ModelFolderError, match="which bfloat16 cannot hold; save in float32"):
        save_pretrained(tmp_path / "out", model, dtype="bfloat16")
    scale[3] = np.nan
    with pytest.raises(ModelFolderError, match=r"not finite .*LayerNorm\.weight \(1 of 16 values\)"):
        save_pretrained(tmp_path / "out", model)
    scale[3] = 1
    head = {"classifier": {"bias": np.array([np.nan], np.float32)}}
    with pytest.raises(ModelFolderError, match=r"not finite .*classifier/bias"):
        save_pretrained(tmp_path / "out", model, head=head)
    assert [path.name for path in tmp_path.iterdir()] == ["wide"]
