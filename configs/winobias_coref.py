"""Coreference fine-tuning of an encoder on OntoNotes, then its gender bias on WinoBias (TPR-1, TPR-2).

    python launch/train.py --config=configs/winobias_coref.py --config.model.path=bert-base-cased \
        --config.coref.train=ontonotes/train.english.v4_gold_conll --config.coref.dev=ontonotes/dev.english.v4_gold_conll \
        --config.coref.winobias=WinoBias/wino/data

Files in CoNLL-2012 format, or folders of them; OntoNotes is licensed by the LDC, WinoBias is public (uclanlp/corefBias on
GitHub). The model may be the export of a debiasing run. Published with this protocol (He et al. 2022): bert-base-cased
TPR-1 33.15 and TPR-2 11.97 at a CoNLL F1 of 73.91. 24 epochs of 2802 documents, one a step: work for a GPU.

`:small` is a check of the whole path without OntoNotes, not a published protocol: a small model trains on the development
sentences of WinoBias and is judged on its test sentences, in a few minutes on 2 CPU cores. Model and files lie in ../shared;
elsewhere name them with --config.model.path, --config.coref.train and --config.coref.winobias.

    python launch/train.py --config=configs/winobias_coref.py:small
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import base_config, parse_arg

DOCUMENTS, EPOCHS = 2802, 24  # OntoNotes' English training part
WINOBIAS = "../shared/data/winobias"


def get_config(arg: str | None = None) -> ConfigDict:
    """Hyper-parameters of Joshi et al. 2019 for a base model, or `:small`."""
    small = bool(parse_arg(arg, ("small",)))
    config = base_config(method="coref")
    config.name = "winobias_coref-small" if small else "winobias_coref"
    config.model.path = "bert-base-cased"
    config.data.row_tokens = config.data.max_tokens = 384
    config.optimizer.learning_rate = 1e-5
    config.optimizer.method_learning_rate = 2e-4
    config.optimizer.weight_decay = 0.01
    config.optimizer.eps = 1e-6
    config.optimizer.warmup_steps = DOCUMENTS * EPOCHS // 10
    config.train.batch_size = 1
    config.train.epochs = float(EPOCHS)
    config.train.log_every = 100
    config.train.save_every = 1000
    config.train.collapse_every = 0
    if small:
        config.model.path = "../shared/models/minilm6-mlm-adapted"
        config.coref.winobias = WINOBIAS
        config.coref.winobias_split = "test"
        files = (f"{side}_stereotyped_type{kind}.txt.dev" for kind in (1, 2) for side in ("pro", "anti"))
        config.coref.train = ",".join(f"{WINOBIAS}/{name}" for name in files)
        config.coref.hidden_units = 150
        config.data.row_tokens = config.data.max_tokens = 64
        config.optimizer.learning_rate = 1e-4
        config.optimizer.method_learning_rate = 1e-3
        config.optimizer.warmup_steps = 10
        config.train.batch_size = 16
        config.train.steps = 100
        config.train.log_every = 20
    return config
