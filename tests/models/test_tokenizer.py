"""Tokenizers: one that disagrees with its own vocabulary on case is refused, in any language; real ones are not."""

import json
import re
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerBase

from ncfair_jax.models.hf import ModelFolderError, load_pretrained, save_pretrained
from ncfair_jax.models.tokenizer import case_problems
from tests import tiny_hub

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_pieces(words: list[str], lower: bool) -> PreTrainedTokenizerBase:
    vocab = {word: number for number, word in enumerate([*SPECIALS, *words])}
    return BertTokenizerFast(vocab=vocab, do_lower_case=lower)


LATIN = ["Nurse", "Anna", "She", "the", "nurse", "said", "he", "##s", "was"]
GREEK = ["Νοσοκόμα", "Άννα", "είπε", "νοσοκόμα", "άννα", "ήταν"]
CHINESE = ["护", "士", "说", "她", "累", "了", "医", "生", "the", "and"]


@pytest.mark.parametrize(
    ("words", "lower", "said"),
    [
        (LATIN, True, r'lower-cases all text, but 3 of the 9 entries .* "do_lower_case": false'),
        (LATIN, False, ""),
        ([word.lower() for word in LATIN], True, ""),
        (
            [word.lower() for word in LATIN],
            False,
            r"keeps capital letters, .* of its own words, .*do_lower_case\": true",
        ),
        (GREEK, True, "lower-cases all text"),
        (GREEK, False, ""),
        ([word.lower() for word in GREEK], False, "keeps capital letters"),
        (CHINESE, True, ""),
        (CHINESE, False, ""),  # as the published Chinese BERT is
        ([*CHINESE, "[unused1]", "[unused2]", "<S>"], True, ""),
    ],
)
def test_case_of_text_and_vocabulary(words, lower, said):
    problems = case_problems(word_pieces(words, lower))
    if not said:
        assert problems == []
    else:
        (problem,) = problems
        assert re.search(said, problem), problem


def vocabulary(shared, folder: Path, name: str, lower: bool | None) -> PreTrainedTokenizerBase:
    """A published vocab.txt, without tokenizer_config.json or with do_lower_case in it."""
    folder.mkdir()
    shutil.copy(shared(f"data/vocab/{name}"), folder / "vocab.txt")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    if lower is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    return AutoTokenizer.from_pretrained(folder)


def test_published_vocabularies(shared, tmp_path):
    cased, uncased = "bert-base-cased-vocab.txt", "bert-base-uncased-vocab.txt"
    assert case_problems(vocabulary(shared, tmp_path / "a", cased, False)) == []
    assert case_problems(vocabulary(shared, tmp_path / "b", uncased, None)) == []
    assert case_problems(vocabulary(shared, tmp_path / "c", uncased, True)) == []
    (problem,) = case_problems(vocabulary(shared, tmp_path / "d", cased, None))
    assert problem.startswith("the tokenizer lower-cases all text, but 8,")
    (problem,) = case_problems(vocabulary(shared, tmp_path / "e", uncased, False))
    assert problem.startswith("the tokenizer keeps capital letters")


def test_models_of_many_families_and_languages_are_not_refused(shared):
    folders = [path.parent for path in shared("models").glob("**/tokenizer_config.json")]
    assert len(folders) >= 18
    for folder in folders:
        assert case_problems(AutoTokenizer.from_pretrained(folder)) == [], folder


def test_the_remedy_is_one(tmp_path):
    """A folder with a cased vocab.txt only is refused; with the field that the message names it loads."""
    model = tiny_hub.pretrained("bert")
    words = [*SPECIALS, *LATIN, *"abcd"]
    assert len(words) == len(model.tokenizer)
    save_pretrained(tmp_path / "model", model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(words) + "\n")
    with pytest.raises(
        ModelFolderError, match=r"lower-cases all text, .*such as Anna, Nurse, She.*tokenizer_config\.json"
    ):
        load_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    tokenizer = load_pretrained(tmp_path / "model").tokenizer
    assert tokenizer.tokenize("She said") == ["She", "said"]
    tokenizer.save_pretrained(tmp_path / "model")  # now there is a tokenizer.json too; the field still decides
    (tmp_path / "model" / "vocab.txt").unlink()
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": True}))
    with pytest.raises(ModelFolderError, match="lower-cases all text"):
        load_pretrained(tmp_path / "model")
