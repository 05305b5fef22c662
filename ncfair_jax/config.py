"""The configuration of a run: one tree of frozen dataclasses, its ConfigDict twin for the command line, and its checks.

A config file returns `base_config()` with some fields changed; every field exists there with its final type, so that
`--config.nc3.weight=10` works and a misspelt name fails. `freeze` turns the ConfigDict into the frozen tree that the
inside reads; `validate` refuses what cannot work before anything is loaded or compiled.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from ncfair_jax.unread import MASKING, unread

SWEEP_FIELDS = ("arms", "run_arms", "seeds")
WORD_EMBEDDING = "embeddings/word/embedding"


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
        activation_dtype: "float32" or "bfloat16".
        remat: recompute layers in the backward pass: less memory, about a third more time.
        attention: implementation of `models.attention`.
        hidden_dropout, attention_dropout: -1 keeps the model's own rate.
    """

    path: str = ""
    init_from: str = ""
    head: str = ""
    activation_dtype: str = "float32"
    remat: bool = False
    attention: str = "xla"
    hidden_dropout: float = -1.0
    attention_dropout: float = -1.0


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

    corpus: str = "gap"
    path: str = ""
    subset: str = ""
    split: str = "train"
    text_field: str = "text"
    streaming: bool = False
    max_examples: int = 0
    counterfactual: str = "none"
    lexicon: str = "gender"
    possessives: str = "context"
    max_tokens: int = 128
    row_tokens: int = 128
    dev_examples: int = 0


@dataclass(frozen=True)
class ObjectiveConfig:
    """The task loss: a name in `methods.METHODS` and the masking of masked-language modelling."""

    name: str = "mlm"
    mask_prob: float = 0.15
    mask_frac: float = 0.8
    random_frac: float = 0.1


@dataclass(frozen=True)
class NC3Config:
    """The plug-in regulariser `+ weight · std_c cos(class mean, classifier row)`; weight 0 leaves it out.

    Attributes:
        lexicon: shipped name or JSON file of the fairness words; with ":random" or ":frequency-matched" after it, as many
            neutral words of the training text instead: a control.
        word_rule: "whole_word", "listed_token" or "first_piece": how words become classes
            (`lexicons.classes.build_classes`).
        features: "hidden" (last layer) or "transform" (what the classifier really multiplies).
        alignment: "same" (row t is the token at t) or "next" (the token at t + 1).
        labels: "original" (before masking) or "input" (after masking).
        window: "run", "epoch", "ema" or "batch": how long class means live.
        ema_decay: decay of counts a step under "ema".
        gradient: "classifier" (classifier rows only) or "both" (also the features of the current batch).
    """

    weight: float = 0.0
    lexicon: str = "gender"
    word_rule: str = "whole_word"
    features: str = "transform"
    alignment: str = "same"
    labels: str = "original"
    window: str = "ema"
    ema_decay: float = 0.99
    gradient: str = "both"


@dataclass(frozen=True)
class MabelConfig:
    """Contrastive and alignment losses over entailment pairs and their gender-swapped copies; read by objective "mabel".

    Attributes:
        pairs: CSV file of pairs (launch/build_mabel.py makes one), or "templates" for generated pairs.
        pooler: sentence embedding: "cls" ([CLS] and a two-layer MLP), "cls_before_pooler", "avg", "avg_top2" or
            "avg_first_last".
        contrastive: whether the contrastive loss is part of the task loss.
        align_loss: "a1", "a2" or "a3"; "" = none.
        softmax_temp: temperature of the contrastive loss and of a1.
        align_temp: temperature of a3.
        align_weight: of the alignment loss beside the contrastive one; either alone has weight 1.
        mix: "sum" (contrastive + w · alignment, as released) or "convex" ((1 - w) · contrastive + w · alignment).
        mlm_weight: of the masked-LM loss on the masked copies.
        hard_negatives: use columns 5 and 6 of the pairs as negatives.
    """

    pairs: str = ""
    pooler: str = "cls"
    contrastive: bool = True
    align_loss: str = "a1"
    softmax_temp: float = 0.05
    align_temp: float = 0.05
    align_weight: float = 0.05
    mix: str = "sum"
    mlm_weight: float = 0.1
    hard_negatives: bool = False


