"""Bias-NLI: a classifier of entailment trained on SNLI, and whether it infers a gender from an occupation.

    python launch/train.py --config=configs/bias_nli.py

Without --config.data.path SNLI comes from the Hub (stanfordnlp/snli; nyu-mll/multi_nli works too); a folder has train and dev
or validation (.jsonl, .csv, .tsv or .parquet) with the columns of SNLI or MNLI. The pairs that judge are made from the
package's own word lists, or of --config.classification.templates=FOLDER in the layout of Dev et al.'s; 0 pairs means all
1.2 million. An accelerator is advised. To compare models:

    python launch/train.py --config=configs/bias_nli.py --config.run_arms=base,debiased --config.seeds=0,1,2 \
        --config.arms.debiased.model.path=runs/X/export

Published on the first 90% of the pairs of their own lists (--config.classification.subset=first_90_percent; He et al. 2022):
bert-base-uncased NN 0.839, FN 0.927, T:0.5 0.922, T:0.7 0.853; MABEL 0.917, 0.983, 0.982, 0.968.
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import finetuning_config, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The recipe of He et al. 2022, with shuffling, and a warm-up from 0 where theirs rises from a third."""
    parse_arg(arg, ())
    config = finetuning_config("bias_nli", "bias_nli")
    config.classification.pool = "first"
    config.classification.pairs = 100_000
    config.data.max_tokens = 64
    config.data.dev_examples = 2000
    config.optimizer.learning_rate = 5e-5
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 0.0
    config.train.batch_size = 64
    config.train.epochs = 3.0
    config.train.dev_every = config.train.save_every = 1000
    config.train.best = "dev_loss"  # here the error: the step of the best development accuracy
    return config
