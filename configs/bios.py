"""Bias-in-Bios: a classifier of professions on top of a model, and how differently it treats men's and women's biographies.

    python launch/train.py --config=configs/bios.py --config.data.path=FOLDER_OR_FILE_OR_HUB_NAME

FOLDER has train, dev and test (.jsonl, .csv, .tsv or .parquet) with the columns title, raw, start_pos and gender of the crawler
microsoft/biosbias; a single FILE is split (config.classification.dev_fraction, test_fraction). Without a path the Hub copy
LabHC/bias_in_bios is taken. Five epochs of some 250,000 biographies want an accelerator.

To compare models, say which: the arm `debiased` needs its path, and both then start from a fresh pooler, since a model
exported here has none:

    python launch/train.py --config=configs/bios.py --config.run_arms=base,debiased --config.seeds=0,1,2 \
        --config.arms.debiased.model.path=runs/X/export --config.classification.pool=fresh_pooler

Published for the crawl of He et al. 2022: bert-base-uncased accuracy 83.68, TPR gap 1.080, TPR RMS 0.152; MABEL 84.43, 0.605,
0.134. Crawls differ, so compare arms, not papers.
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import finetuning_config, parse_arg

PROBE = "probe"


def get_config(arg: str | None = None) -> ConfigDict:
    """`configs/bios.py:probe` trains the classifier alone on the frozen encoder."""
    probe = parse_arg(arg, (PROBE,)) == (PROBE,)
    config = finetuning_config("bios-probe" if probe else "bios", "bios")
    config.data.dev_examples = 2000
    config.optimizer.learning_rate = 1e-3 if probe else 1e-5
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 0.0
    config.optimizer.freeze = "^(embeddings|encoder|mlm)/" if probe else ""
    config.train.batch_size = 128
    config.train.epochs = 5.0
    config.train.dev_every = config.train.save_every = 1000
    config.train.best = "dev_loss"  # here the error: the step of the best development accuracy
    return config
