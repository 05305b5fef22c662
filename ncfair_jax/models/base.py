"""What a model is to the rest of the package: a config, a nested dict of float32 arrays, and a family of functions over both.

A family is one file of this folder that ends in a `Family`, and one line in `families.FAMILIES`. The functions are pure: they
take the config (hashable, so that equal configs share one compilation) and the parameters, and hold nothing. Parameters are
named by paths such as `encoder/layer_3/attention/query/kernel`; sharding, freezing, adapters and weight files all speak of them
by these paths. Three names are the same in every family:

    prefix    keys and values [layers, 2, P, H, C] that every token of a layer attends to, where one was learned
    nsp       pooler/{kernel,bias} and classifier/{kernel,bias} of a next-sentence head, where it was loaded
    method    what only a method has, such as the classifier of a task

Letters: R rows, T tokens, Q columns of a row, D hidden, E what the classifier multiplies, V vocabulary, H heads, C head size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key
from transformers import PreTrainedTokenizerBase

from ncfair_jax.models.attention import IMPLEMENTATIONS

Params = dict[str, Any]
PREFIX, NSP, EXTRA = "prefix", "nsp", "method"
CHOICES = {"activation_dtype": ("float32", "bfloat16"), "attention": IMPLEMENTATIONS}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What all families have in common; each adds its own fields, which nothing outside its file looks at.

    Attributes:
        model_type: as in config.json; it decides the family.
        pad_token_id: None where the tokenizer pads with nothing of its own.
        hidden_dropout: probability of dropping an element of embeddings, attention output and feed-forward output, and of what
            a classifier of texts reads.
        attention_dropout: probability of dropping an attention probability.
        activation_dtype: "float32" or "bfloat16". Parameters, norms, softmax and logits are float32 in both.
        remat: recompute each layer in the backward pass instead of storing its inside.
        attention: a name in `attention.IMPLEMENTATIONS`.
        scan_layers: the layers as one loop, which compiles in a fraction of the time and costs a copy of their weights.
        initializer_range: standard deviation of fresh matrices and embeddings.
        causal: whether a token sees only itself and those before it.
    Raises:
        ValueError: for a name that is not among the choices, or a size below 1.
    """

    causal: ClassVar[bool] = False

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    pad_token_id: int | None
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dtype: str = "float32"
    remat: bool = False
    attention: str = "xla"
    scan_layers: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}; choose from {sorted(choices)}")
        self.check_sizes("vocab_size", "hidden_size", "num_layers")

    def check_sizes(self, *names: str) -> None:
        """Refuses a size below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; at least 1")

    @property
    def max_tokens(self) -> int:
        """Longest segment that has positions, special tokens included."""
        raise NotImplementedError

    def prefix_shape(self, tokens: int) -> tuple[int, ...] | None:
        """Shape [layers, 2, tokens, H, C] of a learned prefix; None in a family that takes none."""
        del tokens
        return None


class Rows(NamedTuple):
    """Packed rows: several sequences (segments) one after the other in each.

    Attributes:
        segment_ids: which segment of its row a token belongs to; 0 = pad. Attention stays inside a segment, so a token that
            must not be attended to (a hole of an attention mask) gets 0.
        positions: 0 at the first token of each segment.
        token_types: all 0 if None; families without token types ignore them.
    """

    tokens: Int[Array, "R T"]
    segment_ids: Int[Array, "R T"]
    positions: Int[Array, "R T"]
    token_types: Int[Array, "R T"] | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "Rows":
        """The rows of a batch, which has them by these names; token types if it has any."""
        return cls(batch["tokens"], batch["segment_ids"], batch["positions"], batch.get("token_types"))


class Ask(NamedTuple):
    """What is wanted of a forward pass. The flags are Python's, so they decide what is compiled.

    Attributes:
        read: columns whose last hidden states are wanted: the last layer computes no others. None: all.
        all_layers: also the embeddings and every layer's output.
        received_attention: also how much attention each token is paid; attention maps are never kept.
        dropout_rng: typed key; without it there is no dropout. With Threefry row r's dropout depends on r, not on later rows.
    """

    read: Int[Array, "R Q"] | None = None
    all_layers: bool = False
    received_attention: bool = False
    dropout_rng: Key[Array, ""] | None = None


class Hidden(NamedTuple):
    """What a forward pass gives, in the activation dtype; None where it was not asked for.

    Hidden states of pads are finite and mean nothing; those of ids or positions beyond their table are NaN.

    Attributes:
        hidden_states: the last layer, at the columns that were asked for.
        all_layers: embeddings, then each layer's output.
        received_attention: attention that each token is paid by those of its segment, averaged over layers, heads and
            queries; sums to 1 over a segment, less what a learned prefix takes. Means nothing at pads.
    """

    hidden_states: Float[Array, "R Q D"]
    all_layers: tuple[Float[Array, "R T D"], ...] | None
    received_attention: Float[Array, "R T"] | None


class Tensor(NamedTuple):
    """One tensor of a model folder. `{}` in name and path stands for the number of a layer.

    Attributes:
        name: in the file, with the family's prefix where the base model has one.
        path: of the parameter. "": the tensor is known not to matter, and left out.
        transposed: PyTorch stores [outputs, inputs].
        copies: other names under which a file may store the same values, beside the name or in its place: a tied decoder.
            An untied decoder is a tensor of its own instead.
        head: part of the head on top of the base model, which a folder may lack as a whole.
        extra: one of `Family.extras`: read only where it is asked for, if it is there, and never written.
        shape: of the parameter, where `Family.init` makes none.
        first_layer: the first layer that has such a tensor.
    """

    name: str
    path: str = ""
    transposed: bool = False
    copies: tuple[str, ...] = ()
    head: bool = False
    extra: str = ""
    shape: tuple[int, ...] = ()
    first_layer: int = 0


class Fold(NamedTuple):
    """Paths of the linear layer, kernel [D, E] and bias, that reads last hidden states and nothing else.

    An affine edit of last hidden states can be folded into it; bias None: it has none.
    """

    kernel: str
    bias: str | None


class Family(NamedTuple):
    """What one family offers to the rest of the package.

    Attributes:
        model_types: values of config.json's model_type.
        prefix: in front of the names of the base model's tensors, with a dot between; files may leave it out.
        read_config: config.json -> config. Raises `FieldsError`, listing every field that is missing, wrong or unsupported.
        write_config: (config, tokenizer) -> config.json, without the dtype of the weights.
        tensors: config -> every tensor that a folder may hold.
        init: (config, key) -> fresh float32 parameters.
        hidden: the forward pass.
        features: (config, params, last hidden states [.., D]) -> what the classifier multiplies, float32 [.., E].
        logits: (config, params, features) -> float32 [.., V], with the family's scaling or caps.
        classifier: params -> weight [V, E] and bias [V] (or None) of the output layer.
        embedding: params -> the input table [V, ·]; the classifier's weight itself where the two are tied.
        fold: None where no linear layer reads last hidden states alone, or folding would change something else, too.
        sharding: regexes of parameter paths and how they lie on the mesh; the first match wins, else replicated.
        adapters: usual names of LoRA targets -> regex of the paths of their kernels.
        extras: of {"token_types", "nsp", "pooler"}: token types; a next-sentence head of the pre-training, and its pooler.
    """

    model_types: tuple[str, ...]
    prefix: str
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    write_config: Callable[[Any, PreTrainedTokenizerBase], dict[str, Any]]
    tensors: Callable[[Any], tuple[Tensor, ...]]
    init: Callable[[Any, Key[Array, ""]], Params]
    hidden: Callable[[Any, Params, Rows, Ask], Hidden]
    features: Callable[[Any, Params, Float[Array, "... D"]], Float[Array, "... E"]]
    logits: Callable[[Any, Params, Float[Array, "... E"]], Float[Array, "... V"]]
    classifier: Callable[[Params], tuple[Float[Array, "V E"], Float[Array, " V"] | None]]
    embedding: Callable[[Params], Float[Array, "V _"]]
    fold: Fold | None
    sharding: tuple[tuple[str, PartitionSpec], ...]
    adapters: Mapping[str, str]
    extras: frozenset[str]


class FieldsError(ValueError):
    """What is wrong with a config.json: a line for each problem in `problems`."""

    def __init__(self, problems: list[str]):
        super().__init__("; ".join(problems))
        self.problems = problems


def check_ask(ask: Ask) -> None:
    """Refuses what no family computes.

    Raises:
        ValueError: if `read` leaves out what `received_attention` averages.
    """
    if ask.read is not None and ask.received_attention:
        raise ValueError("received_attention averages over all tokens, but `read` names some; leave one of them out")
