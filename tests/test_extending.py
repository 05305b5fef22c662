"""A family, three methods and a benchmark that the package does not know, together: train, edit, evaluate, export, report.

The registrations are all that is done for them; everything else is the package's own.
"""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.models import load_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import METHODS, freeze
from ncfair_jax.report.html import page
from ncfair_jax.report.summary import summarise_folders
from ncfair_jax.train import train_and_evaluate
from tests import tiny_text, toy_benchmark, toy_family, toy_method
from tests.toy_family import BagConfig

PAIRS = [[f"the {noun} sees the [MASK]", "man", "woman"] for noun in ("man", "woman", "nurse", "doctor", "dog")]
METHODS_RUN = ("shrink", "flatten", "opposite")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a method from a model folder, judged by the toy benchmark."""
    toy_family.register(monkeypatch)
    monkeypatch.setitem(METHODS, "shrink", toy_method.SHRINK)
    monkeypatch.setitem(METHODS, "flatten", toy_method.FLATTEN)
    monkeypatch.setitem(METHODS, "opposite", toy_method.OPPOSITE)
    monkeypatch.setitem(BENCHMARKS, "toy", toy_benchmark.BENCHMARK)
    _, text = tiny_text.write(tmp_path, count=20)
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "data" / "toy" / "pairs.json").write_text(json.dumps(PAIRS))

    def of(method, model, **sections):
        config = base_config(method=method)
        config.name = f"by-{method}"
        config.model.path = str(model)
        config.data.update(corpus="text", path=str(text), max_tokens=32, row_tokens=32)
        config.evals.update(benchmarks="toy", data=str(tmp_path / "data"))
        for name, values in sections.items():
            config[name].update(values)
        return train_and_evaluate(freeze(config), tmp_path / method)

    return of


def test_a_toy_model_is_trained_edited_evaluated_exported_and_reported(run, tmp_path):
    start = toy_family.write(tmp_path / "start")
    loop = {"steps": 12, "batch_size": 10, "log_every": 1, "save_every": 6, "collapse_every": 6}
    trained = run("shrink", start, train=loop, optimizer={"learning_rate": 1e-2}, nc3={"weight": 1.0})
    edited = run("flatten", tmp_path / "shrink" / "export", flatten={"divisor": 4.0})
    wrapped = run("opposite", tmp_path / "flatten" / "export")

    lines = [json.loads(line) for line in (tmp_path / "shrink" / "metrics.jsonl").read_text().splitlines()]
    sizes = [line["size"] for line in lines if "size" in line]
    assert sizes[-1] < 0.9 * sizes[0]

    models = [
        load_pretrained(str(folder)) for folder in (start, tmp_path / "shrink/export", tmp_path / "flatten/export")
    ]
    assert all(isinstance(model.config, BagConfig) for model in models)
    kernels = [model.params["head"]["kernel"] for model in models]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])

    (figure,) = trained["before"]["benchmarks"]
    assert figure[0] == "toy, first word preferred, %" and figure[3] == len(PAIRS)
    assert trained["after"]["benchmarks"] == edited["before"]["benchmarks"]
    value, opposite = (wrapped[side]["benchmarks"][0][1] for side in ("before", "after"))
    assert value == edited["after"]["benchmarks"][0][1] == 100 - opposite
    for method in METHODS_RUN:
        assert (tmp_path / method / "report.html").is_file()
        assert "toy, first word preferred, %" in (tmp_path / method / "export" / "README.md").read_text()

    together = page(summarise_folders([tmp_path / method for method in METHODS_RUN]))
    assert all(text in together for text in (*METHODS_RUN, "toy, first word preferred, %"))
