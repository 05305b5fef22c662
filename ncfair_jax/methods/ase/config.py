"""The config of a run of ASE."""

from dataclasses import dataclass

from ncfair_jax.config import ObjectiveConfig
from ncfair_jax.fields import choice, not_negative, positive, section
from ncfair_jax.methods.corpus import swap_text
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.unread import Switch


@dataclass(frozen=True)
class AseConfig:
    """ASE: pronoun prediction, stereotype words made orthogonal to the gender direction, and elastic weights.

    `data.path`, `data.counterfactual` (which sides of the flipped pairs) and `data.lexicon` (pairs of the flip and of the
    gender direction) are read too.

    Attributes:
        source: "gap" (a GAP file, swapped for its other side), "winobias" (folder of WinoBias, development files only) or
            "csv" (folder with original_data.csv and flipped_data.csv).
        label_mode: "per_mask" (each mask its own pronoun) or "same" (a row for each pronoun, which labels all its masks).
        stereotypes: words to neutralise: a JSON lexicon or a file of tab separated words; "" = the list of the package.
        direction: "per_word" (mean difference of the pairs, each word encoded alone) or "joined" (one text a group).
        sn_weight: of the neutralisation; 0 leaves it out.
        sn_reduce: "sum" over the batch's stereotype tokens, or their "mean".
        ewc_weight: of the squared distance from the initial parameters, weighted by their Fisher information; 0 leaves it out.
        fisher_examples: training examples that the Fisher information is estimated on, evenly spread.
        fisher_scale: "mean_one" (its mean over all parameters is 1) or "raw".
    """

    source: str = choice("gap", "winobias", "csv")
    label_mode: str = choice("per_mask", "same")
    stereotypes: str = ""
    direction: str = choice("per_word", "joined")
    sn_weight: float = not_negative(1.0)
    sn_reduce: str = choice("sum", "mean")
    ewc_weight: float = not_negative(10.0)  # found on development data (configs/methods_minilm.py)
    fisher_examples: int = positive(1000)
    fisher_scale: str = choice("mean_one", "raw")


@dataclass(frozen=True)
class AseRun(TrainedRun):
    """The config of a run of ASE."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="ase")
    ase: AseConfig = section(AseConfig)


def describe(config: AseRun) -> str:
    """The training text in words."""
    source, path, swap = config.ase.source, config.data.path, swap_text(config.data)
    if source == "csv":
        return f"original_data.csv and flipped_data.csv of {path}{swap}"
    names = {"gap": "GAP", "winobias": "WinoBias, development files"}
    return f"{names[source]}{f' ({path})' if path else ''}{swap}"


SWITCHES = (
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
)
