"""A planted bias, found and lowered: everything is generated, nothing downloaded.

    python launch/train.py --config=configs/demo.py
    python launch/train.py --config=configs/demo.py:smoke     (what CI runs: no control arm, no NC3, fewer measurements)

A generated corpus names 24 occupations; eight appear with women and eight with men in 90% of their sentences, eight
with both alike (`ncfair_jax/data/generated.py`). A two-layer encoder of 96 units is trained on it from scratch
(`pretrain`), and from there on with the same text (`more`, the control), with every sentence in both genders' wordings
(`cda`), and that with NC3 (`cda_nc3`).

Time, measured on two CPU cores shared with other work, compilation included: 2 min 51 s (170 CPU-seconds), smoke
1 min 23 s (82 CPU-seconds).

Measured with seed 42 (50 is unbiased; BEC-Pro: mean association of female minus male person words):

    | figure                               | pretrain | more  | cda   | cda_nc3 |
    |--------------------------------------|----------|-------|-------|---------|
    | CrowS-Pairs, % (95%: ± 2 to 6)       |     98.3 |  98.3 |  57.9 |    57.1 |
    | StereoSet SS test, % (± 5)           |     83.7 |  99.0 |  55.6 |    58.3 |
    | BEC-Pro, female-dominated jobs       |    +1.52 | +1.69 | +0.12 |   +0.12 |
    | BEC-Pro, male-dominated jobs         |    -1.64 | -1.94 | -0.19 |   -0.21 |
    | BEC-Pro, balanced jobs               |    -0.03 | +0.08 | -0.05 |   -0.05 |
    | Held-out top-1 accuracy              |    0.704 | 0.716 | 0.691 |   0.691 |
    | UNC3, transform features             |    0.053 | 0.051 | 0.063 |   0.033 |

So the benchmarks find what was planted, more of the same training deepens it, and counterfactual text takes most of it
away. NC3 lowers the quantity that it regularises, and adds nothing visible to the swap here. The held-out text has the
planted bias too: a model without it must lose some accuracy there. BEC-Pro's overall difference stays near 0 throughout,
because the two planted directions cancel. Training amplifies rounding: another order of the same sums gave 92.1 on
CrowS-Pairs and 92.7 on StereoSet before, 57.9 and 57.3 after `cda`. Smoke found 98.3 and 83.7, and 69.6 and 61.5 after its
shorter `cda`; in another world (--config.world.seed=5 --config.seed=7) 97.1 and 100, and 62.5 and 55.2.
"""

from ml_collections import ConfigDict

from ncfair_jax.recipes import base_config, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The demo's config; `arg` may be "smoke".

    Raises:
        ConfigError: for another argument.
    """
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
    config.train.steps = 1200
    config.train.log_every = 50
    config.train.save_every = 400
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
