"""What a report says of complete, incomplete and broken folders, in all three formats."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from ncfair_jax.benchmarks import compare, compare_many
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.benchmarks.results import read_table
from ncfair_jax.collapse.jackknife import Measured
from ncfair_jax.collapse.measures import VERSION
from ncfair_jax.collapse.model_measures import ModelMeasures, to_json
from ncfair_jax.config import to_dict
from ncfair_jax.files.notes import Cut, Skipped, as_json
from ncfair_jax.files.sources import DataError
from ncfair_jax.finished import WorkdirError
from ncfair_jax.manifest import Entry, Manifest
from ncfair_jax.recipes import base_config, finetuning_config
from ncfair_jax.registry import METHODS, freeze, training_text
from ncfair_jax.report import latex, markdown
from ncfair_jax.report.comparisons import NO_INTERVAL
from ncfair_jax.report.html import page
from ncfair_jax.report.measured import write_models
from ncfair_jax.report.runs import ReportError
from ncfair_jax.report.summary import shared_before, summarise_folders
from ncfair_jax.report.tables import all_tables, difference_tables, quality_table, setup_tables, summary_table
from ncfair_jax.tasks.classification.loss import TASKS
from tests.report.conftest import HOSTILE
from tests.started import ROOT, environment


@pytest.fixture(scope="module")
def both(runs):
    return summarise_folders([runs / "first", runs / "second"])


def cells(table, row, column):
    found = [line for line in table.rows if line[0].text == row]
    assert len(found) == 1, [line[0].text for line in table.rows]
    return found[0][table.header.index(column)]


def test_a_run_alone_shows_before_after_and_the_paired_change(runs):
    table = summary_table(summarise_folders([runs / "first"]))
    document = json.loads((runs / "first/evals/after/masked_lm.json").read_text())
    cell = cells(table, "Held-out loss, nats", "After")
    assert cell.sort == document["metrics"]["loss"]
    low, high = document["intervals"]["loss"]
    assert cell.text == f"{document['metrics']['loss']:.4f}"
    assert cell.note == f"[{low:.4f}, {high:.4f}]"
    rows = {row.name: row for row in compare(runs / "first/evals/before", runs / "first/evals/after")}
    assert cells(table, "Held-out loss, nats", "Change").sort == rows["Held-out loss, nats"].difference
    assert cells(table, "Held-out loss, nats", "p").sort == rows["Held-out loss, nats"].p
    distance = cells(table, "|StereoSet SS, % − 50|", "p")
    assert (distance.text, distance.sort) == ("–", None)  # two terms
    assert NO_INTERVAL in table.caption
    assert [row[-1].text for row in table.rows] == sorted(
        (row[-1].text for row in table.rows), key=["Fairness", "Utility", "Collapse"].index
    )
    nc3 = json.loads((runs / "first/result.json").read_text())["after"]["collapse"]["transform"]["nc3"][0]
    assert cells(table, "NC3, transform features", "After").sort == nc3


def test_two_runs_stand_beside_one_start_and_are_compared_with_the_first(runs, both):
    table = summary_table(both)
    assert table.header == ("Figure", "Before", "first", "second", "n", "Ideal", "About")
    against = difference_tables(both)[-1]
    assert against.title == "Against first"
    assert "Holm" in difference_tables(both)[0].caption and "Holm" not in against.caption
    assert {row.p_holm is None for rows in both.changes.values() for row in rows} == {False}
    rows = {row.name: row for row in compare(runs / "first/evals/after", runs / "second/evals/after")}
    assert cells(against, "Pseudo-perplexity", "second").sort == rows["Pseudo-perplexity"].difference
    differing = setup_tables(both)[0]
    assert [row[0].text for row in differing.rows] == ["nc3.weight"]
    assert [cell.text for cell in differing.rows[0]] == ["nc3.weight", "0", "1"]


@pytest.fixture
def swept(runs, tmp_path) -> Path:
    """A sweep's folder without anything that says what is in it: arms "b" and "a" with two seeds each."""
    for name, run in (("b-seed0", "first"), ("b-seed1", "second"), ("a-seed0", "second"), ("a-seed1", "second")):
        shutil.copytree(runs / run, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "export", "before"))
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"seed": int(name[-1])}))
    shutil.copytree(runs / "first/evals/before", tmp_path / "start/0123")
    return tmp_path


