"""A tiny model folder and data folder with a GAP file and CrowS-Pairs, generated."""

import dataclasses
from pathlib import Path

import jax
import pytest

from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import load_pretrained, save_pretrained
from ncfair_jax.world import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Folder with small/ (a model of one layer, quick to compile) and data/{gap,crows_pairs}."""
    folder = tmp_path_factory.mktemp("benchmark") / "world"
    write_world(folder, sentences=60, bias=0.8, seed=0)
    model = load_pretrained(folder / "model", offline=True)
    config = dataclasses.replace(model.config, num_layers=1, max_positions=256)
    save_pretrained(
        folder / "small", model._replace(config=config, params=family_of(config).init(config, jax.random.key(0)))
    )
    rows = ["ID\tText"]
    rows += [f"id\t{line}" for line in (folder / "corpus.txt").read_text(encoding="utf-8").splitlines()]
    (folder / "data" / "gap").mkdir()
    (folder / "data" / "gap" / "gap_flipped.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def compilation_cache(monkeypatch):
    """Contestants' processes use the suite's cache of compiled programs."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
