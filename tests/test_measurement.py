"""The measuring command as a user meets it: killed and resumed, two models, its files, its refusals."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import reduce
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from ncfair_jax import measurement
from ncfair_jax.collapse.class_stats import merge
from ncfair_jax.collapse.jackknife import measure_groups
from ncfair_jax.collapse.measures import measure, similarities
from ncfair_jax.collapse.model_measures import from_json
from ncfair_jax.collapse.stored import StoredGroups, SurveyError, load_stats
from ncfair_jax.collapse.survey import HeldOut, survey, survey_nc4
from ncfair_jax.data import token_building
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.launcher import USER_ERRORS
from ncfair_jax.lexicons.classes import build_classes
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.measurement import MeasureError, MeasureSettings, measure_models, split
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.report.measured import folder_names
from tests import tiny_text
from tests.rounding import rounding
from tests.started import ROOT, environment


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measure")
    for seed in (3, 4):
        tiny_text.write(folder, seed)
    return folder


def command(setting: Path, out: Path, *flags: str) -> list[str]:
    script = str(ROOT / "launch" / "measure.py")
    models = [f"--model={setting / name}" for name in ("model-3", "model-4")]
    cache = f"--compilation_cache={setting / 'xla'}"
    options = [f"--corpus={setting / 'text.txt'}", "--permutations=19", "--groups=6", "--held_out=0.2", "--layer=all"]
    return [sys.executable, script, *models, *options, f"--out={out}", cache, *flags]


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(args, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def measured(setting) -> Path:
    done = run(*command(setting, setting / "out"))
    assert done.returncode == 0, done.stderr[-2000:]
    return setting / "out"


def test_words_without_a_class_are_told_and_kept(measured):
    content = json.loads((measured / "model-3" / "measures.json").read_text(encoding="utf-8"))
    (note,) = (note for note in content["left_out"] if "without_class" in note)
    assert note["lexicon"] == "gender" and {"hers", "husband"} <= set(note["without_class"])
    assert not set(note["without_class"]) & set(tiny_text.GENDER)
    assert f"{len(note['without_class'])} of {note['words']} words are not one token" in note["note"]


def test_corrected_figures_and_what_intervals_are_of(measured):
    assert "sets of words with other counts can only be" in (measured / "table.md").read_text(encoding="utf-8")
    content = json.loads((measured / "model-3" / "measures.json").read_text(encoding="utf-8"))
    assert "ever more text" in content["notes"]["corrected"]
    with (measured / "model-3" / "words.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["word_set"] == "full"]
    assert content["corrected_words"]["full"] == sum(int(row["groups"]) >= 5 for row in rows) > 30
    nc1 = content["sets"]["full"]["nc1"]
    assert nc1["value"] < nc1["corrected"] and nc1["corrected_interval"][0] < nc1["corrected"]


def test_files_tables_and_figures(measured):
    table = (measured / "table.md").read_text(encoding="utf-8")
    for part in ("| lexicon | 10 | UNC3 |", "| full | 58 | NC4 |", "frequency-matched", "model-4 − model-3", "| 19 |"):
        assert part in table
    content = json.loads((measured / "model-3" / "measures.json").read_text(encoding="utf-8"))
    assert (content["sentences"], content["held_out"]) == (164, 36)
    assert set(content["depth"]["lexicon"]) == {"layer_0", "layer_1", "layer_2"}
    assert "full" not in content["depth"]
    assert len(content["lists"]) == 19
    found = from_json(content)
    stored = load_stats(measured / "model-3" / "stats.npz")
    chosen = np.isin(stored.words, tiny_text.GENDER)
    stats = type(stored.stats)(*(leaf[chosen] for leaf in stored.stats))
    again = measure(stats, stored.classifier[chosen], stored.bias[chosen])
    nc4 = {name for name in found.sets["lexicon"].figures if name.startswith("nc4") and name != "nc4_means"}
    assert set(again) | nc4 == set(found.sets["lexicon"].figures)
    for name, value in again.items():
        assert found.sets["lexicon"].figures[name] == pytest.approx(value, rel=1e-5), name
    with (measured / "model-3" / "words.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["word_set"] == "lexicon"]
    assert {row["word"] for row in rows} == set(tiny_text.GENDER)
    found = [float(row["cosine"]) for row in rows]
    np.testing.assert_allclose(
        found, similarities(stats, stored.classifier[chosen]), atol=rounding(3 * 16)
    )  # numbers a vector
    assert {path.name for path in (measured / "figures").glob("*.png")} == {
        "by_layer.png",
        "cosine_by_frequency.png",
        "word_cosines.png",
        "word_map_model-3.png",
        "word_map_model-4.png",
    }


@pytest.mark.slow
def test_killed_it_goes_on_bit_for_bit(setting, measured):
    out = setting / "killed"
    kills = 0
    for waited_for in ("model-3/survey/group-001.npz", "model-4/survey/group-000.npz"):
        process = subprocess.Popen(command(setting, out), env=environment(), stdout=subprocess.DEVNULL)
        while not (out / waited_for).exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    assert run(*command(setting, out)).returncode == 0
    for name in ("model-3/measures.json", "model-4/measures.json", "model-4/words.csv", "table.md"):
        assert (out / name).read_bytes() == (measured / name).read_bytes(), name
    for number in range(6):
        name = f"model-4/survey/group-{number:03d}.npz"
        with np.load(out / name) as one, np.load(measured / name) as other:
            assert all(one[key].tobytes() == other[key].tobytes() for key in one.files)


@pytest.fixture
def small(setting, tmp_path, monkeypatch) -> Path:
    """A folder with a link "model", a text and a lexicon, measured into "out" by `small_measure()`."""
    for name in ("model-3", "model-4", "text.txt"):
        (shutil.copytree if (setting / name).is_dir() else shutil.copy2)(setting / name, tmp_path / name)
    (tmp_path / "model").symlink_to("model-3")
    lexicon = {"attribute": "gender", "groups": {"female": ["she", "her", "girl"], "male": ["he", "him", "boy"]}}
    (tmp_path / "lexicon.json").write_text(json.dumps(lexicon))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measurement.collapse_figures, "draw_all", lambda *args: None)  # pictures take most of the time
    return tmp_path


def small_measure(*others: str) -> str:
    settings = MeasureSettings(
        corpus="text.txt", lexicon="lexicon.json", word_sets=("lexicon",), groups=2, held_out=0.0, permutations=0
    )
    return measurement.measure_models(["model", *others], settings, Path("out"))


def test_figures_are_those_of_a_text_in_memory(small, monkeypatch):
    with Path("text.txt").open("a", encoding="utf-8") as file:
        file.write("\u200b\n")
    monkeypatch.setattr(token_building, "CHUNK", 16)
    settings = MeasureSettings(
        corpus="text.txt",
        lexicon="lexicon.json",
        word_sets=("lexicon",),
        groups=4,
        held_out=0.25,
        permutations=0,
        max_sentences=90,
    )
    measurement.measure_models(["model"], settings, Path("out"))
    content = json.loads(Path("out/measures.json").read_text(encoding="utf-8"))
    assert [(note["rows"], note["lines"]) for note in content["left_out"]] == [(201, [201])]  # beyond what is used
    assert {path.name for path in Path("out").iterdir()} >= {"survey", "stats.npz"}
    assert not list(Path("out").rglob("tokens*"))

    model = load_pretrained("model")
    examples = encode_sentences(Path("text.txt").read_text(encoding="utf-8").splitlines()[:90], model.tokenizer, 40)
    groups = np.array_split(np.arange(90), 4)  # of 23, 23, 22 and 22; 5 of each are held out
    kept, aside = ([examples[i] for run in groups for i in run[part]] for part in (slice(-5), slice(-5, None)))
    words = build_classes(load_lexicon("lexicon.json"), model.tokenizer)
    weight, bias = (np.asarray(x)[words.token_ids] for x in family_of(model.config).classifier(model.params))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    options = {"row_tokens": 40, "groups": 4, "mesh": mesh}
    (moments,) = survey(model.config, model.params, kept, words, features=("transform",), **options).values()
    held = {"lexicon": HeldOut(words, reduce(merge, moments), weight, bias)}
    (nc4,) = survey_nc4(model.config, model.params, aside, held, **options).values()
    wanted = measure_groups(moments, weight, bias, nc4)
    found = from_json(content).sets["lexicon"]
    np.testing.assert_equal(found.figures, wanted.figures)
    np.testing.assert_equal(found.without, wanted.without)
    assert (content["sentences"], content["held_out"]) == (len(kept), len(aside)) == (70, 20)


MEASURED_ALONE = """
import sys
from pathlib import Path
from ncfair_jax.measurement import MeasureSettings, measure_models
model, text, out = sys.argv[1:]
measure_models([model], MeasureSettings(corpus=text, permutations=0, word_sets=("lexicon",)), Path(out), offline=True)
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_text(tmp_path):
    """In memory, the sentences and tokens of the longer text would take 140 MB more: a fifth of what the process needs."""
    model, text = tiny_text.write(tmp_path)
    short = "\n".join(tiny_text.sentences(10_000)) + "\n"  # 0.4 MB
    peaks = []
    for times in (1, 10):
        text.write_text(short * times, encoding="utf-8")
        done = run(sys.executable, "-c", MEASURED_ALONE, str(model), str(text), str(tmp_path / f"out-{times}"))
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < 1.1 * peaks[0], peaks


