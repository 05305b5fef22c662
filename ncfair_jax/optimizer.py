"""AdamW, its schedule, clipping, and what stays frozen."""

import dataclasses
import re
from typing import Any

import jax
import optax

from ncfair_jax.config import OptimizerConfig

NO_DECAY = re.compile(r"(bias|norm/scale)$")


def path_string(path: tuple[Any, ...]) -> str:
    """`encoder/layer_3/attention/query/kernel` from a key path of a pytree; sequence indices are numbers."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate of update k (0-based): warm-up from 0, then lr·(1 - k/total) "linear", half a cosine, or constant.

    Source: spec of the methods: the first update after the warm-up uses the full rate (linear decay to 0).
    """
    rest = max(total_steps - config.warmup_steps, 1)
    if config.schedule == "linear":
        main = optax.linear_schedule(config.learning_rate, 0.0, rest)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(config.learning_rate, rest)
    else:
        main = optax.constant_schedule(config.learning_rate)
    if not config.warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, main], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, total_steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The update rule and the schedule it follows.

    Args:
        config: rates; weight decay spares biases and LayerNorm scales, as in the original BERT.
        total_steps: updates of the whole run.
    Returns:
        (tx, schedule).
    """
    schedule = make_schedule(config, total_steps)

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: not NO_DECAY.search(path_string(path)), params)

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay, mask=decays
    )
    tx = optax.chain(clip, adamw)
    parts = {"moving": tx}
    if config.freeze:
        parts["frozen"] = optax.set_to_zero()
    if config.method_learning_rate:
        own = dataclasses.replace(config, learning_rate=config.method_learning_rate, warmup_steps=0)
        adam = optax.adam(make_schedule(own, total_steps), b1=config.b1, b2=config.b2, eps=config.eps)
        parts["method"] = optax.chain(clip, adam)

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        name = path_string(path)
        if config.freeze and re.search(config.freeze, name):
            return "frozen"
        return "method" if config.method_learning_rate and name.startswith("method/") else "moving"

    if len(parts) > 1:
        tx = optax.multi_transform(parts, lambda params: jax.tree_util.tree_map_with_path(label, params))
    return tx, schedule
