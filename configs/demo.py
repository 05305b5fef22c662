"""A planted bias, found and lowered: everything generated, nothing downloaded.

python launch/train.py --config=configs/demo.py
python launch/train.py --config=configs/demo.py:smoke     (shorter: what CI runs)
"""

from ml_collections import ConfigDict

from ncfair_jax.config import base_config, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    smoke = "smoke" in parse_arg(arg, ("smoke",))
    config = base_config("aligned")
    config.name = "demo-smoke" if smoke else "demo"
    config.world.sentences = 12000
    config.world.bias = 0.9
    config.data.corpus = "text"
    config.data.path = "@world/corpus.txt"
    config.data.max_tokens = 32
    config.data.row_tokens = 64
    config.objective.mask_prob = 0.3
    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 0.01
    config.optimizer.b2 = 0.98
    config.train.batch_size = 120
    config.train.steps = 900 if smoke else 1200
    config.train.log_every = 50
    config.train.save_every = 10000
    config.evals.benchmarks = (
        "crows_pairs:gender,stereoset" if smoke else "crows_pairs:gender,stereoset,bec_pro,masked_lm"
    )
    config.evals.data = "@world/data"
    config.evals.collapse_text = "" if smoke else "@world/heldout.txt"
    after = {
        "model": {"path": "@pretrain"},
        "optimizer": {"learning_rate": 2e-3, "warmup_steps": 20},
        "train": {"steps": 180 if smoke else 400},
    }
    swapped = after | {"data": {"counterfactual": "two_sided"}}
    config.arms.pretrain = ConfigDict({"model": {"path": "@world/model"}})
    config.arms.more = ConfigDict(after)
    config.arms.cda = ConfigDict(swapped)
    config.arms.cda_nc3 = ConfigDict(swapped | {"nc3": {"weight": 1.0}})
    config.run_arms = "pretrain,cda" if smoke else "pretrain,more,cda,cda_nc3"
    return config
