"""BERT and RoBERTa, which differ by numbers of the config, by names in their files and by what comes with the pre-training.

Parameters:

    embeddings/{word,position,token_type}/embedding  embeddings/norm/{scale,bias}
    encoder/layer_3/attention/{query,key,value,output}/{kernel,bias}  encoder/layer_3/attention/norm/{scale,bias}
    encoder/layer_3/{intermediate,output}/{kernel,bias}  encoder/layer_3/norm/{scale,bias}
    mlm/transform/{kernel,bias}  mlm/norm/{scale,bias}  mlm/bias

The decoder is the word embedding table. Sources: Devlin et al. 2019 (arXiv:1810.04805), Liu et al. 2019 (arXiv:1907.11692);
equal to `BertForMaskedLM` and `RobertaForMaskedLM` of transformers (tests/models/test_parity.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Key
from transformers import PreTrainedTokenizerBase

import ncfair_jax.models.fields as fields
from ncfair_jax.models.attention import Segments, attend, received
from ncfair_jax.models.base import (
    NSP,
    PREFIX,
    Ask,
    Family,
    FieldsError,
    Fold,
    Hidden,
    ModelConfig,
    Params,
    Rows,
    Tensor,
    check_ask,
)  # fmt: skip
from ncfair_jax.models.dropout import dropout
from ncfair_jax.models.folders import CONFIG
from ncfair_jax.models.layers import LayerNorm, Table, dense, gelu, key_of, per_feature, stack

PREFIX_DROPOUT = 0.1  # of the elements of a learned prefix, drawn for each row
_RECEIVED = "received_attention"  # the collection that layers write to where it is asked for


@dataclass(frozen=True, kw_only=True)
class BertConfig(ModelConfig):
    """Attributes:
    model_type: "bert" or "roberta".
    max_positions: rows of the position table (RoBERTa: pad id + 1 more than tokens fit a row).
    """

    num_heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int
    layer_norm_eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_sizes("num_heads", "intermediate_size", "max_positions")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}; change one of them"
            )

    @property
    def position_offset(self) -> int:
        """Row of the position table of a segment's first token (RoBERTa leaves the rows up to the pad id unused)."""
        return 0 if self.model_type == "bert" or self.pad_token_id is None else self.pad_token_id + 1

    @property
    def max_tokens(self) -> int:
        return self.max_positions - self.position_offset

    def prefix_shape(self, tokens: int) -> tuple[int, ...]:
        return (self.num_layers, 2, tokens, self.num_heads, self.hidden_size // self.num_heads)


class Module(nn.Module):
    """Base of the modules below: a config and whether to draw dropout."""

    config: BertConfig
    train: bool

    def norm(self, x: Array, name: str = "norm") -> Array:
        return LayerNorm(self.config.layer_norm_eps, jnp.dtype(self.config.activation_dtype), name=name)(x)

    def drop(self, x: Array) -> Array:
        return dropout(x, self.config.hidden_dropout, self.dropout_key())

    def dropout_key(self) -> Key[Array, ""] | None:
        return self.make_rng("dropout") if self.train else None


class Embeddings(Module):
    """Word + position + token type, LayerNorm, dropout."""

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, token_types: Array) -> Array:
        config, width = self.config, self.config.hidden_size
        total = (
            Table(config.vocab_size, width, config, name="word")(tokens)
            + Table(config.max_positions, width, config, name="position")(positions + config.position_offset)
            + Table(config.type_vocab_size, width, config, name="token_type")(token_types)
        )
        return self.drop(self.norm(total))


class Attention(Module):
    """Self-attention, output projection, dropout, residual, LayerNorm. `x` [R,Q,D] attends to `seen` [R,T,D]."""

    @nn.compact
    def __call__(self, x: Array, seen: Array, segments: Segments, prefix: Float[Array, "2 P H C"] | None) -> Array:
        config = self.config
        query, key, value = (
            dense(config, config.hidden_size, name)(y).reshape(*y.shape[:2], config.num_heads, -1)
            for name, y in (("query", x), ("key", seen), ("value", seen))
        )
        if prefix is not None:
            learned = jnp.broadcast_to(prefix[None], (len(x), *prefix.shape))  # [R,2,P,H,C]
            learned = dropout(learned, PREFIX_DROPOUT, self.dropout_key()).astype(key.dtype)
            key, value = (jnp.concatenate([learned[:, i], own], axis=1) for i, own in enumerate((key, value)))
        if self.is_mutable_collection(_RECEIVED):
            self.sow(_RECEIVED, "of_keys", received(query, key, segments)[:, -seen.shape[1] :])
        rate, rng = config.attention_dropout, self.dropout_key()
        context = attend(query, key, value, segments, dropout_rate=rate, rng=rng, implementation=config.attention)
        return self.norm(x + self.drop(dense(config, config.hidden_size, "output")(context.reshape(x.shape))))


