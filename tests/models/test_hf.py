"""Hugging Face folders: what is accepted, what is refused in one message, and that nothing is left half-written."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, BertTokenizerFast

from ncfair_jax.models import hf
from ncfair_jax.models.hf import ModelFolderError, Pretrained, load_pretrained, save_pretrained
from tests import tiny, tiny_hub

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
    """A folder to change: without digests, as others write it."""
    return Path(shutil.copytree(original, tmp_path / "model", ignore=shutil.ignore_patterns("digests.json")))


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
        ({"num_attention_heads": 3}, "num_attention_heads=3"),
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


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_both_families_come_back_in_every_dtype_they_are_saved_in(kind, dtype, tmp_path):
    model = tiny_hub.pretrained(kind)
    save_pretrained(tmp_path / "saved", model, dtype=dtype)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)).astype(np.float32), model.params)
    again = load_pretrained(tmp_path / "saved")
    assert again.config == model.config
    tiny_hub.assert_same_params(again.params, rounded)
    read_by_others = AutoConfig.from_pretrained(tmp_path / "saved")
    assert (read_by_others.model_type, read_by_others.vocab_size, str(read_by_others.dtype).removeprefix("torch.")) == (
        kind,
        model.config.vocab_size,
        dtype,
    )


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_the_saved_tokenizer_tokenises_identically(kind, tmp_path):
    model = tiny_hub.pretrained(kind)
    model.tokenizer(["short", "padded and cut"], padding=True, truncation=True, max_length=5)  # must leave no trace
    save_pretrained(tmp_path / "saved", model)
    fresh = tiny_hub.tokenizer(kind)
    sentences = [*tiny_hub.SENTENCES, f"she said {fresh.mask_token}.", f"{fresh.mask_token} and  {fresh.sep_token}"]
    for again in (load_pretrained(tmp_path / "saved").tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        for text in sentences:
            assert again(text)["input_ids"] == fresh(text)["input_ids"], text
            assert again(text, "he said")["input_ids"] == fresh(text, "he said")["input_ids"], text


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_encoder_names_without_prefix_and_a_copy_of_the_bias_only(kind, tmp_path):
    folder = tiny_hub.write(tmp_path / "model", kind)
    bias, copy = {
        "bert": ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        "roberta": ("lm_head.bias", "lm_head.decoder.bias"),
    }[kind]
    rewrite(folder, lambda t: {copy if n == bias else n.removeprefix(f"{kind}."): v for n, v in t.items()})
    tiny_hub.assert_same_params(
        load_pretrained(folder).params, jax.tree.map(jnp.asarray, tiny_hub.pretrained(kind).params)
    )


def test_a_roberta_without_head_and_an_untied_one(tmp_path):
    folder = tiny_hub.write(tmp_path / "model", "roberta")
    rewrite(folder, lambda t: t | {"lm_head.decoder.weight": 2 * t["roberta.embeddings.word_embeddings.weight"]})
    with pytest.raises(ModelFolderError, match=r"lm_head\.decoder\.weight differs from .*untied.*delete"):
        load_pretrained(folder)
    rewrite(folder, lambda t: {n: v for n, v in t.items() if not n.startswith("lm_head.")})
    with pytest.raises(ModelFolderError, match=r'no masked-LM head .*lm_head.*head="identity"'):
        load_pretrained(folder)
    with pytest.raises(ModelFolderError, match="head='seeded' is unknown"):
        load_pretrained(folder, head="seeded")
    load_pretrained(folder, head="seeded:42")


def test_an_unknown_dtype_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ModelFolderError, match="dtype='int8'; choose from"):
        save_pretrained(tmp_path / "out", tiny_hub.pretrained("bert"), dtype="int8")
    assert not list(tmp_path.iterdir())


def test_a_failed_first_save_leaves_nothing(tmp_path, monkeypatch):
    model = tiny_hub.pretrained("bert")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(hf, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(tmp_path / "out", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b/c", "looks like a local folder, but there is none"),
        ("~/no-such-model-folder", "looks like a local folder, but there is none"),
        ("not a name!", "neither a folder here nor a possible Hub name"),
    ],
)
def test_names_that_are_neither_folder_nor_hub_name(name, message):
    with pytest.raises(ModelFolderError, match=message):
        load_pretrained(name)
    with pytest.raises(ModelFolderError, match="looks like a local folder"):
        load_pretrained(Path(name))


def test_config_that_is_no_config(folder):
    for text, message in (
        ("{", "not JSON"),
        ("[]", "holds a list"),
        ('{"model_type": "bert"}', "has no vocab_size"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelFolderError, match=message):
            load_pretrained(folder)


def test_a_tensor_stored_twice_or_as_integers_is_named(folder):
    rewrite(folder, lambda t: t | {"cls.predictions.bias": t["cls.predictions.bias"].astype(np.int32)})
    with pytest.raises(ModelFolderError, match=r"cls\.predictions\.bias has type I32, expected one of F16"):
        load_pretrained(folder)
    name = "bert.embeddings.LayerNorm.weight"
    rewrite(folder, lambda t: t | {name.removeprefix("bert."): t[name]})
    with pytest.raises(ModelFolderError, match=r"embeddings\.LayerNorm\.weight is there twice"):
        load_pretrained(folder)
