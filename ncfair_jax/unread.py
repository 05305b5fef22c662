"""Settings that a run would not read, because another one switches them off.

They are refused where they differ from their default: whoever sets one expects an effect.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

SENTENCES = ("mlm", "adept")  # objectives that train on the sentences of config.data.corpus
MASKING = ("mlm", "mabel")  # objectives that mask tokens by config.objective


class Switch(NamedTuple):
    """Fields that a run reads only under a condition.

    Attributes:
        fields: dotted paths; a section stands for all its fields.
        read: config -> whether they are read.
        condition: the same in words.
    """

    fields: tuple[str, ...]
    read: Callable[[Any], bool]
    condition: str


def _by(name: str) -> Callable[[Any], bool]:
    return lambda config: config.objective.name == name


def _swaps(config: Any) -> bool:
    """Whether words are swapped; methods that read the lexicon for something else, too, count."""
    return config.objective.name not in SENTENCES or config.data.counterfactual != "none"


def _hub(config: Any) -> bool:
    return config.objective.name not in SENTENCES or config.data.corpus == "hub"


SWITCHES = (
    *(Switch((name,), _by(name), f"config.objective.name={name!r}") for name in ("mabel", "adept", "ase", "coref")),
    Switch(("classification",), _by("classification"), "config.objective.name='classification'"),
    Switch(
        ("objective.mask_prob", "objective.mask_frac", "objective.random_frac"),
        lambda config: config.objective.name in MASKING,
        f"config.objective.name is one of {', '.join(MASKING)}",
    ),
    Switch(("data.lexicon", "data.possessives"), _swaps, "config.data.counterfactual is 'one_sided' or 'two_sided'"),
    Switch(("data.subset", "data.split", "data.text_field", "data.streaming"), _hub, "config.data.corpus='hub'"),
    Switch(("nc3.ema_decay",), lambda config: config.nc3.window == "ema", "config.nc3.window='ema'"),
    Switch(("mabel.align_temp",), lambda config: config.mabel.align_loss == "a3", "config.mabel.align_loss='a3'"),
    Switch(
        ("mabel.align_weight", "mabel.mix"),
        lambda config: config.mabel.contrastive and config.mabel.align_loss != "",
        "there is both a contrastive and an alignment loss",
    ),
    Switch(
        ("mabel.softmax_temp",),
        lambda config: config.mabel.contrastive or config.mabel.align_loss == "a1",
        "config.mabel.contrastive=True or config.mabel.align_loss='a1'",
    ),
    Switch(
        ("mabel.pooler",),
        lambda config: config.mabel.contrastive or config.mabel.align_loss != "",
        "there is a contrastive or an alignment loss",
    ),
    Switch(
        ("ase.stereotypes", "ase.direction", "ase.sn_reduce"),
        lambda config: config.ase.sn_weight > 0,
        "config.ase.sn_weight is above 0",
    ),
    Switch(
        ("ase.fisher_examples", "ase.fisher_scale"),
        lambda config: config.ase.ewc_weight > 0,
        "config.ase.ewc_weight is above 0",
    ),
    Switch(("coref.winobias_split",), lambda config: config.coref.winobias != "", "config.coref.winobias is named"),
    Switch(
        ("classification.dev_fraction", "classification.test_fraction"),
        lambda config: config.classification.task == "bios",
        "config.classification.task='bios'",
    ),
    Switch(
        ("classification.templates", "classification.subset", "classification.pairs"),
        lambda config: config.classification.task == "bias_nli",
        "config.classification.task='bias_nli'",
    ),
    Switch(
        ("data.dev_examples",),
        lambda config: config.train.dev_every > 0 or config.train.collapse_every > 0,
        "config.train.dev_every or config.train.collapse_every is above 0",
    ),
    Switch(
        ("train.collapse_sentences",),
        lambda config: config.train.collapse_every > 0,
        "config.train.collapse_every is above 0",
    ),
    Switch(("evals.lexicon",), lambda config: config.evals.collapse_text != "", "config.evals.collapse_text is named"),
    Switch(
        ("world.bias", "world.seed"), lambda config: config.world.sentences > 0, "config.world.sentences is above 0"
    ),
)


def unread(config: Any, default: Any) -> str:
    """One line on the first setting that differs from its default and would not be read; "" if there is none.

    Args:
        config, default: trees of dataclasses of one type (`config.RunConfig`).
    """
    for switch in SWITCHES:
        if switch.read(config):
            continue
        for field in switch.fields:
            for path, value, usual in _changed(_at(config, field), _at(default, field), field):
                return (
                    f"config.{path}={value!r} has no effect: it is read only if {switch.condition}; "
                    f"set that, or leave it at {usual!r}"
                )
    return ""


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def _changed(value: Any, usual: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _changed(getattr(value, field.name), getattr(usual, field.name), f"{path}.{field.name}")
    elif value != usual:
        yield path, value, usual
