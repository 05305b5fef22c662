"""MABEL: BERT-base tuned on entailment pairs and their gender-swapped copies, with the NC3 regulariser (He et al. 2022 + NC3).

    python launch/build_mabel.py                              # SNLI and MNLI -> runs/entailment_data.csv
    python launch/train.py --config=configs/mabel_nc.py       # or :paper, :control; :aligned is the default

Model, pairs and benchmarks come from the Hugging Face Hub and public repositories; to stay local name folders with
--config.model.path and --config.evals.data, and files with --sources of build_mabel.py. --config.mabel.pairs=templates runs
on 8000 generated pairs and needs no NLI data; it is a trial of the method, not a reproduction. A GPU or TPU is advised.

`:paper` follows the release with NC3: weight 10, classes of the clean sentences, 96 pairs an update (there 4 devices of
24), but one matrix for word embeddings and decoder. `:aligned` has the 32 pairs of MABEL's own script; its weight is the
best of three on development data for a MiniLM (methods_minilm.py has the table).
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import published_config


def get_config(arg: str | None = None) -> ConfigDict:
    """`:paper` reproduces the released loss, `:aligned` is the same idea without the release's slips."""
    config = published_config("mabel_nc", arg, "bert-base-uncased", method="mabel")
    paper = config.name == "mabel_nc-paper"
    config.seed = 21
    config.mabel.pairs = "runs/entailment_data.csv"
    config.data.path = config.data.subset = ""  # the pairs are the text
    config.nc3.weight = 10.0 if paper else 100.0
    config.nc3.labels = "original"
    config.optimizer.learning_rate = 5e-5
    config.train.batch_size = 96 if paper else 32
    config.train.epochs = 2.0
    return config
