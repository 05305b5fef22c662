"""What a finished, stopped or judged run is recognised by: the content of model, text and data, not their names."""

import contextlib
import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from ncfair_jax import evaluation, train
from ncfair_jax.benchmarks import registry
from ncfair_jax.benchmarks.compare import compare
from ncfair_jax.files.sources import DataError
from ncfair_jax.finished import WorkdirError
from ncfair_jax.manifest import read_manifest
from ncfair_jax.models.fingerprint import model_fingerprint
from ncfair_jax.models.hf import ModelFolderError, load_pretrained, save_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from ncfair_jax.report.runs import ReportError
from ncfair_jax.report.summary import summarise_folders
from ncfair_jax.stopping import Interrupted
from ncfair_jax.sweep import SweepError, run_arms
from tests.benchmarks import plain

LEXICON = {"attribute": "gender", "groups": {"female": ["she", "woman"], "male": ["he", "man"]}}


CONFIG = base_config("aligned")
CONFIG.name = "tiny"
CONFIG.model.path, CONFIG.data.corpus, CONFIG.data.path = "model", "text", "text.txt"
CONFIG.data.max_tokens = CONFIG.data.row_tokens = 32
CONFIG.nc3.weight, CONFIG.nc3.lexicon = 1.0, "lexicon.json"
CONFIG.optimizer.learning_rate = 1e-2
CONFIG.train.batch_size, CONFIG.train.steps, CONFIG.train.log_every = 8, 4, 2
CONFIG.train.collapse_every = 0  # the words are too few for a control
CONFIG.evals.benchmarks, CONFIG.evals.data, CONFIG.evals.collapse_text = "crows_pairs,masked_lm", "data", "text.txt"
RUN = Path("run")


def write_setting(folder: Path) -> None:
    """Models "one" and "two", a link "model" to the first, a text, a lexicon, and the data of two benchmarks."""
    plain.write_data_folder(folder / "data")
    model = plain.pretrained("bert")
    save_pretrained(folder / "one", model)
    head = dict(model.params["mlm"]) | {
        "bias": model.params["mlm"]["bias"] + np.arange(len(model.params["mlm"]["bias"]))
    }
    save_pretrained(folder / "two", model._replace(params=dict(model.params) | {"mlm": head}))
    (folder / "model").symlink_to("one")
    (folder / "lexicon.json").write_text(json.dumps(LEXICON))
    sentences = ["the nurse said that he was tired", "a woman said that she was a nurse", "the man was a nurse"]
    (folder / "text.txt").write_text("\n".join(8 * sentences) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict]:
    """The setting with a finished run, and what it returned. Paths are relative, so that a copy is the same run."""
    folder = tmp_path_factory.mktemp("made")
    write_setting(folder)
    with contextlib.chdir(folder):
        return folder, train.train_and_evaluate(freeze(CONFIG), RUN)


@pytest.fixture
def result(made, tmp_path, monkeypatch) -> dict:
    """What the run returned; the test runs in a copy of the setting and the run, which it may change."""
    folder, result = made
    shutil.copytree(folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return result


def start() -> dict:
    """The command again."""
    return train.train_and_evaluate(freeze(CONFIG), RUN)


def relink(link: str, target: str) -> None:
    Path(link).unlink(missing_ok=True)
    Path(link).symlink_to(target)


def replace_keeping_size_and_time(name: str, old: str, new: str) -> None:
    """Another file under the same name, with the same size and time of change."""
    path = Path(name)
    stat, content = path.stat(), path.read_bytes()
    other = path.with_name("other")
    other.write_bytes(content.replace(old.encode(), new.encode(), 1))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert path.read_bytes() != content


def forbid(monkeypatch, *places: tuple[object, str]) -> None:
    def forbidden(*args, **named):
        raise AssertionError("this was to be read back")

    for owner, name in places:
        monkeypatch.setattr(owner, name, forbidden)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_second_start_loads_nothing_and_touched_files_are_the_same(result, monkeypatch):
    forbid(monkeypatch, (train, "prepare"), (train, "evaluate_model"))
    assert start() == result
    for path in ("text.txt", "one/model.safetensors", "lexicon.json", "data/crows_pairs/crows_pairs_anonymized.csv"):
        os.utime(path, ns=(1, 1))
    shutil.copytree("one", "copy")
    relink("model", "copy")
    assert start() == result


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model.path", lambda: relink("model", "two")),
        ("data.path", lambda: replace_keeping_size_and_time("text.txt", "tired", "nurse")),
        ("nc3.lexicon", lambda: replace_keeping_size_and_time("lexicon.json", "woman", "nurse")),
    ],
)
def test_a_finished_run_of_other_content_is_refused(result, field, change):
    change()
    before = contents(RUN)
    with pytest.raises(
        WorkdirError, match=rf"config\.{field}='.*{field}: [0-9a-f]{{16}} now, [0-9a-f]{{16}} then"
    ) as caught:
        start()
    assert str(caught.value).endswith("Use another --workdir, or put the earlier files back")
    assert "\n" not in str(caught.value)
    assert contents(RUN) == before


