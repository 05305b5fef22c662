import json
import pickle

import pyarrow
import pyarrow.parquet
import pytest

from ncfair_jax.files.reading import DataError, Place, accepted
from ncfair_jax.files.rows import cell, read_rows, split_rows, text_cell
from ncfair_jax.tasks.classification.labelled import Labelled
from ncfair_jax.tasks.classification.nli import nli_pairs

HERE = Place("file", 1, "here")
ROWS = [{"text": 'say "hi"', "label": 1}, {"text": "b, c", "label": 0}]


def write(folder):
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    (folder / "b.csv").write_text('text,label\n"say ""hi""",1\n"b, c",0\n')
    (folder / "c.tsv").write_text('text\tlabel\nsay "hi"\t1\nb, c\t0\n')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "d-00000-of-00001.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "b.csv", "c.tsv", "d-00000-of-00001.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    write(tmp_path)
    for rows in (read_rows(tmp_path / name), split_rows(str(tmp_path), ("other", name[0]), "there")):
        found = [(str(where), {key: str(value) for key, value in row.items()}) for where, row in rows]
        assert [row for _, row in found] == [{"text": 'say "hi"', "label": "1"}, {"text": "b, c", "label": "0"}]
        assert all(name in where for where, _ in found)


def test_a_file_without_header(tmp_path):
    (tmp_path / "x.tsv").write_text("gj04\t1\t\tOne.\n")
    assert [row for _, row in read_rows(tmp_path / "x.tsv", header=("source", "label", "star", "sentence"))] == [
        {"source": "gj04", "label": "1", "star": "", "sentence": "One."}
    ]


def test_faults_are_one_line(tmp_path):
    (tmp_path / "short.tsv").write_text("text\tlabel\na\t1\nb\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    for name, message in (
        ("short.tsv", r"short\.tsv:3: 1 cell, but the header has 2"),
        ("bad.parquet", r"bad\.parquet: .*get the file again"),
        ("list.jsonl", r"list\.jsonl:1: holds a list"),
        ("no.txt", "unknown kind of file"),
        ("no.jsonl", "no such file"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            list(accepted(read_rows(tmp_path / name), lambda _, row: row))
        assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"has no train or part with one of the endings .*; add it, from there"):
        split_rows(str(tmp_path), ("train", "part"), "there")
    with pytest.raises(DataError, match=r"here: no column 'b' or 'c'; choose from \['a'\]"):
        cell({"a": 1}, ("b", "c"), HERE)
    with pytest.raises(DataError, match="column 'a' holds 1; expected text"):
        text_cell({"a": 1}, ("a",), HERE)


def test_a_pickle_is_refused_with_lines_that_convert_it(tmp_path):
    rows = [{"title": "nurse", "raw": "x", "start_pos": 0, "gender": "F"}]
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(rows))
    for read in (lambda: read_rows(tmp_path / "train.pkl"), lambda: split_rows(str(tmp_path), ("train",), "there")):
        with pytest.raises(DataError, match="is a pickle") as raised:
            list(read())
    code = str(raised.value).split("`")[1].replace("'train.pkl'", repr(str(tmp_path / "train.pkl")))
    exec(code.replace("'train.jsonl'", repr(str(tmp_path / "train.jsonl"))), {})  # the message's own remedy
    assert [row for _, row in read_rows(tmp_path / "train.jsonl")] == rows


def test_null_is_missing():
    with pytest.raises(DataError, match="here: column 'a' is null"):
        cell({"a": None}, ("a", "b"), HERE)
    assert cell({"a": None, "b": "None"}, ("a", "b"), HERE) == "None"


def test_all_numbered_parquet_files_are_read(tmp_path):
    for number, row in enumerate(ROWS):
        table = pyarrow.Table.from_pylist([row])
        pyarrow.parquet.write_table(table, tmp_path / f"train-0000{number}-of-00002.parquet")
    assert [row for _, row in split_rows(str(tmp_path), ("train",), "there")] == ROWS
    twice = pyarrow.table([[1], [2]], names=["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="column 'a' is there twice"):
        list(read_rows(tmp_path / "twice.parquet"))


def test_snli_as_glue_distributed_it(tmp_path):
    """The header names one annotator's label; a row of five annotators has all of theirs before the gold label."""
    names = ["index", "captionID", "pairID", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse"]
    names += ["sentence2_parse", "sentence1", "sentence2", "label1", "gold_label"]
    start = ["0", "c", "p", "(", "(", "(", "(", "A man runs.", "A man sits."]
    one = [*start, "contradiction", "contradiction"]
    five = [*start, "contradiction", "neutral", "contradiction", "contradiction", "contradiction", "contradiction"]
    (tmp_path / "train.tsv").write_text("\n".join("\t".join(cells) for cells in (names, one, five)) + "\n")
    assert [row["gold_label"] for _, row in read_rows(tmp_path / "train.tsv")] == ["contradiction"] * 2
    assert nli_pairs(str(tmp_path), ("train",)) == [Labelled("A man runs.", "A man sits.", 2)] * 2
