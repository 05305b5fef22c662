"""From a config to everything that the training loop needs: model, examples, objective, optimizer. Nothing is compiled yet."""

import dataclasses
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ncfair_jax.checkpoint import read_checkpoint_params
from ncfair_jax.config import ConfigError, RunConfig, identity, to_dict
from ncfair_jax.data.encoding import tokenizer_fingerprint
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import VERSION, Examples, Pipeline
from ncfair_jax.files.notes import Note, collected
from ncfair_jax.lexicons.classes import FairnessClasses, lexicon_or_control
from ncfair_jax.methods.base import Objective
from ncfair_jax.methods.mlm import MaskingConfig
from ncfair_jax.methods.nc3 import with_nc3
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.models import attention
from ncfair_jax.models.base import EXTRA, PREFIX, ModelConfig, Params
from ncfair_jax.models.dropout import GENERATORS
from ncfair_jax.models.families import family_of
from ncfair_jax.models.fingerprint import params_fingerprint
from ncfair_jax.models.hf import Pretrained, load_pretrained
from ncfair_jax.optimizer import make_optimizer, refuse_without_effect
from ncfair_jax.registry import method_of
from ncfair_jax.sharding import batch_shards, laid_out, put_tree
from ncfair_jax.state import TrainState, init_state
from ncfair_jax.tracker import Tracker, make_tracker

ROWS_PER_SHARD = 1  # rows are rounded up to a multiple of this on every device
DEV_FILL = 0.95  # of the tokens of a development batch, where the training batch is counted in rows
# Part of a run's identity. It changes when the same state and batch make another update; an unfinished run does not go on then.
STEP_VERSION = "dropout keyed by layer"


class Run(NamedTuple):
    """What the loop needs besides the state."""

    config: TrainedRun
    model: Pretrained
    examples: Examples
    start: Params  # to train from: those of the model, or of another run's checkpoint
    objective: Objective
    classes: FairnessClasses | None
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    pipeline: Pipeline
    dev: Pipeline | None
    tracker: Tracker | None
    total_steps: int
    mesh: Mesh
    identity: dict[str, Any]
    left_out: tuple[Note, ...] = ()


class Untrained(NamedTuple):
    """What a run needs whose method trains nothing; the fields are those of `Run`."""

    config: RunConfig
    model: Pretrained
    examples: Examples
    mesh: Mesh
    left_out: tuple[Note, ...]
    total_steps: int = 0
    tracker: None = None


def prepare(config: RunConfig, mesh: Mesh) -> Run | Untrained:
    """Reads what a run needs; nothing is compiled yet."""
    return prepare_training(config, mesh) if method_of(config).objective else prepare_edit(config, mesh)


def prepare_edit(config: RunConfig, mesh: Mesh) -> Untrained:
    """Reads model and text of a run that trains nothing."""
    model = start_model(config, mesh)
    with collected() as left_out:
        examples, _ = method_of(config).examples(config, model)
    return Untrained(config, model, examples, mesh, tuple(left_out))


def start_model(config: RunConfig, mesh: Mesh) -> Pretrained:
    """The model that the config names, as the run wants it on these devices.

    Raises:
        ConfigError: if sentences are cut to more than it has positions for, or the attention cannot do what is asked of it.
    """
    model = load_pretrained(
        config.model.path,
        head=config.model.head,
        activation_dtype=config.model.activation_dtype,
        remat=config.model.remat,
    )
    refuse_too_long(config, model)
    return model._replace(config=with_runtime_choices(config, model.config, mesh))