def write_manifest(folder: Path, *unbegun: Entry) -> None:
    runs = [Entry(arm, seed, f"{arm}-seed{seed}", "m", "start/0123") for seed in (1, 0) for arm in "ba"]
    Manifest(folder, [*runs, *unbegun])


def test_arms_of_a_sweep_are_averaged_over_seeds(runs, swept):
    write_manifest(swept)
    summary = summarise_folders([swept])
    assert [group.name for group in summary.groups] == ["b", "a"]
    (note,) = summary.notes
    assert (
        "816 of 820 words are not one token of this vocabulary" in note
    )  # of the tiny model, which NC3's arms ran into
    table = summary_table(summary)
    values = [
        json.loads((runs / f"{name}/evals/after/masked_lm.json").read_text())["metrics"]["loss"]
        for name in ("first", "second")
    ]
    cell = cells(table, "Held-out loss, nats", "b")
    assert cell.sort == pytest.approx(np.mean(values))
    assert cell.note == f"± {np.std(values, ddof=1):.4f}"
    assert cells(table, "Held-out loss, nats", "Before").note.startswith("[")
    assert set(summary.changes) == {"a", "b"} and set(summary.against) == {"a"}
    assert "polygon" in page(summary)  # the spread of the curves


def test_runs_that_have_not_begun_are_named(swept):
    write_manifest(swept, Entry("c", 0, "c-seed0", "m", "start/4567", "failed"), Entry("d", 0, "d-seed0", "m", "x"))
    summary = summarise_folders([swept])
    assert [group.name for group in summary.groups] == ["b", "a"]
    assert {"c-seed0 failed before it began", "d-seed0 has not begun"} <= set(summary.notes)


def test_a_run_inside_a_sweep_finds_its_start(swept):
    write_manifest(swept)
    summary = summarise_folders([swept / "a-seed1"])
    assert set(summary.changes) == {"a-seed1"}
    (swept / "sweep.json").unlink()  # of a finished run, the folder with the figures in its result
    assert repr(summarise_folders([swept / "a-seed1"]).changes) == repr(summary.changes)  # a p may be NaN


def test_a_finished_sweep_of_an_earlier_version_is_read_by_its_figures(swept):
    write_manifest(swept)
    expected = markdown.markdown(summarise_folders([swept]))
    (swept / "sweep.json").unlink()
    with pytest.raises(
        ValueError, match=r"has no sweep\.json .*; run the sweep's command again, .* or name the folders"
    ):
        summarise_folders([swept])
    (swept / "figures.json").write_text(json.dumps({"start": {}, "arms": {"b": [], "a": []}, "comparisons": {}}))
    assert markdown.markdown(summarise_folders([swept])) == expected


def test_figures_without_doubtful_examples_stand_in_a_table(runs, both):
    table = quality_table(both)
    document = json.loads((runs / "second/evals/after/masked_lm.json").read_text())["quality"]["duplicate"]
    (row,) = [line for line in table.rows if (line[0].text, line[1].text) == ("Held-out loss, nats", "duplicate")]
    assert row[2].sort == document["flagged"] > 0
    figures = document["headlines"]["Held-out loss, nats"]
    assert row[table.header.index("second")].sort == figures["figure_without"]
    assert row[-1].note == f"[{figures['figure']:.4f}]"
    assert all(line[2].sort > 0 for line in table.rows)
    assert "Figures without the examples" in page(both) and "Data quality" in markdown.markdown(both)


def test_the_start_is_shown_once_where_some_groups_are_judged_by_more(both):
    first, second = both.groups
    run = second.runs[0]
    dropped = dict(list(run.before.figures.items())[1:])
    fewer = replace(second, runs=(replace(run, before=replace(run.before, figures=dropped)),))
    assert shared_before([fewer, first]) is first.runs[0].before
    other = replace(run.before, figures=dropped | {name: replace(f, value=-1.0) for name, f in dropped.items()})
    assert shared_before([first, replace(second, runs=(replace(run, before=other),))]) is None
    assert shared_before([]) is None


