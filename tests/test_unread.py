"""Settings that another one switches off are refused, and taken where they are read."""

import pytest

from ncfair_jax.config import ConfigError, get
from ncfair_jax.methods import training
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import METHODS, freeze, validate
from ncfair_jax.unread import CORE_SWITCHES

# What is set, what makes it read, and the condition that the error names.
CASES = [
    ({"data.lexicon": "religion"}, {"data.counterfactual": "one_sided"}, "config.data.counterfactual is 'one_sided'"),
    (
        {"data.possessives": "next_word"},
        {"data.counterfactual": "two_sided"},
        "config.data.counterfactual is 'one_sided'",
    ),
    ({"data.text_field": "body"}, {"data.corpus": "hub"}, "config.data.corpus='hub'"),
    (
        {"train.row_groups": 4},
        {"train.batch_rows": 8, "train.batch_size": 0},
        "config.train.batch_rows is above 0",
    ),
    ({"nc3.ema_decay": 0.9, "nc3.window": "run"}, {"nc3.window": "ema"}, "config.nc3.window='ema'"),
    ({"objective.name": "mabel", "mabel.align_temp": 1.0}, {"mabel.align_loss": "a3"}, "config.mabel.align_loss='a3'"),
    (
        {"objective.name": "mabel", "mabel.align_weight": 0.5, "mabel.align_loss": ""},
        {"mabel.align_loss": "a1"},
        "both a contrastive and an alignment loss",
    ),
    (
        {"objective.name": "mabel", "mabel.softmax_temp": 0.1, "mabel.contrastive": False, "mabel.align_loss": "a2"},
        {"mabel.contrastive": True},
        "config.mabel.contrastive=True or",
    ),
    (
        {"objective.name": "mabel", "mabel.pooler": "avg", "mabel.contrastive": False, "mabel.align_loss": ""},
        {"mabel.align_loss": "a2"},
        "a contrastive or an alignment loss",
    ),
    (
        {"objective.name": "ase", "ase.direction": "joined", "ase.sn_weight": 0.0},
        {"ase.sn_weight": 1.0},
        "ase.sn_weight is above 0",
    ),
    (
        {"objective.name": "ase", "ase.fisher_examples": 5, "ase.ewc_weight": 0.0},
        {"ase.ewc_weight": 1.0},
        "ase.ewc_weight is above 0",
    ),
    (
        {"objective.name": "coref", "coref.winobias_split": "test"},
        {"coref.winobias": "folder"},
        "config.coref.winobias is named",
    ),
    (
        {"objective.name": "classification", "classification.test_fraction": 0.5},
        {"classification.task": "bios"},
        "config.classification.task='bios'",
    ),
    (
        {"objective.name": "classification", "classification.pairs": 10},
        {"classification.task": "bias_nli"},
        "config.classification.task='bias_nli'",
    ),
    ({"data.dev_examples": 10, "train.collapse_every": 0}, {"train.dev_every": 5}, "config.train.dev_every or"),
    (
        {"train.collapse_sentences": 10, "train.collapse_every": 0},
        {"train.collapse_every": 5},
        "config.train.collapse_every is above 0",
    ),
    ({"evals.lexicon": "race"}, {"evals.collapse_text": "wikitext2"}, "config.evals.collapse_text is named"),
    ({"world.seed": 3}, {"world.sentences": 100}, "config.world.sentences is above 0"),
]


def made(changes):
    config = base_config(method=changes.get("objective.name", "mlm"))
    for path, value in changes.items():
        section, field = path.split(".")
        config[section][field] = value
    return freeze(config)


@pytest.mark.parametrize(("changes", "remedy", "condition"), CASES, ids=[next(iter(case[1])) for case in CASES])
def test_what_is_not_read_is_refused_and_what_is_read_is_taken(changes, remedy, condition):
    with pytest.raises(ConfigError, match="has no effect: it is read only if") as error:
        validate(made(changes))
    assert condition in str(error.value)
    assert any(f"config.{path}={value!r}" in str(error.value) for path, value in changes.items())
    validate(made(changes | remedy))


def test_methods_that_swap_or_read_words_otherwise_take_the_fields_of_a_swap():
    for method in ("ase", "mabel"):
        validate(made({"objective.name": method, "data.possessives": "next_word"}))


def test_every_switch_has_a_case_and_names_fields_that_exist():
    for name, method in METHODS.items():
        for switch in (*method.switches, *training.SWITCHES, *CORE_SWITCHES):
            for field in switch.fields:
                get(freeze(base_config(method=name)), field)
            assert any(any(path.startswith(switch.fields) for path in changes) for changes, *_ in CASES)