def prepare_training(config: RunConfig, mesh: Mesh) -> Run:
    """Reads model, text and words of a run that trains."""
    method, model = method_of(config), start_model(config, mesh)
    assert isinstance(config, TrainedRun) and method.objective is not None
    with collected() as left_out:
        examples, dev_examples = method.examples(config, model)
        classes = nc3_classes(config, model, examples)
        tracker = None
        if config.train.collapse_every:
            shown, rows = (dev_examples or examples).sequences, config.data.row_tokens
            tracker = make_tracker(model, config.nc3.lexicon, shown, config.train.collapse_sentences, rows, mesh)
    pipeline = make_pipeline(config, model, examples, classes, mesh)
    dev = None if dev_examples is None else make_pipeline(config, model, dev_examples, classes, mesh, trains=False)
    total_steps = config.train.steps or pipeline.steps_of(config.train.epochs)
    objective = method.objective(config, model, examples)
    make_extra = method.extra_params
    if extra := make_extra(config, model.config, jax.random.key(config.seed)) if make_extra else {}:
        model = model._replace(params=model.params | {EXTRA: jax.tree.map(np.asarray, extra)})
    start = model.params
    if config.model.init_from:
        start = read_checkpoint_params(config.model.init_from, start, (EXTRA, *not_saved(config, start)))
    if classes is not None:
        objective = with_nc3(objective, config.nc3, classes, model.config, pipeline.steps_per_epoch)
    refuse_without_effect(config.optimizer, model.params, total_steps)
    tx, schedule = make_optimizer(config.optimizer, total_steps)
    fingerprints = {
        "config": identity(to_dict(config)),
        "batches": VERSION,
        "corpus": pipeline.fingerprint,
        "development": "" if dev is None else dev.fingerprint,
        "lexicon": classes.fingerprint if classes is not None else "",
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "step": STEP_VERSION,
    }
    if names := not_saved(config, model.params):
        fingerprints["frozen"] = params_fingerprint({name: model.params[name] for name in names})
    return Run(
        config,
        model,
        examples,
        start,
        objective,
        classes,
        tx,
        schedule,
        pipeline,
        dev,
        tracker,
        total_steps,
        mesh,
        fingerprints,
        tuple(left_out),
    )


def refuse_too_long(config: RunConfig, model: Pretrained) -> None:
    """Sentences must be cut to what the model has positions for.

    Raises:
        ConfigError: if config.data.max_tokens is more than that.
    """
    asked, most = config.data.max_tokens, model.config.max_tokens
    if asked > most:
        raise ConfigError(
            f"config.data.max_tokens={asked}: {config.model.path} has positions for {most} tokens; set it to at most {most}"
        )


def not_saved(config: TrainedRun, params: Params) -> tuple[str, ...]:
    """Parts of the parameters that checkpoints leave out: frozen as a whole beside parameters that only the method has.

    A run that freezes parts of a model and has no parameters besides saves it whole, for `launch/convert.py`.
    """
    if not config.optimizer.freeze or EXTRA not in params:
        return ()
    moving = {
        path[0].key
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if not re.search(config.optimizer.freeze, jax.tree_util.keystr(path, simple=True, separator="/"))
    }
    return tuple(sorted(set(params) - moving))


def model_params(params: Params) -> Params:
    """What the model is made of: not the method's own parameters, but for a prefix that it learned."""
    own = {name: value for name, value in params.items() if name != EXTRA}
    extra = params.get(EXTRA, {})
    return own | {PREFIX: extra[PREFIX]} if PREFIX in extra else own


