"""The configuration of a run: a tree of frozen dataclasses whose fields say which values they take.

Here is what every run has. A method adds its own fields by a subclass of `RunConfig`, which lies beside the method; a config
has the fields of one method (`registry`). `build` makes the frozen tree from what the command line made of a config file
(`recipes`); `check` refuses what cannot work before anything is loaded or compiled.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ncfair_jax.fields import choice, not_negative, own_rate, positive, section

T = TypeVar("T")
ROW_GROUPS = 32
# Fields that earlier versions did not have, and their value where a run is one that those versions knew.
ADDED: dict[str, dict[str, Any]] = {"train": {"batch_rows": 0, "row_groups": 0}, "model": {"dropout_bits": "threefry"}}
# Fields that say how the step is computed: no part of a run's identity.
HOW: dict[str, tuple[str, ...]] = {"model": ("layers", "attention")}
MOVED = {"base_config": "recipes", "parse_arg": "recipes", "freeze": "registry", "PRESETS": "methods.nc3"}


def __getattr__(name: str) -> Any:
    """Tells config files that were written for an earlier version where these names are now."""
    if name in MOVED:
        raise ImportError(f"{name} is in ncfair_jax.{MOVED[name]} now; change this line")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ConfigError(ValueError):
    """A config that cannot work; the message names the field, its value and the remedy."""


@dataclass(frozen=True)
class ModelSource:
    """Which pretrained model to start from, and how to run it.

    Attributes:
        path: Hugging Face folder or Hub name.
        init_from: "RUN@STEP" trains from the parameters of another run's checkpoint instead of those of `path`, which is
            still the model that the trained one is compared with. Optimizer, step and order of the text begin anew. "" = no.
        head: "" if the folder holds an MLM head, else how to make one: "identity" or "seeded:N".
        remat: recompute layers in the backward pass: less memory, about a third more time.
        layers: whether training runs the layers as one loop ("scanned": it compiles in a fraction of the time and costs a copy
            of their weights) or one after the other ("unrolled"). "auto": one loop, but on a CPU.
        attention: implementation of `models.attention`. "auto": that of the devices, where it can do what the run asks.
        hidden_dropout, attention_dropout: -1 keeps the model's own rate.
        dropout_bits: generator of dropout's random bits: "threefry", the same on any number of devices, or the hardware's,
            "rbg" or "unsafe_rbg" (see `jax.random`), the same only on the same devices with the same software.
    """

    path: str = ""
    init_from: str = ""
    head: str = ""
    activation_dtype: str = choice("float32", "bfloat16")
    remat: bool = False
    layers: str = choice("auto", "scanned", "unrolled")
    attention: str = choice("auto", "xla", "cudnn", "pallas_gpu", "splash")
    hidden_dropout: float = own_rate()
    attention_dropout: float = own_rate()
    dropout_bits: str = choice("threefry", "rbg", "unsafe_rbg")


@dataclass(frozen=True)
class DataConfig:
    """The training text.

    Attributes:
        corpus: "gap" (tab separated, column Text), "text" (file or folder of lines) or "hub" (a Hub data set).
        path: the file, folder or Hub name; "" with "gap" fetches the public file, pinned by its hash.
        subset, split, text_field, streaming: of a Hub data set.
        max_examples: keep the first so many sentences; 0 = all.
        counterfactual: "none", "one_sided" (every sentence swapped) or "two_sided" (original and swapped).
        lexicon: whose pairs the swap uses: a shipped name or a JSON file.
        possessives: how the swap reads "her" (his or him) and "his" (her or hers): "context" by the words around it, or
            "next_word", the rule documented for MABEL (a short list of words after "her"; "his" always becomes "her").
        max_tokens: longest encoded sentence, special tokens included; longer ones are cut before [SEP].
        row_tokens: length T of a packed row.
        dev_examples: sentences set aside for the development loss; they are never trained on.
    """

    corpus: str = choice("gap", "text", "hub")
    path: str = ""
    subset: str = ""
    split: str = "train"
    text_field: str = "text"
    streaming: bool = False
    max_examples: int = not_negative(0)
    counterfactual: str = choice("none", "one_sided", "two_sided")
    lexicon: str = "gender"
    possessives: str = choice("context", "next_word")
    max_tokens: int = positive(128)
    row_tokens: int = positive(128)
    dev_examples: int = not_negative(0)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a schedule and clipping of the global norm.

    Attributes:
        schedule: "linear" or "cosine" (to 0 at the last step) or "constant".
        clip_norm: 0 = no clipping.
        freeze: regular expression searched in parameter paths; what it finds does not move. "" = everything moves.
        method_learning_rate: of the parameters that only the method has: without warm-up and weight decay, and clipped by
            themselves. 0 = as the rest.
    """

    learning_rate: float = positive(2e-5)
    schedule: str = choice("linear", "cosine", "constant")
    warmup_steps: int = not_negative(0)
    weight_decay: float = not_negative(0.0)
    b1: float = 0.9
    b2: float = 0.999
    eps: float = positive(1e-8)
    clip_norm: float = not_negative(1.0)
    freeze: str = ""
    method_learning_rate: float = not_negative(0.0)


