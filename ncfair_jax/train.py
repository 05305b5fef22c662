"""From a config to a judged, debiased, exported model: the one loop, read top to bottom."""

import dataclasses
import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax.checkpoint import Checkpoints
from ncfair_jax.config import ConfigError, RunConfig, differences, identity, to_dict, validate
from ncfair_jax.data.encoding import tokenizer_fingerprint
from ncfair_jax.data.notes import Note, as_json, collected
from ncfair_jax.data.pipeline import Examples, Pipeline, PipelineConfig
from ncfair_jax.environment import recorded
from ncfair_jax.fingerprint import params_fingerprint
from ncfair_jax.finished import (
    INPUTS_FILE,
    RESULT_FILE,
    WorkdirError,
    export_fingerprint,
    judged_content,
    refuse_other_content,
    stored_result,
    training_content,
)
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.judge import comparison_table, judge
from ncfair_jax.lexicons.classes import FairnessClasses, lexicon_or_control
from ncfair_jax.models.encoder import PREFIX, Params
from ncfair_jax.models.hf import Pretrained, load_head, load_pretrained, save_pretrained
from ncfair_jax.objectives import METHODS, Objective, with_nc3
from ncfair_jax.objectives.base import EXTRA, Metrics
from ncfair_jax.optimizer import make_optimizer, path_string, refuse_without_effect
from ncfair_jax.report.collapse_figures import draw_training
from ncfair_jax.report.html import page
from ncfair_jax.report.model_card import model_card
from ncfair_jax.report.summary import summarise_folders
from ncfair_jax.run_log import RunLog, write_json, write_text
from ncfair_jax.sharding import batch_shards, make_mesh, put_batch, put_tree, state_shardings, to_host
from ncfair_jax.state import TrainState, init_state, make_dev_loss, make_train_step
from ncfair_jax.tracker import Tracker, make_tracker, track

ROWS_PER_SHARD = 1  # rows are rounded up to a multiple of this on every device
CONFIG_FILE = "config.json"
LEFT_OUT_FILE = "left_out.json"  # malformed rows of the data, tokens that were cut off, and words without a class


class Interrupted(SystemExit):
    """SIGTERM: saved and left; 143 is the shell's code for it."""

    def __init__(self) -> None:
        super().__init__(143)


class Run(NamedTuple):
    """What the loop needs besides the state."""

    config: RunConfig
    model: Pretrained
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


def train_and_evaluate(config: RunConfig, workdir: Path, before_folder: Path | None = None) -> dict[str, Any]:
    """Does what is not done yet of: measure before, train, export, measure after, compare.

    Killed at any moment and called again with the same arguments it goes on, bit for bit on the same machine. Figures whose
    data or definition changed since are made again; a run whose model or text changed is refused.

    Args:
        before_folder: where the figures of the starting model are, or go; runs from one model may share it.
    Returns:
        {"before", "after": figures of `judge`, "table": Markdown}; also in workdir/result.json, beside report.html.
    Raises:
        ConfigError, WorkdirError, ModelFolderError, CheckpointError, NonFiniteError: one line each.
    """
    validate(config)
    check_method(config)
    mesh = make_mesh(config.mesh)
    refuse_other_run(workdir, config)
    content, judged = training_content(config), judged_content(config)
    refuse_other_content(workdir, config, content)
    stored = stored_result(workdir)
    if stored is not None and stored["judged"] == judged:
        return {name: stored[name] for name in ("before", "after", "table")}
    run = prepare(config, mesh)
    if jax.process_index() == 0:  # not before everything the config names was found
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / INPUTS_FILE, content)  # first: a config without it is of an earlier version
        write_json(workdir / CONFIG_FILE, to_dict(config))
        write_json(workdir / LEFT_OUT_FILE, as_json(run.left_out))
    before_folder = before_folder or workdir / "evals" / "before"
    after_folder = workdir / "evals" / "after"
    method = METHODS[config.objective.name]
    own = None if method.evaluate is None else partial(method.evaluate, config)
    with recorded(workdir):
        before = judge(run.model, config.evals, config.model.path, before_folder, mesh)
        trained = train(run, workdir) if stored is None else exported(run, workdir)
        after = judge(trained, config.evals, config.name, after_folder, mesh, own, method.judged_on(config))
    table = comparison_table(before_folder, after_folder, before, after)
    result = {"before": before, "after": after, "table": table}
    if jax.process_index() == 0:
        summary = summarise_folders([workdir], before_folder)
        card = model_card(config, summary)
        save_pretrained(workdir / "export", trained, card=card, head=trained.params.get(EXTRA))
        if run.tracker is not None:
            draw_training({config.name: workdir}, workdir / "figures")
        write_text(workdir / "report.html", page(summary))
        write_json(workdir / RESULT_FILE, result | {"judged": judged, "export": export_fingerprint(workdir)})
    return result


