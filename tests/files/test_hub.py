import json
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from ncfair_jax.files.hub import content_of, read_hub
from ncfair_jax.files.reading import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> str:
    """A local data set; the cache is moved so that no test finds or leaves anything."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = tmp_path / "set"
    source.mkdir()
    rows = [{"text": "One.", "n": 1}, {"text": " ", "n": 2}, {"text": "Two.\n", "n": 3}]
    (source / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(source)


@pytest.mark.parametrize("streaming", [False, True])
def test_local_folder(folder, streaming):
    assert list(read_hub(folder, streaming=streaming)) == ["One.", "Two."]
    assert list(read_hub(folder, streaming=streaming, max_examples=1)) == ["One."]


@pytest.mark.parametrize("streaming", [False, True])
def test_faults_are_one_line(folder, streaming):
    for settings, message in (
        ({"text_field": "body"}, r"no column 'body'; choose from \['n', 'text'\]"),
        ({"text_field": "n"}, r"row 1: column 'n' holds 1; expected text \(3 of 3 rows are malformed: rows 1, 2, 3\)"),
        ({"split": "test"}, r"split 'test': .*'train'"),
        ({"subset": "other"}, "subset 'other'.*not found"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            list(read_hub(folder, streaming=streaming, **settings))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_offline_says_what_it_would_have_fetched(folder, monkeypatch, streaming):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"'owner/name', subset 'en', split 'train\[:5\]': not here, and offline mode forbids"
    ):
        list(read_hub("owner/name", subset="en", split="train[:5]", streaming=streaming))


def test_pickled_data_are_refused(tmp_path, folder):
    source = tmp_path / "pickled"
    source.mkdir()
    (source / "train.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(DataError):
        list(read_hub(str(source)))


def test_other_rows_are_another_content(folder):
    before = content_of(folder, "", "train", streaming=False)
    assert content_of(folder, "", "train", streaming=False) == before
    with (Path(folder) / "train.jsonl").open("a") as file:
        file.write('\n{"text": "Three.", "n": 4}')
    assert content_of(folder, "", "train", streaming=False) != before


def test_a_stream_is_known_by_the_commit_of_the_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"^data set 'owner/name', split 'train': .*; check name and network$"):
        content_of("owner/name", "", "train", streaming=True)
    monkeypatch.setattr(huggingface_hub, "dataset_info", lambda name: huggingface_hub.DatasetInfo(id=name, sha="1f2e"))
    assert content_of("owner/name", "", "train", streaming=True) == "1f2e"