@dataclass(frozen=True)
class TrainConfig:
    """The loop.

    Attributes:
        batch_size: sentences an update; 0 = the batch is counted in rows.
        batch_rows: rows of data.row_tokens tokens an update, as full as they can be; 0 = the batch is counted in sentences.
        row_groups: parts that the sentences of an epoch are dealt to, each of which fills its own rows of every batch; a
            process packs only the parts whose rows it holds. It divides batch_rows, and the number of processes divides it.
            0 = 32, or batch_rows if that is less.
        accumulation: micro-batches an update; changes memory, not the loss.
        epochs: passes over the corpus, if steps is 0.
        steps: updates in all; 0 = as many as the epochs need.
        log_every, save_every, dev_every: updates between two logs, checkpoints, development losses (0 = never).
        keep: newest checkpoints kept.
        collapse_every: updates between two readings of NC1 to NC3 of the words of nc3.lexicon and of a control (0 = never).
        collapse_sentences: training sentences (development sentences, if there are any) that they are read on.
        best: "" exports the last step; "dev_loss" keeps and exports the step of the lowest development loss.
        stop_on_divergence: stop as soon as the training loss is above 1.5 times what it was at the start (`divergence`).
    """

    batch_size: int = not_negative(16)
    batch_rows: int = not_negative(0)
    row_groups: int = not_negative(0)
    accumulation: int = positive(1)
    epochs: float = not_negative(3.0)
    steps: int = not_negative(0)
    log_every: int = positive(20)
    save_every: int = positive(200)
    dev_every: int = not_negative(0)
    collapse_every: int = not_negative(100)
    collapse_sentences: int = positive(64)
    keep: int = positive(2)
    best: str = choice("", "dev_loss")
    stop_on_divergence: bool = False

    @property
    def groups(self) -> int:
        """Row groups, where the batch is counted in rows."""
        return self.row_groups or min(ROW_GROUPS, self.batch_rows)


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1: what is left of the devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class EvalConfig:
    """What is measured before and after.

    Attributes:
        benchmarks: comma-separated names for `benchmarks.evaluate`; "" = none.
        data: folder laid out by benchmark (crows_pairs/, stereoset/, …); "" = public sources, pinned by hash.
        collapse_text: lines on which NC figures are read (nothing may train on them): "wikitext2" = the held-out
            quarter of `data`/wikitext2, or a text file; "" = no NC figures.
        lexicon: fairness words of the NC figures.
    """

    benchmarks: str = ""
    data: str = ""
    collapse_text: str = ""
    lexicon: str = "gender"