@dataclass(frozen=True)
class AdeptConfig:
    """ADEPT and DPCE (`methods.adept`): words of several groups, and neutral words that should not tell them apart.

    Attributes:
        algorithm: "adept" or "dpce".
        lexicon: shipped name or JSON file of the groups' words.
        groups: comma-separated names of the lexicon's groups to train on; "" = all.
        neutral: text file with a neutral word a line; "" = the shipped list.
        mode: which words' sentences are used: "final" (pairs of words with 30 sentences each, equally many of both), "raw"
            (all), "reliability" (as final, but all sentences) or "quality" (equally many, however few).
        debias_layer: layers that represent a word: "all" (embeddings included), "first" (embeddings) or "last".
        rho: distance that counts as near: distances d weigh exp(-d² / 2 rho²).
        alpha, beta: weights of the bias loss and of the retention loss.
        retention: distance from the original hidden states: "mse" or "kl".
        prefix_tokens: 0 tunes the whole model; more (40 in the paper) are learned keys and values in front of every layer's,
            and the model itself must be frozen: optimizer.freeze='^(embeddings|encoder|mlm)/'.
    """

    algorithm: str = "adept"
    lexicon: str = "gender"
    groups: str = ""
    neutral: str = ""
    mode: str = "final"
    debias_layer: str = "all"
    rho: float = 15.0
    alpha: float = 0.3
    beta: float = 0.7
    retention: str = "mse"
    prefix_tokens: int = 0


PAPER = {
    "word_rule": "first_piece",
    "features": "hidden",
    "alignment": "next",
    "labels": "input",
    "window": "run",
    "gradient": "classifier",
}
ALIGNED = {
    "word_rule": "whole_word",
    "features": "transform",
    "alignment": "same",
    "labels": "original",
    "window": "ema",
    "ema_decay": 0.99,
    "gradient": "both",
}
PRESETS = {"paper": PAPER, "aligned": ALIGNED}
CONTROL = "control"  # what shipped configs take beside the presets


@dataclass(frozen=True)
class AseConfig:
    """ASE: pronoun prediction, stereotype words made orthogonal to the gender direction, and elastic weights.

    `data.path`, `data.counterfactual` (which sides of the flipped pairs) and `data.lexicon` (pairs of the flip and of the
    gender direction) are read too.

    Attributes:
        source: "gap" (a GAP file, swapped for its other side), "winobias" (folder of WinoBias, development files only) or
            "csv" (folder with original_data.csv and flipped_data.csv).
        label_mode: "per_mask" (each mask its own pronoun) or "same" (a row for each pronoun, which labels all its masks).
        stereotypes: words to neutralise: a JSON lexicon or a file of tab separated words; "" = the list of the package.
        direction: "per_word" (mean difference of the pairs, each word encoded alone) or "joined" (one text a group).
        sn_weight: of the neutralisation; 0 leaves it out.
        sn_reduce: "sum" over the batch's stereotype tokens, or their "mean".
        ewc_weight: of the squared distance from the initial parameters, weighted by their Fisher information; 0 leaves it out.
        fisher_examples: training examples that the Fisher information is estimated on, evenly spread.
        fisher_scale: "mean_one" (its mean over all parameters is 1) or "raw".
    """

    source: str = "gap"
    label_mode: str = "per_mask"
    stereotypes: str = ""
    direction: str = "per_word"
    sn_weight: float = 1.0
    sn_reduce: str = "sum"
    ewc_weight: float = 10.0  # found on development data (configs/methods_minilm.py)
    fisher_examples: int = 1000
    fisher_scale: str = "mean_one"


@dataclass(frozen=True)
class CorefConfig:
    """Coreference by ranking of spans (`models.coref`), and WinoBias judged with it; read by objective "coref".

    Attributes:
        train: files in CoNLL-2012 format, or WinoBias's bracketed lines, with commas between; of a folder all *_conll files.
        dev: files of the same kinds, on which the CoNLL F1 of the trained model is measured; "" = none.
        winobias: folder of WinoBias to judge on; "" = none.
        winobias_split: "dev" (what is published) or "test".
        max_segments: most segments (of data.row_tokens tokens) of a document in training.
        max_width: tokens of the longest span.
        span_ratio: spans kept for each token of a document.
        max_antecedents: of a span that are scored in full.
        hidden_units, feature_size: sizes of the scorers' hidden layer and of the embeddings of widths and distances.
        dropout: of the scorers.
    """

    train: str = ""
    dev: str = ""
    winobias: str = ""
    winobias_split: str = "dev"
    max_segments: int = 5
    max_width: int = 30
    span_ratio: float = 0.4
    max_antecedents: int = 50
    hidden_units: int = 3000
    feature_size: int = 20
    dropout: float = 0.3


