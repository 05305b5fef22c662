"""Orbax checkpoints of the whole TrainState. The only file that imports orbax."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint._src.path.atomicity import COMMIT_SUCCESS_FILE  # it is documented, and exported nowhere

from ncfair_jax.config import differences
from ncfair_jax.files import digests
from ncfair_jax.files.atomic import disk_full_told, is_disk_full, remove
from ncfair_jax.files.bucket import BucketPath, path_of
from ncfair_jax.models.base import Params
from ncfair_jax.run_log import say
from ncfair_jax.sharding import agreed
from ncfair_jax.state import TrainState

_TIMES = "_CHECKPOINT_METADATA"  # orbax writes the time into it afterwards
_LOGGERS = (
    "absl",
    "concurrent.futures",
    "asyncio",
)  # where the errors of orbax's threads are logged; it raises them too
DAMAGED_FOLDER = "damaged"  # of a workdir: what was set aside


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which, why and what to do."""


class Restored(NamedTuple):
    """A checkpoint's state, and the step it was saved at."""

    step: int
    state: TrainState


class Checkpoints:
    """The checkpoints of one workdir, written asynchronously. They get their name (on a bucket: a last file) when complete.

    A checkpoint is `<step>/params`, `<step>/state` (optimizer, carry, step, rng), `<step>/identity` (resolved config and
    fingerprints of tokenizer, lexicon and corpus) and `<step>/digests.json`. One that is not what was written is moved to the
    workdir's folder `damaged`, and the one before it is used.
    """

    def __init__(self, folder: Path, keep: int, best: str = "", left_out: Sequence[str] = ()):
        """Opens the folder, removing what a killed save left behind.

        Args:
            folder: made if it is not there.
            keep: newest checkpoints kept.
            best: name of a metric; the checkpoint with its lowest value is kept as well. "" = none.
            left_out: top-level names of parameters that never move and so are not saved; `restore` takes them from `like`.
        """
        self.folder = folder.resolve()
        self.best = best
        self.left_out = left_out
        self._saving = 0  # the step that is being written
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_news)
        policies: list[Any] = [checkpoint_managers.LatestN(keep)]
        if best:
            policies.append(checkpoint_managers.BestN(get_metric_fn=lambda metrics: metrics[best], reverse=True, n=1))
        if isinstance(self.folder, BucketPath):  # orbax only removes what has a temporary name, and there is none
            if jax.process_index() == 0 and self.folder.is_dir():
                for half in self._half_written():
                    remove(half)
            agreed(True)  # no process looks there before
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=("params", "state", "identity"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=(lambda metrics: metrics[best]) if best else None,
                best_mode="min",
                cleanup_tmp_directories=True,
                # Called when every process has written its files, before the checkpoint gets its final name.
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._record_digests),
            ),
        )

    def latest(self) -> int | None:
        """Newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, identity: dict[str, Any], metrics: dict[str, float]) -> None:
        """Starts writing; the state may be used (and donated) as soon as this returns.

        Raises:
            DiskFullError: of this save or the one before it.
        """
        rest = {"opt_state": state.opt_state, "carry": state.carry, "step": state.step, "rng": state.rng}
        self.wait()
        self._saving = step
        with self._disk_full_told():
            self._refuse_full_disk(state)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(self._saved(state.params)),
                    state=ocp.args.StandardSave(rest),
                    identity=ocp.args.JsonSave(identity),
                ),
                metrics=metrics or None,
            )

    def restore_newest(self, like: TrainState, identity: dict[str, Any]) -> Restored | None:
        """The newest checkpoint that is not damaged; None if there is none. Damaged ones are set aside, and it is said.

        Raises:
            CheckpointError: if it belongs to another run, or cannot be read though it is what was written.
        """
        return self._restore_whole(self.latest, like, identity)

    def restore_best(self, like: TrainState, identity: dict[str, Any]) -> Restored | None:
        """As `restore_newest`, of the checkpoint with the lowest `best` metric among those that are left."""
        return self._restore_whole(self._manager.best_step, like, identity)

    def restore(self, step: int, like: TrainState, identity: dict[str, Any]) -> TrainState:
        """The state saved at `step`, laid out as `like` (any mesh, any number of devices).

        Raises:
            CheckpointError: if it belongs to another config, tokenizer, lexicon or corpus, naming both sides; or if it
                cannot be read.
        """
        saved = self._read(step, identity=ocp.args.JsonRestore())["identity"]
        if saved.get("batches") != identity.get("batches"):
            raise CheckpointError(
                f"checkpoint {self.folder / str(step)} belongs to a run that another version began, whose batches were others: "
                f"{identity.get('batches')} here, {saved.get('batches')} there. Finish it with that version, or use another "
                "--workdir"
            )
        if lines := differences(identity, saved, "run"):
            raise CheckpointError(
                f"checkpoint {self.folder / str(step)} belongs to another run: {'; '.join(lines)}. "
                "Use another --workdir, or the settings of the checkpoint"
            )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        rest = {
            "opt_state": abstract.opt_state,
            "carry": abstract.carry,
            "step": abstract.step,
            "rng": abstract.rng,
        }
        params = ocp.args.StandardRestore(self._saved(abstract.params))
        found = self._read(step, params=params, state=ocp.args.StandardRestore(rest))
        unmoved = {name: like.params[name] for name in self.left_out}
        return TrainState(params=unmoved | found["params"], **found["state"])

    def wait(self) -> None:
        """Returns when everything saved is on disk.

        Raises:
            DiskFullError: if it could not be written.
        """
        with self._disk_full_told():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        with self._disk_full_told():
            self._manager.close()

    def _refuse_full_disk(self, state: TrainState) -> None:
        """Raises before anything is written if the state will not fit; weights hardly compress."""
        if isinstance(self.folder, BucketPath):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if agreed(free < needed):
            text = f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free"
            raise OSError(errno.ENOSPC, text)

    def _saved(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name not in self.left_out}

    def _restore_whole(
        self, choose: Callable[[], int | None], like: TrainState, identity: dict[str, Any]
    ) -> Restored | None:
        """The first checkpoint chosen that is not damaged; what is damaged is no longer there to choose."""
        while (step := choose()) is not None:
            if not self._set_aside_if_damaged(step):
                return Restored(step, self.restore(step, like, identity))
        return None

    def _read(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, KeyError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                f"checkpoint {self.folder / str(step)} cannot be read ({line}), though its files are what was written; use the "
                "versions of this package and of orbax that wrote it (environment.json), or another --workdir"
            ) from error

    def _record_digests(self) -> None:
        if jax.process_index() == 0:
            for folder in self._half_written():
                digests.record(folder, [name for name in digests.files_of(folder) if name != _TIMES])

    def _half_written(self) -> list[Path]:
        """Folders of a save that is not done: their name says so on disk; on a bucket they lack orbax's last file."""
        if not isinstance(self.folder, BucketPath):
            return list(self.folder.glob("*.orbax-checkpoint-tmp*"))
        steps = [path for path in self.folder.iterdir() if path.name.isdecimal()]
        return [path for path in steps if not (path / COMMIT_SUCCESS_FILE).is_file()]

    def _set_aside_if_damaged(self, step: int) -> bool:
        """Moves a damaged checkpoint away, in process 0; all processes learn whether it was."""
        folder, problems = self.folder / str(step), list[str]()
        if jax.process_index() == 0:
            recorded = digests.recorded(folder)
            problems = (
                digests.damaged(folder) if recorded else [f"{folder / digests.DIGESTS_FILE} is missing or damaged"]
            )
            if problems:
                aside = quarantined(folder, self.folder.parent)
                say(
                    f"checkpoint {step} is not used: {'; '.join(problems)}. It is now {aside}; going on from the one before it"
                )
        if not agreed(bool(problems)):
            return False
        self._manager.reload()
        return True

    @contextmanager
    def _disk_full_told(self) -> Iterator[None]:
        """A full disk becomes one line, and what was half-written is removed."""
        try:
            yield
        except Exception as error:
            if not is_disk_full(error):
                raise
            for half in self._half_written():
                remove(half)
            whole = sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())
            kept = f"step {whole[-1]} is intact" if whole else "there is none before it"
            with disk_full_told(f"checkpoint {self._saving}", f"{kept}; free space and run again"):
                raise


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record is not about a full disk, which is told in one line."""
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return not is_disk_full(error) and str(error) != "Event loop is closed"


def quarantined(path: Path, workdir: Path) -> Path:
    """Moves what is damaged into the workdir's folder of such things, under a name that is free; returns where it is."""
    folder = workdir / DAMAGED_FOLDER
    folder.mkdir(exist_ok=True)
    name = f"checkpoint-{path.name}" if path.name.isdigit() else path.name
    free = next(
        folder / f"{name}-{number}" for number in range(1, 10_000) if not (folder / f"{name}-{number}").exists()
    )
    return path.rename(free)