@dataclass(frozen=True)
class WorldConfig:
    """A generated corpus with a planted bias (`data.generated`); sentences = 0 means that none is made."""

    sentences: int = 0
    bias: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class ObjectiveConfig:
    """The method of the run, by its name in `registry.METHODS`."""

    name: str = ""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result, but for what only its method reads."""

    name: str = "run"
    seed: int = not_negative(42)
    model: ModelSource = section(ModelSource)
    data: DataConfig = section(DataConfig)
    objective: ObjectiveConfig = section(ObjectiveConfig)
    mesh: MeshConfig = section(MeshConfig)
    evals: EvalConfig = section(EvalConfig)
    world: WorldConfig = section(WorldConfig)


def build(config_type: type[T], tree: dict[str, Any], path: str = "config") -> T:
    """The frozen dataclass of a nested dict.

    Raises:
        ConfigError: for a field that does not exist ("did you mean"), is missing, or has another type.
    """
    fields = {f.name: f for f in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    for name in tree:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"; did you mean {path}.{close[0]}?" if close else f"; choose from {', '.join(sorted(fields))}"
            raise ConfigError(f"{path}.{name} does not exist{hint}")
    if missing := sorted(set(fields) - set(tree)):
        raise ConfigError(f"{path} lacks {', '.join(missing)}; start from ncfair_jax.recipes.base_config()")
    values = {}
    for name, f in fields.items():
        of = f.type
        if isinstance(of, type) and dataclasses.is_dataclass(of):
            values[name] = build(of, tree[name], f"{path}.{name}")
        else:
            values[name] = _checked(tree[name], of, f"{path}.{name}")
    return config_type(**values)


def _checked(value: Any, of: Any, path: str) -> Any:
    if of is float and type(value) is int:
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}={value!r}; expected a finite number")
    if type(value) is not of:
        expected = getattr(of, "__name__", of)
        raise ConfigError(f"{path}={value!r} is a {type(value).__name__}; expected a {expected}")
    return value


def get(config: RunConfig, path: str) -> Any:
    """The value at a dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


class Rule(NamedTuple):
    """That the fields of a config go together.

    Attributes:
        path: the field that is named if they do not.
        holds: whether they do.
        remedy: what to say then.
    """

    path: str
    holds: bool
    remedy: str


def check(config: RunConfig, rules: Callable[[Any], Iterator[Rule]]) -> None:
    """Refuses values that their field does not take, and fields that do not go together.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """
    for path, of in _fields(type(config)):
        if (may := of.metadata.get("allowed")) and not may.holds(get(config, path)):
            raise ConfigError(f"config.{path}={get(config, path)!r}: {may.remedy}")
    for rule in rules(config):
        if not rule.holds:
            raise ConfigError(f"config.{rule.path}={get(config, rule.path)!r}: {rule.remedy}")


def _fields(config_type: type, path: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for f in dataclasses.fields(config_type):
        if isinstance(f.type, type) and dataclasses.is_dataclass(f.type):
            yield from _fields(f.type, f"{path}{f.name}.")
        else:
            yield path + f.name, f


def paths(config_type: type) -> frozenset[str]:
    """The dotted paths of all fields of a type of config."""
    return frozenset(path for path, _ in _fields(config_type))


def core_rules(config: RunConfig) -> Iterator[Rule]:
    """What must hold of every run."""
    data = config.data
    fits = f"does not fit a row of data.row_tokens={data.row_tokens}"
    yield Rule("data.max_tokens", data.max_tokens <= data.row_tokens, fits)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain nested dict, for JSON."""
    return dataclasses.asdict(config)


def identity(tree: dict[str, Any]) -> dict[str, Any]:
    """The fields of `to_dict` that make a run this run.

    Not the mesh and how the step is computed, since a run may move to other devices and both change the last digits of its
    numbers only; nor fields that were added later and change nothing here.
    """
    kept = {name: value for name, value in tree.items() if name != "mesh"}
    for part in (HOW.keys() | ADDED.keys()) & kept.keys():
        how, unchanged = HOW.get(part, ()), ADDED.get(part, {}).items()
        fields = kept[part].items()
        kept[part] = {name: value for name, value in fields if name not in how and (name, value) not in unchanged}
    return kept


def short_hash(config: RunConfig) -> str:
    """Eight hex digits that change with any field of the identity."""
    return hashlib.sha256(json.dumps(identity(to_dict(config)), sort_keys=True).encode()).hexdigest()[:8]


def differences(ours: dict[str, Any], theirs: dict[str, Any], path: str = "config") -> list[str]:
    """One line per differing leaf of two nested dicts: `config.nc3.weight: 10.0 here, 100.0 there`."""
    lines = []
    for name in sorted(set(ours) | set(theirs)):
        a, b, where = ours.get(name), theirs.get(name), f"{path}.{name}"
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, where)
        elif a != b:
            lines.append(f"{where}: {a!r} here, {b!r} there")
    return lines
