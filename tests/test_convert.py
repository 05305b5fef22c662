"""launch/convert.py: to Orbax and back without losing a bit; mistakes are told before anything is written."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from absl import app, flags
from absl.testing import flagsaver
from safetensors.numpy import load_file, save_file

from ncfair_jax.checkpoint import CheckpointError, save_params
from ncfair_jax.files import digests
from ncfair_jax.models.hf import ModelFolderError, load_pretrained
from tests import tiny_hub

SCRIPT = Path(__file__).parents[1] / "launch" / "convert.py"


@pytest.fixture(scope="module")
def convert():
    """Runs the command in this process: convert(flag=value, ...)."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("launch_convert", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags.FLAGS.mark_as_parsed()

    def call(*arguments: str, **values: object) -> None:
        with flagsaver.flagsaver(**{name: str(value) for name, value in values.items()}):
            module.main([str(SCRIPT), *arguments])

    yield call
    for name in set(flags.FLAGS) - before:  # other commands have flags of the same names
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_round_trip_is_bitwise(kind, convert, tmp_path, capsys):
    source = tiny_hub.write(tmp_path / "source", kind)
    convert(to="orbax", model=source, out=tmp_path / "params")
    # Another seed gives config and tokenizer only: every parameter must come from the Orbax folder.
    other = tiny_hub.write(tmp_path / "other", kind, seed=1)
    convert(to="hf", model=other, params=tmp_path / "params", out=tmp_path / "back")
    assert f"wrote {tmp_path / 'back'}" in capsys.readouterr().out
    assert (tmp_path / "back/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert (tmp_path / "back/config.json").read_text() == (source / "config.json").read_text()
    assert str(tmp_path / "params") in (tmp_path / "back/README.md").read_text()
    tiny_hub.assert_same_params(load_pretrained(tmp_path / "back").params, load_pretrained(source).params)


def test_weights_that_are_not_finite_are_neither_read_nor_written(convert, tmp_path):
    source = tiny_hub.write(tmp_path / "source", "bert")
    params = tiny_hub.pretrained("bert").params
    params["mlm"]["bias"][2] = np.nan
    save_params(tmp_path / "params", params)
    with pytest.raises(ModelFolderError, match=r"not finite .*: cls\.predictions\.bias \(1 of 21 values\)"):
        convert(to="hf", model=source, params=tmp_path / "params", out=tmp_path / "out")
    digests.record(source, ["model.safetensors"])  # as in an export
    tensors = load_file(source / "model.safetensors")
    tensors["cls.predictions.bias"][2] = np.inf
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(
        ModelFolderError, match=r"model\.safetensors is damaged .*, or delete digests\.json if the change was"
    ):
        convert(to="orbax", model=source, out=tmp_path / "out")
    (source / "digests.json").unlink()
    with pytest.raises(ModelFolderError, match=r"not finite .*: cls\.predictions\.bias"):
        convert(to="orbax", model=source, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parameters_of_another_model_are_refused(convert, tmp_path):
    bert = tiny_hub.write(tmp_path / "bert", "bert")
    save_params(tmp_path / "params", tiny_hub.pretrained("roberta").params)
    with pytest.raises(CheckpointError, match=r"params does not hold the parameters of .*bert") as error:
        convert(to="hf", model=bert, params=tmp_path / "params", out=tmp_path / "out")
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty does not hold the parameters"):
        convert(to="hf", model=bert, params=tmp_path / "empty", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mistakes_are_named(convert, tmp_path):
    bert = tiny_hub.write(tmp_path / "bert", "bert")
    with pytest.raises(ValueError, match="--to=hf came without --params"):
        convert(to="hf", model=bert, out=tmp_path / "out")
    with pytest.raises(ValueError, match="--to=orbax came with --params"):
        convert(to="orbax", model=bert, params=tmp_path / "params", out=tmp_path / "out")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        convert(to="hf", model=bert, params=tmp_path / "nowhere", out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"--out=.*bert exists"):
        convert(to="orbax", model=bert, out=bert)
    with pytest.raises(app.UsageError, match="unexpected argument 'stray'"):
        convert("stray", to="orbax", model=bert, out=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert"]
