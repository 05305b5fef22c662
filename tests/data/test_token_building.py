"""The store gives what encoding in memory gives, however many chunks, processes and attempts it was built in."""

import filecmp
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ncfair_jax.data import token_building
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.token_building import PROGRESS_FILE, as_it_is, build, temporary_store
from ncfair_jax.data.token_store import FORMS_FILE, OFFSETS_FILE, TOKENS_FILE, TokenStore
from ncfair_jax.files.notes import collected
from tests import tiny_text
from tests.started import ROOT, environment

FILES = [TOKENS_FILE, OFFSETS_FILE, FORMS_FILE, "store.json"]


@pytest.fixture
def tokenizer():
    return tiny_text.pretrained().tokenizer


def of_lists(examples) -> list[list[int]]:
    return [example.tolist() for example in examples]


def same_files(one: Path, other: Path) -> None:
    assert sorted(path.name for path in one.iterdir()) == sorted(FILES)
    _, different, missing = filecmp.cmpfiles(one, other, FILES, shallow=False)
    assert not different + missing


def doubled(text: str) -> tuple[str, ...]:
    """One or two forms of a text."""
    return (text, f"{text} {text}") if "she" in text else (text,)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_equals_encoding_in_memory(tokenizer, tmp_path, monkeypatch, chunk):
    sentences = tiny_text.sentences(50)
    with collected() as wanted_notes:
        wanted = encode_sentences(sentences, tokenizer, 9)
    monkeypatch.setattr(token_building, "CHUNK", chunk)
    with collected() as notes:
        store = build(iter(sentences), tokenizer, 9, tmp_path)
    assert notes == wanted_notes
    assert wanted_notes[0].sequences == 50 > wanted_notes[0].cut > 0
    assert len(store) == store.num_texts == 50
    assert store.lengths.tolist() == [len(example) for example in wanted]
    for found in (store[:], list(store), TokenStore(tmp_path)[:], store.of_texts(np.ones(50, bool))):
        assert of_lists(found) == of_lists(wanted)
    assert all(example.dtype == np.int32 for example in store)
    for index in (slice(3, 20), slice(-4, None), slice(None, None, -3), slice(7, 7), slice(9, 4), slice(48, 99)):
        assert of_lists(store[index]) == of_lists(wanted[index])
    assert store[-1].tolist() == wanted[-1].tolist()
    for wrong in (50, -51):
        with pytest.raises(IndexError):
            store[wrong]


def test_a_store_that_is_there_is_opened_and_notes_the_same(tokenizer, tmp_path):
    with collected() as first:
        build(tiny_text.sentences(50), tokenizer, 9, tmp_path)
    with collected() as again:
        store = build(iter(()), tokenizer, 9, tmp_path)
    assert first == again != []
    assert len(store) == 50


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: os.truncate(path, 5)])
def test_a_store_that_is_not_whole_is_made_again(tokenizer, tmp_path, name, damage):
    sentences = tiny_text.sentences(20)
    build(sentences, tokenizer, 9, tmp_path / "whole")
    build(sentences, tokenizer, 9, tmp_path / "damaged")
    damage(tmp_path / "damaged" / name)
    build(sentences, tokenizer, 9, tmp_path / "damaged")
    same_files(tmp_path / "damaged", tmp_path / "whole")


def test_other_processes_write_the_same_files(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_building, "CHUNK", 5)
    monkeypatch.setattr(token_building, "PARALLEL_FROM", 3)
    monkeypatch.syspath_prepend(str(ROOT))  # they look for `doubled` there
    sentences = tiny_text.sentences(60)
    build(sentences, tokenizer, 9, tmp_path / "one", forms=doubled)
    build(sentences, tokenizer, 9, tmp_path / "two", forms=doubled, processes=2)
    same_files(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("after", [0, 1, 11, 12, 59])
def test_goes_on_where_it_was_stopped(tokenizer, tmp_path, monkeypatch, after):
    """As after a kill: what was written behind the last record is cut off, and no text is encoded twice."""
    monkeypatch.setattr(token_building, "CHUNK", 4)
    sentences = tiny_text.sentences(60)
    build(sentences, tokenizer, 9, tmp_path / "whole", forms=doubled)

    def stopped():
        yield from sentences[:after]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stopped(), tokenizer, 9, tmp_path / "stopped", forms=doubled)
    for name in FILES[:3]:
        with (tmp_path / "stopped" / name).open("ab") as file:
            file.write(b"half")
    encoded = []

    def watched(number, texts, work):
        encoded.extend(texts)
        return token_building.Piece(*encode_piece(number, texts, work))

    encode_piece = token_building.encode_piece
    monkeypatch.setattr(token_building, "encode_piece", watched)
    build(sentences, tokenizer, 9, tmp_path / "stopped", forms=doubled)
    assert encoded == sentences[after // 4 * 4 :]
    same_files(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("name", FILES[:3])
def test_a_file_that_lost_its_end_is_made_again(tokenizer, tmp_path, monkeypatch, name):
    monkeypatch.setattr(token_building, "CHUNK", 4)
    sentences = tiny_text.sentences(20)
    build(sentences, tokenizer, 9, tmp_path / "whole")

    def stopped():
        yield from sentences[:12]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stopped(), tokenizer, 9, tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / PROGRESS_FILE).read_text())["texts"] == 12
    os.truncate(tmp_path / "stopped" / name, 3)
    build(sentences, tokenizer, 9, tmp_path / "stopped")
    same_files(tmp_path / "stopped", tmp_path / "whole")


