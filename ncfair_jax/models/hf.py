"""Hugging Face folders to (config, params, tokenizer) and back. Weights from safetensors only; nothing is unpickled.

One table (`_ENCODER`, `_HEADS`) says where each tensor lives on both sides. Every key and every shape is checked and all
problems of a folder are listed in one ModelFolderError.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from huggingface_hub import constants as hub_constants
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ncfair_jax.models.encoder import PREFIX, ModelConfig, Params
from ncfair_jax.models.heads import init_params


class ModelFolderError(ValueError):
    """A model folder or name that cannot be loaded or written; the message says what is wrong and what to do."""


class Pretrained(NamedTuple):
    """A model as the rest of the package knows it."""

    config: ModelConfig
    params: Params
    tokenizer: PreTrainedTokenizerBase


# --- The table: name in the file (without "bert." or "roberta."), path of the parameter. Matrices named "kernel" are
# --- stored transposed by PyTorch; everything else is stored as it is.
_ENCODER = {
    "embeddings.word_embeddings.weight": "embeddings/word/embedding",
    "embeddings.position_embeddings.weight": "embeddings/position/embedding",
    "embeddings.token_type_embeddings.weight": "embeddings/token_type/embedding",
    "embeddings.LayerNorm.weight": "embeddings/norm/scale",
    "embeddings.LayerNorm.bias": "embeddings/norm/bias",
}
_LAYER = {
    "attention.self.query": "attention/query",
    "attention.self.key": "attention/key",
    "attention.self.value": "attention/value",
    "attention.output.dense": "attention/output",
    "attention.output.LayerNorm": "attention/norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
_HEADS = {
    "bert": {
        "cls.predictions.transform.dense.weight": "mlm/transform/kernel",
        "cls.predictions.transform.dense.bias": "mlm/transform/bias",
        "cls.predictions.transform.LayerNorm.weight": "mlm/norm/scale",
        "cls.predictions.transform.LayerNorm.bias": "mlm/norm/bias",
        "cls.predictions.bias": "mlm/bias",
    },
    "roberta": {
        "lm_head.dense.weight": "mlm/transform/kernel",
        "lm_head.dense.bias": "mlm/transform/bias",
        "lm_head.layer_norm.weight": "mlm/norm/scale",
        "lm_head.layer_norm.bias": "mlm/norm/bias",
        "lm_head.bias": "mlm/bias",
    },
}
# BERT's next-sentence head, read where it is asked for.
_NSP = {
    "pooler.dense.weight": "nsp/pooler/kernel",
    "pooler.dense.bias": "nsp/pooler/bias",
    "cls.seq_relationship.weight": "nsp/classifier/kernel",
    "cls.seq_relationship.bias": "nsp/classifier/bias",
}
# Copies of other tensors that some files carry: compared, then left out.
_TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}
_IGNORED = re.compile(
    r"pooler\.dense\.(weight|bias)|cls\.seq_relationship\.(weight|bias)|embeddings\.(position|token_type)_ids"
)
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))
_DTYPES = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}
_SAVE_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

_WEIGHTS, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_PREFIX, _HEAD = "prefix.safetensors", "head.safetensors"
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
_HUB_FILES = (
    _CONFIG, "model*.safetensors", _INDEX, _PREFIX, _HEAD, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip
_CONVERT = (
    "convert it once where you trust the file: `from transformers import AutoModelForMaskedLM, AutoTokenizer; "
    "AutoModelForMaskedLM.from_pretrained(A).save_pretrained(B); AutoTokenizer.from_pretrained(A).save_pretrained(B)` "
    "(needs torch), then load B"
)
_HEAD_REMEDY = (
    'pass head="identity" (features go to the decoder unchanged but for GELU and LayerNorm) '
    'or head="seeded:42" (random, to be trained)'
)
_SPARE_ROWS = (
    1024  # vocabularies are padded to a multiple of 8 to 512; more rows without a token is the wrong tokenizer
)


def load_pretrained(
    name_or_folder: str | Path,
    *,
    head: str = "",
    activation_dtype: str = "float32",
    remat: bool = False,
    nsp: bool = False,
    offline: bool = False,
) -> Pretrained:
    """Reads a BERT or RoBERTa masked LM from a Hugging Face folder, or from the Hub by name.

    Args:
        name_or_folder: folder with config.json, safetensors and tokenizer files; or a Hub name such as
            "google-bert/bert-base-uncased", of which no pickled file is fetched.
        head: what to do if the folder has no masked-LM head: "" refuses; "identity" takes the identity matrix,
            LayerNorm 1 and 0, biases 0; "seeded:42" draws N(0, initializer_range²) from that seed. A stored head is
            used whatever this says.
        activation_dtype, remat: go into the ModelConfig.
        nsp: also read what the folder has of BERT's next-sentence head, its pooler included, into params["nsp"], which
            `save_pretrained` leaves out.
        offline: take Hub names from the local cache only (the environment variable HF_HUB_OFFLINE=1 does the same).
    Returns:
        Config, float32 parameters, fast tokenizer. A prefix.safetensors of the folder becomes params["prefix"].
    Raises:
        ModelFolderError: listing every problem found.
    """
    folder = find_folder(name_or_folder, offline)
    config = _read_config(folder, activation_dtype, remat)
    params = _read_params(folder, config, head, nsp) | _read_prefix(folder, config)
    return Pretrained(config, params, _read_tokenizer(folder, config))


def save_pretrained(
    folder: str | Path, pretrained: Pretrained, *, card: str = "", dtype: str = "float32", head: Params | None = None
) -> None:
    """Writes a folder that `AutoModelForMaskedLM.from_pretrained` and `load_pretrained` read; weights in `dtype`.

    A learned prefix goes into prefix.safetensors beside the model, which transformers reads without it; `load_pretrained`
    takes both. The folder appears under its name only when complete. A model folder already there is replaced; any other
    non-empty folder is refused.

    Args:
        card: markdown of the README.md.
        dtype: "float32" (bitwise the parameters), "float16" or "bfloat16".
        head: parameters of a classifier on top of the encoder, for head.safetensors; `load_head` reads them back.
    Raises:
        ModelFolderError: if the folder holds something else, or dtype is unknown.
    """
    folder = Path(folder).absolute()
    if dtype not in _SAVE_DTYPES:
        raise ModelFolderError(f"dtype={dtype!r}; choose from {sorted(_SAVE_DTYPES)}")
    if folder.exists() and not (folder / _CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelFolderError(f"{folder} exists and is not a model folder; choose another name or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        (new / _CONFIG).write_text(json.dumps(_hub_config(pretrained, dtype), indent=2) + "\n")
        save_file(_to_tensors(pretrained, _SAVE_DTYPES[dtype]), new / _WEIGHTS, metadata={"format": "pt"})
        if PREFIX in pretrained.params:
            save_file({PREFIX: np.asarray(pretrained.params[PREFIX])}, new / _PREFIX)
        if head:
            save_file({"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(head).items()}, new / _HEAD)
        _write_tokenizer(new, pretrained.tokenizer)
        if card:
            (new / "README.md").write_text(card)
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(new, folder)


def load_pooler(name_or_folder: str | Path, config: ModelConfig, *, offline: bool = False) -> Params | None:
    """The dense layer on the first token that BERT was pretrained with ("kernel", "bias"), None where the folder has none.

    Raises:
        ModelFolderError: if it is of another size.
    """
    folder = find_folder(name_or_folder, offline)
    with _open_tensors(folder) as stored:
        if "pooler.dense.weight" not in stored or "pooler.dense.bias" not in stored:
            return None
        kernel, bias = stored["pooler.dense.weight"].read().T, stored["pooler.dense.bias"].read()
    size = config.hidden_size
    if kernel.shape != (size, size) or bias.shape != (size,):
        raise ModelFolderError(
            f"{folder}: the pooler has shape {list(kernel.shape)}, config.json says [{size}, {size}]"
        )
    return {"kernel": np.ascontiguousarray(kernel), "bias": bias}


def load_head(name_or_folder: str | Path, *, offline: bool = False) -> Params:
    """The classifier's parameters that `save_pretrained` wrote beside an encoder, as they were given to it.

    Raises:
        ModelFolderError: if the folder has none, or the file is broken.
    """
    path = find_folder(name_or_folder, offline) / _HEAD
    if not path.is_file():
        raise ModelFolderError(f"{path.parent} has no {_HEAD}; give the export of a run that trained a classifier")
    try:
        return unflatten_dict({tuple(name.split("/")): jnp.asarray(leaf) for name, leaf in load_file(path).items()})
    except SafetensorError as error:
        raise ModelFolderError(f"{path} is truncated or not safetensors ({error}); export it again") from error


# --- folders and the Hub


def find_folder(name_or_folder: str | Path, offline: bool = False) -> Path:
    """The folder of a model: itself, or that of a Hub name, fetched if need be.

    Raises:
        ModelFolderError: if there is none.
    """
    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelFolderError(f"{name} is a file; give the folder that holds it")
    parts = Path(name).parts
    looks_local = (
        isinstance(name_or_folder, Path) or len(parts) > 2 or name.startswith((".", "/", "~")) or "\\" in name
        or (len(parts) == 2 and Path(parts[0]).is_dir())
    )  # fmt: skip
    if looks_local:
        raise ModelFolderError(f"{name} looks like a local folder, but there is none; correct the path")
    offline = (
        offline
        or hub_constants.HF_HUB_OFFLINE
        or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    )
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES), local_files_only=offline))
    except HFValidationError as error:
        raise ModelFolderError(f"{name!r} is neither a folder here nor a possible Hub name ({error})") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        wanted = f"{', '.join(_HUB_FILES)} of https://huggingface.co/{name}"
        if offline:
            raise ModelFolderError(
                f"{name} is neither a folder here nor in the Hub cache {hub_constants.HF_HUB_CACHE}, "
                f"and offline mode forbids fetching "
                f"{wanted}; go online, or fetch these files elsewhere and give their folder"
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFolderError(
            f"{name} is not a folder here, and fetching {wanted} failed ({reason}); check the name and the network"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFolderError(f"{path} is not JSON ({error}); copy the file again") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds a {type(content).__name__}, expected an object; copy the file again")
    return content


def _raise(folder: Path, problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise ModelFolderError(f"{folder}: {problems[0]}")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ModelFolderError(f"{folder}: {len(problems)} problems\n{listed}")


# --- config.json

_SUPPORTED = {
    "model_type": ("bert", "roberta"),
    "hidden_act": ("gelu",),  # exact erf GELU; "gelu_new" is the tanh form
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
_REQUIRED = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip


def _read_config(folder: Path, activation_dtype: str, remat: bool) -> ModelConfig:
    path = folder / _CONFIG
    if not path.is_file():
        raise ModelFolderError(f"{folder} has no {_CONFIG}; give a folder written by save_pretrained, or add the file")
    raw = _read_json(path)
    problems = [f"{_CONFIG} has no {name}; add it" for name in _REQUIRED if name not in raw]
    problems += [
        f"{_CONFIG} has {name}={raw[name]!r}, supported: {', '.join(map(repr, values))}; choose another model"
        for name, values in _SUPPORTED.items()
        if raw.get(name, values[0]) not in values and raw[name] is not None
    ]
    _raise(folder, problems)
    try:
        return ModelConfig(
            model_type=raw["model_type"],
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=raw["num_attention_heads"],
            intermediate_size=raw["intermediate_size"],
            max_positions=raw["max_position_embeddings"],
            # The defaults are those of transformers' BertConfig and RobertaConfig.
            type_vocab_size=raw.get("type_vocab_size", 2),
            layer_norm_eps=raw.get("layer_norm_eps", 1e-12),
            hidden_dropout=raw.get("hidden_dropout_prob", 0.1),
            attention_dropout=raw.get("attention_probs_dropout_prob", 0.1),
            pad_token_id=raw.get("pad_token_id", 1 if raw["model_type"] == "roberta" else 0),
            initializer_range=raw.get("initializer_range", 0.02),
            activation_dtype=activation_dtype,
            remat=remat,
        )
    except ValueError as error:
        raise ModelFolderError(f"{folder}: {error}") from error


def _hub_config(pretrained: Pretrained, dtype: str) -> dict[str, Any]:
    config, tokenizer = pretrained.config, pretrained.tokenizer
    content: dict[str, Any] = {
        "architectures": [{"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM"}[config.model_type]],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "pad_token_id": config.pad_token_id,
        "dtype": dtype,
    }
    if config.model_type == "roberta":
        content |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return content


# --- weights


def _table(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Name in the file (without prefix) -> path of the parameter."""
    names = dict(_ENCODER)
    for layer in range(config.num_layers):
        for module, path in _LAYER.items():
            weight = "scale" if path.endswith("norm") else "kernel"
            names[f"encoder.layer.{layer}.{module}.weight"] = f"encoder/layer_{layer}/{path}/{weight}"
            names[f"encoder.layer.{layer}.{module}.bias"] = f"encoder/layer_{layer}/{path}/bias"
    names |= _HEADS[config.model_type]
    return {name: tuple(path.split("/")) for name, path in names.items()}


