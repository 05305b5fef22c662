import json
import pickle

import pyarrow
import pyarrow.parquet
import pytest

from ncfair_jax.data.files import CorpusError
from ncfair_jax.data.rows import cell, read_rows, split_rows, text_cell

ROWS = [{"text": 'say "hi"', "label": 1}, {"text": "b, c", "label": 0}]


def write(folder):
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    (folder / "b.csv").write_text('text,label\n"say ""hi""",1\n"b, c",0\n')
    (folder / "c.tsv").write_text('text\tlabel\nsay "hi"\t1\nb, c\t0\tmore\n')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "d-00000-of-00001.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "b.csv", "c.tsv", "d-00000-of-00001.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    write(tmp_path)
    for rows in (read_rows(tmp_path / name), split_rows(str(tmp_path), ("other", name[0]), "there")):
        found = [(where, {key: str(value) for key, value in row.items()}) for where, row in rows]
        assert [row for _, row in found] == [{"text": 'say "hi"', "label": "1"}, {"text": "b, c", "label": "0"}]
        assert all(name in where for where, _ in found)


def test_a_file_without_header(tmp_path):
    (tmp_path / "x.tsv").write_text("gj04\t1\t\tOne.\n")
    assert [row for _, row in read_rows(tmp_path / "x.tsv", ("source", "label", "star", "sentence"))] == [
        {"source": "gj04", "label": "1", "star": "", "sentence": "One."}
    ]


def test_faults_are_one_line(tmp_path):
    (tmp_path / "short.tsv").write_text("text\tlabel\na\t1\nb\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    for name, message in (
        ("short.tsv", r"short\.tsv:3: 1 cells, expected 2"),
        ("bad.parquet", r"bad\.parquet: .*get the file again"),
        ("list.jsonl", r"list\.jsonl:1: holds a list"),
        ("no.txt", "unknown kind of file"),
        ("no.jsonl", "no such file"),
    ):
        with pytest.raises(CorpusError, match=message) as raised:
            list(read_rows(tmp_path / name))
        assert "\n" not in str(raised.value)
    with pytest.raises(CorpusError, match=r"has no train or part with one of the endings .*; add it, from there"):
        split_rows(str(tmp_path), ("train", "part"), "there")
    with pytest.raises(CorpusError, match=r"here: no column 'b' or 'c'; choose from \['a'\]"):
        cell({"a": 1}, ("b", "c"), "here")
    with pytest.raises(CorpusError, match="column 'a' holds 1; expected text"):
        text_cell({"a": 1}, ("a",), "here")


def test_a_pickle_is_refused_with_lines_that_convert_it(tmp_path):
    rows = [{"title": "nurse", "raw": "x", "start_pos": 0, "gender": "F"}]
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(rows))
    for read in (lambda: read_rows(tmp_path / "train.pkl"), lambda: split_rows(str(tmp_path), ("train",), "there")):
        with pytest.raises(CorpusError, match="is a pickle") as raised:
            list(read())
    code = str(raised.value).split("`")[1].replace("'train.pkl'", repr(str(tmp_path / "train.pkl")))
    exec(code.replace("'train.jsonl'", repr(str(tmp_path / "train.jsonl"))), {})  # the message's own remedy
    assert [row for _, row in read_rows(tmp_path / "train.jsonl")] == rows
