"""Hugging Face folders: what is accepted, what is refused in one message, and that nothing is left half-written."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import BertTokenizerFast

from ncfair_jax.models import hf
from ncfair_jax.models.hf import ModelFolderError, Pretrained, load_pretrained, save_pretrained
from tests import tiny

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A complete tiny BERT folder, of which the tests change copies."""
    folder = tmp_path_factory.mktemp("hf")
    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{i}" for i in range(tiny.VOCAB - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    save_pretrained(folder / "model", Pretrained(tiny.MODEL, tiny.params(), tokenizer), card="# card")
    return folder / "model"


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def rewrite(folder: Path, change) -> None:
    """Replaces the tensors by change(tensors)."""
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS, metadata={"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same_params(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_round_trip_is_bitwise_and_keeps_config_card_and_tokenizer(original):
    model = load_pretrained(original)
    assert model.config == tiny.MODEL
    same_params(model.params, tiny.params())
    assert model.tokenizer("W3 w4")["input_ids"] == [1, 8, 9, 2]  # lower-casing survives
    assert (original / "README.md").read_text() == "# card"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_float32(folder, dtype):
    rewrite(folder, lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    params = load_pretrained(folder).params
    expected = jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(np.float32), tiny.params())
    same_params(params, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_shards_are_read_through_their_index(folder):
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    index = {"weight_map": {name: file for file, members in parts.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()
    same_params(load_pretrained(folder).params, tiny.params())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="model-00002-of-00002"):
        load_pretrained(folder)


def test_old_names_and_known_extras_are_accepted(folder):
    def aged(tensors):
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in tensors.items()
        }
        width = tiny.MODEL.hidden_size
        old["bert.pooler.dense.weight"] = np.zeros((width, width), np.float32)
        old["bert.pooler.dense.bias"] = np.zeros(width, np.float32)
        old["cls.seq_relationship.weight"] = np.zeros((2, width), np.float32)
        old["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
        old["bert.embeddings.position_ids"] = np.arange(40)[None]
        old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
        old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
        return old

    rewrite(folder, aged)
    same_params(load_pretrained(folder).params, tiny.params())


def test_an_untied_decoder_is_refused(folder):
    rewrite(
        folder,
        lambda t: t | {"cls.predictions.decoder.weight": t["bert.embeddings.word_embeddings.weight"] + np.float32(1)},
    )
    with pytest.raises(ModelFolderError, match="decoder"):
        load_pretrained(folder)


def test_a_missing_head_must_be_asked_for(folder):
    rewrite(folder, lambda t: {name.removeprefix("bert."): v for name, v in t.items() if not name.startswith("cls.")})
    with pytest.raises(ModelFolderError, match='head="identity"'):
        load_pretrained(folder)
    head = load_pretrained(folder, head="identity").params["mlm"]
    np.testing.assert_array_equal(head["transform"]["kernel"], np.eye(tiny.MODEL.hidden_size))
    np.testing.assert_array_equal(head["bias"], 0)
    seeded = [load_pretrained(folder, head=f"seeded:{seed}").params["mlm"]["transform"]["kernel"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(seeded[0], seeded[1])
    assert not np.array_equal(seeded[0], seeded[2])


def test_everything_wrong_is_listed_at_once(folder):
    def damage(tensors):
        tensors = dict(tensors)
        del tensors["bert.encoder.layer.1.output.dense.bias"]
        tensors["bert.encoder.layer.0.output.dense.bias"] = np.zeros(3, np.float32)
        tensors["bert.encoder.layer.7.output.dense.bias"] = np.zeros(16, np.float32)
        return tensors

    rewrite(folder, damage)
    with pytest.raises(ModelFolderError) as error:
        load_pretrained(folder)
    text = str(error.value)
    for part in ("layer.1.output.dense.bias", "layer.0.output.dense.bias has shape [3]", "layer.7.output.dense.bias"):
        assert part in text
    assert "3 problems" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2'"),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"num_attention_heads": 3}, "num_heads=3"),
    ],
)
def test_unsupported_configs_are_named(folder, change, message):
    edit_config(folder, **change)
    with pytest.raises(ModelFolderError, match=message):
        load_pretrained(folder)


def test_folders_that_lack_something(folder, tmp_path):
    with pytest.raises(ModelFolderError, match="looks like a local folder, but there is none"):
        load_pretrained("./nowhere")
    (folder / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(ModelFolderError, match=r"has no config\.json"):
        load_pretrained(folder)
    (tmp_path / "config.json").rename(folder / "config.json")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFolderError, match=r"model\.safetensors"):
        load_pretrained(folder)
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match="AutoModelForMaskedLM"):
        load_pretrained(folder)


def test_a_tokenizer_of_another_size_or_none_is_refused(folder):
    larger = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{i}" for i in range(tiny.VOCAB))]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelFolderError, match="tokenizer"):
        load_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(larger) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    with pytest.raises(ModelFolderError, match=r"the tokenizer has 65 tokens, the model's vocabulary 60 rows"):
        load_pretrained(folder)


def test_offline_says_what_it_would_have_fetched():
    with pytest.raises(ModelFolderError, match=r"offline mode forbids fetching .*config\.json.*model\*\.safetensors"):
        load_pretrained("ncfair-nobody/no-such-model", offline=True)


def test_a_failed_save_leaves_the_old_folder_whole(folder, monkeypatch):
    model = load_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(hf, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(folder, model)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path, original):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelFolderError, match="is not a model folder"):
        save_pretrained(tmp_path, load_pretrained(original))