def _reorient(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor.T) if path[-1] == "kernel" else tensor


def _to_tensors(pretrained: Pretrained, dtype: Any) -> dict[str, np.ndarray]:
    config, flat = pretrained.config, flatten_dict(pretrained.params)
    table = _table(config)
    _raise(Path("params"), [f"no {'/'.join(path)}" for path in table.values() if path not in flat])
    return {
        (name if name.startswith(("cls.", "lm_head.")) else f"{config.model_type}.{name}"): _reorient(
            path, np.asarray(flat[path])
        ).astype(dtype)
        for name, path in table.items()
    }


class _Stored(NamedTuple):
    """Where one tensor of the folder is: its name in the file, the open file, its shape and type code."""

    file: Any
    key: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> np.ndarray:
        tensor: np.ndarray = self.file.get_tensor(self.key)
        return tensor.astype(np.float32)


def _canonical(key: str) -> str:
    name = re.sub(r"^(bert|roberta)\.", "", key)
    for pattern, replacement in _LEGACY:
        name = pattern.sub(replacement, name)
    return name


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if pickled:
            raise ModelFolderError(
                f"{folder} has {', '.join(pickled)} but no safetensors, and pickles are never read; {_CONVERT}"
            )
        raise ModelFolderError(
            f"{folder} has neither {_WEIGHTS} nor {_INDEX}; if the source offers pytorch_model.bin only, {_CONVERT}"
        )
    index = _read_json(folder / _INDEX).get("weight_map", {})
    files = [folder / name for name in sorted(set(index.values()))]
    _raise(folder, [f"{_INDEX} names {path.name}, which is missing; copy it" for path in files if not path.is_file()])
    if not files:
        raise ModelFolderError(f"{folder / _INDEX} names no file (no weight_map); copy the file again")
    return files


