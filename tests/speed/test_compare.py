"""The harness on a tiny generated model: every field is there, errors are one line, spreads are right."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ncfair_jax.speed import compare, tables
from ncfair_jax.speed.contestants import SpeedError, Worker, sizes, spread
from ncfair_jax.speed.padded import Sentence

SPREAD = {"median", "min", "max"}
FIGURES = {
    "sentences_per_second",
    "sentences_per_second_of_rounds",
    "tokens_per_second",
    "step_seconds",
    "pad_fraction",
    "flops_per_step",
    "gflops_per_second",
    "fraction_of_matmul",
    "peak_mib",
}


def tiny_settings(world, **changes):
    small = {"batches": (4,), "rounds": 2, "steps": 1, "nc3_steps": 2, "pairs": 2, "matmul": 64}
    return compare.Settings(str(world / "small"), str(world / "data"), **small | changes)


@pytest.mark.slow
def test_ours_alone_has_every_field(world):
    result = json.loads(json.dumps(compare.run(tiny_settings(world, compare="none"))))
    assert set(result) == {"settings", "machine", "training", "nc3_cost", "crows_pairs"}
    assert "torch" not in result["machine"]["versions"]
    (training,) = result["training"]
    assert set(training["contestants"]) == {"ncfair_jax"}
    figures = training["contestants"]["ncfair_jax"]
    assert set(figures) == FIGURES | {"compile_seconds", "programs", "xla_flops_per_step"}
    assert set(training["matmul_gflops"]) == {"jax"}
    for name in ("sentences_per_second", "tokens_per_second", "step_seconds", "gflops_per_second"):
        assert set(figures[name]) == SPREAD
        assert 0 < figures[name]["min"] <= figures[name]["median"] <= figures[name]["max"]
    assert figures["fraction_of_matmul"] > 0
    assert figures["peak_mib"] > 50
    (cost,) = result["nc3_cost"]
    assert set(cost["extra"]) == {"paper", "aligned"}
    scoring = result["crows_pairs"]
    assert scoring["pairs"] == 2
    assert scoring["larger"]["pairs"] == 20
    assert scoring["rows"] > 2 * scoring["pairs"]
    assert scoring["ratios"] == {}
    text = tables.markdown(result)
    assert text.count("ncfair_jax (packed rows)") == 3
    assert "paper settings" in text


@pytest.mark.slow
@pytest.mark.parity
def test_beside_torch(world, tmp_path):
    pytest.importorskip("torch")
    settings = tiny_settings(world)
    training = compare.train_side_by_side(settings, 4, tmp_path)
    assert set(training["contestants"]) == {"ncfair_jax", "torch_release", "torch_fair"}
    assert set(training["matmul_gflops"]) == {"jax", "torch"}
    for name in ("torch_release", "torch_fair"):
        assert set(training["contestants"][name]) == FIGURES
        assert set(training["ratios"][name]) == {"speed", "flops", "memory"}
    assert training["ratios"]["torch_release"]["flops"] > training["ratios"]["torch_fair"]["flops"]
    scoring = compare.score_side_by_side(settings, tmp_path)
    ratio = scoring["ratios"]["torch_release"]
    assert set(ratio) == {"speed", "speed_on_larger", "flops", "memory", "largest_difference"}
    assert ratio["largest_difference"] < 1e-4
    assert "PyTorch, as released" in tables.training_table(training)
    assert "nats" in tables.scoring_table(scoring)


def test_missing_torch_names_the_extra(world, monkeypatch):
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpeedError, match=r"ncfair_jax\[parity\].*--compare=none"):
        compare.run(tiny_settings(world))


@pytest.mark.parametrize(
    ("changes", "message"), [({"compare": "tensorflow"}, "choose from torch, none"), ({"rounds": 0}, "rounds=0")]
)
def test_bad_settings(world, changes, message):
    with pytest.raises(SpeedError, match=message):
        tiny_settings(world, **changes)


def test_sizes():
    assert sizes("batches", ["16", "64"]) == (16, 64)
    for wrong in ("x", "0", "-3", "1.5"):
        with pytest.raises(SpeedError, match=r"--batches=16,.*write e\.g\. 16,64"):
            sizes("batches", ["16", wrong])


def test_missing_model(world):
    with pytest.raises(SpeedError, match="nowhere does not exist"):
        compare.run(compare.Settings("nowhere", str(world / "data"), compare="none"))


def test_dead_contestant_tells_its_last_words():
    with pytest.raises(SpeedError, match=r"contestant x ended with status 1: .*KeyError: 'nonsense'"):
        Worker("x", {"kind": "nonsense"})


def test_padded_work_counts_what_is_computed():
    from tests import tiny

    def sentence(length):
        return Sentence(*[np.zeros(length, np.int64)] * 3)

    sentences = [sentence(10), sentence(20)]
    fair = compare.padded_work(tiny.MODEL, "torch_fair", sentences)
    assert (fair["sentences"], fair["tokens"], fair["places"]) == (2, 30, 40)
    released = compare.padded_work(tiny.MODEL, "torch_release", sentences)
    assert (released["tokens"], released["places"]) == (30, 512)
    assert released["flops"] > 512 / 40 * fair["flops"]


def test_spread_and_ratios():
    assert spread([3.0, 1.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0}
    mine = {"sentences_per_second_of_rounds": [10.0, 12.0], "flops_per_step": 2.0, "peak_mib": 100.0}
    other = {"sentences_per_second_of_rounds": [1.0, 2.0], "flops_per_step": 8.0, "peak_mib": 150.0}
    assert compare.ratios(other, mine) == {
        "speed": {"median": 8.0, "min": 6.0, "max": 10.0},
        "flops": 4.0,
        "memory": 1.5,
    }


def test_package_side_loads_no_torch():
    """In a fresh interpreter: another test of this process may have imported it."""
    code = (
        "import sys; from ncfair_jax.speed.worker import load_without_torch; load_without_torch(); "
        "import ncfair_jax.speed.compare, ncfair_jax.speed.accelerator, ncfair_jax.benchmarks; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
