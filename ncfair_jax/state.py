"""The whole state of a run, and the one step that advances it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, Key

from ncfair_jax.methods.base import Batch, Carry, Metrics, Objective, evaluate_objective
from ncfair_jax.models.base import Params
from ncfair_jax.sharding import on_mesh


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything a run needs to go on bit for bit.

    Attributes:
        step: updates done.
        params: nested dict of float32 arrays.
        opt_state: the optimizer's.
        carry: the objective's: class statistics and whatever else it keeps between updates.
        rng: typed key; update k uses fold_in(rng, k).
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    carry: Carry
    rng: Key[Array, ""]


def init_state(
    params: Params, objective: Objective, tx: optax.GradientTransformation, rng: Key[Array, ""]
) -> TrainState:
    """State before the first update."""
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), objective.init(params), rng)


def make_train_step(
    objective: Objective, tx: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The pure function (state, batch) -> (state, metrics) to be jitted once per batch shape.

    A non-finite loss or gradient leaves the state as it was, `step` included; and a batch whose own "step" is not the
    state's changes nothing either. So a bad step freezes the run until the loop looks at `state.step`, which then names it.

    Metrics are (sum, count): the objective's, "loss" (what is minimised) and "grad_norm" (of its whole gradient).
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)

        def total(params: Params) -> tuple[Array, tuple[Metrics, Carry]]:
            return evaluate_objective(objective, params, state.carry, batch, rng)

        (loss, (metrics, carry)), grads = jax.value_and_grad(total, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        good = jnp.isfinite(loss) & jnp.isfinite(norm) & (state.step == batch["step"])

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        new = TrainState(
            step=state.step + good.astype(jnp.int32),
            params=keep(optax.apply_updates(state.params, updates), state.params),
            opt_state=keep(opt_state, state.opt_state),
            carry=keep(carry, state.carry),
            rng=state.rng,
        )
        one = jnp.ones(())
        return new, metrics | {"loss": (loss, one), "grad_norm": (norm, one)}

    return train_step


def jitted_train_step(objective: Objective, tx: optax.GradientTransformation, mesh: Mesh, shardings: Any) -> Any:
    """`make_train_step` as a run compiles it."""
    return jitted_step(make_train_step(objective, tx), mesh, shardings)


def jitted_step(step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]], mesh: Mesh, shardings: Any) -> Any:
    """A step, to be compiled: the state is given away and comes back as it lay, metrics are whole everywhere.

    Args:
        shardings: of the state.
    """
    results = (shardings, NamedSharding(mesh, P()))
    return jax.jit(on_mesh(step, mesh), donate_argnums=0, out_shardings=results)


def make_dev_loss(objective: Objective) -> Callable[[TrainState, Batch], Metrics]:
    """(state, batch) -> metrics of the objective without dropout, the carry left alone."""

    def dev_loss(state: TrainState, batch: Batch) -> Metrics:
        _, (metrics, _) = evaluate_objective(objective, state.params, state.carry, batch, None)
        return metrics

    return dev_loss
