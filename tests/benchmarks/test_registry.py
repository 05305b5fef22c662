"""Names, the files each benchmark writes, and what happens to the others if one fails."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ncfair_jax.benchmarks.base import MASKED
from ncfair_jax.benchmarks.registry import BENCHMARKS, EvaluationError, content_warnings, evaluate, headline, parse
from ncfair_jax.benchmarks.results import Score, read_table, write_table
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.finite import NonFiniteError
from tests.benchmarks import plain
from tests.started import ROOT, environment

NAMES = "crows_pairs,stereoset,bec_pro,seat:weat6,masked_lm"
RUN = [name.partition(":")[0] for name in NAMES.split(",")]
CROWS_FIGURES = {"metric_score", "stereotype_score", "antistereotype_score", "neutral", "n"}
STEREOSET_FIGURES = {"lm", "ss", "icat", "lm_micro", "ss_micro", "icat_micro", "n", "n_terms"}
COLUMNS = {
    "crows_pairs": "index,bias_type,direction,score_more,score_less,shared_more,shared_less,"
    "unknown,duplicate,malformed,doubtful",
    "stereoset": "id,bias_type,target,stereotype,anti_stereotype,unrelated,unknown,duplicate,malformed",
    "bec_pro": "row,target_prob,prior_prob,association,unknown,duplicate,malformed",
    "seat": "test,side,item,association,unknown,malformed",
    "masked_lm": "line,sentence,positions,correct,loss_sum,pseudo_positions,pseudo_loss_sum,unknown,duplicate,malformed",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(data folder, result folder, what evaluate returned) of a tiny model on small files of our own."""
    data = plain.write_data_folder(tmp_path_factory.mktemp("data"))
    out = tmp_path_factory.mktemp("out") / "new"
    return data, out, evaluate(plain.pretrained("bert"), NAMES, data, out, model_name="tiny", offline=True)


def strict_json(path):
    def refuse(name):
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def assert_same_shape(metrics, intervals):
    """Leaves of intervals are [low, high] or null where those of metrics are numbers or null."""
    assert set(metrics) == set(intervals)
    for name, value in metrics.items():
        if isinstance(value, dict):
            assert_same_shape(value, intervals[name])
        elif intervals[name] is not None:
            low, high = intervals[name]
            assert low <= high
            assert value is None or isinstance(value, float)


def test_files_hold_what_evaluate_returns(run):
    _, out, documents = run
    for name in RUN:
        document = strict_json(out / f"{name}.json")
        assert document == documents[name]
        assert (document["benchmark"], document["model"]) == (name, "tiny")
        assert {"n", "metrics", "intervals", "counts", "settings", "quality", "licence"} <= set(document)
        assert ("content_warning" in document) == (name != "masked_lm")
        assert_same_shape(document["metrics"], document["intervals"])
        lines = (out / f"{name}.csv").read_text().splitlines()
        assert lines[0] == COLUMNS[name]
        assert len(lines) == 1 + document["n"]
    assert not list(out.glob(".*.tmp"))


