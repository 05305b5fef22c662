"""WinoBias's bracketed lines as documents, against the gold clusters of its published CoNLL files."""

import json
import re

import pytest
from transformers import BertTokenizerFast

from ncfair_jax.files.reading import DataError
from ncfair_jax.tasks.coreference.conll import write_conll
from ncfair_jax.tasks.coreference.documents import encode_document
from ncfair_jax.tasks.coreference.winobias import KINDS, SIDES, read_lines_file, read_winobias

LINES = {
    "pro_stereotyped_type1.txt.dev": "1 [The construction worker] didn't greet the nurse , so [he] left.\n"
    "2 The cook asked the [ physician] about [his] well-being and [his] car.\n",
    "anti_stereotyped_type1.txt.dev": "1 [The cook] left because [she] was tired.\n2 [The cook] lost [her] pen.\n",
    "pro_stereotyped_type2.txt.dev": "1 I met [the cook] and thanked [him].\n",
    "anti_stereotyped_type2.txt.dev": "1 I met [the cook] and thanked [her].\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in LINES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_lines_become_documents(folder):
    first, second = read_lines_file(folder / "pro_stereotyped_type1.txt.dev")
    words = "The construction worker did n't greet the nurse , so he left ."
    assert first.sentences == (tuple(words.split()),)
    assert first.clusters == (((0, 2), (10, 10)),)
    assert (first.name, first.part, first.speakers) == ("nw/dev_type1/stereotype//0", 0, ("Speaker#1",))
    assert " ".join(second.sentences[0]) == "The cook asked the physician about his well-being and his car ."
    assert second.clusters == (((4, 4), (6, 6), (9, 9)),)
    assert second.name == "nw/dev_type1/stereotype//1"


def test_conll_files_come_first_and_say_the_same(folder, tmp_path):
    from_lines = read_winobias(folder, "dev")
    assert [(kind, side, len(d)) for (kind, side), d in from_lines.items()] == [
        (1, "pro", 2), (1, "anti", 2), (2, "pro", 1), (2, "anti", 1),
    ]  # fmt: skip
    for (kind, side), documents in from_lines.items():
        write_conll(folder / f"dev_type{kind}_{side}_stereotype.v4_auto_conll", documents)
        (folder / f"{side}_stereotyped_type{kind}.txt.dev").unlink()
    assert read_winobias(folder, "dev") == from_lines


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("The [cook] left because [he] was tired.", ":1: 'The [cook] left because [he] was tired.' is not a number"),
        ("1 The [cook left because [he] was tired.", ":1: bracket '[' does not pair"),
        ("1 The cook] left because [he] was tired.", ":1: bracket ']' does not pair"),
        ("1 The [] left because [he] was tired.", ":1: bracket ']' does not pair, or holds no word"),
        ("1 The [cook] left because [he was tired.", "has 1 closed mentions; expected an occupation and a pronoun"),
        ("1 The cook left because [he] was tired.", "has 1 closed mentions; expected"),
    ],
)
def test_refused_lines(folder, line, message):
    path = folder / "pro_stereotyped_type1.txt.dev"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read_lines_file(path)


def test_refused_folders(folder):
    (folder / "anti_stereotyped_type1.txt.dev").write_text("1 [The cook] left because [she] was tired.\n")
    with pytest.raises(DataError, match="pro and anti files of type 1 differ in length"):
        read_winobias(folder, "dev")
    with pytest.raises(DataError, match="no such file"):
        read_winobias(folder, "test")
    with pytest.raises(DataError, match="expected a name such as pro_stereotyped_type1"):
        read_lines_file(folder / "lines.txt")


def test_gold_clusters_are_those_of_the_published_files(shared):
    """All 1584 documents of the development files: the published pieces of bert-base-cased."""
    vocabulary = shared("data/vocab/bert-base-cased-vocab.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=False)
    golden = json.loads(shared("golden/evals/winobias_coref_aggregator.json").read_text())["predictions"]
    folder = shared("data/winobias/pro_stereotyped_type1.txt.dev").parent
    found = read_winobias(folder, "dev")
    assert list(found) == [(kind, side) for kind in KINDS for side in SIDES]
    for (kind, side), documents in found.items():
        published = {d["doc"]: sorted(map(tuple, d["gold"][0])) for d in golden[f"bert-type{kind}_{side}"]}
        pieces = {d.key: encode_document(d, tokenizer, 128).mentions[:, :2].tolist() for d in documents}
        assert {key: sorted(map(tuple, mentions)) for key, mentions in pieces.items()} == published