def check_method(config: RunConfig) -> None:
    """Refuses a method that does not exist or cannot do what the config asks.

    Here and not in `validate`, since methods read the config and not the other way round.
    """
    name = config.objective.name
    if name not in METHODS:
        raise ConfigError(f"config.objective.name={name!r}: choose from {', '.join(sorted(METHODS))}")
    if config.train.accumulation > 1 and not METHODS[name].accumulates:
        raise ConfigError(
            f"config.train.accumulation={config.train.accumulation}: {name} compares the examples of a batch with each other, "
            "so splitting it would change the loss; set it to 1"
        )
    if METHODS[name].evaluate is not None and config.evals.benchmarks:
        raise ConfigError(
            f"config.evals.benchmarks={config.evals.benchmarks!r}: {name} is judged on its own task; set it to ''"
        )


def refuse_other_run(workdir: Path, config: RunConfig) -> None:
    """A workdir belongs to one config.

    Raises:
        WorkdirError: if this one is another config's, naming the fields that differ.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    if lines := differences(identity(to_dict(config)), identity(theirs)):
        raise WorkdirError(
            f"{workdir} holds a run with another config: {'; '.join(lines)}. Use another --workdir, or those values"
        )


def prepare(config: RunConfig, mesh: Mesh) -> Run:
    """Reads model, text and words; nothing is compiled yet."""
    model = load_pretrained(
        config.model.path,
        head=config.model.head,
        activation_dtype=config.model.activation_dtype,
        remat=config.model.remat,
    )
    model = model._replace(config=with_runtime_choices(config, model))
    refuse_too_long(config, model)
    method = METHODS[config.objective.name]
    with collected() as left_out:
        examples, dev_examples = method.examples(config, model)
        classes = nc3_classes(config, model, examples)
        tracker = None
        if config.train.collapse_every:
            shown, rows = (dev_examples or examples).sequences, config.data.row_tokens
            tracker = make_tracker(model, config.nc3.lexicon, shown, config.train.collapse_sentences, rows, mesh)
    pipeline = make_pipeline(config, model, examples, classes, mesh)
    dev = None if dev_examples is None else make_pipeline(config, model, dev_examples, classes, mesh)
    total_steps = config.train.steps or int(np.ceil(config.train.epochs * pipeline.steps_per_epoch))
    objective = method.objective(config, model, examples)
    make_extra = method.extra_params
    if extra := make_extra(config, model.config, jax.random.key(config.seed)) if make_extra else {}:
        model = model._replace(params=model.params | {EXTRA: jax.tree.map(np.asarray, extra)})
    if classes is not None:
        objective = with_nc3(objective, config.nc3, classes, model.config, pipeline.steps_per_epoch)
    refuse_without_effect(config.optimizer, model.params, total_steps)
    tx, schedule = make_optimizer(config.optimizer, total_steps)
    fingerprints = {
        "config": identity(to_dict(config)),
        "corpus": pipeline.fingerprint,
        "development": "" if dev is None else dev.fingerprint,
        "lexicon": classes.fingerprint if classes is not None else "",
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
    }
    if names := not_saved(config, model.params):
        fingerprints["frozen"] = params_fingerprint({name: model.params[name] for name in names})
    return Run(
        config,
        model,
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


def not_saved(config: RunConfig, params: Params) -> tuple[str, ...]:
    """Parts of the parameters that checkpoints leave out: frozen as a whole beside parameters that only the method has.

    A run that freezes parts of a model and has no parameters besides saves it whole, for `launch/convert.py`.
    """
    if not config.optimizer.freeze or EXTRA not in params:
        return ()
    moving = {
        path[0].key
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if not re.search(config.optimizer.freeze, path_string(path))
    }
    return tuple(sorted(set(params) - moving))


def model_params(params: Params) -> Params:
    """What the model is made of: not the method's own parameters, but for a prefix that it learned."""
    own = {name: value for name, value in params.items() if name != EXTRA}
    extra = params.get(EXTRA, {})
    return own | {PREFIX: extra[PREFIX]} if PREFIX in extra else own


def with_runtime_choices(config: RunConfig, model: Pretrained) -> Any:
    """The model's config with what the run decides: attention implementation and dropout rates."""
    changes: dict[str, Any] = {"attention": config.model.attention}
    for name in ("hidden_dropout", "attention_dropout"):
        if (rate := getattr(config.model, name)) >= 0:
            changes[name] = rate
    return dataclasses.replace(model.config, **changes)