def test_no_sentences(tokenizer, tmp_path):
    store = build([], tokenizer, 9, tmp_path / "new" / "folder")
    assert (len(store), store[:], store.lengths.tolist()) == (0, [], [])
    assert of_lists(store.of_texts(np.zeros(0, bool))) == []


@pytest.mark.parametrize("forms", [as_it_is, doubled])
def test_a_sentence_without_tokens_is_named_by_its_number_in_the_text(tokenizer, tmp_path, monkeypatch, forms):
    monkeypatch.setattr(token_building, "CHUNK", 2)
    with pytest.raises(ValueError, match=r"sentence 5 \('\\u200b'\) has no tokens"):
        build(["he", "she", "he", "she", "\u200b"], tokenizer, 9, tmp_path, forms)
    assert not list(tmp_path.iterdir())


def test_a_lone_string_is_refused(tokenizer, tmp_path, unchecked_shapes):
    with pytest.raises(TypeError, match="single string"):
        build("he", tokenizer, 9, tmp_path)


def test_chosen_texts_come_first_as_they_are_then_in_their_other_form(tokenizer, tmp_path):
    texts = ["he ran", "she ran", "he sat", "she sat", "she ran"]
    store = build(texts, tokenizer, 9, tmp_path, forms=doubled)
    encode = partial(encode_sentences, tokenizer=tokenizer, max_tokens=9)
    assert of_lists(store) == of_lists(encode([form for text in texts for form in doubled(text)]))
    chosen = np.array([True, True, False, True, False])
    found = store.of_texts(chosen)
    assert of_lists(found) == of_lists(encode(["he ran", "she ran", "she sat", "she ran she ran", "she sat she sat"]))
    assert found.token_range == (0, max(example.max() for example in store))
    assert found.content != store.of_texts(~chosen).content
    assert found.content == TokenStore(tmp_path).of_texts(chosen).content
    assert found.tokens.dtype == np.uint16


def test_a_temporary_store_leaves_nothing(tokenizer, tmp_path):
    left = tmp_path / "tokens-0" / "left by a killed process"
    left.mkdir(parents=True)
    with temporary_store(["he", "she"], tokenizer, 9, tmp_path) as store:
        assert len(store) == 2
        assert not left.exists()
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no tokens"), temporary_store(["he", "\u200b"], tokenizer, 9, tmp_path):
        pass
    with pytest.raises(KeyError), temporary_store(["he"], tokenizer, 9, tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


PROGRAM = """
import sys
from pathlib import Path
from ncfair_jax.data import token_building
from ncfair_jax.data.token_building import build
from tests import tiny_text

if __name__ == "__main__":
    token_building.CHUNK, token_building.PARALLEL_FROM = 20, 2
    build(tiny_text.sentences(int(sys.argv[2])), tiny_text.pretrained().tokenizer, 9, Path(sys.argv[1]), processes=2)
"""


@pytest.mark.slow
def test_killed_it_takes_its_helpers_along_and_the_next_one_goes_on(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    def command(folder: Path) -> list[str]:
        return [sys.executable, str(program), str(folder), "8000"]

    process = subprocess.Popen(command(killed), env=environment(1))
    recorded = killed / PROGRESS_FILE
    wait_for(recorded.exists)
    helpers = children(process.pid)
    process.kill()
    process.wait()
    assert len(helpers) >= 2 and not (killed / "store.json").exists()
    wait_for(lambda: not any(running(pid) for pid in helpers))
    done = json.loads(recorded.read_text())["texts"]
    assert 0 < done < 8000
    subprocess.run(command(killed), env=environment(1), check=True)
    build(tiny_text.sentences(8000), tiny_text.pretrained().tokenizer, 9, whole)
    same_files(killed, whole)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)
