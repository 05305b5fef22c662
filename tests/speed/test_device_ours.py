"""What a process of ours measures on a device, here on a CPU with a tiny model."""

import jax
import numpy as np
import pytest

from ncfair_jax.speed import device_ours
from ncfair_jax.speed.bare import bare_rate
from ncfair_jax.speed.contestants import LeftOutError
from ncfair_jax.speed.device_ours import Setting, measure, model_of
from ncfair_jax.speed.train_step import TrainStep

TINY = {"preset": "tiny", "row_tokens": 64, "rows": 4}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(device_ours, "DTYPE", "float32")
    monkeypatch.setattr(device_ours, "TURNS", 2)
    device_ours.ready.cache_clear()


def test_training_with_all_its_parts():
    found = measure("training", TINY | {"steps": 2, "host": True})
    assert (found["rows"], found["row_tokens"], found["attention"]) == (4, 64, "xla")
    assert 0.9 * 256 < found["tokens"] <= 256 and found["flops"] > 0 and found["seconds"]["median"] > 0
    assert found["compile_seconds"] > 0 and found["peak_bytes"] > 0 and np.isfinite(found["loss"])
    assert found["host"]["batch_seconds"] > 0 and np.isfinite(found["host"]["hidden"])
    assert found["profile"]["error"].startswith("SpeedError: the profile shows no operations")  # as on any CPU


@pytest.mark.slow
def test_costs_of_nc3_the_guard_and_tracking():
    found = measure("costs", TINY | {"steps": 1})
    assert set(found["extra"]) == {"nc3", "guarded"} and set(found["seconds"]) == {"whole", "nc3", "guarded"}
    assert found["host_reads"]["seconds"] > 0
    tracking = found["tracking"]
    assert tracking["every"] == 100
    assert tracking["extra"] == pytest.approx(tracking["reading_seconds"] / 100 / found["seconds"]["whole"]["median"])


def test_what_is_not_for_this_device_is_left_out():
    found = measure("training", TINY | {"steps": 1, "host": False, "attention": "pallas_gpu"})
    assert found == {"skipped": "attention='pallas_gpu' is for a gpu, and this is a cpu; use 'xla' or 'auto'"}
    with pytest.raises(LeftOutError):
        model_of(Setting(**TINY, attention="splash"))


def test_an_error_is_one_line_and_the_step_is_made_anew(monkeypatch):
    class Broken(TrainStep):
        def __init__(self, setting):
            made.append(setting)

        def again(self, steps):
            raise RuntimeError("first line\nsecond line")

    made: list = []
    monkeypatch.setattr(device_ours, "built", Broken)
    for _ in range(2):
        assert measure("training", TINY | {"steps": 1, "host": False}) == {"error": "RuntimeError: first line"}
    assert len(made) == 2


def test_steps_that_are_compiled_together_wait_for_their_turn(monkeypatch):
    class Quick(TrainStep):
        def __init__(self, setting):
            made.append(setting)
            if setting.layers == "unrolled":
                raise RuntimeError("too large\nby far")

        def again(self, steps):
            return 0.1

    made: list = []
    monkeypatch.setattr(device_ours, "built", Quick)
    settings = [TINY, TINY | {"layers": "unrolled"}]
    found = measure("compile_together", {"settings": settings})
    assert found["programs"] == 1 and len(made) == 2
    assert measure("training", settings[1] | {"steps": 1, "host": False}) == {"error": "RuntimeError: too large"}
    assert isinstance(device_ours.ready(Setting(**TINY)), Quick) and len(made) == 2  # nothing is compiled twice


def test_half_the_rows_are_taken_until_they_fit(monkeypatch):
    class Large(TrainStep):
        def __init__(self, setting):
            self.rows = setting.rows

        def again(self, steps):
            if self.rows > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(device_ours, "built", Large)
    assert device_ours.ready(Setting(**TINY)).rows == 1
    monkeypatch.setattr(Large, "again", lambda *args: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL: x")))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        device_ours.ready(Setting("tiny", 128, 4))


def test_the_model_of_a_setting():
    model = model_of(Setting("bert-large", 512, 32))
    assert (model.num_layers, model.attention, model.scan_layers, model.attention_dropout) == (24, "xla", True, 0.0)
    other = model_of(Setting("bert-base", 128, 32, attention="xla", attention_dropout=0.1, layers="unrolled"))
    assert (other.attention_dropout, other.scan_layers, other.hidden_dropout) == (0.1, False, 0.1)


def test_the_facts_of_the_device(monkeypatch):
    monkeypatch.setattr(device_ours, "bare_rate", lambda dtype: bare_rate(dtype, 64))
    found = device_ours.facts()
    assert found["platform"] == "cpu" and found["bare_flops"] > 1e5 and "jax" in found["versions"]