def nc3_classes(config: RunConfig, model: Pretrained, examples: Examples) -> FairnessClasses | None:
    """The regulariser's words, or None where its weight is 0."""
    if config.nc3.weight == 0:
        return None
    nc3 = config.nc3
    return lexicon_or_control(nc3.lexicon, nc3.word_rule, model.tokenizer, examples.sequences, config.seed)


def make_pipeline(
    config: RunConfig, model: Pretrained, examples: Examples, classes: FairnessClasses | None, mesh: Mesh
) -> Pipeline:
    """Packed, masked batches of the examples, their rows dividing over the mesh."""
    settings = PipelineConfig(
        seed=config.seed,
        batch_size=config.train.batch_size,
        row_tokens=config.data.row_tokens,
        accumulation=config.train.accumulation,
        row_multiple=ROWS_PER_SHARD * batch_shards(mesh) * config.train.accumulation,
        mask_prob=config.objective.mask_prob,
        mask_frac=config.objective.mask_frac,
        random_frac=config.objective.random_frac,
        alignment=config.nc3.alignment,
        labels=config.nc3.labels,
    )
    return examples.kind(
        examples.sequences,
        settings,
        special_ids=model.tokenizer.all_special_ids,
        mask_token_id=model.tokenizer.mask_token_id,
        vocab_size=model.config.vocab_size,
        slot_of_token=None if classes is None else classes.slot_of_token,
        boundaries=None if classes is None else classes.boundaries,
        views=examples.views,
        **examples.arguments,
    )


def train(run: Run, workdir: Path) -> Pretrained:
    """Trains to the last step, from the newest checkpoint if there is one, and returns the model to judge and to export.

    Of a method that judges itself the model has the method's own parameters too.

    Raises:
        Interrupted: after SIGTERM, when the state is saved.
        NonFiniteError: at the first log point after a bad step.
    """
    config = run.config
    state, shardings = start_state(run)
    left_out = not_saved(config, run.model.params)
    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep, config.train.best, left_out)
    if (latest := checkpoints.latest()) is not None:
        state = checkpoints.restore(latest, state, run.identity)
    log = RunLog(workdir, run.total_steps, int(state.step), writes=jax.process_index() == 0)
    for note in run.left_out:
        log.say(f"{'warning: ' if note.serious else ''}{note}")
    if latest is not None:
        log.say(f"resuming at step {latest} of {run.total_steps}")
    try:
        with stop_on_sigterm() as stopping:
            state = loop(run, state, shardings, checkpoints, log, stopping)
        if config.train.best:
            checkpoints.wait()
            best = checkpoints.best_step()
            if best is not None and best != run.total_steps:
                log.say(f"exporting step {best}, the lowest {config.train.best}")
                state = checkpoints.restore(best, state, run.identity)
        params = to_host(state.params)
    finally:
        checkpoints.close()
        log.close()
    head = {EXTRA: params[EXTRA]} if METHODS[config.objective.name].evaluate else {}
    return run.model._replace(params=model_params(params) | head)


def exported(run: Run, workdir: Path) -> Pretrained:
    """The trained model of a finished run: its export, or its last checkpoint if there is no export."""
    folder = workdir / "export"
    if not folder.exists():
        return train(run, workdir)
    head = {EXTRA: load_head(folder)} if METHODS[run.config.objective.name].evaluate else {}
    return run.model._replace(params=load_pretrained(folder).params | head)


def start_state(run: Run) -> tuple[TrainState, Any]:
    """The state before the first update, on the mesh, and its shardings."""
    rng = jax.random.key(run.config.seed)
    abstract = jax.eval_shape(lambda p: init_state(p, run.objective, run.tx, rng), run.model.params)
    shardings = state_shardings(abstract, run.mesh)
    params = put_tree(run.model.params, shardings.params)
    state = jax.jit(lambda p: init_state(p, run.objective, run.tx, rng), out_shardings=shardings)(params)
    return state, shardings


