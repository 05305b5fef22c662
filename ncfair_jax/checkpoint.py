"""Orbax checkpoints of the whole TrainState. The only file that imports orbax."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from ncfair_jax.config import differences
from ncfair_jax.models.encoder import Params
from ncfair_jax.state import TrainState


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which, why and what to do."""


class Checkpoints:
    """The checkpoints of one workdir, written asynchronously and renamed into place when complete.

    A checkpoint is `<step>/params`, `<step>/state` (optimizer, carry, step, rng) and `<step>/identity` (resolved config and
    fingerprints of tokenizer, lexicon and corpus).
    """

    def __init__(self, folder: Path, keep: int, best: str = "", left_out: Sequence[str] = ()):
        """Opens the folder, removing what a killed save left behind.

        Args:
            folder: made if it is not there.
            keep: newest checkpoints kept.
            best: name of a metric; the checkpoint with its lowest value is kept as well. "" = none.
            left_out: top-level names of parameters that never move and so are not saved; `restore` takes them from `like`.
        """
        self.best = best
        self.left_out = left_out
        policies: list[Any] = [checkpoint_managers.LatestN(keep)]
        if best:
            policies.append(checkpoint_managers.BestN(get_metric_fn=lambda metrics: metrics[best], reverse=True, n=1))
        self._manager = ocp.CheckpointManager(
            folder.resolve(),
            item_names=("params", "state", "identity"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=(lambda metrics: metrics[best]) if best else None,
                best_mode="min",
                cleanup_tmp_directories=True,
            ),
        )

    def latest(self) -> int | None:
        """Newest complete step, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step to export: of the lowest `best` metric, else the newest."""
        return self._manager.best_step() if self.best else self.latest()

    def save(self, step: int, state: TrainState, identity: dict[str, Any], metrics: dict[str, float]) -> None:
        """Starts writing; the state may be used (and donated) as soon as this returns."""
        rest = {"opt_state": state.opt_state, "carry": state.carry, "step": state.step, "rng": state.rng}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(self._saved(state.params)),
                state=ocp.args.StandardSave(rest),
                identity=ocp.args.JsonSave(identity),
            ),
            metrics=metrics or None,
        )

    def restore(self, step: int, like: TrainState, identity: dict[str, Any]) -> TrainState:
        """The state saved at `step`, laid out as `like` (any mesh, any number of devices).

        Raises:
            CheckpointError: if it belongs to another config, tokenizer, lexicon or corpus, naming both sides; or if its
                files are damaged.
        """
        try:
            saved = self._manager.restore(step, args=ocp.args.Composite(identity=ocp.args.JsonRestore()))["identity"]
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(step, error) from error
        if lines := differences(identity, saved, "run"):
            raise CheckpointError(
                f"checkpoint {self._manager.directory / str(step)} belongs to another run: {'; '.join(lines)}. "
                "Use another --workdir, or the settings of the checkpoint"
            )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        rest = {
            "opt_state": abstract.opt_state,
            "carry": abstract.carry,
            "step": abstract.step,
            "rng": abstract.rng,
        }
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(self._saved(abstract.params)), state=ocp.args.StandardRestore(rest)
                ),
            )
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(step, error) from error
        unmoved = {name: like.params[name] for name in self.left_out}
        return TrainState(params=unmoved | found["params"], **found["state"])

    def _saved(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name not in self.left_out}

    def _damaged(self, step: int, error: Exception) -> CheckpointError:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return CheckpointError(
            f"checkpoint {self._manager.directory / str(step)} cannot be read ({line}); delete that folder to go on from the "
            "checkpoint before it"
        )

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._manager.close()


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
