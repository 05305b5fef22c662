"""A config has the fields of its method alone, and says so of any other field."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from ncfair_jax.config import ConfigError, short_hash, to_dict
from ncfair_jax.fields import section
from ncfair_jax.methods.mabel.config import MabelConfig, MabelRun
from ncfair_jax.methods.mlm import MlmRun
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import METHODS, freeze, validate


def test_base_config_freezes_to_the_defaults():
    assert freeze(base_config()) == MlmRun()


def test_a_config_has_the_fields_of_its_method_alone(monkeypatch):
    """A field more of one method changes no run of another."""

    @dataclasses.dataclass(frozen=True)
    class More(MabelConfig):
        more: float = 1.0

    @dataclasses.dataclass(frozen=True)
    class MoreRun(MabelRun):
        mabel: More = section(More)

    before = {name: short_hash(freeze(base_config(method=name))) for name in METHODS}
    monkeypatch.setitem(METHODS, "mabel", METHODS["mabel"]._replace(Config=MoreRun))
    after = {name: short_hash(freeze(base_config(method=name))) for name in METHODS}
    assert [name for name in METHODS if before[name] != after[name]] == ["mabel"]
    assert set(to_dict(freeze(base_config()))["objective"]) == {"name", "mask_prob", "mask_frac", "random_frac"}
    assert not {"mabel", "adept", "ase", "coref", "classification"} & set(to_dict(freeze(base_config())))


def test_every_method_is_the_one_that_its_config_names():
    for name, method in METHODS.items():
        assert method.Config().objective.name == name
        validate(freeze(base_config(method=name)))


def test_a_field_of_another_method_is_told_by_its_name():
    config = base_config()
    config.mabel = ConfigDict({"pairs": "x"})
    with pytest.raises(ConfigError, match=r"^config\.mabel\.pairs: mlm has no such field; it is one of mabel$"):
        freeze(config)
    with pytest.raises(ConfigError, match=r"^config\.objective\.name='mln': choose from adept, ase, "):
        base_config(method="mln")


@pytest.mark.parametrize(("made", "named"), [("mlm", "mabel"), ("mabel", "mlm"), ("adept", "ase"), ("coref", "mlm")])
def test_a_flag_that_changes_the_method_is_told_what_to_do(made, named):
    config = base_config(method=made)
    config.objective.name = named
    with pytest.raises(ConfigError, match=rf"this config is one of '{made}' .* base_config\(method='{named}'\)$"):
        freeze(config)
