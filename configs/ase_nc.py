"""ASE: BERT-base tuned to predict masked pronouns in flipped pairs, with the NC3 regulariser (Park et al. 2023 + NC3).

    python launch/train.py --config=configs/ase_nc.py            # or :paper, :control; :aligned is the default

Text: GAP and GAP swapped back (the OntoNotes text of the original work is licensed). Others: --config.ase.source=winobias with
--config.data.path=<folder of WinoBias>, of which only the development files are read; or csv, with a folder that holds
original_data.csv and flipped_data.csv. `:paper` is what was released as ASE + NC3: pronoun prediction and NC3, without
neutralisation and elastic weights; `:aligned` has all of them. Model, text and benchmarks come from the Hugging Face Hub and
public repositories; to stay local name folders with --config.model.path, --config.data.path and --config.evals.data. A GPU or
TPU is advised: before the first update `:aligned` takes one backward pass for each of 1000 examples.

The weight of NC3 in `:paper` is the released one; that of `:aligned` and the weight of the elastic weights (on a Fisher
information of mean 1; published: 0.5, unscaled) were chosen on development data for a MiniLM, see methods_minilm.py.
Neutralisation weighs as published.
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import published_config


def get_config(arg: str | None = None) -> ConfigDict:
    """`:paper` reproduces the released loss, `:aligned` is the whole method without the release's slips."""
    config = published_config("ase_nc", arg, "bert-base-uncased", method="ase")
    config.data.corpus = "gap"
    config.data.path = config.data.subset = ""
    config.data.counterfactual = "two_sided"  # both sides of each pair
    config.data.max_tokens = 164
    config.data.row_tokens = 192
    config.evals.benchmarks += ",winobias"  # its test files, which nothing here trains on
    config.train.batch_size = 6
    config.train.epochs = 5.0
    if config.name == "ase_nc-paper":
        config.ase.sn_weight = config.ase.ewc_weight = 0.0
        config.ase.label_mode = "same"
    else:
        config.nc3.weight = 10.0
    return config
