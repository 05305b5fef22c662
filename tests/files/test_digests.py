"""What the digests of a folder say, and what they never do."""

import json

import pytest

from ncfair_jax.files.digests import damaged, drop_damaged, files_of, record, recorded, refuse_damaged
from ncfair_jax.files.reading import DataError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "in/c", ".lock"):
        (folder / name).write_text(name)
    record(folder, files_of(folder))
    return folder


def test_missing_and_changed_files_are_named(folder):
    assert list(recorded(folder)) == ["a.csv", "b.csv", "in/c"]
    assert damaged(folder) == []
    (folder / "a.csv").write_text("a.csW")
    (folder / "in/c").unlink()
    changed, gone = damaged(folder)
    assert changed == f"{folder / 'a.csv'} is damaged (its SHA-256 is not that of what was written)"
    assert gone == f"{folder / 'in/c'} is missing"
    assert damaged(folder, ["b.csv"]) == []
    with pytest.raises(DataError, match=r"a\.csv is damaged .*; make it again$"):
        refuse_damaged(folder / "a.csv", "make it again")


def test_damaged_files_are_dropped_and_the_others_kept(folder):
    (folder / "a.csv").write_text("a.csW")
    assert len(drop_damaged(folder)) == 1
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "b.csv", "digests.json", "in"]
    assert damaged(folder) == [] and list(recorded(folder)) == ["b.csv", "in/c"]
    record(folder, ["b.csv"])
    assert list(recorded(folder)) == ["b.csv", "in/c"]


@pytest.mark.parametrize("content", ["", "[]", '{"a.csv": 1}', '{"../secret": "00"}', '{"/etc/passwd": "00"}'])
def test_digests_that_cannot_be_trusted_are_damage_and_nothing_outside_is_touched(folder, content):
    secret = folder.parent / "secret"
    secret.write_text("x")
    (folder / "digests.json").write_text(content)
    assert damaged(folder) == [f"{folder / 'digests.json'} is damaged"]
    assert drop_damaged(folder)
    assert secret.exists()
    assert json.loads((folder / "digests.json").read_text()) == {}
    assert files_of(folder) == [] and (folder / ".lock").exists()
