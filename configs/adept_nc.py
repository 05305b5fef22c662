"""ADEPT: BERT-base tuned so that neutral words are as near to one group's words as to another's, with the NC3 regulariser.

    python launch/train.py --config=configs/adept_nc.py            # or :paper, :control; :aligned is the default

Words of gender against a shipped list of neutral words, found in WikiText-2. Religion instead of gender:

    --config.adept.lexicon=religion --config.adept.groups=judaism,christianity,islam --config.nc3.lexicon=religion

DPCE: --config.adept.algorithm=dpce --config.adept.alpha=0.2 --config.adept.beta=0.8 --config.train.batch_size=8.
Prefix tuning (40 learned keys and values a layer, everything else frozen):

    --config.adept.prefix_tokens=40 --config.optimizer.freeze='^(embeddings|encoder|mlm)/' --config.optimizer.learning_rate=5e-4

A batch has train.batch_size examples of each group and as many of neutral words; an epoch is what the smaller group fills.

Model, text and benchmarks come from the Hugging Face Hub and public repositories; to stay local name folders with
--config.model.path, --config.data.path and --config.evals.data. A GPU or TPU is advised. The weight of `:paper` is the
released one of ADEPT, that of `:aligned` the best of three on development data for a MiniLM (methods_minilm.py has the table).
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import published_config


def get_config(arg: str | None = None) -> ConfigDict:
    """`:paper` has the released loss and its scale of distance, `:aligned` the same idea without the release's slips."""
    config = published_config("adept_nc", arg, "bert-base-uncased", method="adept")
    config.nc3.weight = 1.0
    if config.name == "adept_nc-paper":
        config.nc3.weight = 5.0
        config.adept.rho = 10.0  # what the released code computes with, whatever its scripts pass
        config.nc3.labels = "original"  # nothing is masked
        config.nc3.window = "epoch"
    config.optimizer.learning_rate = 5e-5
    config.data.dev_examples = 1000
    config.train.batch_size = 32
    config.train.epochs = 10.0
    config.train.save_every = config.train.dev_every = 500
    config.train.best = "dev_loss"
    return config
