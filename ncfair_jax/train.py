"""From a config to a judged, debiased, exported model: the one loop, read top to bottom."""

import dataclasses
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax import stopping
from ncfair_jax.checkpoint import Checkpoints, quarantined
from ncfair_jax.config import RunConfig, to_dict
from ncfair_jax.divergence import DivergedError, diverged, training_diverged
from ncfair_jax.engine import forward_of
from ncfair_jax.environment import recording
from ncfair_jax.evaluation import evaluate_model
from ncfair_jax.files import digests
from ncfair_jax.files.atomic import write_json, write_text
from ncfair_jax.files.locking import held_by_all
from ncfair_jax.files.notes import as_json
from ncfair_jax.finished import (
    judged_content,
    refuse_other_content,
    refuse_other_run,
    stored_result,
    training_content,
)
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.models.base import EXTRA
from ncfair_jax.models.edits import folded
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained, load_head, load_pretrained, save_pretrained
from ncfair_jax.prepare import Run, Untrained, model_params, not_saved, prepare, start_state
from ncfair_jax.registry import method_of, validate
from ncfair_jax.report.collapse_figures import draw_training, read_metrics
from ncfair_jax.report.comparisons import before_and_after
from ncfair_jax.report.html import page
from ncfair_jax.report.model_card import model_card
from ncfair_jax.report.summary import summarise_folders
from ncfair_jax.run_log import METRICS_FILE, RunLog, say
from ncfair_jax.sharding import agreed, make_mesh, on_mesh, put_batch, to_host
from ncfair_jax.state import TrainState, jitted_train_step, make_dev_loss
from ncfair_jax.stopping import stage
from ncfair_jax.throughput import Interval
from ncfair_jax.tracker import track
from ncfair_jax.workdir import CONFIG_FILE, EXPORT, INPUTS_FILE, RESULT_FILE

LEFT_OUT_FILE = "left_out.json"  # malformed rows of the data, tokens that were cut off, and words without a class
NAMED = 64  # examples of a bad step that are named
SHOWN = ("before", "after", "table", "diverged")  # of result.json, what `train_and_evaluate` returns


def train_and_evaluate(config: RunConfig, workdir: Path, before_folder: Path | None = None) -> dict[str, Any]:
    """Does what is not done yet of: measure before, train, export, measure after, compare.

    Killed at any moment and called again with the same arguments it goes on, bit for bit on the same machine. Figures whose
    data or definition changed since are made again, and so is whatever is missing or damaged; a run whose model or text
    changed is refused.

    Args:
        before_folder: where the figures of the starting model are, or go; runs from one model may share it.
    Returns:
        {"before", "after": figures of `evaluate_model`, "table": Markdown, "diverged": sentences, if the loss grew}; also in
        workdir/result.json, beside report.html.
    Raises:
        ConfigError, WorkdirError, LockedError, ModelFolderError, CheckpointError, NonFiniteError, DivergedError,
            DiskFullError: one line each.
        Interrupted: after Ctrl-C or SIGTERM.
    """
    validate(config)
    mesh = make_mesh(config.mesh)
    with stopping.stoppable(), held_by_all(workdir), stage("looking for what is done already"):
        refuse_other_run(workdir, config)
        content, judged = training_content(config), judged_content(config)
        refuse_other_content(workdir, config, content)
        stored = stored_result(workdir, before_folder)
        if stored is not None and stored.get("judged") == judged:
            return {name: stored.get(name, []) for name in SHOWN}
        with stage("reading model and data"):
            run = prepare(config, mesh)
        if jax.process_index() == 0:  # not before everything the config names was found
            (workdir / RESULT_FILE).unlink(missing_ok=True)  # until all of it is there again
            write_json(workdir / INPUTS_FILE, content)  # first: a config without it is of an earlier version
            write_json(workdir / CONFIG_FILE, to_dict(config))
            write_json(workdir / LEFT_OUT_FILE, as_json(run.left_out))
        with recording(workdir):
            return finish(run, workdir, before_folder, judged)


