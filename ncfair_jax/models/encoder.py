"""One Linen encoder for BERT and RoBERTa, which differ by numbers of ModelConfig only.

Outside this package a model is a ModelConfig and a nested dict of float32 arrays, whose path language is

    embeddings/{word,position,token_type}/embedding  embeddings/norm/{scale,bias}
    encoder/layer_3/attention/{query,key,value,output}/{kernel,bias}  encoder/layer_3/attention/norm/{scale,bias}
    encoder/layer_3/{intermediate,output}/{kernel,bias}  encoder/layer_3/norm/{scale,bias}
    mlm/transform/{kernel,bias}  mlm/norm/{scale,bias}  mlm/bias
    prefix    (only where one was learned: keys and values [layers, 2, P, H, C] that every token of a layer attends to)

Sources: Devlin et al. 2019 (arXiv:1810.04805), Liu et al. 2019 (arXiv:1907.11692); equal to `BertForMaskedLM` and
`RobertaForMaskedLM` of transformers (tests/models/test_parity.py).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from ncfair_jax.models.attention import IMPLEMENTATIONS, Mask, attend, received, segment_mask
from ncfair_jax.models.dropout import dropout

Params = dict[str, Any]
PREFIX = "prefix"
RECEIVED = "received_attention"  # the collection that layers write to where it is asked for
PREFIX_DROPOUT = 0.1  # of the elements of a learned prefix, drawn for each row
CHOICES = {
    "model_type": ("bert", "roberta"),
    "activation_dtype": ("float32", "bfloat16"),
    "attention": tuple(IMPLEMENTATIONS),
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything the encoder needs to know; hashable, so that equal configs share one compilation.

    Attributes:
        model_type: "bert" or "roberta".
        max_positions: rows of the position table (RoBERTa: pad id + 1 more than tokens fit a row).
        hidden_dropout: probability of dropping an element of embeddings, attention output and feed-forward output.
        attention_dropout: probability of dropping an attention probability.
        activation_dtype: "float32" or "bfloat16". Parameters, LayerNorm, softmax and logits are float32 in both.
        remat: recompute each layer in the backward pass instead of storing its inside.
        attention: a name in `attention.IMPLEMENTATIONS`.
        scan_layers: all layers but the last as one loop, which compiles in a fraction of the time; without dropout only.
        initializer_range: standard deviation of fresh matrices and embeddings.
    Raises:
        ValueError: for a name that is not among the choices, a size below 1, or heads that do not divide the hidden size.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_dropout: float
    attention_dropout: float
    pad_token_id: int
    activation_dtype: str = "float32"
    remat: bool = False
    attention: str = "xla"
    scan_layers: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}; choose from {sorted(choices)}")
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; at least 1")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}; change one of them"
            )

    @property
    def position_offset(self) -> int:
        """Row of the position table of a segment's first token (RoBERTa leaves the rows up to the pad id unused)."""
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0

    @property
    def max_tokens(self) -> int:
        """Longest segment that has positions, special tokens included."""
        return self.max_positions - self.position_offset


class EncoderOutput(NamedTuple):
    """What `encode` returns; None where it was not asked for.

    Attributes:
        hidden_states: the last layer, at the columns that were asked for.
        all_layers: embeddings, then each layer's output.
        received_attention: attention that each token is paid by those of its segment, averaged over layers, heads and
            queries; sums to 1 over a segment, less what a learned prefix takes. Means nothing at pads.
    """

    hidden_states: Float[Array, "R Q D"]
    all_layers: tuple[Float[Array, "R T D"], ...] | None
    received_attention: Float[Array, "R T"] | None


def per_feature(vector: Float[Array, " D"], ndim: int) -> Array:
    """The vector shaped to meet the last axis of an ndim-array (rank promotion written out)."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, computed in float32 whatever comes in; the result has `dtype`."""

    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        inverse_sd = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        normal = centred * inverse_sd * per_feature(scale, x.ndim) + per_feature(bias, x.ndim)
        return normal.astype(self.dtype)


