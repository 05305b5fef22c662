"""A family that the package does not know: bags of context. It shows, and the tests count, all that a new family needs.

Each layer adds to a token tanh(mean of its segment · kernel + bias); a linear head makes features of that, which the word
embeddings multiply. So a masked word is guessed from the words around it, whatever their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ncfair_jax.files.digests import DIGESTS_FILE
from ncfair_jax.models import families, fields, save_pretrained
from ncfair_jax.models.base import Ask, Family, FieldsError, Fold, Hidden, ModelConfig, Params, Rows, Tensor, check_ask
from ncfair_jax.models.dropout import dropout
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.models.layers import at_columns, linear
from tests import tiny_hub

FIELDS = {
    "vocab_size": fields.size("vocab_size"),
    "width": fields.size("hidden_size"),
    "depth": fields.size("num_layers"),
}


@dataclass(frozen=True, kw_only=True)
class BagConfig(ModelConfig):
    """There are no positions, so a segment may have any length; 64 tokens are enough for tests."""

    max_tokens = 64


def read_config(raw: Mapping[str, Any]) -> BagConfig:
    if problems := [*fields.wrong_numbers(raw, FIELDS), *fields.wrong_token_id(raw, "pad_token_id")]:
        raise FieldsError(problems)
    return BagConfig(model_type="bag", pad_token_id=raw.get("pad_token_id"), **fields.numbers(raw, FIELDS))


def write_config(config: BagConfig, tokenizer: Any) -> dict[str, Any]:
    del tokenizer
    numbers = {name: getattr(config, field.attribute) for name, field in FIELDS.items()}
    return {"model_type": "bag", **numbers, "pad_token_id": config.pad_token_id}


def tensors(config: BagConfig) -> tuple[Tensor, ...]:
    del config
    return (
        Tensor("bag.words.weight", "embeddings/word/embedding", copies=("decoder.weight",)),
        Tensor("bag.layers.{}.weight", "layers/layer_{}/kernel", transposed=True),
        Tensor("bag.layers.{}.bias", "layers/layer_{}/bias"),
        Tensor("head.weight", "head/kernel", transposed=True, head=True),
        Tensor("head.bias", "head/bias", head=True),
        Tensor("decoder.bias", "decoder/bias", head=True),
    )


def init(config: BagConfig, rng: jax.Array) -> Params:
    size, keys = config.hidden_size, iter(jax.random.split(rng, config.num_layers + 2))

    def matrix(rows: int, columns: int) -> jax.Array:
        return config.initializer_range * jax.random.normal(next(keys), (rows, columns))

    def layer() -> Params:
        return {"kernel": matrix(size, size), "bias": jnp.zeros(size)}

    return {
        "embeddings": {"word": {"embedding": matrix(config.vocab_size, size)}},
        "layers": {f"layer_{index}": layer() for index in range(config.num_layers)},
        "head": layer(),
        "decoder": {"bias": jnp.zeros(config.vocab_size)},
    }


def hidden(config: BagConfig, params: Params, rows: Rows, ask: Ask) -> Hidden:
    check_ask(ask)
    table = embedding(params).astype(config.activation_dtype)
    x = dropout(
        jnp.take(table, rows.tokens, axis=0, mode="fill", fill_value=jnp.nan), config.hidden_dropout, ask.dropout_rng
    )
    same = rows.segment_ids[:, :, None] == rows.segment_ids[:, None, :]  # [R,T,T]
    share = same / same.sum(2, keepdims=True)
    outputs = [x]
    for index in range(config.num_layers):
        mean = jnp.einsum("rts,rsd->rtd", share.astype(x.dtype), outputs[-1])
        outputs.append(outputs[-1] + jnp.tanh(linear(params["layers"][f"layer_{index}"], mean)).astype(x.dtype))
    last = outputs[-1] if ask.read is None else at_columns(outputs[-1], ask.read)
    paid = share.sum(1) / same.sum(1) if ask.received_attention else None
    return Hidden(last, tuple(outputs) if ask.all_layers else None, paid)


def features(config: BagConfig, params: Params, hidden: jax.Array) -> jax.Array:
    del config
    return linear(params["head"], hidden.astype(jnp.float32))


def logits(config: BagConfig, params: Params, features: jax.Array) -> jax.Array:
    del config
    weight, bias = classifier(params)
    products = features @ weight.T
    return products + bias.reshape((1,) * (products.ndim - 1) + (-1,))


def classifier(params: Params) -> tuple[jax.Array, jax.Array]:
    return embedding(params), params["decoder"]["bias"]


def embedding(params: Params) -> jax.Array:
    return jnp.asarray(params["embeddings"]["word"]["embedding"])


BAG = Family(
    model_types=("bag",),
    prefix="bag",
    read_config=read_config,
    write_config=write_config,
    tensors=tensors,
    init=init,
    hidden=hidden,
    features=features,
    logits=logits,
    classifier=classifier,
    embedding=embedding,
    fold=Fold("head/kernel", "head/bias"),
    sharding=((r"embedding$", P(None, "tensor")), (r"layer_\d+/kernel$", P("fsdp", "tensor"))),
    adapters={"dense": r"layer_\d+/kernel$"},
    extras=frozenset(),
)


# --- For tests


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, BAG])


def pretrained(seed: int = 0, depth: int = 1) -> Pretrained:
    """Random parameters throughout, and BERT's tiny tokenizer."""
    tokenizer = tiny_hub.tokenizer("bert")
    config = BagConfig(
        model_type="bag",
        vocab_size=len(tokenizer) + 3,
        hidden_size=16,
        num_layers=depth,
        pad_token_id=tokenizer.pad_token_id,
    )
    shapes = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(0.2, 0.3, leaf.shape).astype(np.float32), shapes)
    return Pretrained(config, params, tokenizer)


def write(folder: Path, seed: int = 0, depth: int = 1) -> Path:
    """The model as a folder, without digests, as others write it. The family must be registered."""
    save_pretrained(folder, pretrained(seed, depth))
    (folder / DIGESTS_FILE).unlink()
    return folder
