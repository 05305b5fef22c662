"""The file layer: encodings, line ends, keys, and the count of malformed rows."""

import gzip
import json
import re

import pytest

from ncfair_jax.files import notes
from ncfair_jax.files.reading import (
    DataError,
    Place,
    RowError,
    accepted,
    check_visible,
    json_lines,
    read_json,
    read_lines,
    stream_lines,
)


def written(tmp_path, content, name="a.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


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
        (gzip.compress(b"text" * 99, mtime=0), "gzip-compressed; unpack"),
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