def gelu(x: Array) -> Array:
    """x · Φ(x) by erf, as BERT has it (not the tanh approximation)."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


def dense(config: ModelConfig, features: int, name: str) -> nn.Dense:
    """A linear layer in the activation dtype, initialised as BERT's."""
    return nn.Dense(
        features,
        dtype=jnp.dtype(config.activation_dtype),
        kernel_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


class Table(nn.Module):
    """An embedding table; ids beyond it give NaN, which is seen, where clamping would not be."""

    rows: int
    config: ModelConfig

    @nn.compact
    def __call__(self, ids: Int[Array, "R T"]) -> Float[Array, "R T D"]:
        init = nn.initializers.normal(self.config.initializer_range)
        table = self.param("embedding", init, (self.rows, self.config.hidden_size))
        return jnp.take(table, ids, axis=0, mode="fill", fill_value=jnp.nan)


class Module(nn.Module):
    """Base of the modules below: a config and whether to draw dropout."""

    config: ModelConfig
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
        config = self.config
        total = (
            Table(config.vocab_size, config, name="word")(tokens)
            + Table(config.max_positions, config, name="position")(positions + config.position_offset)
            + Table(config.type_vocab_size, config, name="token_type")(token_types)
        )
        return self.drop(self.norm(total))


class Attention(Module):
    """Self-attention, output projection, dropout, residual, LayerNorm. `x` [R,Q,D] attends to `seen` [R,T,D]."""

    @nn.compact
    def __call__(self, x: Array, seen: Array, mask: Mask, prefix: Float[Array, "2 P H C"] | None) -> Array:
        config = self.config
        query, key, value = (
            dense(config, config.hidden_size, name)(y).reshape(*y.shape[:2], config.num_heads, -1)
            for name, y in (("query", x), ("key", seen), ("value", seen))
        )
        if prefix is not None:
            learned = jnp.broadcast_to(prefix[None], (len(x), *prefix.shape))  # [R,2,P,H,C]
            learned = dropout(learned, PREFIX_DROPOUT, self.dropout_key()).astype(key.dtype)
            key, value = (jnp.concatenate([learned[:, i], own], axis=1) for i, own in enumerate((key, value)))
        if self.is_mutable_collection(RECEIVED):
            self.sow(RECEIVED, "of_keys", received(query, key, mask)[:, -seen.shape[1] :])
        context = attend(
            query,
            key,
            value,
            mask,
            dropout_rate=config.attention_dropout,
            rng=self.dropout_key(),
            implementation=config.attention,
        ).reshape(x.shape)
        return self.norm(x + self.drop(dense(config, config.hidden_size, "output")(context)))


class Layer(Module):
    """Attention block and feed-forward block, each normalised after its residual sum."""

    @nn.compact
    def __call__(self, x: Array, seen: Array, mask: Mask, prefix: Float[Array, "2 P H C"] | None) -> Array:
        config = self.config
        x = Attention(config, self.train, name="attention")(x, seen, mask, prefix)
        inner = gelu(dense(config, config.intermediate_size, "intermediate")(x))
        return self.norm(x + self.drop(dense(config, config.hidden_size, "output")(inner)))


class Layers(Module):
    """The stack; returns the output of every layer, of the last one at the columns `read` only (None: at all)."""

    @nn.compact
    def __call__(
        self, x: Array, mask: Mask, prefix: Float[Array, "L 2 P H C"] | None, read: Int[Array, "R Q"] | None
    ) -> tuple[Array, ...]:
        layer = nn.remat(Layer) if self.config.remat else Layer
        outputs = [x]
        for index in range(self.config.num_layers):
            x = seen = outputs[-1]
            if index == self.config.num_layers - 1:
                x, mask = queries(seen, mask, read)
            learned = None if prefix is None else prefix[index]
            outputs.append(layer(self.config, self.train, name=f"layer_{index}")(x, seen, mask, learned))
        return tuple(outputs)


def at_columns(x: Float[Array, "R T D"], columns: Int[Array, "R Q"]) -> Float[Array, "R Q D"]:
    """Of each row, the vectors at its columns."""
    return jnp.take_along_axis(x, columns[..., None], axis=1)


def queries(
    seen: Float[Array, "R T D"], mask: Mask, read: Int[Array, "R Q"] | None
) -> tuple[Float[Array, "R A D"], Bool[Array, "R 1 A S"]]:
    """What the last layer computes: of `seen`, and of the mask, the columns `read` (None: all)."""
    if read is None:
        return seen, mask
    return at_columns(seen, read), jnp.take_along_axis(mask, read[:, None, :, None], axis=2)


def attention_mask(segment_ids: Int[Array, "R T"], prefix: Float[Array, "L 2 P H C"] | None) -> Mask:
    """Who sees whom: the tokens of a segment each other, and all a prefix."""
    mask = segment_mask(segment_ids)
    if prefix is not None:
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (prefix.shape[2], 0)), constant_values=True)
    return mask