def test_a_stopped_run_of_other_content_is_refused_and_goes_on_with_the_files_back(result, monkeypatch):
    shutil.rmtree(RUN)
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_requested", lambda step, log_every: step == 2)
        with pytest.raises(Interrupted):
            start()
    relink("model", "two")
    with pytest.raises(WorkdirError, match=r"model\.path: [0-9a-f]{16} now"):
        start()
    relink("model", "one")
    assert start() == result


def test_a_run_that_did_not_record_its_content_is_refused(result):
    (RUN / "inputs.json").unlink()
    with pytest.raises(WorkdirError, match=r"earlier version.*use another --workdir, or delete it"):
        start()


def test_changed_benchmark_data_are_judged_again_with_the_same_model(result, monkeypatch, capsys):
    export, after = contents(RUN / "export"), contents(RUN / "evals" / "after")
    replace_keeping_size_and_time("data/crows_pairs/crows_pairs_anonymized.csv", "woman was", "nurse was")
    forbid(monkeypatch, (train, "train"))
    again = start()
    assert "benchmark crows_pairs: version" in capsys.readouterr().err
    card = {"run/export/README.md": b"", "run/export/digests.json": b""}  # the card has the new figures
    assert contents(RUN / "export") | card == export | card
    changed = {Path(name).name for name, content in contents(RUN / "evals" / "after").items() if after[name] != content}
    assert changed == {"crows_pairs.json", "crows_pairs.csv", "crows_pairs_texts.csv", "figures.json", "digests.json"}
    for when in ("before", "after"):
        assert again[when]["collapse"] == result[when]["collapse"]
        old, new = ({line[0]: line[1] for line in x[when]["benchmarks"]} for x in (result, again))
        assert old["Held-out loss, nats"] == new["Held-out loss, nats"]
    forbid(monkeypatch, (train, "prepare"))
    assert start() == again


def test_a_new_definition_is_judged_again(result, monkeypatch):
    newer = registry.BENCHMARKS["masked_lm"]._replace(version=1000)
    monkeypatch.setitem(registry.BENCHMARKS, "masked_lm", newer)
    monkeypatch.setattr(evaluation, "VERSION", 1000)
    forbid(monkeypatch, (train, "train"))
    again = start()
    for when in ("before", "after"):
        assert again[when]["benchmarks"] == result[when]["benchmarks"]
        assert again[when]["collapse"] == result[when]["collapse"]
        assert json.loads((RUN / "evals" / when / "masked_lm.json").read_text())["version"] == 1000
        assert again[when]["content"]["collapse"].startswith("version 1000, ")