class Layer(Module):
    """Attention block and feed-forward block, each normalised after its residual sum."""

    @nn.compact
    def __call__(self, x: Array, seen: Array, segments: Segments, prefix: Float[Array, "2 P H C"] | None) -> Array:
        config = self.config
        x = Attention(config, self.train, name="attention")(x, seen, segments, prefix)
        inner = gelu(dense(config, config.intermediate_size, "intermediate")(x))
        return self.norm(x + self.drop(dense(config, config.hidden_size, "output")(inner)))


class Layers(Module):
    """The parameters of the stack, by the number of the layer; `stack` runs them."""

    @nn.compact
    def __call__(self, x: Array, segments: Segments) -> Array:
        for index in range(self.config.num_layers):
            x = Layer(self.config, self.train, name=f"layer_{index}")(x, x, segments, None)
        return x


class Encoder(Module):
    """The parameters of embeddings and layers, for `init`."""

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        x = Embeddings(self.config, self.train, name="embeddings")(ids, ids, ids)
        return Layers(self.config, self.train, name="encoder")(x, Segments(ids, ids))


def hidden(config: BertConfig, params: Params, rows: Rows, ask: Ask) -> Hidden:
    """Hidden states of packed rows; the head's part of `params` is not looked at.

    A prefix takes no position: the tokens keep theirs, and hidden states are those of tokens only.
    """
    check_ask(ask)
    train, told = ask.dropout_rng is not None, [_RECEIVED] if ask.received_attention else []

    def run(module: Module, weights: Params, rng: Key[Array, ""] | None, *inputs: Any) -> tuple[Any, Any]:
        rngs = {} if rng is None else {"dropout": rng}
        output, sown = module.apply({"params": weights}, *inputs, rngs=rngs, mutable=told)
        return output, jax.tree.leaves(sown)[0] if sown else None

    def layer(x: Array, seen: Array, segments: Segments, weights: Params, learned: Any, rng: Any) -> tuple[Array, Any]:
        return run(Layer(config, train), weights, rng, x, seen, segments, learned)

    types = jnp.zeros_like(rows.tokens) if rows.token_types is None else rows.token_types
    first = Embeddings(config, train), params["embeddings"], key_of(ask.dropout_rng, 0)
    x, _ = run(*first, rows.tokens, rows.positions, types)
    layers = [params["encoder"][f"layer_{index}"] for index in range(config.num_layers)]
    return stack(config, layer, layers, x, rows.segment_ids, params.get(PREFIX), ask, _SHARDING)


class MlmHead(nn.Module):
    """Everything of the head but the decoder matrix, which is the word embedding table."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
        config = self.config
        self.param("bias", nn.initializers.zeros, (config.vocab_size,))  # read by `logits`
        inner = gelu(dense(config, config.hidden_size, "transform")(hidden))
        return LayerNorm(config.layer_norm_eps, jnp.float32, name="norm")(inner)


def features(config: BertConfig, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Dense, exact GELU, LayerNorm."""
    found: Any = MlmHead(config).apply({"params": params["mlm"]}, hidden)
    return found