@contextlib.contextmanager
def _open_tensors(folder: Path) -> Iterator[dict[str, _Stored]]:
    """Canonical name -> stored tensor, over all weight files."""
    with contextlib.ExitStack() as stack:
        stored: dict[str, _Stored] = {}
        problems = []
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="numpy"))
            except SafetensorError as error:
                size = f"{path.stat().st_size:,} bytes"
                problems.append(
                    f"{path.name} ({size}) is truncated or not safetensors ({error}); copy or fetch it again"
                )
                continue
            for key in file.keys():  # noqa: SIM118 (not a dict)
                part, name = file.get_slice(key), _canonical(key)
                if name in stored:
                    problems.append(f"{key} is there twice, also as {stored[name].key}; remove one")
                stored[name] = _Stored(file, key, tuple(part.get_shape()), part.get_dtype())
        _raise(folder, problems)
        yield stored


def _read_params(folder: Path, config: ModelConfig, head: str, nsp: bool) -> Params:
    with _open_tensors(folder) as stored:
        for copy, original in _TIED.items():  # some files store the copy of the output bias only
            if original not in stored and copy.endswith("bias") and copy in stored:
                stored[original] = stored[copy]
        table = _table(config)
        flat: dict[tuple[str, ...], Any] = {}
        if not any(name in stored for name in _HEADS[config.model_type]):
            flat |= _fresh_head(folder, config, head)
            table = {name: path for name, path in table.items() if path[0] != "mlm"}
        if nsp and config.model_type == "bert":
            table |= {name: tuple(path.split("/")) for name, path in _NSP.items() if name in stored}
        _raise(folder, [*_key_problems(table, stored), *_shape_problems(config, table, stored), *_tie_problems(stored)])
        for name, path in table.items():
            flat[path] = jnp.asarray(_reorient(path, stored[name].read()))
    return unflatten_dict(flat)