@dataclass(frozen=True)
class ClassificationConfig:
    """Fine-tuning for a labelled task, by which the model is then judged; read by objective "classification".

    `data.path` names the data: a folder, a file, or a Hub name; "" = the task's data set on the Hub. `data.dev_examples` are
    drawn from the task's own development part where it has one that nothing is judged by, else set aside from training.

    Attributes:
        task: "bios" (Bias-in-Bios), "bias_nli" (trained on SNLI or MNLI) or a GLUE task such as "cola".
        pool: "pooler" (first token, dense, tanh; the checkpoint's own dense layer if it has one), "fresh_pooler" (never the
            checkpoint's: models that were exported without one can be compared with those that have it) or "first" (the
            first token's vector alone).
        dev_fraction, test_fraction: of a Bias-in-Bios that comes as one file.
        templates: folder of word lists for Bias-NLI's pairs; "" = the package's own lists.
        subset: of Bias-NLI's pairs, in the order they are made: "all", or "first_90_percent" as the released evaluation.
        pairs: score so many of them, drawn once for all models; 0 = the whole subset.
    """

    task: str = ""
    pool: str = "pooler"
    dev_fraction: float = 0.1
    test_fraction: float = 0.25
    templates: str = ""
    subset: str = "all"
    pairs: int = 0


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

    learning_rate: float = 2e-5
    schedule: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 1.0
    freeze: str = ""
    method_learning_rate: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """The loop.

    Attributes:
        batch_size: sentences an update.
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

    batch_size: int = 16
    accumulation: int = 1
    epochs: float = 3.0
    steps: int = 0
    log_every: int = 20
    save_every: int = 200
    dev_every: int = 0
    collapse_every: int = 100
    collapse_sentences: int = 64
    keep: int = 2
    best: str = ""
    stop_on_divergence: bool = False


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
class RunConfig:
    """Everything that decides a run's result.

    The ConfigDict has three fields more: `arms`, a dict from an arm's name to the fields it changes, `run_arms`, the names
    of those to run, and `seeds`; both lists have commas between. With arms, one command runs each of them for each seed
    (see `sweep`).
    """

    name: str = "run"
    seed: int = 42
    model: ModelSource = field(default_factory=ModelSource)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    mabel: MabelConfig = field(default_factory=MabelConfig)
    adept: AdeptConfig = field(default_factory=AdeptConfig)
    nc3: NC3Config = field(default_factory=NC3Config)
    ase: AseConfig = field(default_factory=AseConfig)
    coref: CorefConfig = field(default_factory=CorefConfig)
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evals: EvalConfig = field(default_factory=EvalConfig)
    world: WorldConfig = field(default_factory=WorldConfig)


GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
CHOICES = {
    "model.activation_dtype": ("float32", "bfloat16"),
    "data.corpus": ("gap", "text", "hub"),
    "data.counterfactual": ("none", "one_sided", "two_sided"),
    "data.possessives": ("context", "next_word"),
    "mabel.pooler": ("cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last"),
    "mabel.align_loss": ("", "a1", "a2", "a3"),
    "mabel.mix": ("sum", "convex"),
    "adept.algorithm": ("adept", "dpce"),
    "adept.mode": ("final", "raw", "reliability", "quality"),
    "adept.debias_layer": ("all", "first", "last"),
    "adept.retention": ("mse", "kl"),
    "nc3.word_rule": ("whole_word", "listed_token", "first_piece"),
    "nc3.features": ("hidden", "transform"),
    "nc3.alignment": ("same", "next"),
    "nc3.labels": ("original", "input"),
    "nc3.window": ("run", "epoch", "ema", "batch"),
    "nc3.gradient": ("classifier", "both"),
    "ase.source": ("gap", "winobias", "csv"),
    "ase.label_mode": ("per_mask", "same"),
    "ase.direction": ("per_word", "joined"),
    "ase.sn_reduce": ("sum", "mean"),
    "ase.fisher_scale": ("mean_one", "raw"),
    "coref.winobias_split": ("dev", "test"),
    "classification.task": ("", "bios", "bias_nli", *GLUE_TASKS),
    "classification.pool": ("pooler", "fresh_pooler", "first"),
    "classification.subset": ("all", "first_90_percent"),
    "optimizer.schedule": ("linear", "cosine", "constant"),
    "train.best": ("", "dev_loss"),
}
POSITIVE: tuple[str, ...] = (
    "data.max_tokens",
    "data.row_tokens",
    "mabel.softmax_temp",
    "mabel.align_temp",
    "train.batch_size",
    "train.accumulation",
    "train.log_every",
    "ase.fisher_examples",
    "optimizer.learning_rate",
    "optimizer.eps",
    "adept.rho",
    "coref.max_segments",
    "coref.max_width",
    "coref.span_ratio",
    "coref.max_antecedents",
    "coref.hidden_units",
    "coref.feature_size",
    "train.save_every",
    "train.collapse_sentences",
    "train.keep",
)
NOT_NEGATIVE: tuple[str, ...] = (
    "seed",
    "mabel.mlm_weight",
    "nc3.weight",
    "ase.sn_weight",
    "ase.ewc_weight",
    "adept.alpha",
    "adept.beta",
    "adept.prefix_tokens",
    "classification.pairs",
    "optimizer.weight_decay",
    "optimizer.method_learning_rate",
    "optimizer.clip_norm",
    "optimizer.warmup_steps",
    "data.max_examples",
    "data.dev_examples",
    "train.epochs",
    "train.steps",
    "train.dev_every",
    "train.collapse_every",
)
FRACTIONS = (
    "objective.mask_prob",
    "objective.mask_frac",
    "objective.random_frac",
    "mabel.align_weight",
    "coref.dropout",
    "classification.dev_fraction",
    "classification.test_fraction",
)


def base_config(preset: str = "") -> ConfigDict:
    """All fields with their defaults; `preset` "paper" or "aligned" sets the NC3 fields (not its weight)."""
    config = ConfigDict(dataclasses.asdict(RunConfig()))
    config.arms = ConfigDict()
    config.run_arms = ""
    config.seeds = ""
    if preset:
        config.nc3.update(PRESETS[preset])
    return config


def published_config(name: str, arg: str | None, model: str) -> ConfigDict:
    """What the shipped configs of published models share: a preset with its weight, WikiText-2, and all benchmarks.

    Args:
        arg: what follows the config file's colon: "paper", "aligned" (the default), or "control", which is "aligned" with
            equally frequent neutral words in the place of the fairness words.
    """
    (chosen,) = parse_arg(arg, (*PRESETS, CONTROL)) or ("aligned",)
    config = base_config("aligned" if chosen == CONTROL else chosen)
    config.name = f"{name}-{chosen}"
    if chosen == CONTROL:
        config.nc3.lexicon += ":frequency-matched"
    config.model.path = model
    config.data.corpus = "hub"
    config.data.path = "Salesforce/wikitext"
    config.data.subset = "wikitext-2-raw-v1"
    config.nc3.weight = 100.0  # paper: as released for BEC; aligned: found on development data (configs/bec_minilm.py)
    config.evals.benchmarks = "stereoset,crows_pairs,bec_pro,masked_lm"
    config.evals.collapse_text = "wikitext2"
    return config


def finetuning_config(name: str, task: str) -> ConfigDict:
    """What the shipped configs of classification share: BERT-base, and the arms of a model and its debiased copy."""
    config = base_config()
    config.name = name
    config.model.path = "bert-base-uncased"
    config.objective.name = "classification"
    config.classification.task = task
    config.train.collapse_every = 0
    config.arms.base = ConfigDict()  # starts from config.model.path
    config.arms.debiased = ConfigDict({"model": {"path": ""}})
    config.run_arms = "base"
    return config


def parse_arg(arg: str | None, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The names after the colon of `--config=file.py:a,b`.

    Raises:
        ConfigError: for a name that the config file does not have.
    """
    names = tuple(name for name in (arg or "").split(",") if name)
    for name in names:
        if name not in choices:
            raise ConfigError(f"config argument {name!r}; choose from {', '.join(choices)}")
    return names


