"""The config of a run of ADEPT or DPCE."""

from collections.abc import Iterator
from dataclasses import dataclass

from ncfair_jax.config import ObjectiveConfig, Rule
from ncfair_jax.fields import choice, not_negative, positive, section
from ncfair_jax.methods.corpus import corpus_text
from ncfair_jax.methods.training import TrainedRun


@dataclass(frozen=True)
class AdeptConfig:
    """ADEPT and DPCE (`methods.adept`): words of several groups, and neutral words that should not tell them apart.

    Attributes:
        algorithm: "adept" or "dpce".
        lexicon: shipped name or JSON file of the groups' words.
        groups: comma-separated names of the lexicon's groups to train on; "" = all.
        neutral: text file with a neutral word a line; "" = the shipped list.
        mode: which words' sentences are used: "final" (pairs of words with 30 sentences each, equally many of both), "raw"
            (all), "reliability" (as final, but all sentences) or "quality" (equally many, however few).
        debias_layer: layers that represent a word: "all" (embeddings included), "first" (embeddings) or "last".
        rho: distance that counts as near: distances d weigh exp(-d² / 2 rho²).
        alpha, beta: weights of the bias loss and of the retention loss.
        retention: distance from the original hidden states: "mse" or "kl".
        prefix_tokens: 0 tunes the whole model; more (40 in the paper) are learned keys and values in front of every layer's,
            and the model itself must be frozen: optimizer.freeze='^(embeddings|encoder|mlm)/'.
    """

    algorithm: str = choice("adept", "dpce")
    lexicon: str = "gender"
    groups: str = ""
    neutral: str = ""
    mode: str = choice("final", "raw", "reliability", "quality")
    debias_layer: str = choice("all", "first", "last")
    rho: float = positive(15.0)
    alpha: float = not_negative(0.3)
    beta: float = not_negative(0.7)
    retention: str = choice("mse", "kl")
    prefix_tokens: int = not_negative(0)


@dataclass(frozen=True)
class AdeptRun(TrainedRun):
    """The config of a run of ADEPT or DPCE."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="adept")
    adept: AdeptConfig = section(AdeptConfig)


def rules(config: AdeptRun) -> Iterator[Rule]:
    """There must be something to minimise."""
    something = config.adept.alpha > 0 or config.adept.beta > 0 or config.nc3.weight > 0
    yield Rule("adept.alpha", something, "with adept.beta=0 and nc3.weight=0 there is nothing to minimise")


def describe(config: AdeptRun) -> str:
    """The training text in words."""
    return corpus_text(config.data)
