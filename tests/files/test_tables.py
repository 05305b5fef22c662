"""Comma- and tab-separated files: headers, cells, quotes, and rows that are malformed."""

import pytest

from ncfair_jax.files.reading import DataError, Place, RowError
from ncfair_jax.files.tables import comma_separated, tab_separated, table_rows


def written(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path, **options):
    separated = comma_separated if path.suffix == ".csv" else tab_separated
    return list(table_rows(separated(path), path, **options))


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
