"""What readers and encoders leave out is collected, or goes to the log."""

import json
import logging

from ncfair_jax.files import notes
from ncfair_jax.files.notes import Cut, Skipped, WithoutClass, collected, remembered, total_counts

SKIPPED = Skipped("f.csv", 200, (7, 9), "cut off")
CUT = Cut(limit=128, sequences=10, cut=1, tokens=1000, lost=50)


def test_the_innermost_context_collects_each_note_once():
    with collected() as outer:
        notes.add(CUT)
        with collected() as inner:
            notes.add(SKIPPED)
            notes.add(SKIPPED)
        notes.add(CUT)
    assert (outer, inner) == ([CUT], [SKIPPED])


def test_outside_of_a_context_notes_are_logged(caplog):
    with caplog.at_level(logging.INFO):
        notes.add(CUT)
        notes.add(CUT._replace(lost=10))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]  # 5 % and 1 % of the tokens
    assert "1 of 10 texts are longer than 128 tokens and were cut: 50 of 1000 tokens are lost (5.00 %)" in caplog.text


def test_counts_add_up():
    assert total_counts([SKIPPED, CUT, CUT._replace(limit=64)]) == {
        "skipped_rows": 2,
        "cut_texts": 2,
        "lost_tokens": 100,
    }
    assert total_counts([]) == {}


def test_a_remembered_reader_brings_its_notes_every_time():
    read = []

    @remembered(maxsize=1)
    def reader(name: str) -> str:
        read.append(name)
        notes.add(SKIPPED)
        return name

    for _ in range(2):
        with collected() as found:
            assert reader("a") == "a"
        assert found == [SKIPPED]
    assert read == ["a"]


def test_many_lines_are_not_all_listed():
    text = str(Skipped("f", 10000, tuple(range(1, 31)), "cut off"))
    assert "(lines 1, 2, " in text and "20, …)" in text and "21" not in text


def test_notes_come_back_from_a_file():
    found = [SKIPPED, CUT, WithoutClass("gender", 9, ("a", "b"))]
    assert notes.of_json(json.loads(json.dumps(notes.as_json(found)))) == found