def overwrite(name: str, change) -> None:
    path = RUN / name
    path.write_bytes(change(path.read_bytes()))


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda: save_pretrained(RUN / "export", load_pretrained("two")), "export/digests.json is damaged"),
        (lambda: overwrite("export/model.safetensors", flip), "export/model.safetensors is damaged"),
        (lambda: overwrite("export/model.safetensors", lambda x: x[:1000]), "export/model.safetensors is damaged"),
        (lambda: (RUN / "export" / "model.safetensors").unlink(), "export/model.safetensors is missing"),
        (lambda: shutil.rmtree(RUN / "export"), "run/export is missing"),
        (lambda: overwrite("result.json", lambda x: b"{}"), "result.json is damaged"),
        (lambda: overwrite("result.json", lambda x: x[: len(x) // 2]), "result.json"),
        (lambda: overwrite("result.json", flip), "result.json"),
        (lambda: (RUN / "result.json").unlink(), "result.json is missing"),
        (lambda: overwrite("report.html", flip), "report.html is damaged"),
        (lambda: overwrite("evals/after/crows_pairs.csv", flip), "evals/after/crows_pairs.csv is damaged"),
        (lambda: overwrite("evals/before/masked_lm.json", flip), "evals/before/masked_lm.json is damaged"),
        (lambda: overwrite("evals/after/figures.json", lambda x: b"{}"), "evals/after/figures.json is damaged"),
        (lambda: overwrite("evals/after/digests.json", lambda x: x[:100]), "evals/after/digests.json is damaged"),
        (lambda: shutil.rmtree(RUN / "evals" / "before"), "evals/before is missing"),
    ],
)
def test_what_is_missing_or_damaged_is_made_again_and_said(result, capsys, damage, told):
    def kept() -> dict[str, bytes]:  # the others tell of the time and of the commands
        others = ("environment.json", "report.html", "README.md", "digests.json", "tensorboard", ".lock", "damaged")
        return {name: content for name, content in contents(RUN).items() if not any(part in name for part in others)}

    before = kept()
    damage()
    assert start() == result
    errors = capsys.readouterr().err
    assert told in errors and "made again" in errors
    assert kept() == before
    assert "damaged" not in (RUN / "report.html").read_text()
    assert (RUN / "damaged" / "export-1").exists() == (told.startswith("export"))
    assert start() == result
    assert capsys.readouterr().err == ""


def test_a_report_says_what_is_damaged(result):
    assert summarise_folders([RUN]).notes == ()
    overwrite("export/model.safetensors", flip)
    assert "export/model.safetensors is damaged" in " ".join(summarise_folders([RUN]).notes)


def test_a_model_that_is_gone_is_named(result):
    os.unlink("model")
    with pytest.raises(ModelFolderError, match="model is neither a folder here nor in the Hub cache"):
        start()


def test_reports_say_which_figures_are_of_an_earlier_definition(result):
    assert summarise_folders([RUN]).notes == ()
    path = RUN / "evals" / "after" / "crows_pairs.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"version": document["version"] - 1}))
    path.with_name("digests.json").unlink()
    notes = " ".join(summarise_folders([RUN]).notes)
    assert "figures after of crows_pairs are of another version of their definition" in notes
    assert "were not compared: crows_pairs: the figures of" in notes
    with pytest.raises(DataError, match=r"different versions of their definition \(\d+ and \d+\); evaluate"):
        compare(RUN / "evals" / "before", RUN / "evals" / "after")


def test_results_of_two_models_in_one_folder_are_refused(result):
    shutil.copy(RUN / "evals" / "before" / "masked_lm.json", RUN / "evals" / "after")
    (RUN / "evals" / "after" / "digests.json").unlink()
    with pytest.raises(ReportError, match=r"results of two models: crows_pairs\.json .*masked_lm\.json"):
        summarise_folders([RUN])


# --- arms


def sweep(arms: str = "plain,next") -> ConfigDict:
    config = copy.deepcopy(CONFIG)
    config.nc3.weight, config.train.steps, config.evals.benchmarks, config.evals.collapse_text = 0.0, 2, "masked_lm", ""
    config.arms = ConfigDict({"plain": {}, "next": {"model": {"path": "@plain"}}})
    config.run_arms, config.seeds = arms, "0"
    return config


def judged_model(workdir: Path) -> set[str]:
    """Fingerprints of the models that the shared figures of the starts are of."""
    documents = [json.loads(path.read_text()) for path in workdir.glob("start/*/masked_lm.json")]
    return {document["fingerprints"]["model"] for document in documents}


def test_arms_follow_the_content_of_what_they_start_from(result, monkeypatch):
    work = Path("work")
    table = run_arms(sweep(), work)
    with monkeypatch.context() as patch:
        forbid(patch, (train, "prepare"))
        assert run_arms(sweep(), work) == table
        assert [run.status for run in read_manifest(work)] == ["finished", "finished"]
        assert all((work / path).is_dir() for run in read_manifest(work) for path in (run.folder, run.start))

        relink("model", "two")
        with pytest.raises(WorkdirError, match=r"plain-seed0 holds a run of other content"):
            run_arms(sweep(), work)
        shutil.rmtree(work / "plain-seed0")
        with pytest.raises(ModelFolderError, match="plain-seed0/export"):  # before anything is computed
            run_arms(sweep(), work)
    one, two = (model_fingerprint(load_pretrained(name)) for name in ("one", "two"))
    assert one in judged_model(work)
    run_arms(sweep("plain"), work)  # from the other model: the figures of the start follow
    assert two in judged_model(work) and one not in judged_model(work)
    with pytest.raises(WorkdirError, match=r"next-seed0 holds a run of other content: what config\.model\.path="):
        run_arms(sweep(), work)
    shutil.rmtree(work / "next-seed0")
    assert run_arms(sweep(), work) != table


def test_a_world_of_other_settings_is_refused(tmp_path):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "truth.json").write_text('{"sentences": 10, "bias": 0.5, "seed": 0, "occupations": {}}')
    config = sweep("plain")
    config.world.sentences, config.world.bias, config.model.path = 10, 0.9, str(tmp_path)
    message = r"world was generated with other settings: config\.world\.bias: 0\.9 here, 0\.5 there"
    with pytest.raises(SweepError, match=message):
        run_arms(config, tmp_path)