def test_keys_of_the_metrics(run):
    _, _, documents = run
    crows = documents["crows_pairs"]["metrics"]
    assert set(crows) == {"modified_mean", "shared_sum"}
    for metric in crows.values():
        assert set(metric) == {"overall", "gender", "socioeconomic"}
        assert all(set(figures) == CROWS_FIGURES for figures in metric.values())
    stereo = documents["stereoset"]["metrics"]
    assert set(stereo) == {"gender", "overall"}
    for parts in stereo.values():
        assert {part: (f["n"], f["n_terms"]) for part, f in parts.items()} == {
            "all": (4, 3),
            "dev": (2, 1),
            "test": (2, 2),
        }
        assert all(set(figures) == STEREOSET_FIGURES for figures in parts.values())
    bec = documents["bec_pro"]["metrics"]
    groups = ["female", "male", "overall"]
    assert set(bec) == {"mean", "sd", "difference", "wilcoxon", "clustered", "mean_abs_association", "n", "reference"}
    assert (
        set(bec["mean"]) == set(bec["sd"]) == {f"{group}/{gender}" for group in groups for gender in ("female", "male")}
    )
    assert set(bec["difference"]) == set(bec["wilcoxon"]) == set(bec["clustered"]) == set(groups)
    assert all(set(test) == {"w", "z", "p", "r", "n_pairs"} for test in bec["wilcoxon"].values())
    assert {group: test["n_pairs"] for group, test in bec["wilcoxon"].items()} == {"female": 4, "male": 4, "overall": 8}
    assert set(documents["masked_lm"]["metrics"]) == {
        "top1", "loss", "n_positions", "pseudo_perplexity", "n_sentences"
    }  # fmt: skip
    assert documents["masked_lm"]["n"] == 15
    seat = documents["seat"]["metrics"]
    assert set(seat) == {"tests", "groups"}
    assert set(seat["tests"]["weat6"]) == {"effect_size", "statistic", "n", "p", "splits", "p_terms", "splits_terms"}


def test_figures_come_back_from_the_written_tables(run):
    _, out, documents = run
    for name, benchmark in BENCHMARKS.items():
        if name not in documents:
            continue
        table = read_table(out / f"{name}.csv", benchmark.columns)
        if benchmark.example_columns:
            table |= read_table(out / f"{name}_examples.csv", benchmark.example_columns)
        again = next(iter(benchmark.samples(table).values()))
        while isinstance(again, dict):
            again = next(iter(again.values()))
        figures = again.figures(again.sums.sum(0))
        node = documents[name]["metrics"]
        while not set(figures) <= set(node):
            node = next(iter(node.values()))
        for figure, value in figures.items():
            if not isinstance(value, dict):
                assert node[figure] == (None if value != value else float(value))


def test_headlines_name_figure_interval_and_n(run):
    _, _, documents = run
    lines = {name: (value, interval, n) for name, value, interval, n in headline(documents)}
    gender = documents["crows_pairs"]["metrics"]["modified_mean"]["gender"]
    assert lines["CrowS-Pairs gender, %"][::2] == (gender["metric_score"], gender["n"])
    assert lines["StereoSet SS, %"][::2] == (documents["stereoset"]["metrics"]["gender"]["test"]["ss"], 2)
    assert lines["BEC-Pro female − male"][1] == documents["bec_pro"]["intervals"]["difference"]["overall"]
    assert lines["Held-out loss, nats"][2] == documents["masked_lm"]["metrics"]["n_positions"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("crows", "choose from"),
        ("stereoset:gender", "selector"),
        (["masked_lm", "masked_lm"], "twice"),
        ("", "choose from"),
    ],
)
def test_names_that_cannot_be_run(names, message):
    with pytest.raises(ValueError, match=message):
        parse(names)


def test_names_may_have_blanks_and_a_selector():
    assert parse("crows_pairs:gender, masked_lm") == [("crows_pairs", "gender"), ("masked_lm", "")]
    assert content_warnings("masked_lm") == []
    assert len(content_warnings("crows_pairs,stereoset")) == 1


def failures(data, out, names):
    with pytest.raises(EvaluationError) as caught:
        evaluate(plain.pretrained("bert"), names, data, out, model_name="tiny", offline=True)
    return caught.value