def freeze(config: ConfigDict) -> RunConfig:
    """The frozen twin of a ConfigDict without arms.

    Raises:
        ConfigError: for a field that does not exist ("did you mean"), is missing, or has another type.
    """
    tree = config.to_dict()
    for name in SWEEP_FIELDS:
        tree.pop(name, None)
    return _build(RunConfig, tree, "config")


def _build(cls: type, tree: dict[str, Any], path: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in tree:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"; did you mean {path}.{close[0]}?" if close else f"; choose from {', '.join(sorted(fields))}"
            raise ConfigError(f"{path}.{name} does not exist{hint}")
    if missing := sorted(set(fields) - set(tree)):
        raise ConfigError(f"{path} lacks {', '.join(missing)}; start from ncfair_jax.config.base_config()")
    values = {}
    for name, f in fields.items():
        value, kind = tree[name], f.type
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            values[name] = _build(kind, value, f"{path}.{name}")
        else:
            if kind is float and type(value) is int:
                value = float(value)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{path}.{name}={value!r}; expected a finite number")
            if type(value) is not kind:
                expected = getattr(kind, "__name__", kind)
                raise ConfigError(f"{path}.{name}={value!r} is a {type(value).__name__}; expected a {expected}")
            values[name] = value
    return cls(**values)


def get(config: RunConfig, path: str) -> Any:
    """The value at a dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def validate(config: RunConfig) -> None:
    """Refuses impossible values before anything is loaded or compiled.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """
    for path, choices in CHOICES.items():
        _require(get(config, path) in choices, config, path, f"choose from {', '.join(map(repr, choices))}")
    for path in POSITIVE:
        _require(get(config, path) > 0, config, path, "must be above 0")
    for path in NOT_NEGATIVE:
        _require(get(config, path) >= 0, config, path, "must not be negative")
    for path in FRACTIONS:
        _require(0 <= get(config, path) <= 1, config, path, "is a fraction: 0 to 1")
    split = config.objective.mask_frac + config.objective.random_frac
    _require(split <= 1 + 1e-9, config, "objective.random_frac", f"mask_frac + random_frac = {split:g} exceeds 1")
    _require(0 < config.nc3.ema_decay < 1, config, "nc3.ema_decay", "must lie between 0 and 1")
    for path in ("model.hidden_dropout", "model.attention_dropout"):
        rate = get(config, path)
        _require(rate == -1 or 0 <= rate < 1, config, path, "give a rate from 0 to below 1, or -1 for the model's own")
    mabel = config.mabel
    _require(
        mabel.contrastive or mabel.align_loss != "" or mabel.mlm_weight > 0,
        config,
        "mabel.mlm_weight",
        "with neither mabel.contrastive nor mabel.align_loss there is nothing to minimise",
    )
    _require(
        config.objective.name not in MASKING or config.objective.mask_prob > 0,
        config,
        "objective.mask_prob",
        f"with objective.name={config.objective.name!r} there is nothing to predict; give a share above 0",
    )
    adept = config.adept
    _require(
        config.objective.name != "adept" or adept.alpha > 0 or adept.beta > 0 or config.nc3.weight > 0,
        config,
        "adept.alpha",
        "with adept.beta=0 and nc3.weight=0 there is nothing to minimise",
    )
    train = config.train
    _require(
        train.batch_size % train.accumulation == 0,
        config,
        "train.batch_size",
        f"does not divide into train.accumulation={train.accumulation} micro-batches",
    )
    _require(train.steps > 0 or train.epochs > 0, config, "train.epochs", "with train.steps=0 there is nothing to do")
    _require(
        config.data.max_tokens <= config.data.row_tokens,
        config,
        "data.max_tokens",
        f"does not fit a row of data.row_tokens={config.data.row_tokens}",
    )
    if train.dev_every or train.best:
        _require(config.data.dev_examples > 0, config, "data.dev_examples", "a development loss needs sentences")
    if train.best:
        _require(train.dev_every > 0, config, "train.dev_every", "train.best needs a development loss")
        _require(
            train.save_every % train.dev_every == 0,
            config,
            "train.save_every",
            f"must be a multiple of train.dev_every={train.dev_every}, so that a checkpoint has its own figure",
        )
    _require(
        train.steps == 0 or config.optimizer.warmup_steps < train.steps,
        config,
        "optimizer.warmup_steps",
        f"the run ends within the warm-up, train.steps={train.steps}; shorten it",
    )
    _validate_freeze(config)
    if line := unread(config, RunConfig()):
        raise ConfigError(line)


def _validate_freeze(config: RunConfig) -> None:
    pattern = config.optimizer.freeze
    if not pattern:
        return
    try:
        frozen = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"config.optimizer.freeze={pattern!r} is no regular expression: {error}") from None
    if frozen.search("") is not None:
        raise ConfigError(f"config.optimizer.freeze={pattern!r} matches every parameter: nothing is left to train")
    classifier_frozen = frozen.search(WORD_EMBEDDING) is not None
    if config.nc3.weight > 0 and classifier_frozen and config.nc3.gradient == "classifier":
        raise ConfigError(
            f"config.nc3.weight={config.nc3.weight:g} on a frozen classifier: config.optimizer.freeze={pattern!r} holds "
            f"{WORD_EMBEDDING} still, so the regulariser moves nothing; set nc3.weight=0 or nc3.gradient='both'"
        )


def _require(holds: bool, config: RunConfig, path: str, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"config.{path}={get(config, path)!r}: {remedy}")


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain nested dict, for JSON."""
    return dataclasses.asdict(config)


def identity(tree: dict[str, Any]) -> dict[str, Any]:
    """The fields of `to_dict` that make a run this run: all but the mesh, since a run may move to other devices."""
    return {name: value for name, value in tree.items() if name != "mesh"}


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