def checkpoint_folder(run_at_step: str) -> Path:
    """The folder of "RUN@STEP": the checkpoint of a step in a run's workdir.

    Raises:
        CheckpointError: if it is of another form, or there is no such checkpoint, naming those that there are.
    """
    run, at, step = run_at_step.rpartition("@")
    if not at or not step.isdecimal():
        raise CheckpointError(
            f"init_from={run_at_step!r}: expected RUN@STEP, a run's workdir and the step of a checkpoint"
        )
    folder = path_of(run).expanduser().resolve() / "checkpoints"
    if not (folder / step).is_dir():
        there = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
        raise CheckpointError(
            f"init_from={run_at_step!r}: {folder} has {f'steps {there}' if there else 'no checkpoint'}"
        )
    return folder / step


def read_checkpoint_params(run_at_step: str, like: Params, optional: Sequence[str] = ()) -> Params:
    """The parameters in a checkpoint of any run.

    Args:
        run_at_step: "RUN@STEP".
        like: their names and shapes, and the values of those that are optional and not in the checkpoint. What else the
            checkpoint has, such as another method's own parameters, is left.
        optional: top-level names.
    Raises:
        CheckpointError: if the checkpoint is damaged, or lacks one of them, or has another shape there.
    """
    folder = checkpoint_folder(run_at_step)
    if problems := digests.damaged(folder):
        raise CheckpointError(f"init_from={run_at_step!r}: {'; '.join(problems)}; take another checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder / "params").item_metadata.tree
        taken = {name: leaves for name, leaves in like.items() if name in saved or name not in optional}
        flat = {path: tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(saved)}
        wanted = {path: tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(taken)}
        wrong = [
            jax.tree_util.keystr(path, simple=True, separator="/") for path in wanted if flat.get(path) != wanted[path]
        ]
        if wrong:
            raise CheckpointError(
                f"init_from={run_at_step!r}: it has no {wrong[0]} of this model's shape ({len(wrong)} of {len(wanted)} "
                "parameters differ); take a run of the same model, or give that run's export as model.path"
            )
        here = SingleDeviceSharding(jax.local_devices()[0])  # other processes, or more of them, may have written it
        layout = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)
        restored = checkpointer.restore(folder / "params", layout)
    return like | {name: jax.tree.map(np.asarray, restored[name]) for name in taken}


def save_params(folder: Path, params: Any) -> None:
    """Writes a params tree alone, for `launch/convert.py`."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), params)


def restore_params(folder: Path, like: Any) -> Any:
    """Reads a params tree: of `save_params`, or the `params` item of a run's checkpoint.

    Args:
        like: tree of arrays or ShapeDtypeStructs with the shapes to expect.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.resolve(), like)
