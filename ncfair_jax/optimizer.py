"""AdamW, its schedule, clipping, and what stays frozen."""

import dataclasses
import re
from typing import Any

import jax
import optax

from ncfair_jax.config import ConfigError, OptimizerConfig

METHOD = "method/"  # where the parameters that only the method has begin
NO_DECAY = re.compile(r"(bias|norm/scale)$")


def refuse_without_effect(config: OptimizerConfig, params: Any, total_steps: int) -> None:
    """Refuses settings that would change nothing for these parameters, or leave nothing to train.

    Args:
        params: all that could train, the method's own parameters included; only paths are looked at.
        total_steps: updates of the whole run.
    Raises:
        ConfigError: a warm-up that outlasts the run; a pattern to freeze of which an alternative matches no parameter, or
            which matches all; a learning rate for the method's own parameters where it has none.
    """
    if config.warmup_steps >= total_steps:
        raise ConfigError(
            f"config.optimizer.warmup_steps={config.warmup_steps}: the run ends within the warm-up, it has {total_steps} "
            "updates; shorten the warm-up or train longer"
        )
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    if config.freeze:
        for part in alternatives(config.freeze):
            if not any(re.search(part, path) for path in paths):
                which = "" if part == config.freeze else f", in its part {part!r},"
                examples = ", ".join(dict.fromkeys(path.split("/")[0] + "/" for path in paths))
                raise ConfigError(
                    f"config.optimizer.freeze={config.freeze!r}{which} matches no parameter; their paths begin with {examples}"
                )
        if all(re.search(config.freeze, path) for path in paths):
            raise ConfigError(
                f"config.optimizer.freeze={config.freeze!r} matches every parameter: nothing is left to train"
            )
    if config.method_learning_rate and not any(path.startswith(METHOD) for path in paths):
        raise ConfigError(
            f"config.optimizer.method_learning_rate={config.method_learning_rate:g} has no effect: the method has no "
            "parameters of its own; set it to 0"
        )


def alternatives(pattern: str, before: str = "", after: str = "") -> list[str]:
    """A pattern for each of its alternatives, the others left out: for "^(a|b)/" "^(?:a)/" and "^(?:b)/".

    Those in a group that is repeated, or that begins with "(?" and not with "(?:", stay together, as do all of a pattern with
    flags or with references to its groups.

    Args:
        before, after: what stands around the pattern, and is kept.
    """
    if re.search(r"\\[1-9]|\(\?[a-zA-Z(]", pattern):
        return [before + pattern + after]
    bars, groups = _structure(pattern)
    if bars:
        parts = zip([0, *(bar + 1 for bar in bars)], [*bars, len(pattern)], strict=True)
        return [each for start, end in parts for each in alternatives(pattern[start:end], before, after)]
    found = [before + pattern + after]
    for opening, closing in groups:
        inside = pattern[opening + 1 : closing].removeprefix("?:")
        if not inside.startswith("?") and pattern[closing + 1 : closing + 2] not in ("*", "+", "?", "{"):
            around = f"{before}{pattern[:opening]}(?:", f"){pattern[closing + 1 :]}{after}"
            found += alternatives(inside, *around)
    return found


def _structure(pattern: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Places of the bars outside all groups, and of the brackets of the outermost groups."""
    bars, groups, open_groups = [], [], []
    for match in re.finditer(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|]", pattern):
        place, symbol = match.start(), match.group()
        if symbol == "(":
            open_groups.append(place)
        elif symbol == ")":
            opening = open_groups.pop()
            if not open_groups:
                groups.append((opening, place))
        elif symbol == "|" and not open_groups:
            bars.append(place)
    return bars, groups


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
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not NO_DECAY.search(jax.tree_util.keystr(path, simple=True, separator="/")), params
        )

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
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if config.freeze and re.search(config.freeze, name):
            return "frozen"
        return "method" if config.method_learning_rate and name.startswith(METHOD) else "moving"

    if len(parts) > 1:
        tx = optax.multi_transform(parts, lambda params: jax.tree_util.tree_map_with_path(label, params))
    return tx, schedule