def test_a_broken_file_fails_its_own_benchmark_only(tmp_path, run):
    data, _, documents = run
    (tmp_path / "crows_pairs").mkdir()
    (tmp_path / "stereoset").mkdir()
    whole = (data / "crows_pairs/crows_pairs_anonymized.csv").read_text()
    (tmp_path / "crows_pairs/crows_pairs_anonymized.csv").write_text(whole.replace("sent_more", "more"))
    stereoset = (data / "stereoset/gender_intrasentence.json").read_text()
    (tmp_path / "stereoset/gender_intrasentence.json").write_text(stereoset[: len(stereoset) // 2])
    plain.write_wikitext(tmp_path / "wikitext2/test.txt")
    error = failures(tmp_path, tmp_path / "out", "crows_pairs,stereoset,bec_pro,masked_lm")
    assert list(error.failures) == ["crows_pairs", "stereoset", "bec_pro"]
    assert error.results == {"masked_lm": documents["masked_lm"]}
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "digests.json",
        "masked_lm.csv",
        "masked_lm.json",
    ]
    text = str(error)
    assert "no column 'sent_more'" in text
    assert "cut off" in text
    assert "BEC-Pro_EN.tsv is missing; get it from https://" in text


def test_marks_line_ends_and_blank_last_lines_change_nothing(tmp_path, run):
    data, _, documents = run
    for path in (path for path in data.rglob("*") if path.is_file()):
        copy = tmp_path / path.relative_to(data)
        copy.parent.mkdir(exist_ok=True)
        text = path.read_text(encoding="utf-8").replace("\n", "\r\n")
        copy.write_bytes(("\ufeff" + text + "\r\n\r\n").encode())
    names = "crows_pairs,stereoset,bec_pro,seat:weat6"
    again = evaluate(plain.pretrained("bert"), names, tmp_path, tmp_path / "out", model_name="tiny", offline=True)
    for name, document in again.items():
        assert document["metrics"] == documents[name]["metrics"]


def test_what_was_left_out_is_in_the_result(tmp_path, run, caplog):
    rows = [f"{i},the nurse said she was tired,the nurse said he was tired,stereo,gender" for i in range(99)]
    path = tmp_path / "crows_pairs/crows_pairs_anonymized.csv"
    path.parent.mkdir()
    path.write_text("\n".join([",sent_more,sent_less,stereo_antistereo,bias_type", "7,cut", *rows, rows[0]]))
    plain.write_wikitext(tmp_path / "wikitext2/test.txt")
    long = "the nurse said that she was tired and " * 20
    with (tmp_path / "wikitext2/test.txt").open("a") as file:
        file.write("the man was tired.\n" * 4)
    text = (tmp_path / "wikitext2/test.txt").read_text()
    (tmp_path / "wikitext2/test.txt").write_text(long + "\n" + text)
    found = evaluate(
        plain.pretrained("bert"),
        "crows_pairs,masked_lm:masked",
        tmp_path,
        tmp_path / "out",
        model_name="tiny",
        offline=True,
    )
    crows, masked = (found[name] for name in ("crows_pairs", "masked_lm"))
    assert crows["counts"]["skipped_rows"] == 1 and crows["left_out"][0]["lines"] == [2]
    assert crows["n"] == 100
    assert masked["counts"]["cut_texts"] == 1 and masked["counts"]["lost_tokens"] > 100
    assert strict_json(tmp_path / "out/crows_pairs.json") == crows
    assert caplog.text.count("crows_pairs_anonymized.csv: 1 of 101 rows are malformed") == 1
    assert "left_out" not in run[2]["crows_pairs"]


def test_a_selector_without_pairs_is_told_the_choice(tmp_path, run):
    error = failures(run[0], tmp_path, "crows_pairs:sex")
    assert "choose from ['gender', 'socioeconomic']" in str(error)


def test_a_fault_of_the_code_is_reported_with_its_traceback(tmp_path, run, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("a fault")

    monkeypatch.setitem(BENCHMARKS, "stereoset", BENCHMARKS["stereoset"]._replace(ask={MASKED: broken}))
    error = failures(run[0], tmp_path, "stereoset,masked_lm")
    assert list(error.results) == ["masked_lm"]
    assert isinstance(error.failures["stereoset"], ZeroDivisionError)
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def kept(run, tmp_path, monkeypatch):
    """A copy of the data and of the results, where `again(names, …)` evaluates; `ran` lists what was not read back."""
    data, out, documents = run
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(out, tmp_path / "out")
    ran = []
    for name in [*RUN, "stereoset_aul"]:
        benchmark = BENCHMARKS[name]

        def running(*args, name=name, benchmark=benchmark):
            ran.append(name)
            return benchmark.read(*args)

        monkeypatch.setitem(BENCHMARKS, name, benchmark._replace(read=running))

    def again(names=NAMES, model=None, model_name="tiny"):
        return evaluate(
            model or plain.pretrained("bert"),
            names,
            tmp_path / "data",
            tmp_path / "out",
            model_name=model_name,
            offline=True,
        )

    return tmp_path, again, ran, documents


def other_model():
    model = plain.pretrained("bert")
    head = dict(model.params["mlm"])
    head["bias"] = head["bias"] + np.arange(len(head["bias"]), dtype=np.float32)
    return model._replace(params=dict(model.params) | {"mlm": head})


def test_a_result_of_the_same_content_is_read_back(kept):
    _, again, ran, documents = kept
    assert again() == documents
    assert ran == []
    for document in documents.values():
        assert set(document["fingerprints"]) == {"model", "data"}
        assert document["version"] == BENCHMARKS[document["benchmark"]].version


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: (folder / "out/stereoset.csv").unlink(), ["stereoset"]),
        (lambda folder: (folder / "out/bec_pro_texts.csv").unlink(), ["bec_pro"]),
        (lambda folder: (folder / "out/masked_lm.json").write_text('{"benchmark"'), ["masked_lm"]),
        (lambda folder: (folder / "out/masked_lm.json").write_text("[]"), ["masked_lm"]),
        (lambda folder: edit(folder / "out/crows_pairs.json", version=1), ["crows_pairs"]),
        (lambda folder: edit(folder / "out/crows_pairs.json", version=None, fingerprints=None), ["crows_pairs"]),
        (lambda folder: edit(folder / "out/seat.json", settings={"selector": "weat7"}), ["seat"]),
        (lambda folder: os.utime(folder / "data/wikitext2/test.txt", ns=(1, 1)), []),
        (lambda folder: exchange(folder / "data/wikitext2/test.txt", b"tired", b"nurse"), ["masked_lm"]),
        (lambda folder: (folder / "data/stereoset/gender_split_ids.json").write_text('{"dev": [], "test": []}'), ["stereoset"]),
        (lambda folder: (folder / "data/stereoset/notes.txt").write_text("not of the benchmark"), []),
    ],
)  # fmt: skip
def test_what_changed_is_made_again(kept, change, names):
    folder, again, ran, documents = kept
    change(folder)
    new = again()
    assert ran == names
    for name in RUN:
        assert new[name] == strict_json(folder / "out" / f"{name}.json")
        assert name in names or new[name] == documents[name]