def finish(run: Run | Untrained, workdir: Path, shared: Path | None, judged: dict[str, str]) -> dict[str, Any]:
    """Judges, trains, judges, and writes export, report and result; arguments and result as of `train_and_evaluate`."""
    config, method = run.config, method_of(run.config)
    before_folder, after_folder = shared or workdir / "evals" / "before", workdir / "evals" / "after"
    own = None if method.evaluate is None else partial(method.evaluate, config)
    with stage("judging the start model"), held_by_all(before_folder, wait=True) if shared else nullcontext():
        start = run.model._replace(params={name: part for name, part in run.model.params.items() if name != EXTRA})
        before = evaluate_model(start, config.evals, config.model.path, before_folder, run.mesh)
    debiased = exported(run, workdir) or debias(run, workdir)
    with stage("judging the trained model"):
        wrap = None if method.wrap is None else method.wrap(config, debiased)
        judged_on = method.judged_on(config)
        after = evaluate_model(debiased, config.evals, config.name, after_folder, run.mesh, own, judged_on, wrap)
    table = before_and_after(before_folder, after_folder, before, after)
    logged = read_metrics(workdir) if (workdir / METRICS_FILE).is_file() else []
    grown = diverged(logged, run.total_steps, before, after)
    result = {"before": before, "after": after, "table": table, "diverged": grown}
    if jax.process_index() == 0:
        with stage("writing export and report"):
            (workdir / digests.DIGESTS_FILE).unlink(missing_ok=True)  # of a report that is about to be replaced
            summary = dataclasses.replace(summarise_folders([workdir], before_folder), diverged=tuple(grown))
            card = model_card(config, summary)
            save_pretrained(workdir / EXPORT, debiased, card=card, head=debiased.params.get(EXTRA))
            if run.tracker is not None:
                draw_training({config.name: workdir}, workdir / "figures")
            write_text(workdir / "report.html", page(summary))
            write_json(workdir / RESULT_FILE, result | {"judged": judged})
            digests.record(workdir, ["report.html", RESULT_FILE, f"{EXPORT}/{digests.DIGESTS_FILE}"])
    return result


def exported(run: Run | Untrained, workdir: Path) -> Pretrained | None:
    """The trained model of a run that was finished before, from its export.

    None if there is none, or if it is damaged: then it is set aside, and it is said.
    """
    folder, problems = workdir / EXPORT, list[str]()
    if jax.process_index() == 0 and folder.exists():
        own = digests.damaged(workdir, [f"{EXPORT}/{digests.DIGESTS_FILE}"])  # another model has other digests
        if problems := own or digests.damaged(folder):
            say(f"{'; '.join(problems)}; what there is of it is now {quarantined(folder, workdir)}; exporting again")
    if not agreed(folder.exists()):
        return None
    head = {EXTRA: load_head(folder)} if method_of(run.config).evaluate else {}
    return run.model._replace(params=load_pretrained(folder).params | head)


def debias(run: Run | Untrained, workdir: Path) -> Pretrained:
    """What the method makes of the start model: trained if it has an objective, then edited if it has an edit."""
    model = train(run, workdir) if isinstance(run, Run) else run.model
    if (edit := method_of(run.config).edit) is None:
        return model
    with stage("editing the model"):
        forward = forward_of(model, mesh=run.mesh, progress=jax.process_index() == 0)
        change = edit(run.config, model, run.examples, forward)
        return model._replace(params=folded(model.params, change, family_of(model.config).fold))


def train(run: Run, workdir: Path) -> Pretrained:
    """Trains to the last step, from the newest checkpoint if there is one, and returns the model to judge and to export.

    If the method brings its own evaluation, the returned model keeps the method's extra parameters.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.
        NonFiniteError: at the first log point after a bad step.
        DivergedError: if the loss grew and the config says to stop then.
    """
    config = run.config
    state, shardings = start_state(run)
    left_out = not_saved(config, run.model.params)
    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep, config.train.best, left_out)
    if (newest := checkpoints.restore_newest(state, run.identity)) is not None:
        state = newest.state
    log = RunLog(workdir, run.total_steps, int(state.step), writes=jax.process_index() == 0)
    for note in run.left_out:
        log.say(f"{'warning: ' if note.serious else ''}{note}")
    if newest is not None:
        log.say(f"resuming at step {newest.step} of {run.total_steps}")
    try:
        with stage("training"), stopping.deferred():
            state = loop(run, state, shardings, checkpoints, log)
            checkpoints.wait()
        if config.train.best and (best := checkpoints.restore_best(state, run.identity)) is not None:
            log.say(f"exporting step {best.step}, the lowest {config.train.best}")
            state = best.state
        params = to_host(state.params)
    finally:
        checkpoints.close()
        log.close()
    head = {EXTRA: params[EXTRA]} if method_of(config).evaluate else {}
    return run.model._replace(params=model_params(params) | head)


