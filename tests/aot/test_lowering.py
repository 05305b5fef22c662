"""The abstract step: the arguments of the real one, and what is refused."""

import json
import sys

import jax
import pytest

from ncfair_jax.aot.lowering import lower, make_step
from ncfair_jax.aot.topology import TopologyError, slice_of
from ncfair_jax.config import ConfigError, MeshConfig
from ncfair_jax.models.folders import ModelFolderError
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from ncfair_jax.sharding import make_mesh
from tests import tiny_hub


def config(**fields):
    made = base_config("aligned", method=fields.pop("method", "mlm"))
    made.nc3.weight = 10.0
    for path, value in fields.items():
        section, _, name = path.partition("__")
        made[section][name] = value
    return freeze(made)


def mesh(data: int = 1, **sizes: int):
    return make_mesh(MeshConfig(data=data, **sizes), there=jax.devices()[: data * sizes.get("fsdp", 1)])


def test_the_batch_has_the_arrays_of_a_run_and_the_rows_that_were_asked_for():
    step = make_step(config(train__accumulation=2), "", "tiny", 4, mesh(4, fsdp=2))
    shapes = {name: each.shape for name, each in step.batch.items()}
    rows = dict.fromkeys(("tokens", "segment_ids", "positions", "slots"), (2, 16, 128))
    masks = {f"masked_{name}": (2, 16, 32) for name in ("positions", "labels", "weights")}
    assert shapes == rows | masks | {"step": (), "num_examples": ()}
    assert step.batch["tokens"].sharding.shard_shape((2, 16, 128)) == (2, 2, 128)
    assert step.classes is not None and step.classes.num_classes == 250


def test_rows_of_the_config_are_those_of_the_whole_slice_and_hold_the_masks_of_a_run_by_rows():
    by_rows = config(train__batch_rows=64, train__batch_size=0)
    for rows_per_device in (None, 8):  # which says the same
        step = make_step(by_rows, "", "tiny", rows_per_device, mesh(4, fsdp=2))
        assert step.batch["tokens"].shape == (1, 64, 128) and step.batch["masked_labels"].shape == (1, 64, 32)


def test_without_any_number_of_rows_there_are_64_a_device():
    assert make_step(config(), "", "tiny", None, mesh(2)).batch["tokens"].shape == (1, 128, 128)


def test_the_model_of_a_folder_needs_its_config_only(tmp_path):
    tiny_hub.write(tmp_path, "bert")
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            file.unlink()
    asked = config(data__max_tokens=16, model__hidden_dropout=0.25, model__activation_dtype="bfloat16")
    step = make_step(asked, str(tmp_path), "", 2, mesh())
    raw = json.loads((tmp_path / "config.json").read_text())
    assert (step.model.vocab_size, step.model.num_layers) == (raw["vocab_size"], raw["num_hidden_layers"])
    assert (step.model.hidden_dropout, step.model.activation_dtype) == (0.25, "bfloat16")


def test_the_lowered_step_takes_state_and_batch_and_gives_the_state_back():
    step = make_step(config(), "", "tiny", 2, mesh(2))
    lowered = lower(step)
    state, batch = lowered.args_info[0]
    assert set(batch) == set(step.batch)
    assert all(leaf.donated for leaf in jax.tree.leaves(state)) and not any(
        leaf.donated for leaf in jax.tree.leaves(batch)
    )
    new, metrics = lowered.out_info
    assert jax.tree.map(lambda leaf: leaf.shape, new) == jax.tree.map(lambda leaf: leaf.shape, state)
    assert {"loss", "mlm_loss", "nc3_loss", "grad_norm"} <= set(metrics)


@pytest.mark.parametrize(
    ("fields", "folder", "preset", "error", "message"),
    [
        ({"method": "mabel"}, "", "tiny", ConfigError, "objective.name='mabel': its batches come from its data"),
        ({}, "", "", ConfigError, "give --model=FOLDER with a config.json, or --preset"),
        ({}, "x", "tiny", ConfigError, "one of the two"),
        ({}, "", "huge", ValueError, "choose from tiny"),
        ({}, "/nowhere/at/all", "", ModelFolderError, "there is none"),
        ({"train__accumulation": 2}, "", "tiny", ConfigError, "--rows_per_device=3 does not divide"),
        (
            {"train__batch_rows": 64, "train__batch_size": 0},
            "",
            "tiny",
            ConfigError,
            "=3 makes 3 rows of .*batch_rows=64; leave",
        ),
        ({"data__max_tokens": 600, "data__row_tokens": 600}, "", "tiny", ConfigError, "positions for 512 tokens"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(fields, folder, preset, error, message):
    with pytest.raises(error, match=message) as told:
        make_step(config(**fields), folder, preset, 3, mesh())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v99:2x2", "no figures of the chip 'v99'"),
        ("v5e", "'' is no shape"),
        ("v5e:2xa", "'2xa' is no shape"),
        ("v5e:0x1", "no"),
    ],
)
def test_a_wrong_topology_is_told(topology, message):
    with pytest.raises(TopologyError, match=message):
        slice_of(topology)


def test_a_missing_libtpu_is_told_with_what_to_install(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(TopologyError, match=r"needs libtpu; install it: pip install 'ncfair_jax\[aot\]'"):
        slice_of("v5e:2x2")