def _read_prefix(folder: Path, config: ModelConfig) -> Params:
    path = folder / _PREFIX
    if not path.is_file():
        return {}
    try:
        table = load_file(path)[PREFIX]
    except (SafetensorError, KeyError) as error:
        raise ModelFolderError(f"{path} holds no tensor {PREFIX!r} ({error}); export it again or remove it") from error
    heads = config.hidden_size // config.num_heads
    if table.ndim != 5 or (*table.shape[:2], *table.shape[3:]) != (config.num_layers, 2, config.num_heads, heads):
        raise ModelFolderError(
            f"{path} has shape {list(table.shape)}, config.json says [{config.num_layers}, 2, tokens, {config.num_heads}, "
            f"{heads}]; it belongs to another model: remove it"
        )
    return {PREFIX: jnp.asarray(table, jnp.float32)}


def _key_problems(table: dict[str, tuple[str, ...]], stored: dict[str, _Stored]) -> list[str]:
    missing = [f"missing tensor {name}; config.json and weights do not belong together, or the file is incomplete"
               for name in table if name not in stored]  # fmt: skip
    extra = [
        f"unexpected tensor {tensor.key} {list(tensor.shape)}; "
        f"not part of a BERT or RoBERTa masked LM of this config: remove it"
        for name, tensor in stored.items()
        if name not in table and name not in _TIED and not _IGNORED.fullmatch(name)
    ]
    return missing + extra


