"""The config of a run of classification."""

from dataclasses import dataclass

from ncfair_jax.config import ObjectiveConfig
from ncfair_jax.fields import choice, fraction, not_negative, section
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.unread import Switch

GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


@dataclass(frozen=True)
class ClassificationConfig:
    """Fine-tuning for a labelled task, by which the model is then judged.

    `data.path` names the data: a folder, a file, or a Hub name; "" = the task's data set on the Hub. `data.dev_examples` are
    drawn from the task's own development part where it has one that nothing is judged by, else set aside from training.

    Attributes:
        task: "bios" (Bias-in-Bios), "bias_nli" (trained on SNLI or MNLI) or a GLUE task such as "cola".
        pool: "pooler" (first token, dense, tanh; the checkpoint's own dense layer if it has one), "fresh_pooler" (never the
            checkpoint's: models that were exported without one can be compared with those that have it) or "first" (the
            first token's vector alone).
        dev_fraction, test_fraction: of a Bias-in-Bios that comes as one file.
        templates: folder of word lists for Bias-NLI's pairs; "" = the package's own lists.
        subset: of Bias-NLI's pairs, in the order they are made: "all", or "first_90_percent" as the released evaluation.
        pairs: score so many of them, drawn once for all models; 0 = the whole subset.
    """

    task: str = choice("", "bios", "bias_nli", *GLUE_TASKS)
    pool: str = choice("pooler", "fresh_pooler", "first")
    dev_fraction: float = fraction(0.1)
    test_fraction: float = fraction(0.25)
    templates: str = ""
    subset: str = choice("all", "first_90_percent")
    pairs: int = not_negative(0)


@dataclass(frozen=True)
class ClassificationRun(TrainedRun):
    """The config of a run of classification."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="classification")
    classification: ClassificationConfig = section(ClassificationConfig)


SWITCHES = (
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
)
