"""Config: the frozen twin, its refusals, presets, and what differs between two runs."""

import dataclasses

import pytest

from ncfair_jax.config import ConfigError, differences, identity, short_hash, to_dict
from ncfair_jax.methods.mlm import MlmRun
from ncfair_jax.methods.nc3 import PRESETS, NC3Config
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze, validate


def test_unknown_field_suggests_the_right_one():
    config = base_config()
    with config.unlocked():
        config.nc3.wieght = 3.0
    with pytest.raises(ConfigError, match=r"config.nc3.wieght does not exist; did you mean config.nc3.weight\?"):
        freeze(config)


def test_missing_field_and_wrong_type_are_named():
    config = base_config()
    with config.unlocked():
        del config.train.keep
    with pytest.raises(ConfigError, match=r"config\.train lacks keep"):
        freeze(config)
    config = base_config()
    with config.ignore_type():
        config.train.keep = "two"
    with pytest.raises(ConfigError, match=r"config\.train\.keep='two' is a str; expected a int"):
        freeze(config)


def test_an_integer_serves_as_a_float():
    config = base_config()
    with config.ignore_type():
        config.nc3.weight = 10
    assert freeze(config).nc3.weight == 10.0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nc3.weight", -1.0, "must not be negative"),
        ("nc3.window", "forever", "choose from 'run', 'epoch', 'ema', 'batch'"),
        ("train.batch_size", 0, r"config\.train\.batch_size=0: set this or train\.batch_rows above 0"),
        ("train.batch_size", -1, "must not be negative"),
        ("train.batch_rows", 32, r"config\.train\.batch_rows=32: train\.batch_size=16 .* set one of the two to 0"),
        ("train.row_groups", 8, r"train\.row_groups=8 .*train\.batch_rows is above 0"),
        ("train.accumulation", 3, "does not divide into train.accumulation=3"),
        ("objective.mask_prob", 1.5, "is a fraction"),
        ("objective.random_frac", 0.5, "exceeds 1"),
        ("nc3.ema_decay", 1.0, "between 0 and 1"),
        ("data.max_tokens", 256, "does not fit a row"),
        ("train.best", "dev_loss", "needs sentences"),
        ("model.hidden_dropout", 1.0, "from 0 to below 1"),
        ("optimizer.freeze", "(", "no regular expression"),
        ("optimizer.learning_rate", float("nan"), r"config\.optimizer\.learning_rate=nan; expected a finite number"),
        ("nc3.weight", float("inf"), r"config\.nc3\.weight=inf; expected a finite number"),
        ("objective.mask_prob", 0.0, "there is nothing to predict"),
    ],
)
def test_impossible_values_are_refused_by_name(path, value, message):
    config = base_config()
    section, field = path.split(".")
    config[section][field] = value
    with pytest.raises(ConfigError, match=message):
        validate(freeze(config))


def test_rows_must_divide_into_groups_and_micro_batches():
    config = base_config()
    config.train.batch_size, config.train.batch_rows = 0, 48
    with pytest.raises(
        ConfigError, match=r"batch_rows=48: train\.row_groups=32 must divide it; try train\.row_groups=16$"
    ):
        validate(freeze(config))
    config.train.row_groups = 16
    validate(freeze(config))
    config.train.accumulation = 5
    with pytest.raises(ConfigError, match=r"batch_rows=48: does not divide into train\.accumulation=5"):
        validate(freeze(config))
    assert [dataclasses.replace(freeze(config).train, batch_rows=n, row_groups=0).groups for n in (4, 64)] == [4, 32]


def test_a_run_by_examples_is_what_it_was_before_batches_were_counted_in_rows():
    config = freeze(base_config())
    tree = to_dict(config)
    older = dict(
        tree, train={name: value for name, value in tree["train"].items() if name not in ("batch_rows", "row_groups")}
    )
    assert identity(tree) == identity(older) != tree
    rows = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=0, batch_rows=8))
    assert differences(identity(to_dict(rows)), identity(older)) == [
        "config.train.batch_rows: 8 here, None there",
        "config.train.batch_size: 0 here, 16 there",
    ]
    assert short_hash(rows) != short_hash(config)


def test_regulariser_on_a_frozen_classifier_is_refused_only_without_feature_gradient():
    config = base_config("paper")
    config.nc3.weight = 100.0
    config.optimizer.freeze = "embeddings/"
    with pytest.raises(ConfigError, match="frozen classifier"):
        validate(freeze(config))
    config.nc3.gradient = "both"
    validate(freeze(config))
    config.optimizer.freeze = ".*"
    with pytest.raises(ConfigError, match="nothing is left to train"):
        validate(freeze(config))


def test_presets_name_existing_fields_and_say_what_the_design_says():
    fields = {f.name for f in dataclasses.fields(NC3Config)}
    assert all(set(preset) <= fields for preset in PRESETS.values())
    paper = freeze(base_config("paper")).nc3
    assert (paper.word_rule, paper.features, paper.alignment, paper.labels) == (
        "first_piece",
        "hidden",
        "next",
        "input",
    )
    assert (paper.window, paper.gradient) == ("run", "classifier")
    aligned = freeze(base_config("aligned")).nc3
    assert (aligned.word_rule, aligned.features, aligned.alignment) == ("whole_word", "transform", "same")
    assert (aligned.labels, aligned.window, aligned.ema_decay, aligned.gradient) == ("original", "ema", 0.99, "both")


def test_hash_and_differences_follow_every_field():
    a, b = MlmRun(), dataclasses.replace(MlmRun(), seed=7)
    assert short_hash(a) != short_hash(b)
    assert differences(to_dict(a), to_dict(b)) == ["config.seed: 42 here, 7 there"]


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match=r"config\.seed=-1: must not be negative"):
        validate(dataclasses.replace(MlmRun(), seed=-1))


def test_a_warm_up_as_long_as_the_run_is_refused():
    config = base_config()
    config.train.steps, config.optimizer.warmup_steps = 3, 3
    with pytest.raises(ConfigError, match=r"warmup_steps=3: the run ends within the warm-up, train\.steps=3"):
        validate(freeze(config))
    config.optimizer.warmup_steps = 2
    validate(freeze(config))


def test_nothing_to_minimise_is_refused():
    config = base_config(method="adept")
    config.adept.alpha = config.adept.beta = 0.0
    with pytest.raises(ConfigError, match="nothing to minimise"):
        validate(freeze(config))
    config.nc3.weight = 1.0
    validate(freeze(config))
