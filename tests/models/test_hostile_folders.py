"""Model folders from anywhere: whatever a file claims, the folder loads or is refused, before memory is taken for it."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncfair_jax.models import tensors
from ncfair_jax.models.hf import ModelFolderError, load_head, load_pooler, load_pretrained
from ncfair_jax.models.tokenizer import read_tokenizer
from tests import tiny_hub

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NESTED: list = []
for _ in range(400):
    NESTED = [NESTED]
NASTY = [
    None, True, False, 0, -1, -(10**9), 3, 7, 10**7, 10**8, 2**31, 2**63, 10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 2.5, 1e-400,
    1e300, float("nan"), float("inf"), "", "16", "gelu", "a\nb", "x" * 10_000, [], [16], {}, {"a": 1}, NESTED,
]  # fmt: skip
# Those that are read, and some that only other libraries read.
FIELDS = [
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "initializer_range", "hidden_act", "position_embedding_type", "is_decoder", "add_cross_attention", "quantization_config",
    "tie_word_embeddings", "pad_token_id", "dtype", "architectures", "auto_map",
]  # fmt: skip
SLOWEST = 20.0  # seconds; a load takes 0.1 on an idle machine, and an eval_shape of 10^7 layers would take hours


@pytest.fixture(scope="module", params=tiny_hub.KINDS)
def original(request, tmp_path_factory) -> Path:
    return tiny_hub.write(tmp_path_factory.mktemp("hostile") / "model", request.param)


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def loads(folder: Path, head: str = "") -> bool:
    """Whether the folder loads; if not, that the message is one line for each problem."""
    return read_by(partial(load_pretrained, head=head), folder) is not None


def read_by(read: Callable[[Path], Any], folder: Path) -> Any:
    """What is read of a folder; or None, if it is refused by one line for each problem."""
    began = time.perf_counter()
    try:
        return read(folder)
    except ModelFolderError as error:
        first, *problems = str(error).split("\n")
        assert str(folder) in first
        assert all(line.startswith("  - ") for line in problems)
        assert max(map(len, [first, *problems])) < 1500
        return None
    finally:
        assert time.perf_counter() - began < SLOWEST


def refused(folder: Path, message: str, call: Callable = load_pretrained) -> None:
    with pytest.raises(ModelFolderError, match=message) as error:
        call(folder)
    assert "\n" not in str(error.value)


def rewrite(folder: Path, change: Callable) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("field", FIELDS)
def test_any_value_of_any_field_is_loaded_or_refused(folder, field):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    found = []
    for value in NASTY:
        path.write_text(json.dumps(content | {field: value}))
        found.append(loads(folder))
    assert not all(found) or field in ("dtype", "architectures", "initializer_range")


def test_sizes_that_the_weights_do_not_have_are_refused_before_a_head_is_made(folder, monkeypatch):
    rewrite(folder, lambda t: {n: v for n, v in t.items() if not n.startswith(("cls.", "lm_head."))})
    assert loads(folder, head="seeded:1")
    monkeypatch.setattr(tensors, "_fresh_head", lambda *_: pytest.fail("made parameters of a config that is wrong"))
    config = (folder / "config.json").read_text()
    for name, value in {"vocab_size": 10**7, "hidden_size": 10**6, "intermediate_size": 10**7}.items():
        (folder / "config.json").write_text(config)
        tiny_hub.edit_config(folder, **{name: value})
        assert not loads(folder, head="seeded:1")


def test_layers_without_tensors_are_one_problem(folder):
    tiny_hub.edit_config(folder, num_hidden_layers=10**7)
    refused(folder, r"num_hidden_layers=10000000, but there are tensors of 2 of these layers only; correct")
    rewrite(folder, lambda t: {n: v for n, v in t.items() if ".layer.1." not in n})
    tiny_hub.edit_config(folder, num_hidden_layers=2)
    refused(folder, r"num_hidden_layers=2, but there are tensors of 1 of these layers only")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"vocab_size": ' + "9" * 5000 + "}",
        '{"a": 1, ' * 3 + "}",
        "\0" * 100,
        "\ufeff",
        "",
        "null",
        '"bert"',
    ],
)
def test_files_that_are_no_json_objects(folder, text):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(text)
    refused(folder, INDEX)
    (folder / "config.json").write_text(text)
    refused(folder, r"config\.json")


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors", "/etc/passwd", "sub/model-1.safetensors", "..", "", "model\0.safetensors", "a\nb.safetensors",
        "..\\model.safetensors", "model" + "x" * 5000 + ".safetensors", "pytorch_model.bin",
        "other.safetensors", "model-é.safetensors",
    ],
)  # fmt: skip
def test_an_index_names_files_beside_it_only(folder, name):
    (folder.parent / "other.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, "names .* expected the name of a file beside it")


def test_links_are_followed_as_the_hub_cache_makes_them(folder):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    name = "model-00001-of-00001.safetensors"
    (folder / WEIGHTS).rename(blobs / "0a1b")
    (folder / name).symlink_to("../blobs/0a1b")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    assert loads(folder)


def header(content: object, claimed: int | None = None, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 7,
        header({}, claimed=2**63),
        header({}, claimed=10**6),
        header(b"[" * 10_000),
        header(b'{"a":' * 10_000),
        header({"a": ONE | {"shape": [10**12, 10**12]}}, data=bytes(4)),
        header({"a": ONE | {"shape": [2**62, 4]}}, data=bytes(4)),
        header({"a": ONE | {"shape": [-1]}}, data=bytes(4)),
        header({"a": ONE | {"shape": "1"}}, data=bytes(4)),
        header({"a": ONE | {"data_offsets": [0, 10**15]}}, data=bytes(4)),
        header({"a": ONE | {"data_offsets": [4, 0]}}, data=bytes(4)),
        header({"a": ONE | {"dtype": "F7"}}, data=bytes(4)),
        header({"a": ONE, "b": ONE}, data=bytes(4)),
        header({"a": ONE}),
        header([ONE], data=bytes(4)),
    ],
    ids=range(16),
)
def test_weight_files_that_lie_about_themselves(folder, content):
    for name, call in (
        (WEIGHTS, load_pretrained),
        ("prefix.safetensors", load_pretrained),
        ("head.safetensors", load_head),
    ):
        whole = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_bytes(content)
        refused(folder, rf"{name}.* is truncated or not safetensors", call)
        (folder / name).unlink() if whole is None else (folder / name).write_bytes(whole)


def test_names_of_tensors_break_no_line_and_many_are_counted(folder):
    extra = {f"x\n\x1b[31m{'y' * 5000}{number}": np.zeros(1, np.float32) for number in range(200)}
    rewrite(folder, lambda t: t | extra)
    with pytest.raises(ModelFolderError, match=r"200 problems\n(  - .{1,1002}\n){50}  - and 150 more$") as error:
        load_pretrained(folder)
    assert "\x1b" not in str(error.value)


def test_layer_numbers_that_are_no_numbers_are_unexpected_tensors(folder):
    whole = load_file(folder / WEIGHTS)
    for number in ("9" * 5000, "00", "-1", "١", "1.5"):
        extra = {f"encoder.layer.{number}.output.dense.bias": np.zeros(16, np.float32)}
        save_file(whole | extra, folder / WEIGHTS)
        refused(folder, r"unexpected tensor encoder\.layer\.")


def test_small_files_of_other_shapes_and_types(folder):
    config = load_pretrained(folder).config
    for table in (
        np.zeros(3, np.float32),
        np.zeros((2, 2, 0, 4, 4), np.float32),
        np.zeros((9, 2, 3, 4, 4), np.float32),
    ):
        save_file({"prefix": table}, folder / "prefix.safetensors")
        refused(folder, r"prefix\.safetensors has shape .*remove it")
    save_file({"prefix": np.zeros((2, 2, 3, 4, 4), np.int64)}, folder / "prefix.safetensors")
    refused(folder, r"prefix has type I64, expected one of F16")
    save_file({"a": np.zeros(1, np.float32)}, folder / "prefix.safetensors")
    refused(folder, r"holds no tensor 'prefix'; export it again or remove it")
    (folder / "prefix.safetensors").unlink()
    save_file({"a": np.zeros(1, np.float32), "a/b": np.zeros(1, np.float32)}, folder / "head.safetensors")
    refused(folder, "a is a tensor and a group of tensors", load_head)
    bias = np.zeros(16, np.float32)
    rewrite(folder, lambda t: t | {"pooler.dense.weight": np.zeros((3, 16), np.float32), "pooler.dense.bias": bias})
    refused(folder, r"the pooler has shapes \[3, 16\] and \[16\]", lambda folder: load_pooler(folder, config))
    rewrite(folder, lambda t: t | {"pooler.dense.weight": np.zeros((16, 16), np.int8), "pooler.dense.bias": bias})
    refused(folder, r"pooler\.dense\.weight has type I8", lambda folder: load_pooler(folder, config))


TOKENIZER_VALUES = [None, True, -1, 2**40, 1.5, "x", [], {}, [[]], {"a": 1}]


def paths(node: object, path: tuple = ()) -> list[tuple]:
    """Of a JSON tree, of lists and of the vocabulary the first two entries."""
    if isinstance(node, list):
        node = dict(enumerate(node[:2]))
    if not isinstance(node, dict):
        return [path]
    keys = list(node)[:2] if path == ("model", "vocab") else list(node)
    return [path, *(found for key in keys for found in paths(node[key], (*path, key)))]


def changed(node: object, path: tuple, value: object) -> object:
    if not path:
        return value
    first, *rest = path
    copy = node.copy()
    copy[first] = changed(node[first], tuple(rest), value)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_any_value_in_the_tokenizer_is_loaded_or_refused(folder, name):
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8"))
    read = partial(
        read_tokenizer, config=load_pretrained(folder).config
    )  # the model's weights need not be read each time
    for place in paths(content):
        for value in TOKENIZER_VALUES:
            path.write_text(json.dumps(changed(content, place, value)))
            if (tokenizer := read_by(read, folder)) is not None:
                tokenizer("he said \u2603 that")


def test_a_tokenizer_that_cannot_be_read_or_cannot_encode_is_one_line(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for text in ("", "[" * 100_000, '{"model":' * 300 + "1" + "}" * 300, "null", "\0"):
        path.write_text(text)
        refused(folder, "the tokenizer does not work")
    path.write_text(json.dumps(content))
    config = folder / "tokenizer_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(fields | {"model_max_length": "many"}))
    refused(folder, "the tokenizer does not work .*TypeError")
    config.write_text(json.dumps(fields))
    word = next(iter(content["model"]["vocab"]))
    content["model"]["vocab"][word] = 10**6
    for token in content["added_tokens"]:
        token["id"] = 10**6 if token["content"] == word else token["id"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        ModelFolderError, match=r"the tokenizer gives '.*' the id 1,000,000, the model's vocabulary has"
    ):
        load_pretrained(folder)