def exchange(name: str, old: str, new: str) -> None:
    """Another file of the same size and time under the same name."""
    path, stat = Path(name), Path(name).stat()
    Path("other").write_text(path.read_text().replace(old, new))
    os.utime("other", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    Path("other").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def relink(target: str) -> None:
    Path("model").unlink()
    Path("model").symlink_to(target)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: relink("model-4"), "model: "),
        (lambda: exchange("text.txt", " he ", " me "), "corpus: "),
        (lambda: exchange("lexicon.json", "girl", "bara"), "lexicon: "),
    ],
)
def test_a_measurement_of_other_content_is_made_again(small, monkeypatch, capsys, change, told):
    first = small_measure()
    with monkeypatch.context() as patch:
        patch.setattr(measurement, "load_pretrained", None)  # nothing is loaded
        assert small_measure() == first
        for name in ("text.txt", "lexicon.json", "model-3/model.safetensors"):
            os.utime(name, ns=(1, 1))
        assert small_measure() == first
    change()
    second = small_measure()
    assert f"out is measured again: {told}" in capsys.readouterr().err
    shutil.rmtree("out")
    assert small_measure() == second != first


def test_killed_while_measuring_again_it_goes_on_and_shows_nothing_old(small, monkeypatch):
    small_measure()
    relink("model-4")
    with monkeypatch.context() as patch:
        patch.setattr(measurement, "write_words", None)  # as if killed before the results are written
        with pytest.raises(TypeError):
            small_measure()
    left = {str(path) for path in Path("out").rglob("*") if path.is_file()}
    assert {"out/survey/group-000.npz", "out/survey/group-001.npz"} <= left
    assert not {"out/table.md", "out/measures.json"} & left
    with monkeypatch.context() as patch:
        patch.setattr(StoredGroups, "write", None)  # the survey is not made a second time
        second = small_measure()
    shutil.rmtree("out")
    assert small_measure() == second