def loop(
    run: Run, state: TrainState, shardings: Any, checkpoints: Checkpoints, log: RunLog, stopping: list[bool]
) -> TrainState:
    """Steps, logs, development losses and checkpoints, until the last step or SIGTERM."""
    config = run.config.train
    everywhere = NamedSharding(run.mesh, P())
    step_fn = jax.jit(make_train_step(run.objective, run.tx), donate_argnums=0, out_shardings=(shardings, everywhere))
    dev_fn = jax.jit(make_dev_loss(run.objective), out_shardings=everywhere)
    interval = Interval()
    dev_loss: dict[str, float] = {}
    start = int(state.step)
    if run.tracker is not None and start == 0:
        log.metrics(0, track(run.tracker, model_params(state.params)))
    batches = run.pipeline.batches(start, run.total_steps, jax.process_index(), jax.process_count())
    for step, batch in enumerate(batches, start + 1):
        if run.objective.refresh_due(step - 1):
            state = refreshed(run, state, shardings)
        interval.count(batch)
        state, metrics = step_fn(state, put_batch(batch, run.mesh))
        interval.metrics.append(metrics)
        last = step == run.total_steps
        stop = stop_requested(stopping, step, config.log_every)
        wants_dev = config.dev_every > 0 and (step % config.dev_every == 0 or last)
        wants_collapse = run.tracker is not None and (step % config.collapse_every == 0 or last)
        wants_save = step % config.save_every == 0 or last or stop
        if not (step % config.log_every == 0 or wants_dev or wants_collapse or wants_save):
            continue
        require_finite(run, int(state.step), step, checkpoints)
        values = interval.values() | {"learning_rate": float(run.schedule(step - 1))}
        if wants_dev:
            dev_loss = {"dev_loss": development_loss(run, state, dev_fn)}
            values |= dev_loss
        if wants_collapse:
            assert run.tracker is not None
            values |= track(run.tracker, model_params(state.params))
        log.metrics(step, values)
        interval = Interval()
        if wants_save:
            checkpoints.save(step, state, run.identity, dev_loss)
        if stop:
            checkpoints.wait()
            log.say(f"stopped by SIGTERM at step {step}, saved; the same command goes on from there")
            raise Interrupted
    return state


def refreshed(run: Run, state: TrainState, shardings: Any) -> TrainState:
    """The state with what the objective keeps made anew from the parameters."""
    assert run.objective.refresh is not None
    carry = run.objective.refresh(state.params, state.carry)
    return dataclasses.replace(state, carry=jax.device_put(carry, shardings.carry))


class Interval:
    """What happened since the last log point; `values` is where the host waits for the device."""

    def __init__(self) -> None:
        self.metrics: list[Metrics] = []
        self.tokens = self.pads = self.examples = 0
        self.began = time.perf_counter()

    def count(self, batch: dict[str, np.ndarray]) -> None:
        """Adds one batch of this process to the throughput figures."""
        pads = int((batch["segment_ids"] == 0).sum())
        self.pads += pads
        self.tokens += batch["segment_ids"].size - pads
        self.examples += int(batch["num_examples"])

    def values(self) -> dict[str, float]:
        """Means of all metrics, tokens and examples a second (of this process and the whole run), and pad waste."""
        steps: list[Metrics] = jax.device_get(self.metrics)
        seconds = time.perf_counter() - self.began
        means = {}
        for name in steps[0]:
            total = sum(float(step[name][0]) for step in steps)
            means[name] = total / max(sum(float(step[name][1]) for step in steps), 1e-9)
        return means | {
            "tokens_per_second": self.tokens * jax.process_count() / seconds,
            "examples_per_second": self.examples / seconds,
            "pad_fraction": self.pads / (self.pads + self.tokens),
        }


def require_finite(run: Run, done: int, step: int, checkpoints: Checkpoints) -> None:
    """Stops the run if the state fell behind the loop: it refuses steps whose loss or gradient is not finite."""
    if done == step:
        return
    checkpoints.wait()
    latest = checkpoints.latest()
    ids = ", ".join(map(str, run.pipeline.example_ids(done)))
    remedy = "Lower optimizer.learning_rate or nc3.weight, or look at these examples"
    if done == 0:  # nothing was learned yet
        remedy = "That is the start model's own loss, so the learning rate is not the cause: look at these examples"
    raise NonFiniteError(
        f"step {done}: loss or gradient is not finite, on examples {ids}; parameters are those of before it, the last good "
        f"checkpoint is {'none' if latest is None else f'step {latest}'}. {remedy}"
    )


def development_loss(run: Run, state: TrainState, dev_fn: Any) -> float:
    """Mean of the method's own loss over the development examples, without dropout, masks fixed by the seed."""
    assert run.dev is not None  # validate() asks for development sentences
    name = METHODS[run.config.objective.name].dev_metric
    total = count = 0.0
    for batch in run.dev.batches(0, run.dev.steps_per_epoch, jax.process_index(), jax.process_count()):
        metrics = jax.device_get(dev_fn(state, put_batch(batch, run.mesh)))
        total += float(metrics[name][0])
        count += float(metrics[name][1])
    return total / max(count, 1.0)


@contextmanager
def stop_on_sigterm() -> Iterator[list[bool]]:
    """While inside, SIGTERM fills the list instead of ending the process."""
    stopping: list[bool] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, previous)


def stop_requested(stopping: list[bool], step: int, log_every: int) -> bool:
    """Whether to save and leave. Several processes must agree, so they ask each other at log points only."""
    if jax.process_count() == 1:
        return bool(stopping)
    if step % log_every:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(bool(stopping))).any())
