"""CDA: BERT-base tuned on WikiText-2 and its gender-swapped copy, with the NC3 regulariser.

    python launch/train.py --config=configs/cda_nc.py            # or :paper, :aligned (the default)

Model, text and benchmarks come from the Hugging Face Hub and public repositories; to stay local name folders with
--config.model.path, --config.data.path and --config.evals.data. A GPU or TPU is advised; on a CPU try bec_minilm.py.
The weight of `:paper` is the released one of BEC; that of `:aligned` was found on development data for BEC on a MiniLM (in
bec_minilm.py) and is a starting point elsewhere.
"""

from ml_collections import ConfigDict

from ncfair_jax.config import base_config, parse_arg

WEIGHTS = {"paper": 100.0, "aligned": 100.0}


def get_config(arg: str | None = None) -> ConfigDict:
    """`:paper` reproduces the released loss, `:aligned` is the same idea without the release's slips."""
    (preset,) = parse_arg(arg, ("paper", "aligned")) or ("aligned",)
    config = base_config(preset)
    config.name = f"cda_nc-{preset}"
    config.model.path = "bert-base-uncased"
    config.data.corpus = "hub"
    config.data.path = "Salesforce/wikitext"
    config.data.subset = "wikitext-2-raw-v1"
    config.data.counterfactual = "two_sided"
    config.nc3.weight = WEIGHTS[preset]
    config.evals.benchmarks = "stereoset,crows_pairs,bec_pro,masked_lm"
    config.evals.collapse_text = "wikitext2"
    return config
