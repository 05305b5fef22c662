import dataclasses

import pytest

from ncfair_jax.files import notes
from ncfair_jax.files.reading import DataError
from ncfair_jax.tasks.classification.bios import PROFESSIONS, read_bios
from ncfair_jax.tasks.classification.config import ClassificationRun
from tests import tiny_tasks


def config(path, **fractions) -> ClassificationRun:
    base = ClassificationRun()
    data = dataclasses.replace(base.data, path=str(path))
    return dataclasses.replace(base, data=data, classification=dataclasses.replace(base.classification, **fractions))


def test_the_text_begins_behind_the_profession(tmp_path):
    rows = [
        {"title": "Interior Designer", "raw": "A designer . she likes it", "start_pos": 13, "gender": "F"},
        {"hard_text": "he writes", "profession": 20, "gender": 0},
    ]
    tiny_tasks.write_jsonl(tmp_path / "test.jsonl", rows)
    one, two = read_bios(config(tmp_path), "test")
    assert (one.first, PROFESSIONS[int(one.label)], one.group) == ("she likes it", "interior_designer", "female")
    assert (two.first, PROFESSIONS[int(two.label)], two.group) == ("he writes", "poet", "male")
    assert len(PROFESSIONS) == 28 and list(PROFESSIONS) == sorted(PROFESSIONS)


def test_one_file_is_split_without_overlap(tmp_path):
    rows = [row | {"raw": f"{row['raw']} {i}"} for i, row in enumerate(tiny_tasks.biographies(40, 0))]
    path = tiny_tasks.write_jsonl(tmp_path / "all.jsonl", rows)
    parts = {part: read_bios(config(path, dev_fraction=0.2), part) for part in ("train", "dev", "test")}
    assert {part: len(found) for part, found in parts.items()} == {"train": 22, "dev": 8, "test": 10}
    assert len({example.first for found in parts.values() for example in found}) == 40
    with pytest.raises(DataError, match="leave none for train"):
        read_bios(config(path, dev_fraction=0.5, test_fraction=0.5), "train")


def test_null_is_no_text(tmp_path):
    rows = tiny_tasks.biographies(200, 0)
    rows[7] |= {"raw": None}
    tiny_tasks.write_jsonl(tmp_path / "test.jsonl", rows)
    for _ in range(2):  # also from memory
        with notes.collected() as found:
            assert len(read_bios(config(tmp_path), "test")) == 199
        assert [(note.lines, note.first) for note in found] == [((8,), "column 'raw' is null; expected a value")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": "nruse"}, "test.jsonl:1: profession 'nruse'; expected one of accountant"),
        ({"gender": "x"}, "gender 'x'; expected one of m, male"),
        ({"start_pos": 500}, "start_pos '500' leaves nothing"),
        ({"raw": None}, "no column 'raw' or 'hard_text'"),
    ],
)
def test_faults_name_the_line(tmp_path, change, message):
    row = tiny_tasks.biographies(1, 0)[0] | change
    tiny_tasks.write_jsonl(tmp_path / "test.jsonl", [{key: value for key, value in row.items() if value is not None}])
    with pytest.raises(DataError, match=message):
        read_bios(config(tmp_path), "test")