def loop(run: Run, state: TrainState, shardings: Any, checkpoints: Checkpoints, log: RunLog) -> TrainState:
    """Steps, logs, development losses and checkpoints, until the last step or a signal."""
    config = run.config.train
    everywhere = NamedSharding(run.mesh, P())
    step_fn = jitted_train_step(run.objective, run.tx, run.mesh, shardings)
    dev_fn = jax.jit(on_mesh(make_dev_loss(run.objective), run.mesh), out_shardings=everywhere)
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
        stop = stop_requested(step, config.log_every) and not last
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
        if config.stop_on_divergence:
            stop_if_diverged(run, step, log)
        if wants_save:
            log.sync()
            checkpoints.save(step, state, run.identity, dev_loss)
        if stop:
            checkpoints.wait()
            raise stopping.interrupted(f" at step {step} of {run.total_steps}, which is saved")
    return state


def stop_if_diverged(run: Run, step: int, log: RunLog) -> None:
    """Raises DivergedError, in all processes, if the training loss has grown too much."""
    text = training_diverged(log.logged, run.total_steps)  # "" in processes that do not log
    if agreed(bool(text)):
        raise DivergedError(
            f"stopped at step {step} of {run.total_steps}. {text or 'The training diverged'}, in another --workdir"
        )


def refreshed(run: Run, state: TrainState, shardings: Any) -> TrainState:
    """The state with what the objective keeps made anew from the parameters."""
    assert run.objective.refresh is not None
    carry = run.objective.refresh(state.params, state.carry)
    return dataclasses.replace(state, carry=jax.device_put(carry, shardings.carry))


def require_finite(run: Run, done: int, step: int, checkpoints: Checkpoints) -> None:
    """Stops the run if the state fell behind the loop: it refuses steps whose loss or gradient is not finite."""
    if done == step:
        return
    checkpoints.wait()
    latest = checkpoints.latest()
    ids = few(run.pipeline.example_ids(done))
    remedy = "Lower optimizer.learning_rate or nc3.weight, or look at these examples"
    if latest is not None:
        remedy += (
            f". To go on from there with other settings, add --init_from={checkpoints.folder.parent}@{latest} and another "
            "--workdir: that takes over the parameters, not the optimizer's moments, the step or the order of the text"
        )
    if done == 0:  # nothing was learned yet
        remedy = "That is the start model's own loss, so the learning rate is not the cause: look at these examples"
    raise NonFiniteError(
        f"step {done}: loss or gradient is not finite, on examples {ids}; parameters are those of before it, the last good "
        f"checkpoint is {'none' if latest is None else f'step {latest}'}. {remedy}"
    )


def few(ids: np.ndarray) -> str:
    """The numbers of some examples, with commas between; of many the first ones."""
    more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
    return ", ".join(map(str, ids[:NAMED])) + more


def development_loss(run: Run, state: TrainState, dev_fn: Any) -> float:
    """Mean of the method's own loss over the development examples, without dropout, masks fixed by the seed."""
    assert run.dev is not None  # validate() asks for development sentences
    name = method_of(run.config).dev_metric
    total = count = 0.0
    for batch in run.dev.batches(0, run.dev.steps_per_epoch, jax.process_index(), jax.process_count()):
        metrics = jax.device_get(dev_fn(state, put_batch(batch, run.mesh)))
        total += float(metrics[name][0])
        count += float(metrics[name][1])
    return total / max(count, 1.0)


def stop_requested(step: int, log_every: int) -> bool:
    """Whether to save and leave. Several processes must agree, so they ask each other at log points only."""
    if jax.process_count() == 1:
        return bool(stopping.received())
    if step % log_every:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(bool(stopping.received()))).any())