def with_runtime_choices(config: RunConfig, model: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The model's config with what the run and its devices decide: dropout rates, attention and how the layers are run.

    Raises:
        ConfigError: if the implementation of attention cannot do what is asked of it.
    """
    rates = {name: getattr(config.model, name) for name in ("hidden_dropout", "attention_dropout")}
    model = dataclasses.replace(model, **{name: rate for name, rate in rates.items() if rate >= 0})
    platform, name = mesh.devices.flat[0].platform, config.model.attention
    asked: dict[str, Any] = {
        "platform": platform,
        "dropout_rate": model.attention_dropout,
        "activation_dtype": model.activation_dtype,
        "row_tokens": config.data.row_tokens,
    }
    name = attention.default(**asked) if name == "auto" else name
    if reason := attention.refusal(name, **asked):
        raise ConfigError(f"config.model.attention={name!r}: {reason}")
    layers = config.model.layers
    scanned = platform != "cpu" if layers == "auto" else layers == "scanned"
    return dataclasses.replace(model, attention=name, scan_layers=scanned)


def nc3_classes(config: TrainedRun, model: Pretrained, examples: Examples) -> FairnessClasses | None:
    """The regulariser's words, or None where its weight is 0."""
    if config.nc3.weight == 0:
        return None
    nc3 = config.nc3
    return lexicon_or_control(nc3.lexicon, nc3.word_rule, model.tokenizer, examples.sequences, config.seed)


def make_pipeline(
    config: TrainedRun,
    model: Pretrained,
    examples: Examples,
    classes: FairnessClasses | None,
    mesh: Mesh,
    trains: bool = True,
) -> Pipeline:
    """Packed, masked batches of the examples, their rows dividing over the mesh.

    Args:
        trains: whether they are trained on. Other examples are read once each, so their batches are counted in examples.
    Raises:
        ConfigError: if the examples, the mesh or the processes do not allow batches that are counted in rows.
    """
    train = config.train
    row_multiple = ROWS_PER_SHARD * batch_shards(mesh) * train.accumulation
    by_rows, batch_size = train.batch_rows > 0 and trains, train.batch_size
    if by_rows:
        refuse_rows(config, examples, row_multiple)
    elif train.batch_rows:
        batch_size = examples_of_rows(examples, train.batch_rows * config.data.row_tokens)
    masks = dict[str, float]()
    if isinstance(config.objective, MaskingConfig):
        masks = {name: getattr(config.objective, name) for name in ("mask_prob", "mask_frac", "random_frac")}
    settings = PipelineConfig(
        seed=config.seed,
        batch_size=batch_size,
        batch_rows=train.batch_rows if by_rows else 0,
        groups=train.groups if by_rows else 1,
        row_tokens=config.data.row_tokens,
        accumulation=train.accumulation,
        row_multiple=row_multiple,
        alignment=config.nc3.alignment,
        labels=config.nc3.labels,
        **masks,
    )
    return Pipeline(
        examples,
        settings,
        special_ids=model.tokenizer.all_special_ids,
        mask_token_id=model.tokenizer.mask_token_id,
        vocab_size=model.config.vocab_size,
        slot_of_token=None if classes is None else classes.slot_of_token,
        boundaries=None if classes is None else classes.boundaries,
    )


def refuse_rows(config: TrainedRun, examples: Examples, row_multiple: int) -> None:
    """Batches that are counted in rows need examples that stand apart, and rows for every device and process.

    Args:
        row_multiple: rows that the devices and micro-batches take together.
    Raises:
        ConfigError: naming the field, its value and the remedy.
    """
    train, processes = config.train, jax.process_count()
    asked = f"config.train.batch_rows={train.batch_rows}"
    if not examples.stand_apart:
        raise ConfigError(
            f"{asked}: {config.objective.name} needs all examples of a batch together, and so many of them; set it to 0, and "
            "train.batch_size above 0"
        )
    if train.batch_rows % row_multiple:
        raise ConfigError(
            f"{asked} does not divide over the devices and train.accumulation={train.accumulation}; take a multiple of "
            f"{row_multiple}"
        )
    if train.groups % processes:
        raise ConfigError(
            f"config.train.row_groups={train.groups} does not divide over {processes} processes; take a multiple of {processes}"
        )


def examples_of_rows(examples: Examples, tokens: int) -> int:
    """How many examples fill rows of so many tokens, but for a few pads; all if they are fewer."""
    lengths = examples.encoded.lengths
    return int(np.clip(DEV_FILL * tokens / lengths.mean(), 1, len(lengths)))


def start_state(run: Run) -> tuple[TrainState, Any]:
    """The state before the first update, on the mesh, and its shardings."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(run))
    params = put_tree(run.start, shardings.params)
    return jax.jit(partial(first_state, run), out_shardings=shardings)(params), shardings


def abstract_state(run: Run) -> TrainState:
    """Shapes and shardings of the state."""
    shapes = jax.eval_shape(partial(first_state, run), run.start)
    found: TrainState = laid_out(shapes, run.mesh, family_of(run.model.config).sharding)
    return found


def first_state(run: Run, params: Params) -> TrainState:
    """The state before the first update; its key is of the generator that dropout draws from."""
    rng = jax.random.key(run.config.seed, impl=GENERATORS[run.config.model.dropout_bits])
    return init_state(params, run.objective, run.tx, rng)