def test_three_runs_have_their_p_values_adjusted(runs):
    folders = [runs / name for name in ("first/evals/before", "first/evals/after", "second/evals/after")]
    summary = summarise_folders(folders)
    names = [group.name for group in summary.groups]
    assert names == ["before", "first/evals/after", "second/evals/after"]
    assert [g.name for g in summarise_folders([runs / "first"] * 2).groups][1].endswith("first (2)")
    expected = compare_many(dict(zip(names, folders, strict=True)))
    assert repr(summary.against) == repr(expected)  # a p that cannot be had is NaN, which equals nothing
    (table,) = difference_tables(summary)
    assert "Holm" in table.caption and "Holm" not in difference_tables(summarise_folders(folders[:2]))[0].caption
    shown = cells(table, "Held-out loss, nats", "p").sort
    assert shown == next(row.p_holm for row in expected[names[1]] if row.name == "Held-out loss, nats")


def test_the_most_stereotyped_examples_come_first(runs, both):
    drilled = {item.benchmark: item for item in both.drilled}
    assert set(drilled) == {"crows_pairs", "stereoset", "bec_pro"}
    crows = drilled["crows_pairs"].examples["first"]
    with (runs / "data/crows_pairs/crows_pairs_anonymized.csv").open() as file:
        sentences = {row["sent_more"]: row["sent_less"] for row in csv.DictReader(file)}
    for when in ("before", "after"):
        table = read_table(runs / f"first/evals/{when}/crows_pairs.csv", BENCHMARKS["crows_pairs"].columns)
        gaps = dict(zip(sentences, np.subtract(table["score_more"], table["score_less"]), strict=True))
        for quoted in crows:
            assert sentences[quoted.stereotyped] == quoted.other
            assert getattr(quoted, when) == pytest.approx(gaps[quoted.stereotyped])
    strengths = [quoted.after for quoted in crows]
    assert strengths == sorted(strengths, reverse=True)
    for quoted in drilled["bec_pro"].examples["first"]:
        # The woman with the nurse, the man with the other profession.
        stereotyped = "she" if "nurse" in quoted.stereotyped else "he"
        words = quoted.stereotyped.split()
        assert stereotyped in words or {"she": "woman", "he": "man"}[stereotyped] in words
        assert quoted.other != quoted.stereotyped
    for quoted in drilled["stereoset"].examples["first"]:
        assert "BLANK" not in quoted.stereotyped + quoted.other