def test_an_unfinished_measurement_of_another_model_is_refused(small):
    small_measure()
    Path("out/measures.json").unlink()
    relink("model-4")
    with pytest.raises(
        SurveyError, match=r"holds another survey: survey\.weights: .* Use another folder, or delete it"
    ):
        small_measure()


def test_figures_of_an_earlier_version_are_made_again(small, capsys):
    first = small_measure()
    document = json.loads(Path("out/measures.json").read_text())
    del document["content"]
    Path("out/measures.json").write_text(json.dumps(document))
    Path("out/digests.json").unlink()  # earlier versions wrote none
    assert small_measure() == first
    assert "measured again: its figures are of an earlier version" in capsys.readouterr().err
    document["content"] = json.loads(Path("out/measures.json").read_text())["content"] | {"figures": "version 1"}
    Path("out/measures.json").write_text(json.dumps(document))
    Path("out/digests.json").unlink()
    assert small_measure() == first
    assert "measured again: figures: version " in capsys.readouterr().err


def flip(path: str, place: float) -> None:
    content = bytearray(Path(path).read_bytes())
    content[int(place * len(content))] ^= 1
    Path(path).write_bytes(content)


@pytest.mark.parametrize("name", ["measures.json", "words.csv", "stats.npz"])
def test_a_damaged_measurement_is_made_again_and_said(small, capsys, name):
    first, whole = small_measure(), {name: Path("out", name).read_bytes()}
    flip(f"out/{name}", 0.5)
    assert small_measure() == first
    assert f"out/{name} is damaged (its SHA-256 is not that of what was written); out is measured again" in (
        capsys.readouterr().err
    )
    assert {name: Path("out", name).read_bytes()} == whole


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.9])
def test_a_damaged_group_of_an_unfinished_measurement_is_made_again(small, capsys, place):
    first = small_measure()
    Path("out/measures.json").unlink()
    Path("out/digests.json").unlink()
    flip("out/survey/group-001.npz", place)
    assert small_measure() == first
    if 0.1 < place < 0.8:  # elsewhere the archive has fields, such as times, that nothing depends on
        assert "out/survey/group-001.npz is damaged (" in capsys.readouterr().err


def test_a_refusal_is_one_line(setting, measured):
    done = run(*command(setting, measured, "--groups=5"))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "measured with other settings: settings.groups" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"word_sets": ("lexicon", "common")}, "word set 'common'; choose from lexicon"),
        ({"layer": "first"}, "layer='first'; last, all, or a number"),
        ({"held_out": 1.0}, "a share from 0 to below 1"),
        ({"corpus": "nowhere.txt"}, "nowhere.txt"),
        ({"lexicon": "age"}, "age"),
        ({"model": "nowhere/model"}, "nowhere/model"),
    ],
)
def test_refusals(setting, changes, message):
    changes = {"corpus": str(setting / "text.txt")} | changes
    models = [str(setting / "model-3"), changes.pop("model", str(setting / "model-4"))]
    with pytest.raises(USER_ERRORS, match=message):
        measure_models(models, MeasureSettings(**changes), setting / "refused", offline=True)


def test_settings_names_and_split():
    with pytest.raises(MeasureError, match="transform follows the last layer"):
        MeasureSettings(layer="2")
    with pytest.raises(MeasureError, match="permutation test is of the lexicon"):
        MeasureSettings(word_sets=("full",))
    assert folder_names(["a/bert", "b/bert", "c/x", "d/bert"]) == ["bert", "bert-2", "x", "bert-3"]
    assert folder_names(["runs/cda-seed0/export", "bert"]) == ["cda-seed0", "bert"]
    examples = [np.array([number]) for number in range(20)]
    collected, held_out = split(examples, 4, 0.4)
    assert [int(x[0]) for x in held_out] == [3, 4, 8, 9, 13, 14, 18, 19]
    assert len(collected) + len(held_out) == 20
    assert list(split(examples, 4, 0.0)[1]) == []
