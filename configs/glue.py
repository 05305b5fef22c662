"""GLUE: what a model is worth as the start of another task; one task a run, three seeds.

    python launch/train.py --config=configs/glue.py:cola

Tasks: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli. Data come from the Hub (nyu-mll/glue) or from --config.data.path: the
folder of GLUE's files (CoLA/train.tsv, CoLA/dev.tsv, …) or of one task. To see what debiasing costs:

    python launch/train.py --config=configs/glue.py:rte --config.run_arms=base,debiased \
        --config.arms.debiased.model.path=runs/X/export --config.classification.pool=fresh_pooler

A model exported here has no pooler, so both arms then start from a fresh one. Published for bert-base-uncased (GuiDebias's
README, three seeds): CoLA 55.64, MNLI 84.12, MRPC 82.19, QNLI 91.31, QQP 89.23, RTE 61.73,
SST-2 92.32, STS-B 87.75, WNLI 36.15.
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import finetuning_config, one_of
from ncfair_jax.tasks.classification.config import GLUE_TASKS


def get_config(arg: str | None = None) -> ConfigDict:
    """One task, "cola" if none is named."""
    task = one_of(arg, GLUE_TASKS)
    config = finetuning_config(f"glue-{task}", task)
    config.optimizer.learning_rate = 2e-5
    config.train.batch_size = 32
    config.train.epochs = 3.0
    config.seeds = "0,1,2"
    return config