def logits(config: BertConfig, params: Params, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Features · word embeddings + output bias; the product in the activation dtype, summed in float32."""
    dtype = jnp.dtype(config.activation_dtype)
    weight, bias = classifier(params)
    products = jnp.einsum(
        "...d,vd->...v", features.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32
    )
    return products + per_feature(bias, products.ndim)


def classifier(params: Params) -> tuple[Float[Array, "V D"], Float[Array, " V"]]:
    """The tied word embeddings and the decoder bias."""
    return embedding(params), params["mlm"]["bias"]


def embedding(params: Params) -> Float[Array, "V D"]:
    """The word embeddings."""
    return params["embeddings"]["word"]["embedding"]


def init(config: BertConfig, rng: Key[Array, ""]) -> Params:
    """Matrices and embeddings N(0, initializer_range²), biases 0, LayerNorm 1 and 0."""
    ids = jnp.zeros((1, 1), jnp.int32)
    encoder_rng, head_rng = jax.random.split(rng)
    params: Params = dict(Encoder(config, train=False).init(encoder_rng, ids)["params"])
    params["mlm"] = MlmHead(config).init(head_rng, jnp.zeros((1, config.hidden_size)))["params"]
    return params


# The defaults are those of transformers' BertConfig and RobertaConfig.
_FIELDS = {
    "vocab_size": fields.size("vocab_size"),
    "hidden_size": fields.size("hidden_size"),
    "num_hidden_layers": fields.size("num_layers"),
    "num_attention_heads": fields.size("num_heads"),
    "intermediate_size": fields.size("intermediate_size"),
    "max_position_embeddings": fields.size("max_positions"),
    "type_vocab_size": fields.size("type_vocab_size", 2),
    "layer_norm_eps": fields.small("layer_norm_eps", 1e-12),
    "hidden_dropout_prob": fields.rate("hidden_dropout", 0.1),
    "attention_probs_dropout_prob": fields.rate("attention_dropout", 0.1),
    "initializer_range": fields.small("initializer_range", 0.02),
}
_ARCHITECTURES = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM"}
_PAD = {"bert": 0, "roberta": 1}
# What changes the outputs and has one meaning here. The first value is the default.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", "gelu_python"),  # both the exact one by erf; the others are approximations or no GELU
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def read_config(raw: Mapping[str, Any]) -> BertConfig:
    """See `Family`."""
    problems = fields.wrong_numbers(raw, _FIELDS) or fields.wrong_multiple(raw, "hidden_size", "num_attention_heads")
    problems += fields.unsupported(raw, _SUPPORTED)
    if raw.get("pad_token_id") is not None or raw["model_type"] == "roberta":
        problems += fields.wrong_token_id(raw, "pad_token_id")
    if problems:
        raise FieldsError(problems)
    pad = _PAD[raw["model_type"]] if raw.get("pad_token_id") is None else raw["pad_token_id"]
    config = BertConfig(model_type=raw["model_type"], pad_token_id=pad, **fields.numbers(raw, _FIELDS))
    if config.max_tokens < 3:
        problem = (
            f"{CONFIG} has max_position_embeddings={config.max_positions}, which leaves room for {max(config.max_tokens, 0)} "
            "tokens (RoBERTa uses none up to its pad_token_id); correct it"
        )
        raise FieldsError([problem])
    return config


def write_config(config: BertConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """See `Family`."""
    content: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        **{name: getattr(config, field.attribute) for name, field in _FIELDS.items()},
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "pad_token_id": config.pad_token_id,
    }
    if config.model_type == "roberta":
        content |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return content


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
# Of each family: the head's dense layer, its LayerNorm, the output bias, and the copy of the word embeddings and of that bias.
_MLM = "cls.predictions"
_HEAD = {
    "bert": (f"{_MLM}.transform.dense", f"{_MLM}.transform.LayerNorm", f"{_MLM}.bias", f"{_MLM}.decoder"),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
}


def tensors(config: BertConfig) -> tuple[Tensor, ...]:
    """See `Family`."""
    base, width = config.model_type, config.hidden_size
    transform, norm, bias, decoder = _HEAD[base]
    words = Tensor(
        f"{base}.embeddings.word_embeddings.weight", "embeddings/word/embedding", copies=(f"{decoder}.weight",)
    )
    found = [
        words,
        Tensor(f"{base}.embeddings.position_embeddings.weight", "embeddings/position/embedding"),
        Tensor(f"{base}.embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding"),
        *_pair(f"{base}.embeddings.LayerNorm", "embeddings/norm"),
    ]
    for module, path in _LAYER.items():
        found += _pair(f"{base}.encoder.layer.{{}}.{module}", f"encoder/layer_{{}}/{path}")
    found += [*_pair(transform, "mlm/transform", head=True), *_pair(norm, "mlm/norm", head=True)]
    found.append(Tensor(bias, "mlm/bias", head=True, copies=(f"{decoder}.bias",)))
    extras = ((f"{base}.pooler.dense", "pooler", width), ("cls.seq_relationship", "classifier", 2))
    for module, name, outputs in extras:
        weight, offset = _pair(module, f"{NSP}/{name}", extra="nsp")
        found += [weight._replace(shape=(width, outputs)), offset._replace(shape=(outputs,))]
    return (*found, *(Tensor(f"{base}.embeddings.{name}_ids") for name in ("position", "token_type")))


def _pair(module: str, path: str, **kind: Any) -> list[Tensor]:
    norm = path.endswith("norm")
    weight = Tensor(f"{module}.weight", f"{path}/{'scale' if norm else 'kernel'}", transposed=not norm, **kind)
    return [weight, Tensor(f"{module}.bias", f"{path}/bias", **kind)]


# Vocabularies do not divide by 4, so embeddings are split along the hidden axis.
_SHARDING = (
    (r"embedding$", P(None, ("tensor", "fsdp"))),
    (r"(query|key|value|intermediate)/kernel$", P("fsdp", "tensor")),
    (r"output/kernel$", P("tensor", "fsdp")),
    (r"transform/kernel$", P("fsdp", "tensor")),
    (r"(query|key|value|intermediate)/bias$", P("tensor")),
)
_ADAPTERS = {name: rf"attention/{name}/kernel$" for name in ("query", "key", "value")}
_ADAPTERS["dense"] = r"(attention/output|intermediate|layer_\d+/output)/kernel$"
BERT = Family(
    model_types=("bert",),
    prefix="bert",
    read_config=read_config,
    write_config=write_config,
    tensors=tensors,
    init=init,
    hidden=hidden,
    features=features,
    logits=logits,
    classifier=classifier,
    embedding=embedding,
    fold=Fold("mlm/transform/kernel", "mlm/transform/bias"),
    sharding=_SHARDING,
    adapters=_ADAPTERS,
    extras=frozenset({"token_types", "nsp", "pooler"}),
)
ROBERTA = BERT._replace(model_types=("roberta",), prefix="roberta", extras=frozenset())
