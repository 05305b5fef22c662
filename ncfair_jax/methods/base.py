"""What a method and its objective are, and how an objective goes over the micro-batches of one update.

An update sees one batch of E examples, split into A micro-batches of rows. What a micro-batch contributes is a `Partial`,
which can be added up; the loss is a function of the sum. So gradient accumulation changes memory, not the loss: means are
taken over the whole batch, and class statistics (with them NC3) advance once an update.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.collapse import ClassStats, merge
from ncfair_jax.config import Rule, RunConfig
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.engine import Forward, Wrap
from ncfair_jax.models.base import ModelConfig, Params
from ncfair_jax.models.edits import Edit
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.unread import Switch

Carry = Any
Batch = dict[str, Array]
Metrics = dict[str, tuple[Array, Array]]  # name -> (sum, count); divide once, at the end


class Partial(NamedTuple):
    """What one micro-batch contributes.

    Attributes:
        sums: scalars that add up over micro-batches.
        stats: moments of the micro-batch's rows, one ClassStats per regulariser; they merge.
    """

    sums: dict[str, Float[Array, ""]]
    stats: tuple[ClassStats, ...] = ()


class Objective(NamedTuple):
    """Pure functions, in the shape of optax's (init, update).

    Attributes:
        init: params -> carry, the state that the objective keeps between updates (`()` for most).
        partial: (params, carry, micro-batch, rng) -> (Partial, hidden states [R, T, D]); rng None = no dropout. The hidden
            states are there for what wraps the objective, so that it needs no second forward pass.
        loss: (params, carry, Partial of the whole batch, step) -> (loss, (metrics, carry)).
        refresh: (params, carry) -> carry, called outside the step where the loop comes to a step at which it is due: before
            the first update and, where `refresh_every` is not 0, before every so many. Its result is part of the state.
    """

    init: Callable[[Params], Carry]
    partial: Callable[[Params, Carry, Batch, Key[Array, ""] | None], tuple[Partial, Float[Array, "R T D"]]]
    loss: Callable[[Params, Carry, Partial, Int[Array, ""]], tuple[Float[Array, ""], tuple[Metrics, Carry]]]
    refresh: Callable[[Params, Carry], Carry] | None = None
    refresh_every: int = 0

    def refresh_due(self, step: int) -> bool:
        """Whether `refresh` comes before the update that follows `step` updates."""
        return self.refresh is not None and (step % self.refresh_every == 0 if self.refresh_every else step == 0)


def stateless(
    partial: Callable[[Params, Batch, Key[Array, ""] | None], tuple[Partial, Float[Array, "R T D"]]],
    loss: Callable[[dict[str, Float[Array, ""]]], tuple[Float[Array, ""], Metrics]],
) -> Objective:
    """An objective that keeps nothing between updates: `partial` without a carry, and `loss` of the sums alone."""

    def carried_partial(
        params: Params, carry: Carry, batch: Batch, rng: Key[Array, ""] | None
    ) -> tuple[Partial, Float[Array, "R T D"]]:
        del carry
        return partial(params, batch, rng)

    def carried_loss(
        params: Params, carry: Carry, total: Partial, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Metrics, Carry]]:
        del params, step
        value, metrics = loss(total.sums)
        return value, (metrics, carry)

    return Objective(lambda params: (), carried_partial, carried_loss)


class Method(NamedTuple):
    """What a name in the config stands for.

    Attributes:
        Config: the frozen dataclass of a run of this method: `RunConfig`, or `training.TrainedRun` for one that trains, with a
            section of the method's own. `config.objective.name` is the method's name.
        examples: (config, model) -> training and development examples; the latter None where the config sets none aside.
        reads: config -> by field of the config, the local files that `examples` and `objective` read.
        describe: config -> what it trains on, as a phrase for reports and model cards.
        objective: (config, model, training examples) -> the loss; None: nothing is trained.
        rules: config -> which of its fields must go together, and whether they do.
        switches: fields that are read only where another one says so.
        edit: (config, model, training examples, what answers requests about that model) -> a change of the model after the
            training, or of the start model where nothing is trained; the model is judged and exported with it.
        wrap: (config, trained or edited model) -> what answers instead of that model when it is judged. The model itself is
            exported, and NC figures are its own.
        extra_params: (config, model config, key) -> parameters that only the method has, kept under params["method"]: they
            train and are saved, and are not exported, but for a "prefix" and what `evaluate` needs. None or {}: there are none.
        accumulates: whether a batch may be split into micro-batches without changing the loss.
        dev_metric: the metric whose mean over the development examples is the development loss.
        evaluate: what a trained model is judged by instead of config.evals.benchmarks: (config, model with the method's own
            parameters, folder, mesh) -> contents, by NAME, of the NAME.json that it wrote into the folder with
            `benchmarks.registry.write`, each a benchmark that `benchmarks.registry` knows. The method's own parameters are then
            exported as head.safetensors.
        judged_on: config -> the local files that `evaluate` reads.
    """

    Config: type[RunConfig]
    examples: Callable[[Any, Pretrained], tuple[Examples, Examples | None]]
    reads: Callable[[Any], dict[str, list[Path]]]
    describe: Callable[[Any], str]
    objective: Callable[[Any, Pretrained, Examples], Objective] | None = None
    rules: Callable[[Any], Iterable[Rule]] = lambda config: ()
    switches: tuple[Switch, ...] = ()
    edit: Callable[[Any, Pretrained, Examples, Forward], Edit] | None = None
    wrap: Callable[[Any, Pretrained], Wrap] | None = None
    extra_params: Callable[[Any, ModelConfig, Key[Array, ""]], Params] | None = None
    accumulates: bool = True
    dev_metric: str = "mlm_loss"
    evaluate: Callable[[Any, Pretrained, Path, Mesh], dict[str, dict[str, Any]]] | None = None
    judged_on: Callable[[Any], list[Path]] = lambda config: []


def evaluate_objective(
    objective: Objective, params: Params, carry: Carry, batch: Batch, rng: Key[Array, ""] | None
) -> tuple[Float[Array, ""], tuple[Metrics, Carry]]:
    """The objective's loss on one batch, summed over its micro-batches.

    Args:
        batch: arrays [A, R, …]; "step" and other scalars belong to the whole batch.
        rng: key of this update's dropout; each micro-batch has its own fold.
    Returns:
        (loss, (metrics, carry)); differentiable in params.
    """
    micro = {name: value for name, value in batch.items() if value.ndim}
    count = next(iter(micro.values())).shape[0]

    def contribution(index: Array, rows: Batch) -> Partial:
        key = None if rng is None else jax.random.fold_in(rng, index)
        return objective.partial(params, carry, rows, key)[0]

    first = jax.tree.map(lambda x: x[0], micro)
    if count == 1:
        total = contribution(jnp.zeros((), jnp.int32), first)
    else:
        # Recomputed in the backward pass, so that the activations of one micro-batch are alive at a time.
        def add(total: Partial, item: tuple[Array, Batch]) -> tuple[Partial, None]:
            part = jax.checkpoint(contribution)(*item)
            sums = jax.tree.map(jnp.add, total.sums, part.sums)
            return Partial(sums, tuple(map(merge, total.stats, part.stats))), None

        shapes = jax.eval_shape(contribution, jnp.zeros((), jnp.int32), first)
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, nothing, (jnp.arange(count, dtype=jnp.int32), micro))
    return objective.loss(params, carry, total, batch["step"])
