"""The config of a run of coreference."""

from dataclasses import dataclass

from ncfair_jax.config import ObjectiveConfig
from ncfair_jax.fields import choice, fraction, positive, section
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.unread import Switch


@dataclass(frozen=True)
class CorefConfig:
    """Coreference by ranking of spans (`model`), and WinoBias judged with it.

    Attributes:
        train: files in CoNLL-2012 format, or WinoBias's bracketed lines, with commas between; of a folder all *_conll files.
        dev: files of the same kinds, on which the CoNLL F1 of the trained model is measured; "" = none.
        winobias: folder of WinoBias to judge on; "" = none.
        winobias_split: "dev" (what is published) or "test".
        max_segments: most segments (of data.row_tokens tokens) of a document in training.
        max_width: tokens of the longest span.
        span_ratio: spans kept for each token of a document.
        max_antecedents: of a span that are scored in full.
        hidden_units, feature_size: sizes of the scorers' hidden layer and of the embeddings of widths and distances.
        dropout: of the scorers.
    """

    train: str = ""
    dev: str = ""
    winobias: str = ""
    winobias_split: str = choice("dev", "test")
    max_segments: int = positive(5)
    max_width: int = positive(30)
    span_ratio: float = positive(0.4)
    max_antecedents: int = positive(50)
    hidden_units: int = positive(3000)
    feature_size: int = positive(20)
    dropout: float = fraction(0.3)


@dataclass(frozen=True)
class CorefRun(TrainedRun):
    """The config of a run of coreference."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="coref")
    coref: CorefConfig = section(CorefConfig)


def describe(config: CorefRun) -> str:
    """The training text in words."""
    return f"documents with marked coreference, {config.coref.train}"


SWITCHES = (
    Switch(("coref.winobias_split",), lambda config: config.coref.winobias != "", "config.coref.winobias is named"),
)
