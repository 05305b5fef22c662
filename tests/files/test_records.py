"""Files of ours that are damaged: each is told in one line with its name and a remedy, wherever it is read."""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks.compare import compare
from ncfair_jax.collapse.stored import refuse_other_survey
from ncfair_jax.config import EvalConfig, MeshConfig, to_dict
from ncfair_jax.environment import recording
from ncfair_jax.evaluation import evaluate_model
from ncfair_jax.files.reading import DataError
from ncfair_jax.files.records import CONFIG, DOCUMENT, metrics_lines, wrong_form
from ncfair_jax.finished import refuse_other_content, refuse_other_run
from ncfair_jax.lexicons.classes import classes_of
from ncfair_jax.measurement import MeasureSettings, read_measures
from ncfair_jax.methods.mlm import MlmRun
from ncfair_jax.recipes import base_config
from ncfair_jax.report.arms import read_figures
from ncfair_jax.run_log import truncate
from ncfair_jax.sharding import make_mesh
from ncfair_jax.sweep import refuse_other_world
from tests import tiny_hub

DAMAGED = ['{"a": 1, "b', "", "\0\0\0", "null", "[]", "[[]]", '"text"', "[" * 100_000, "{}"]


def judged(folder):
    nothing = EvalConfig(benchmarks="", collapse_text="")
    evaluate_model(tiny_hub.pretrained("bert"), nothing, "model", folder, make_mesh(MeshConfig()))


def surveyed(folder):
    model = tiny_hub.pretrained("bert")
    refuse_other_survey(folder, model.config, model.params, [np.arange(3)], classes_of([5, 6], model.tokenizer), {})


def world(folder):
    config = base_config("aligned")
    config.world.sentences = 10
    refuse_other_world(folder, config)


READERS = {
    "config.json": lambda folder: refuse_other_run(folder, MlmRun()),
    "inputs.json": lambda folder: refuse_other_content(folder, MlmRun(), {"model.path": "ab"}),
    "figures.json": judged,
    "survey.json": surveyed,
    "truth.json": world,
    "measures.json": lambda folder: read_measures("model", MeasureSettings(), folder),
    "crows_pairs.json": lambda folder: compare(folder, folder),
    "sweep/figures.json": lambda folder: read_figures(folder / "sweep" / "figures.json"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_line_with_its_name_and_a_remedy(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    for text in DAMAGED:
        path.write_text(text)
        with pytest.raises(DataError, match=r"; (delete|put it back|name the)") as error:
            READERS[name](tmp_path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value), text


def test_figures_of_a_sweep_that_are_wrong_inside(tmp_path):
    for arms in ({"a": 1}, {"a": []}, {"a": [{"loss": [1]}]}):
        (tmp_path / "figures.json").write_text(json.dumps({"start": {}, "arms": arms, "comparisons": {}}))
        with pytest.raises(DataError, match=r"figures\.json: not as this package writes it .*; name the figures"):
            read_figures(tmp_path / "figures.json")


@pytest.mark.parametrize("text", DAMAGED[:3] + DAMAGED[5:])
def test_a_damaged_record_of_the_environment_is_kept_aside_and_the_run_goes_on(tmp_path, text, capsys):
    path = tmp_path / "environment.json"
    for number in (1, 2):
        path.write_text(text)
        with recording(tmp_path):
            pass
        assert (tmp_path / f"environment.damaged-{number}.json").read_text() == text
        (entry,) = json.loads(path.read_text())
        assert entry["ended"] == "finished"
        assert f"it is kept as environment.damaged-{number}.json, and a new one begun" in capsys.readouterr().err
    with recording(tmp_path):
        pass
    assert len(json.loads(path.read_text())) == 2 and not capsys.readouterr().err


def test_a_config_and_a_result_are_of_their_forms():
    assert wrong_form(json.loads(json.dumps(to_dict(MlmRun()))), CONFIG) == ""
    whole = {"model": "m", "metrics": {}, "intervals": {}, "settings": {}}
    assert wrong_form(whole, DOCUMENT) == ""
    assert wrong_form(whole | {"fingerprints": []}, DOCUMENT) == "'fingerprints' holds a list, expected an object"
    assert wrong_form(whole | {"left_out": [{}]}, DOCUMENT) == "an entry of 'left_out' lacks 'note'"


WHOLE = [b'{"step": 1, "loss": 3.0}', b'{"step": 2, "loss": NaN, "best": null}', b'{"step": 3}']


@pytest.mark.parametrize(
    "damaged", [b'{"step": 1, "lo', b"\0\0", b"\xff", b"[1]", b'{"loss": 1}', b'{"step": "x"}', b'{"step": true}']
)
def test_damaged_lines_of_metrics_are_told_but_for_a_torn_last_one(tmp_path, damaged, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*WHOLE[:2], damaged, WHOLE[2], b'{"step": 4, "lo']))
    lines, faults = metrics_lines(path)
    assert [line.figures["step"] for line in lines] == [1, 2, 3]
    (fault,) = faults
    assert fault.startswith(f"{path}:3: the line is damaged")
    truncate(path, 2)
    assert path.read_bytes().splitlines() == WHOLE[:2]
    assert f"warning: {path}:3: the line is damaged" in capsys.readouterr().err
    path.write_bytes(b"\n".join([*WHOLE, damaged]))
    truncate(path, 3)
    assert path.read_bytes().splitlines() == WHOLE and not capsys.readouterr().err
