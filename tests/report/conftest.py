"""Two tiny real runs, trained and judged once for all tests of the report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ncfair_jax.models.hf import save_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from ncfair_jax.train import train_and_evaluate
from tests.benchmarks import plain

BENCHMARKS = "crows_pairs,stereoset,bec_pro,masked_lm"
HOSTILE = "<img src=x onerror=alert(1)> 50% a_b | #1 & $x$"  # as a model's name or a sentence may be


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """A folder with the workdirs of two runs of one tiny model, "first" and "second", which differ in NC3's weight."""
    folder = tmp_path_factory.mktemp("runs")
    data = plain.write_data_folder(folder / "data")
    save_pretrained(folder / "model", plain.pretrained("bert"))
    sentences = ["the nurse said that he was tired", "a woman said that she was a nurse", "the man was a nurse"]
    (folder / "text.txt").write_text("\n".join(8 * sentences) + "\n")
    for name, weight in (("first", 0.0), ("second", 1.0)):
        config = base_config("aligned")
        config.name = HOSTILE
        config.model.path, config.data.path = str(folder / "model"), str(folder / "text.txt")
        config.data.corpus = "text"
        config.data.max_tokens = config.data.row_tokens = 32
        config.nc3.weight = weight
        config.optimizer.learning_rate = 1e-2
        config.train.batch_size, config.train.steps, config.train.log_every = 8, 6, 2
        config.train.collapse_every = 0  # the words are too few for a control
        config.evals.benchmarks, config.evals.data = BENCHMARKS, str(data)
        config.evals.collapse_text = str(folder / "text.txt")
        if name == "second":  # from the same model, whose figures are read back
            shutil.copytree(folder / "first/evals/before", folder / "second/evals/before")
        train_and_evaluate(freeze(config), folder / name)
    return folder


@pytest.fixture
def copy(runs, tmp_path) -> Callable[[str], Path]:
    """A copy of a run that a test may change: without digests, which would tell of the change."""
    left_out = shutil.ignore_patterns("checkpoints", "digests.json")
    return lambda name: shutil.copytree(runs / name, tmp_path / name, ignore=left_out)
