"""The file layer: encodings, line ends, headers, cells, keys, and the count of malformed rows."""

import gzip
import json
import re

import pytest

from ncfair_jax.data import notes
from ncfair_jax.data.files import (
    DataError,
    Place,
    RowError,
    accepted,
    check_visible,
    comma_separated,
    json_lines,
    read_json,
    read_lines,
    stream_lines,
    tab_separated,
    table_rows,
)


def written(tmp_path, content, name="a.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path, **options):
    separated = comma_separated if path.suffix == ".csv" else tab_separated
    return list(table_rows(separated(path), path, **options))


# --- text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\n", "\n \n\n"])
def test_line_ends_marks_and_blank_last_lines_do_not_matter(tmp_path, end, mark, last):
    path = written(tmp_path, (mark + "one\ntwo two\x0cstill\u2028on\n\nlast" + last).replace("\n", end))
    assert read_lines(path) == ["one", "two two\x0cstill\u2028on", "", "last"]


def test_a_carriage_return_ends_no_line_in_a_file_with_line_feeds(tmp_path):
    assert read_lines(written(tmp_path, "a\rb\nc\n")) == ["a\rb", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.txt: the file is empty"),
        (b" \n\n", "is empty"),
        (
            b"ok\nfine\ncaf\xe9\n",
            r"a.txt:3: not UTF-8 \(byte 0xe9\) but probably Windows-1252 or Latin-1; .*-f WINDOWS-1252",
        ),
        ("Priv\u00e9 \u00e9\u00e9n".encode("mac_roman"), r"a.txt:1: .*probably Mac OS Roman; .*-f MACINTOSH"),
        ("caf\u00e9\n".encode("utf-16"), "probably UTF-16"),
        ("cafe\ncafe\n".encode("utf-16-le"), "probably UTF-16"),
        (gzip.compress(b"text" * 99), "gzip-compressed; unpack"),
    ],
)
def test_unusable_files_are_named_with_line_and_encoding(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_lines(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file"):
        read_lines(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a folder; give the path of a file"):
        list(stream_lines(tmp_path))


@pytest.mark.parametrize("sentence", ["", " \t", "\u200b", "\ufffd", "\u0301", "\x07"])
def test_sentences_without_a_visible_character_are_refused(sentence):
    with pytest.raises(RowError, match=r"f.txt:7: sentence .* has no visible character"):
        check_visible(sentence, Place("f.txt", 7))
    check_visible(sentence + "é.", Place("f.txt", 7))


# --- tables


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_cells_are_found_by_their_columns(tmp_path, name, end, mark):
    separator = "," if name == "a.csv" else "\t"
    text = (mark + "text;label\nfirst;1\nsecond \u00a0;0\n\n").replace(";", separator).replace("\n", end)
    path = written(tmp_path, text, name)
    assert rows_of(path, columns=("label",)) == [
        (Place(str(path), 2), {"text": "first", "label": "1"}),
        (Place(str(path), 3), {"text": "second \u00a0", "label": "0"}),
    ]


def test_a_quoted_cell_may_hold_commas_quotes_and_lines(tmp_path):
    path = written(tmp_path, 'text,label\n"a, ""b""\nc",1\nd,2\n', "a.csv")
    assert [(place.row, row) for place, row in rows_of(path)] == [
        (2, {"text": 'a, "b"\nc', "label": "1"}),
        (4, {"text": "d", "label": "2"}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv: the file is empty"),
        ("a.csv", "text,label,text\na,1,b\n", "the header names 'text' more than once"),
        ("a.tsv", "\ttext\t\n0\ta\t1\n", "the header names '' more than once"),
        ("a.tsv", "text\nb\n", r"no column 'label'; the header has \['text'\]"),
    ],
)
def test_faults_of_a_header_or_of_the_file_stop_it(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        rows_of(written(tmp_path, text, name), columns=("label",))


def test_malformed_rows_are_handed_on_and_reading_goes_on_behind_them(tmp_path):
    path = written(tmp_path, 'text,label\na\nb,1,2\n"c"c,1\nd,1\n', "a.csv")
    found = rows_of(path)
    assert [place.row for place, _ in found] == [2, 3, 4, 5]
    assert [str(row) for _, row in found[:3]] == [
        f"{path}:2: 1 cell, but the header has 2; is the row cut off?",
        f"{path}:3: 3 cells, but the header has 2; does a text hold the character that separates cells?",
        f"{path}:4: no comma-separated record (',' expected after '\"'); close every quote, and double those "
        "inside a quoted cell",
    ]
    assert found[3][1] == {"text": "d", "label": "1"}


@pytest.mark.parametrize("broken", ['"b,2', 'b,"2', '"b,2\n"c', '"b"b,2'])
def test_a_quote_that_is_never_closed_swallows_no_other_row(tmp_path, broken):
    rows = "".join(f'"text, {n}",{n}\n' for n in range(9))
    found = rows_of(written(tmp_path, f'text,label\n{rows}{broken}\n{rows}x,"y\nz"\n', "a.csv"))
    good = [row for _, row in found if not isinstance(row, RowError)]
    assert [row["text"] for row in good] == [f"text, {n}" for n in range(9)] * 2 + ["x"]
    assert good[-1]["label"] == "y\nz"
    bad = [place.row for place, row in found if isinstance(row, RowError)]
    assert bad == [11, 12][: 1 + broken.count("\n")]


def test_known_layouts_may_have_wider_rows(tmp_path):
    path = written(tmp_path, "a\tgold\nx\ty\nx\tz\tz\ty\n1\t2\t3\n", "a.tsv")
    narrow, wide, other = rows_of(path, wider={("a", "gold"): ("a", "b", "c", "gold")})
    assert narrow[1] == {"a": "x", "gold": "y"}
    assert wide[1] == {"a": "x", "b": "z", "c": "z", "gold": "y"}
    assert isinstance(other[1], RowError)


# --- JSON


def test_keys_that_are_there_twice_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: the key 'male' is there twice"):
        read_json(written(tmp_path, '{"groups": {"male": ["he"], "female": [], "male": ["him"]}}', "a.json"))
    with pytest.raises(DataError, match=r"a\.jsonl:2: the key 'x' is there twice"):
        list(json_lines(written(tmp_path, '{"x": 1}\n{"x": 1, "x": 1}\n', "a.jsonl")))
    assert read_json(written(tmp_path, '\ufeff[{"x": 1}, {"x": 2}]\r\n', "a.json")) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": [1, 2', r"a\.json:2: not JSON .*cut off"),
        ("[1,\n,2]", r"a\.json:2: not JSON \(Expecting value\)$"),
        ("", "not JSON .*the file is empty or cut off"),
        ("[" * 99999, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_json(written(tmp_path, text, "a.json"))


def test_json_lines(tmp_path):
    path = written(tmp_path, '{"a": null}\n\n[1]\n{"a": \n{"a": 2}\n', "a.jsonl")
    found = list(json_lines(path))
    assert [place.row for place, _ in found] == [1, 3, 4, 5]
    assert (found[0][1], found[3][1]) == ({"a": None}, {"a": 2})
    assert "holds a list" in str(found[1][1]) and "not JSON (Expecting value)" in str(found[2][1])


# --- malformed rows


def numbered(rows, bad):
    places = [Place("f", row) for row in range(1, rows + 1)]
    return [(place, RowError(place, "cut off") if place.row in bad else place.row) for place in places]


def even(place, row):
    if row == 7:
        raise RowError(place, "is seven")
    return row


def test_one_percent_of_malformed_rows_is_skipped_and_noted():
    with notes.collected() as found:
        assert list(accepted(numbered(200, {150}), even)) == [n for n in range(1, 201) if n not in (7, 150)]
    assert found == [notes.Skipped("f", 200, (7, 150), "is seven")]
    assert str(found[0]) == "f: 2 of 200 rows are malformed and were skipped (lines 7, 150); the first: is seven"
    assert found[0].counts == {"skipped_rows": 2}
    assert json.loads(json.dumps(notes.as_json(found)))[0]["lines"] == [7, 150]


def test_more_malformed_rows_are_an_error_with_the_first_and_all_lines():
    with pytest.raises(DataError, match=re.escape("f:7: is seven (2 of 199 rows are malformed: lines 7, 150)")):
        list(accepted(numbered(199, {150}), even))
    with pytest.raises(DataError, match=r"f:7: is seven$"):
        list(accepted(numbered(99, ()), even))


def test_a_limit_stops_reading():
    with notes.collected() as found:
        assert list(accepted(iter(numbered(500, {3})), even, limit=250))[-1] == 252
    assert found == [notes.Skipped("f", 252, (3, 7), "cut off")]
