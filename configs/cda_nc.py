"""CDA: BERT-base tuned on WikiText-2 and its gender-swapped copy, with the NC3 regulariser.

    python launch/train.py --config=configs/cda_nc.py            # or :paper, :control; :aligned is the default

Model, text and benchmarks come from the Hugging Face Hub and public repositories; to stay local name folders with
--config.model.path, --config.data.path and --config.evals.data. A GPU or TPU is advised; on a CPU try bec_minilm.py.
The weight of `:paper` is the released one of BEC; that of `:aligned` was found on development data for BEC on a MiniLM (in
bec_minilm.py) and is a starting point elsewhere.
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import published_config


def get_config(arg: str | None = None) -> ConfigDict:
    """`:paper` reproduces the released loss, `:aligned` is the same idea without the release's slips."""
    config = published_config("cda_nc", arg, "bert-base-uncased")
    config.data.counterfactual = "two_sided"
    return config
