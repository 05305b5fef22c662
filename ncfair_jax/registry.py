"""Methods and tasks by name: a new one is a file of its own, and a line here."""

from ncfair_jax.benchmarks import finetuned
from ncfair_jax.methods.adept.loss import ADEPT
from ncfair_jax.methods.ase.loss import ASE
from ncfair_jax.methods.base import Method
from ncfair_jax.methods.mabel.loss import MABEL
from ncfair_jax.methods.mlm import MLM
from ncfair_jax.tasks.classification.loss import CLASSIFICATION
from ncfair_jax.tasks.coreference.loss import COREF

METHODS: dict[str, Method] = {
    "adept": ADEPT,
    "ase": ASE,
    "classification": CLASSIFICATION._replace(evaluate=finetuned.classifier, judged_on=finetuned.classifier_files),
    "coref": COREF._replace(evaluate=finetuned.coreference, judged_on=finetuned.coreference_files),
    "mabel": MABEL,
    "mlm": MLM,
}