def _shape_problems(config: ModelConfig, table: dict[str, tuple[str, ...]], stored: dict[str, _Stored]) -> list[str]:
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    shapes = {path: leaf.shape for path, leaf in flatten_dict(params).items()}
    for module, outputs in (("pooler", config.hidden_size), ("classifier", 2)):
        shapes |= {("nsp", module, "kernel"): (config.hidden_size, outputs), ("nsp", module, "bias"): (outputs,)}
    problems = []
    for name, path in table.items():
        if name not in stored:
            continue
        expected = shapes[path][::-1] if path[-1] == "kernel" else shapes[path]
        if stored[name].shape != expected:
            problems.append(
                f"{stored[name].key} has shape {list(stored[name].shape)}, config.json says {list(expected)}; "
                f"correct config.json or take its weights"
            )
        if stored[name].dtype not in _DTYPES:
            problems.append(
                f"{stored[name].key} has type {stored[name].dtype}, expected one of {', '.join(_DTYPES)}; convert it to float32"
            )
    return problems


def _tie_problems(stored: dict[str, _Stored]) -> list[str]:
    problems = []
    for copy, original in _TIED.items():
        if copy in stored and original in stored:
            a, b = stored[copy], stored[original]
            if a.shape != b.shape or not np.array_equal(a.read(), b.read()):
                problems.append(
                    f"{a.key} differs from {b.key}: the model is untied, which is not supported; to tie it, delete {a.key} "
                    "(predictions change: train again before judging)"
                )
    return problems


def _fresh_head(folder: Path, config: ModelConfig, head: str) -> dict[tuple[str, ...], Any]:
    if head == "":
        raise ModelFolderError(
            f"{folder} has no masked-LM head ({', '.join(_HEADS[config.model_type])}); {_HEAD_REMEDY}"
        )
    seeded = re.fullmatch(r"seeded:(\d+)", head)
    if not seeded and head != "identity":
        raise ModelFolderError(f"head={head!r} is unknown; {_HEAD_REMEDY}")
    fresh = init_params(config, jax.random.key(int(seeded[1]) if seeded else 0))["mlm"]
    if head == "identity":
        fresh["transform"]["kernel"] = jnp.eye(config.hidden_size)
    return {("mlm", *path): value for path, value in flatten_dict(fresh).items()}


# --- tokenizer


def _read_tokenizer(folder: Path, config: ModelConfig) -> PreTrainedTokenizerBase:
    # Checked here because transformers 5 makes a tokenizer of five tokens out of a folder without vocabulary.
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES):
        choices = " or ".join(" + ".join(names) for names in _TOKENIZER_FILES)
        raise ModelFolderError(
            f"{folder} has no tokenizer files (expected {choices}); copy them from the original model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever the tokenizer libraries raise, the user needs the folder's name
        reason = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            f"{folder}: the tokenizer does not load ({type(error).__name__}: {reason}); copy its files again"
        ) from error
    _raise(folder, _tokenizer_problems(tokenizer, config))
    _reset(tokenizer)
    return tokenizer


def _tokenizer_problems(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> list[str]:
    problems = []
    if not tokenizer.is_fast:
        problems.append(f"{type(tokenizer).__name__} is not a fast tokenizer; save it once as tokenizer.json")
    if not len(tokenizer) <= config.vocab_size < len(tokenizer) + _SPARE_ROWS:
        problems.append(
            f"the tokenizer has {len(tokenizer):,} tokens, the model's vocabulary {config.vocab_size:,} rows; "
            f"take the tokenizer of this model"
        )
    for name in ("mask", "cls", "sep", "pad"):
        if getattr(tokenizer, f"{name}_token_id") is None:
            problems.append(f"the tokenizer has no {name} token; set {name}_token in tokenizer_config.json")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != config.pad_token_id:
        problems.append(
            f"the tokenizer pads with id {tokenizer.pad_token_id}, config.json says pad_token_id={config.pad_token_id}; "
            f"make them equal"
        )
    return problems


def _reset(tokenizer: PreTrainedTokenizerBase) -> None:
    """Forgets truncation and padding, which a tokenizer.json may carry and every padded call leaves behind."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    _reset(tokenizer)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = _read_json(path)
    for name in (
        "is_local",
        "local_files_only",
        "name_or_path",
    ):  # how it was loaded here says nothing to the next user
        content.pop(name, None)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
