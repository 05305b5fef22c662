"""The config of a run of MABEL."""

from collections.abc import Iterator
from dataclasses import dataclass

from ncfair_jax.config import Rule
from ncfair_jax.fields import choice, fraction, not_negative, positive, section
from ncfair_jax.methods.mlm import MaskingConfig, masking_rules
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.unread import Switch

TEMPLATES = "templates"


@dataclass(frozen=True)
class MabelConfig:
    """Contrastive and alignment losses over entailment pairs and their gender-swapped copies.

    Attributes:
        pairs: CSV file of pairs (launch/build_mabel.py makes one), or "templates" for generated pairs.
        pooler: sentence embedding: "cls" ([CLS] and a two-layer MLP), "cls_before_pooler", "avg", "avg_top2" or
            "avg_first_last".
        contrastive: whether the contrastive loss is part of the task loss.
        align_loss: "a1", "a2" or "a3"; "" = none.
        softmax_temp: temperature of the contrastive loss and of a1.
        align_temp: temperature of a3.
        align_weight: of the alignment loss beside the contrastive one; either alone has weight 1.
        mix: "sum" (contrastive + w · alignment, as released) or "convex" ((1 - w) · contrastive + w · alignment).
        mlm_weight: of the masked-LM loss on the masked copies.
        hard_negatives: use columns 5 and 6 of the pairs as negatives.
    """

    pairs: str = ""
    pooler: str = choice("cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last")
    contrastive: bool = True
    align_loss: str = choice("", "a1", "a2", "a3", default="a1")
    softmax_temp: float = positive(0.05)
    align_temp: float = positive(0.05)
    align_weight: float = fraction(0.05)
    mix: str = choice("sum", "convex")
    mlm_weight: float = not_negative(0.1)
    hard_negatives: bool = False


@dataclass(frozen=True)
class MabelRun(TrainedRun):
    """The config of a run of MABEL."""

    objective: MaskingConfig = section(MaskingConfig, name="mabel")
    mabel: MabelConfig = section(MabelConfig)


def rules(config: MabelRun) -> Iterator[Rule]:
    """There must be something to minimise."""
    mabel = config.mabel
    something = mabel.contrastive or mabel.align_loss != "" or mabel.mlm_weight > 0
    nothing = "with neither mabel.contrastive nor mabel.align_loss there is nothing to minimise"
    yield Rule("mabel.mlm_weight", something, nothing)
    yield from masking_rules(config)


def describe(config: MabelRun) -> str:
    """The training text in words."""
    pairs = config.mabel.pairs
    origin = "generated from templates" if pairs == TEMPLATES else f"of {pairs}"
    return f"entailment pairs {origin}, with their gender-swapped copies"


SWITCHES = (
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
)
