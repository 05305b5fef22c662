"""Tables of results: texts come back exactly, and a spreadsheet runs none of them as a formula."""

import csv
import io

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ncfair_jax.benchmarks.results import Score, read_table, write_table

FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"
# All characters that UTF-8 files of text can hold, those that matter here more often.
TEXTS = st.text(st.sampled_from(FORMULA_STARTS + "'\",; a1") | st.characters(exclude_categories=["Cs"])).filter(
    lambda text: "\0" not in text
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
@example(["=1+1", "'=1+1", "''=1+1", "'tis", "'", "", "-5", "\r=1", '=HYPERLINK("http://x")', "a\rb"])
def test_texts_are_safe_in_a_spreadsheet_and_come_back_exactly(tmp_path, texts):
    path = tmp_path / "t.csv"
    write_table(path, {"text": texts, "number": [-1.5] * len(texts), "count": [-1] * len(texts)})
    assert read_table(path, {"text": str, "number": float, "count": int}) == {
        "text": texts,
        "number": [-1.5] * len(texts),
        "count": [-1] * len(texts),
    }
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert all(cell[:1] not in FORMULA_STARTS or not cell for cell, _, _ in rows[1:])


def test_numbers_and_plain_texts_stand_as_they_are(tmp_path):
    write_table(tmp_path / "t.csv", {"a": ["'tis", "x=1", "'", "=1"], "b": [-0.5, None, 1.0, 2.0]})
    assert (tmp_path / "t.csv").read_bytes() == b"a,b\n'tis,-0.5\nx=1,\n',1.0\n'=1,2.0\n"
    assert read_table(tmp_path / "t.csv", {"b": Score})["b"] == [-0.5, None, 1.0, 2.0]