def edit(path, **changes):
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def exchange(path, old, new):
    """Another file of the same size and time under the same name."""
    stat = path.stat()
    path.with_name("other").write_bytes(path.read_bytes().replace(old, new, 1))
    os.utime(path.with_name("other"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    path.with_name("other").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def test_results_of_another_model_are_made_again_or_refused(kept):
    folder, again, ran, documents = kept
    with pytest.raises(
        ValueError, match=r"crows_pairs\.json is of another model \(fingerprint .*; use another folder"
    ) as caught:
        again("masked_lm", other_model())
    assert "\n" not in str(caught.value) and ran == []
    assert strict_json(folder / "out/masked_lm.json") == documents["masked_lm"]
    new = again(NAMES, other_model())
    assert ran == RUN
    assert all(new[name]["fingerprints"]["model"] != documents[name]["fingerprints"]["model"] for name in RUN)
    assert new["masked_lm"]["metrics"] != documents["masked_lm"]["metrics"]


def test_where_the_new_result_fails_the_old_one_is_gone(kept):
    folder, again, ran, _ = kept
    (folder / "data/stereoset/gender_intrasentence.json").write_text("[")
    with pytest.raises(EvaluationError, match="stereoset failed"):
        again()
    assert ran == ["stereoset"]
    assert not (folder / "out/stereoset.json").exists()
    assert (folder / "out/masked_lm.json").exists()


def test_every_benchmark_names_the_files_that_it_reads(kept, monkeypatch):
    """A file that is read but not named could change unnoticed."""
    folder, again, _, _ = kept
    named, opened = set(), set()
    for name, selector in parse(NAMES):
        named |= {str(folder / "data" / file.name) for file in BENCHMARKS[name].files(selector)}
    monkeypatch.setattr(
        DataFolder, "path", lambda self, file: opened.add(str(self.folder / file.name)) or self.folder / file.name
    )
    shutil.rmtree(folder / "out")
    again()
    assert opened <= named and len(opened) == 5
    for name, benchmark in BENCHMARKS.items():
        assert bool(benchmark.files("")) == bool(benchmark.ask), name
        assert benchmark.version >= 2, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3", "t.csv:3: 1 cell, but the header has 2"),
        ('a,b\n1,"2', "cut off"),
        ("a,c\n1,2\n", "no column 'b'"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2,3\n", "3 cells, but the header has 2"),
    ],
)
def test_cut_off_tables_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv", {"a": int, "b": str})


def test_tables_keep_every_digit_and_missing_values(tmp_path):
    (tmp_path / "t.csv").write_text("x,y,z\n0.1,,a\n-2.5e-300,3,b\n")
    table = read_table(tmp_path / "t.csv", {"x": float, "z": str})
    assert table == {"x": [0.1, -2.5e-300], "z": ["a", "b"]}
    assert read_table(tmp_path / "t.csv", {"y": Score})["y"] == [None, 3.0]
    with pytest.raises(DataError, match="could not convert string to float: ''"):  # every example has this score
        read_table(tmp_path / "t.csv", {"y": float})
    with pytest.raises(DataError, match="written by this package"):
        read_table(tmp_path / "t.csv", {"y": int})
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv", {"y": int})


def test_tables_hold_no_number_that_is_not_finite(tmp_path):
    path = tmp_path / "scores.csv"
    for value in (float("nan"), float("inf"), np.float64("-inf")):
        with pytest.raises(NonFiniteError, match=r"scores\.csv: x of row 3 is"):
            write_table(path, {"x": [0.5, value], "y": [1, 2]})
    assert not path.exists()
    write_table(path, {"x": [0.5, None], "y": [1, 2]})
    assert path.read_text() == "x,y\n0.5,1\n,2\n"
    for text in ("nan", "inf", "-Infinity"):
        path.write_text(f"x,y\n{text},1\n")
        with pytest.raises(DataError, match=f"'{text}' is not a finite number"):
            read_table(path, {"x": Score})


def test_the_command_keeps_results_lists_failures_and_exits_1(tmp_path, shared):
    data = tmp_path / "data"
    plain.write_stereoset(data / "stereoset/gender_intrasentence.json")
    command = [
        sys.executable,
        "launch/evaluate.py",
        f"--model={shared('models/roberta-tiny-random')}",
        f"--data={data}",
        f"--out={tmp_path / 'out'}",
        "--benchmarks=stereoset,bec_pro",
        "--offline",
        "--compilation_cache=",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment(), check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Content warning" in done.stdout
    assert "| StereoSet SS, % |" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: bec_pro failed")
    assert "https://" in last
    with (tmp_path / "out/stereoset.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["e0", "e1", "e2", "e3"]
    assert strict_json(tmp_path / "out/stereoset.json")["settings"]["roberta_rows"] == "reference"
    assert not (tmp_path / "out/bec_pro.json").exists()