class Encoder(Module):
    """Embeddings and layers. Public use is through `encode`."""

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        segment_ids: Array,
        positions: Array,
        token_types: Array,
        prefix: Array | None = None,
        read: Array | None = None,
    ) -> tuple[Array, ...]:
        x = Embeddings(self.config, self.train, name="embeddings")(tokens, positions, token_types)
        return Layers(self.config, self.train, name="encoder")(x, attention_mask(segment_ids, prefix), prefix, read)


def scan_encoder(
    config: ModelConfig,
    params: Params,
    tokens: Array,
    segment_ids: Array,
    positions: Array,
    token_types: Array,
    prefix: Array | None,
    read: Array | None,
    received_attention: bool,
) -> tuple[tuple[Array, ...], Float[Array, "L R T"] | None]:
    """What `Encoder` computes without dropout, and the attention each layer pays; all layers but the last are one loop."""
    x: Any = Embeddings(config, False).apply({"params": params["embeddings"]}, tokens, positions, token_types)
    mask = attention_mask(segment_ids, prefix)
    weights = [params["encoder"][f"layer_{index}"] for index in range(config.num_layers)]
    looped = jax.tree.map(lambda *layers: jnp.stack(layers), *weights[:-1])

    def layer(x: Array, seen: Array, mask: Mask, weights: Params, learned: Array | None) -> tuple[Array, Any]:
        output, sown = Layer(config, False).apply(
            {"params": weights}, x, seen, mask, learned, mutable=[RECEIVED] if received_attention else []
        )
        return output, jax.tree.leaves(sown)[0] if received_attention else None

    def step(seen: Array, inputs: tuple[Params, Array | None]) -> tuple[Array, tuple[Array, Any]]:
        output, paid = layer(seen, seen, mask, *inputs)
        return output, (output, paid)

    seen, (outputs, paid) = jax.lax.scan(step, x, (looped, None if prefix is None else prefix[:-1]))
    learned = None if prefix is None else prefix[-1]
    queried, its_mask = queries(seen, mask, read)
    last, paid_last = layer(queried, seen, its_mask, weights[-1], learned)
    return (x, *outputs, last), None if paid_last is None else jnp.concatenate([paid, paid_last[None]])


def encode(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "R T"],
    segment_ids: Int[Array, "R T"],
    positions: Int[Array, "R T"],
    *,
    token_types: Int[Array, "R T"] | None = None,
    dropout_rng: Key[Array, ""] | None = None,
    all_layers: bool = False,
    received_attention: bool = False,
    read: Int[Array, "R Q"] | None = None,
) -> EncoderOutput:
    """Hidden states of packed rows.

    Args:
        params: the tree of the module docstring; the head's part is not looked at. A prefix takes no position: the
            tokens keep theirs, and hidden states are those of tokens only.
        segment_ids: which segment of its row a token belongs to; 0 = pad. Attention stays inside a segment, so a
            token that must not be attended to (a hole of an attention mask) gets 0.
        positions: 0 at the first token of each segment; RoBERTa's offset is added here.
        token_types: all 0 if not given.
        dropout_rng: typed key; without it there is no dropout. Row r's dropout depends on r, not on later rows.
        all_layers: also return the embeddings and every layer's output.
        received_attention: also return how much attention each token is paid; attention maps are never kept.
        read: columns whose last hidden states are wanted: the last layer computes no others, and only [R,Q,D] come back.
    Returns:
        Hidden states in the activation dtype. Those of pads are finite and mean nothing; those of ids or positions
        beyond their table are NaN.
    Raises:
        ValueError: if `read` leaves out what `received_attention` averages, or dropout is asked of `scan_layers`.
    """
    if read is not None and received_attention:
        raise ValueError("received_attention averages over all tokens, but `read` names some; leave one of them out")
    if token_types is None:
        token_types = jnp.zeros_like(tokens)
    if config.scan_layers and dropout_rng is not None:
        raise ValueError("scan_layers has no dropout; leave it out, or give no dropout_rng")
    rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
    module = Encoder(config, train=dropout_rng is not None)
    inputs = (tokens, segment_ids, positions, token_types, params.get(PREFIX), read)
    layers: Any
    paid = None
    if config.scan_layers and config.num_layers > 1:
        layers, paid = scan_encoder(config, params, *inputs, received_attention)
    elif received_attention:
        layers, sown = module.apply({"params": params}, *inputs, rngs=rngs, mutable=[RECEIVED])
        paid = jnp.stack(jax.tree.leaves(sown))  # [L,R,T]
    else:
        layers = module.apply({"params": params}, *inputs, rngs=rngs)
    return EncoderOutput(layers[-1], layers if all_layers else None, None if paid is None else paid.mean(0))
