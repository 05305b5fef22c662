"""Fine-tuning for a labelled task: cross-entropy, or squared error of a value, on the first token of each example.

The encoder starts from the model, the classifier on top is fresh, and both train; `optimizer.freeze` set to
'^(embeddings|encoder|mlm)/' trains the classifier alone. The trained model is judged by its task.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ncfair_jax.config import ConfigError
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.methods.base import Batch, Method, Metrics, Objective, Partial, stateless
from ncfair_jax.models.base import EXTRA, Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.heads import class_outputs
from ncfair_jax.models.hf import Pretrained, load_pooler
from ncfair_jax.tasks.classification import bias_nli, bios, glue
from ncfair_jax.tasks.classification.config import SWITCHES, ClassificationRun
from ncfair_jax.tasks.classification.labelled import Task, labelled_examples

TASKS: dict[str, Task] = {"bios": bios.TASK, "bias_nli": bias_nli.TASK} | glue.TASKS
HEAD_DROPOUT = 1 << 20  # fold of an update's key; the encoder's layers use those of their numbers


def classification_objective(model: ModelConfig) -> Objective:
    """Mean cross-entropy (nats) of the labels of the batch's examples; with one output, mean squared error.

    Metrics: "task_loss" (what is minimised), and "error": fraction of wrong classes, or the squared error.
    Source: Devlin et al. 2019, section 4.1.
    """

    def partial(params: Params, batch: Batch, rng: Key[Array, ""] | None) -> tuple[Partial, Float[Array, "R T D"]]:
        rows = (batch["tokens"], batch["segment_ids"], batch["positions"])
        hidden = (
            family_of(model)
            .hidden(model, params, Rows(*rows, token_types=batch["token_types"]), Ask(dropout_rng=rng))
            .hidden_states
        )
        positions = batch["masked_positions"]
        first = jnp.take_along_axis(hidden, positions[..., None], axis=1)  # [R, P, D]
        key = None if rng is None else jax.random.fold_in(rng, HEAD_DROPOUT)
        outputs = class_outputs(model, params[EXTRA], first, key)  # [R, P, C]
        labels = jnp.take_along_axis(batch["labels"], positions, axis=1)
        return Partial(label_sums(outputs, labels, batch["masked_weights"])), hidden

    def loss(sums: dict[str, Float[Array, ""]]) -> tuple[Float[Array, ""], Metrics]:
        metrics = {"task_loss": (sums["loss"], sums["examples"]), "error": (sums["error"], sums["examples"])}
        return sums["loss"] / jnp.maximum(sums["examples"], 1), metrics

    return stateless(partial, loss)


def label_sums(
    outputs: Float[Array, "R P C"], labels: Float[Array, "R P"], weights: Float[Array, "R P"]
) -> dict[str, Float[Array, ""]]:
    """Sums over the examples: "loss", "error" (wrong ones, or squared errors where C = 1) and their number, "examples"."""
    if outputs.shape[-1] == 1:
        losses = errors = jnp.square(outputs[..., 0] - labels)
    else:
        classes = labels.astype(jnp.int32)
        own = jnp.take_along_axis(outputs, classes[..., None], axis=-1)[..., 0]
        losses = jax.nn.logsumexp(outputs, axis=-1) - own
        errors = (jnp.argmax(outputs, axis=-1) != classes).astype(jnp.float32)
    return {
        "loss": jnp.sum(losses * weights),
        "error": jax.lax.stop_gradient(jnp.sum(errors * weights)),
        "examples": jnp.sum(weights),
    }


def fresh_head(config: ClassificationRun, model: ModelConfig, rng: Key[Array, ""]) -> Params:
    """The classifier's parameters: matrices N(0, initializer_range²), biases 0; the checkpoint's pooler where it is wanted."""
    size, settings = model.hidden_size, config.classification
    keys = jax.random.split(rng)

    def layer(key: Key[Array, ""], outputs: int) -> dict[str, Any]:
        return {"kernel": model.initializer_range * jax.random.normal(key, (size, outputs)), "bias": jnp.zeros(outputs)}

    head: Params = {"classifier": layer(keys[0], task_of(config).classes)}
    if settings.pool == "first":
        return head
    stored = load_pooler(config.model.path, model) if settings.pool == "pooler" else None
    return head | {"pooler": stored or layer(keys[1], size)}


def task_of(config: ClassificationRun) -> Task:
    """The config's task.

    Raises:
        ConfigError: if there is none.
    """
    name = config.classification.task
    if name not in TASKS:
        raise ConfigError(f"config.classification.task={name!r}: choose from {', '.join(TASKS)}")
    return TASKS[name]


def _examples(config: ClassificationRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    return labelled_examples(task_of(config), config, model)


def _objective(config: ClassificationRun, model: Pretrained, examples: Examples) -> Objective:
    del config, examples
    return classification_objective(model.config)


def _reads(config: ClassificationRun) -> dict[str, list[Path]]:
    task = task_of(config)
    return {"data.path": [path for part in ("train", "dev") for path in task.files(config, part)]}


def _describe(config: ClassificationRun) -> str:
    return task_of(config).describe(config.data.path)


CLASSIFICATION = Method(
    ClassificationRun,
    _examples,
    _reads,
    _describe,
    _objective,
    switches=SWITCHES,
    extra_params=fresh_head,
    dev_metric="error",
)