def test_sentences_of_older_runs_come_from_their_data_or_stay_names(copy, tmp_path):
    run = copy("first")
    told = [item.examples["first"] for item in summarise_folders([run]).drilled]
    for path in run.glob("evals/after/*_texts.csv"):
        path.unlink()
    assert [item.examples["first"] for item in summarise_folders([run]).drilled] == told
    config = json.loads((run / "config.json").read_text())
    config["evals"]["data"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    crows = summarise_folders([run]).drilled[0].examples["first"]
    assert re.fullmatch(r"index \d, bias_type \w+, direction \w+", crows[0].stereotyped)
    assert [quoted.after for quoted in crows] == [quoted.after for quoted in told[0]]


def test_a_result_folder_of_evaluate_is_a_run(runs):
    summary = summarise_folders([runs / "first/evals/before", runs / "first/evals/after"])
    assert summary_table(summary).header == ("Figure", "before", "after", "n", "Ideal", "About")
    assert "Held-out loss" in page(summary)
    assert summary.notes == ()


def test_missing_parts_are_named(copy):
    run = copy("first")
    shutil.rmtree(run / "evals/before")
    for name in ("metrics.jsonl", "environment.json", "evals/after/stereoset.json"):
        (run / name).unlink()
    text = " ".join(summarise_folders([run]).notes)
    for told in ("compared example by example", "metrics.jsonl", "stereoset has no result after", "command, versions"):
        assert told in text
    shutil.rmtree(run / "evals")
    (run / "result.json").unlink()
    summary = summarise_folders([run])
    assert "not finished: it has logged no step" in " ".join(summary.notes)
    for render in (page, markdown.markdown, latex.latex):
        assert "text.txt" in render(summary)


def test_a_run_that_goes_on_shows_its_curves(copy):
    run = copy("second")
    shutil.rmtree(run / "evals/after")
    (run / "result.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    summary = summarise_folders([run])
    assert "not finished: its last logged step is 6" in " ".join(summary.notes)
    assert page(summary).count("<polyline") >= 4


FIGURES = r"figures\.json: not as this package writes it .*; delete it and the run's result.json, and the run's"


def broken(run, name, text):
    (run / name).write_text(text)
    return run


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda run: broken(run, "config.json", '{"name": "x'), r"config\.json:1: .*cut off"),
        (lambda run: broken(run, "evals/after/stereoset.json", '{"benchmark"'), r"after/stereoset\.json:1: .*cut off"),
        (
            lambda run: broken(run, "evals/after/stereoset.json", "{}"),
            r"stereoset\.json: the file lacks 'model'; .*evaluate the model again",
        ),
        (
            lambda run: broken(run, "evals/after/figures.json", "[]"),
            r"figures\.json: the file holds a list, expected an",
        ),
        (
            lambda run: broken(run, "evals/after/figures.json", '{"benchmarks": [], "collapse": {"hidden": {}}}'),
            FIGURES,
        ),
        (lambda run: broken(run, "result.json", "{}"), r"result\.json: the file lacks 'before'; delete it"),
        (
            lambda run: broken(run, "environment.json", '[{"command": 1}]'),
            r"'command' holds a whole number, expected a text",
        ),
        (lambda run: broken(run, "left_out.json", "[[]]"), r"left_out\.json: an entry of the file holds a list"),
        (lambda run: run / "evals", r"evals holds no run and no results; name the --workdir"),
        (lambda run: run / "export", r"export is an exported model, not a run; name the --workdir"),
        (lambda run: run / "nothing", r"nothing is not a folder; name the --workdir"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(copy, breaks, message):
    with pytest.raises((ReportError, DataError), match=message) as caught:
        summarise_folders([breaks(copy("first"))])
    assert "\n" not in str(caught.value)


def fault_of(folders) -> str:
    """What a report of the folders refuses; "" if it can be made."""
    try:
        summary = summarise_folders(folders)
        for render in (page, markdown.markdown, latex.latex):
            render(summary)
    except (ReportError, DataError, WorkdirError) as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_every_damaged_file_is_named_in_one_line_or_left_out(copy):
    """Cut off, empty, of another form or without a key: no traceback, whichever file it is."""
    run = copy("first")
    files = [path for path in sorted(run.rglob("*.json")) if "export" not in path.parts]
    assert len(files) >= 8
    for path in files:
        whole = path.read_text()
        content = json.loads(whole)
        damaged = [whole[: len(whole) // 2], "", "null", "[]", "{}", "[[]]", "\0"]
        if isinstance(content, dict):
            damaged += [json.dumps({key: value for key, value in content.items() if key != left}) for left in content]
            damaged += [
                json.dumps(content | {key: value}) for key, value in zip(content, cycle([None, [1]]), strict=False)
            ]
        for text in damaged:
            path.write_text(text)
            said = fault_of([run])
            assert not said or (path.name in said and "\n" not in said), (path, text[:100])
        path.write_text(whole)


def test_damaged_lines_of_metrics_are_noted_and_left_out(copy):
    run = copy("first")
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    (run / "metrics.jsonl").write_bytes(b"\n".join([lines[0], b"\0\0", b'{"step": 1', *lines[1:], b'{"step": 9, "lo']))
    summary = summarise_folders([run])
    assert [re.sub(".*/", "", note)[:36] for note in summary.notes if "metrics" in note] == [
        "metrics.jsonl:2: the line is damaged", "metrics.jsonl:3: the line is damaged",
    ]  # fmt: skip
    assert len(summary.groups[0].runs[0].metrics) == len(lines)


def test_untrusted_text_is_escaped_in_every_format(copy):
    run = copy("first")
    texts = (run / "evals/after/crows_pairs_texts.csv").read_text().splitlines()
    with (run / "evals/after/crows_pairs_texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["stereotyped", "other"], *[[HOSTILE, "[a](javascript:x)"]] * (len(texts) - 1)])
    hostile = run.rename(run.with_name("r<script>&_%"))
    summary = summarise_folders([hostile])
    text = page(summary)
    assert "<img src=x" not in text and text.count("<script>") == 1
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "http" not in re.sub(r"http-equiv", "", text)
    text = markdown.markdown(summary)
    assert re.search(r"(?<!\\)<(img|script)", text) is None
    assert r"\<img src=x onerror=alert(1)\> 50% a\_b \| \#1 \& \$x\$" in text
    assert "](javascript" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in rows if "onerror" in line}) == 1
    text = latex.latex(summary)
    assert r"\textless{}script\textgreater{}\&\_\%" in text
    assert re.search(r"(?<!\\)[%&#](?![^\n]*booktabs)", text.replace(" & ", " ")) is None


def test_latex_tables_are_rectangular(both):
    for table in all_tables(both):
        lines = latex.table_latex(table).splitlines()
        columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", "\n".join(lines))[1]
        rows = [line for line in lines if line.endswith(r"\\")]
        assert len(rows) == 1 + len(table.rows)
        assert all(len(re.split(r"(?<!\\)&", row)) == len(columns) for row in rows)


def test_a_run_leaves_its_environment_its_report_and_its_card(runs):
    run = runs / "second"
    (entry,) = json.loads((run / "environment.json").read_text())
    assert entry["ended"] == "finished" and entry["wall_seconds"] > 0
    assert {"python", "jax", "flax", "ncfair_jax"} <= set(entry["versions"])
    assert "cpu" in entry["devices"]
    text = (run / "report.html").read_text()
    (missing,) = re.findall(r"<h2>What is missing</h2><ul>(.*?)</ul>", text)
    assert missing.count("<li>") == 1 and "816 of 820 words are not one token of this vocabulary" in missing
    assert "NC3 loss: sd of cosines" in text and entry["started"] in text
    card = (run / "export/README.md").read_text()
    assert f"text: text ({runs / 'text.txt'})" in card.replace("\\", "")
    assert "| Held-out loss, nats |" in card and "Most stereotyped" not in card


def test_rows_and_tokens_that_were_left_out_are_reported(runs, copy):
    assert json.loads((runs / "first/left_out.json").read_text()) == []
    run = copy("first")
    cut, skipped = Cut(32, 24, 2, 200, 9), Skipped("dev.json", 2106, (7,), "no id", "row")
    (run / "left_out.json").write_text(json.dumps(as_json([cut])))
    path = run / "evals/after/stereoset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"left_out": as_json([skipped])}))
    notes = summarise_folders([run]).notes
    assert (
        "training data: 2 of 24 texts are longer than 32 tokens and were cut: 9 of 200 tokens are lost (4.50 %)"
        in notes
    )
    assert "stereoset: dev.json: 1 of 2106 rows are malformed and were skipped (row 7); the first: no id" in notes


def test_the_card_names_the_text_of_each_method(runs):
    config = json.loads((runs / "first/config.json").read_text())

    def text(method, **changes):
        tree = json.loads(json.dumps(config))
        tree["objective"]["name"] = method
        for path, value in changes.items():
            section, name = path.split("__")
            tree.setdefault(section, {})[name] = value
        return training_text(tree)

    assert text("mabel", mabel__pairs="p.csv") == "entailment pairs of p.csv, with their gender-swapped copies"
    assert "generated from templates" in text("mabel", mabel__pairs="templates")
    assert text("ase", ase__source="csv", data__path="folder") == "original_data.csv and flipped_data.csv of folder"
    assert text("ase", data__path="", data__counterfactual="two_sided") == "GAP, originals and swapped counterfactuals"
    assert text("adept", data__corpus="hub", data__path="a/b", data__subset="c") == "Hub data set (a/b c)"
    coref = text("coref", coref__train="ontonotes/train", data__corpus="gap", data__path="")
    assert coref == "documents with marked coreference, ontonotes/train"


@pytest.mark.parametrize(
    ("task", "path", "expected"),
    [
        ("bios", "", "biographies of Bias-in-Bios (LabHC/bias_in_bios)"),
        ("bios", "b/bios", "biographies of Bias-in-Bios (b/bios)"),
        ("bias_nli", "", "entailment pairs of SNLI (stanfordnlp/snli)"),
        ("bias_nli", "nyu-mll/multi_nli", "entailment pairs of nyu-mll/multi_nli"),
        ("cola", "", "CoLA of GLUE (nyu-mll/glue)"),
        ("rte", "GLUE", "RTE of GLUE (GLUE)"),
    ],
)
def test_the_card_of_a_labelled_task_names_its_data(task, path, expected):
    config = finetuning_config("x", task)
    config.data.path = path
    assert training_text(to_dict(freeze(config))) == expected


def test_every_method_and_task_has_a_text_of_its_own():
    """A new method that reads no corpus must not be said to train on GAP, the default of a field that it does not read."""
    reads_a_corpus = {"mlm", "adept"}
    for method in METHODS:
        config = base_config("aligned", method=method)
        if method == "ase":
            config.ase.source = "winobias"
        for task in TASKS if method == "classification" else [""]:
            if task:
                config.classification.task = task
            assert ("GAP" in training_text(to_dict(freeze(config)))) == (method in reads_a_corpus), (method, task)


def test_a_measurement_shows_its_table_and_pictures(tmp_path):
    (tmp_path / "figures").mkdir()
    png = bytes.fromhex("89504e470d0a1a0a")
    (tmp_path / "figures/by_layer.png").write_bytes(png)
    (tmp_path / "table.md").write_text("for people")
    for name, nc1 in (("c", 0.0673), ("a|b", 0.0655)):
        measured = Measured({"nc1": nc1}, {"nc1": [nc1 - 0.001, nc1 + 0.001]})
        found = ModelMeasures(f"models/{name}", {"lexicon": 54}, 90, 10, {"lexicon": measured}, {}, [])
        (tmp_path / name).mkdir()
        (tmp_path / name / "measures.json").write_text(json.dumps(to_json(found, {})))
    notes = summarise_folders([tmp_path]).notes
    assert "measured with another version of the figures' definition" in notes[0]
    assert "does not say in which order its models were named" in notes[1]
    for path in tmp_path.glob("*/measures.json"):
        content = {"content": {"figures": f"version {VERSION}"}}
        path.write_text(json.dumps(json.loads(path.read_text()) | content))
    write_models(tmp_path, ["c", "a|b"])
    summary = summarise_folders([tmp_path])
    assert summary.notes == ()
    assert summary.measured[0].tables[0].header[3:] == ("c", "corrected", "a|b", "corrected", "gap", "ratio")
    text = page(summary)
    assert '<img src="data:image/png;base64,iVBORw0KGgo="' in text
    assert "a|b" in text and "[0.0546, 0.0800]" in text and "−0.0018" in text
    assert r"| a\|b |" in markdown.markdown(summary)
    (tmp_path / "c" / "measures.json").write_text('{"settings": {}}')
    with pytest.raises(
        DataError, match=r"c/measures\.json: not as this package writes it .*; delete it and measure again"
    ):
        summarise_folders([tmp_path])


def test_the_command(copy, tmp_path):
    run, flags = (
        copy("first"),
        [f"--{kind}={tmp_path / name}" for kind, name in (("out", "r.html"), ("latex", "t.tex"))],
    )
    done = command(run, *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").read_text() == page(summarise_folders([run]))
    assert (tmp_path / "t.tex").read_text() == latex.latex(summarise_folders([run]))


def command(*arguments):
    script = [sys.executable, str(ROOT / "launch/report.py"), *map(str, arguments)]
    return subprocess.run(script, env=environment(), capture_output=True, text=True, timeout=120)
