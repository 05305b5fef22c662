"""What config files are made with: arguments after the colon, and a config for another method."""

import pytest
from ml_collections import ConfigDict

from ncfair_jax.config import ConfigError
from ncfair_jax.recipes import base_config, one_of, parse_arg, with_method


def test_arguments_after_the_colon():
    assert parse_arg("paper,smoke", ("paper", "aligned", "smoke")) == ("paper", "smoke")
    assert parse_arg(None, ("paper",)) == ()
    with pytest.raises(ConfigError, match="'papre'; choose from paper, aligned"):
        parse_arg("papre", ("paper", "aligned"))


def test_one_argument_of_several():
    assert one_of("", ("aligned", "paper")) == one_of(None, ("aligned", "paper")) == "aligned"
    assert one_of("paper,", ("aligned", "paper")) == "paper"
    with pytest.raises(ConfigError, match=r"'paper,aligned'; name one of aligned, paper"):
        one_of("paper,aligned", ("aligned", "paper"))


def test_another_method_keeps_what_both_have():
    config = base_config("paper", method="adept")
    config.train.batch_size, config.adept.mode, config.seeds, config.arms.x = 5, "raw", "0,1", ConfigDict({"seed": 1})
    other = with_method(config, "mabel")
    assert (other.objective.name, other.train.batch_size, other.nc3.window, other.seeds) == ("mabel", 5, "run", "0,1")
    assert "adept" not in other and other.mabel == base_config(method="mabel").mabel and other.arms.x.seed == 1
    assert with_method(config, "adept") == config
