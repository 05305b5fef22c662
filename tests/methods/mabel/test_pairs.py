"""MABEL's pairs: the file, its builder, the templates, and what a batch holds."""

import csv
import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest

from ncfair_jax.config import ConfigError
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Examples, Pipeline
from ncfair_jax.files.reading import DataError
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.methods.mabel.config import MabelRun
from ncfair_jax.methods.mabel.pairs import (
    HEADER,
    LAYOUT,
    build_pairs,
    entailed_pairs,
    load_pair_examples,
    read_pairs,
    swapped_pairs,
)
from ncfair_jax.methods.mabel.templates import PAIRS, TEMPLATES, template_pairs
from ncfair_jax.vocabulary import WordBoundaries
from tests import tiny, tiny_text
from tests.started import ROOT, environment

GENDER = load_lexicon("gender")
ROWS = [
    ("A man is eating, slowly.", "A man eats.", "entailment"),
    ("A dog barks.", "An animal makes a noise.", "entailment"),
    ("A man is eating, slowly.", "He is hungry.", "neutral"),
    ('The "nurse" told her brother.', "Somebody spoke.", "entailment"),
    ("A man is eating, slowly.", "A man eats.", "entailment"),  # a second time
    ("A woman sings.", " ", "entailment"),  # a blank hypothesis
    ("A woman sings.", "A woman sleeps.", "contradiction"),
    ("A child naps.", "A boy sleeps.", "-"),
]
BUILT = [
    ["A man is eating, slowly.", "A man eats.", "A woman is eating, slowly.", "A woman eats.", "1"],
    ['The "nurse" told her brother.', "Somebody spoke.", 'The "nurse" told his sister.', "Somebody spoke.", "0"],
]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_jsonl(path: Path) -> str:
    """As SNLI's own files."""
    names = ("sentence1", "sentence2", "gold_label")
    return str(write(path, *(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS)))


def as_csv(path: Path) -> str:
    """With the Hub's column names and numbers."""
    numbers = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": -1}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "premise", "hypothesis"])
        writer.writerows([numbers[label], premise, hypothesis] for premise, hypothesis, label in ROWS)
    return str(path)


def as_hub_folder(path: Path) -> str:
    """As the Hub has them: parquet, labels as numbers of named classes, in another order than usual."""
    names = ["neutral", "contradiction", "entailment"]
    columns = {
        "premise": [row[0] for row in ROWS],
        "hypothesis": [row[1] for row in ROWS],
        "label": [names.index(row[2]) if row[2] in names else -1 for row in ROWS],
    }
    text = datasets.Value("string")
    features = datasets.Features({"premise": text, "hypothesis": text, "label": datasets.ClassLabel(names=names)})
    path.mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path / "train.parquet")
    return str(path)


# --- the file


@pytest.mark.parametrize("columns", [4, 5, 6])
def test_layouts_are_read_by_position(tmp_path, columns):
    cells = ["o 0, with a comma", 'o ""1""', "a 0", "a 1", "1", "h a"][:columns]
    line = ",".join(f'"{cell}"' for cell in cells)
    path = write(tmp_path / "pairs.csv", ",".join(f"name{i}" for i in range(columns)), line, "", line)
    assert read_pairs(path) == [("o 0, with a comma", 'o "1"', "a 0", "a 1")] * 2
    if columns == 6:
        assert read_pairs(path, hard_negatives=True)[0][4:] == ("1", "h a")


FOUR, FIVE, SIX = (",".join(["x"] * count) for count in (4, 5, 6))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x,x,x", "a,b,c"], r"pairs.csv:1: 3 columns; expected 4 \(orig_sent0"),
        (["sentence", "a"], "pairs.csv:1: 1 columns; expected 4"),
        ([FOUR, "a,b,c,d", "a,b,c"], "pairs.csv:3: 3 cells, but the header has 4"),
        ([FIVE, "a,b,c,d,0", "a,b,c,d,maybe"], "pairs.csv:3: column 5 holds 'maybe'"),
        ([FOUR, "a,b,c,d", "", "a,,c,d"], "pairs.csv:4: sentence '' has no visible character"),
        ([FOUR, "a,b,c,d", '"a,b,c,d', "a,b,c,d"], "pairs.csv:3: a quote is opened and never closed"),
        ([FOUR], "pairs.csv: the file holds no pairs"),
    ],
)
def test_faults_name_file_and_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as raised:
        read_pairs(write(tmp_path / "pairs.csv", *lines))
    assert "\n" not in str(raised.value)


def test_other_faults(tmp_path):
    with pytest.raises(DataError, match="hard negatives need 6"):
        read_pairs(write(tmp_path / "pairs.csv", FIVE, "a,b,c,d,0"), hard_negatives=True)
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes(FOUR.encode() + b"\na,b,c,d\na,b,caf\xe9,d\n")
    with pytest.raises(DataError, match=r"latin.csv:3: not UTF-8 \(byte 0xe9\)"):
        read_pairs(tmp_path / "latin.csv")


# --- the builder


@pytest.mark.parametrize("make", [as_jsonl, as_csv, as_hub_folder])
def test_built_from_every_form_of_nli_data(tmp_path, make, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    name = {as_jsonl: "nli.jsonl", as_csv: "nli.csv", as_hub_folder: "nli"}[make]
    out = tmp_path / "new" / "pairs.csv"
    assert build_pairs([make(tmp_path / name)], out, GENDER) == 2
    with out.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [list(HEADER), *BUILT]
    assert read_pairs(out) == [tuple(row[:4]) for row in BUILT]
    assert [path.name for path in out.parent.iterdir()] == ["pairs.csv"]


def test_filters_and_order_over_sources(tmp_path):
    pairs = list(entailed_pairs(as_jsonl(tmp_path / "nli.jsonl")))
    assert [pair[0][:5] for pair in pairs] == ["A man", "A dog", 'The "', "A man"]
    assert [pair[0][:5] for pair in swapped_pairs(pairs, GENDER, "none")] == ["A man", "A dog", 'The "']
    assert [pair[0][:5] for pair in swapped_pairs(pairs, GENDER, "both")] == ["A man"]
    more = [("The king left.", "A king left."), *pairs]
    assert [pair.swapped_hypothesis for pair in swapped_pairs(more, GENDER)] == [
        "A queen left.",
        "A woman eats.",
        "Somebody spoke.",
    ]
    with pytest.raises(ValueError, match=r"filter='some'; choose from \['any', 'both', 'none'\]"):
        next(swapped_pairs(pairs, GENDER, "some"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"premise": "a", "hypothesis": "b", "label": "entails"}', r"nli.jsonl:2: label 'entails'; expected one of"),
        ('{"premise": "a", "label": 0}', r"nli.jsonl:2: no column 'hypothesis' or 'sentence2'; choose from"),
        ('{"premise": "a", "hypothesis": null, "label": 0}', "nli.jsonl:2: column 'hypothesis' is null"),
        ('{"premise": ', "nli.jsonl:2: not JSON"),
        ("[1]", "nli.jsonl:2: holds a list"),
    ],
)
def test_faults_of_nli_data_name_file_and_line(tmp_path, line, message):
    good = '{"premise": "a", "hypothesis": "b", "label": 1}'
    with pytest.raises(DataError, match=message):
        list(entailed_pairs(str(write(tmp_path / "nli.jsonl", good, line))))


def test_nothing_left_writes_nothing(tmp_path):
    source = write(tmp_path / "nli.csv", "premise,hypothesis,label", "A dog barks.,A noise.,0")
    with pytest.raises(DataError, match="no entailed pair is left"):
        build_pairs([str(source)], tmp_path / "pairs.csv", GENDER)
    assert not (tmp_path / "pairs.csv").exists()


def test_command(tmp_path):
    script = [sys.executable, str(ROOT / "launch" / "build_mabel.py"), f"--out={tmp_path / 'pairs.csv'}"]
    flags = [f"--sources={as_jsonl(tmp_path / 'nli.jsonl')}", "--filter=both"]
    done = subprocess.run([*script, *flags], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote 1 pairs to {tmp_path / 'pairs.csv'}\n"
    assert read_pairs(tmp_path / "pairs.csv") == [tuple(BUILT[0][:4])]


# --- the templates


def test_possessives_are_read_in_context_or_by_the_documented_rule():
    pair = ("Give her the book.", "The book is his.")
    (in_context,), (by_next_word,) = (
        list(swapped_pairs([pair], GENDER, possessives=p)) for p in ("context", "next_word")
    )
    assert in_context[2:4] == ("Give him the book.", "The book is hers.")
    assert by_next_word[2:4] == ("Give his the book.", "The book is her.")


def test_templates_are_distinct_gendered_and_balanced():
    pairs = template_pairs()
    assert len(set(pairs)) == len(pairs) == PAIRS
    assert template_pairs(50) == pairs[:50]
    assert not any(set(" ".join(pair)) & set("{}") for pair in pairs)
    assert all(premise != hypothesis for premise, hypothesis in pairs)
    some = pairs[::20]
    assert len(list(swapped_pairs(some, GENDER))) == len(some)  # all premises name a gender
    words = Counter(word.strip(".,").lower() for premise, _ in pairs for word in premise.split())
    male, female = (sum(words[w] for w in group) for group in ({"he", "his", "man"}, {"she", "her", "woman"}))
    assert 0.9 < male / female < 1.1
    assert len({hypothesis.split()[0] for _, hypothesis in pairs}) >= len(TEMPLATES) // 2
    with pytest.raises(ValueError, match=f"1 to {PAIRS}"):
        template_pairs(PAIRS + 1)


# --- examples and batches


def config(**changes) -> MabelRun:
    base = MabelRun()
    return dataclasses.replace(
        base, **{name: dataclasses.replace(getattr(base, name), **x) for name, x in changes.items()}
    )


def test_examples_of_a_file(tmp_path):
    model = tiny_text.pretrained()
    rows = [f"he sees{i},man,she sees{i},woman" for i in range(6)]
    path = str(write(tmp_path / "pairs.csv", FOUR, *rows))
    train, dev = load_pair_examples(config(mabel={"pairs": path}, data={"dev_examples": 2, "max_examples": 5}), model)
    assert (len(train.sequences), len(dev.sequences)) == (3 * 4, 2 * 4)
    assert train.views == dev.views == 4
    assert train.layout is LAYOUT
    words = model.tokenizer.convert_ids_to_tokens([int(sequence[1]) for sequence in train.sequences[:4]])
    assert words == ["he", "man", "she", "woman"]
    train, dev = load_pair_examples(config(mabel={"pairs": "templates"}, data={"max_examples": 7}), model)
    assert (len(train.sequences), dev) == (28, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "config.mabel.pairs is empty; name a CSV file"),
        ({"mabel": {"pairs": "templates", "hard_negatives": True}}, "config.mabel.hard_negatives=True: the templates"),
        ({"mabel": {"pairs": "templates"}, "data": {"counterfactual": "two_sided"}}, "bring their swapped copies"),
        ({"mabel": {"pairs": "templates"}, "data": {"max_examples": 3, "dev_examples": 3}}, "leaves nothing of 3"),
    ],
)
def test_refused_configs(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_pair_examples(config(**changes), tiny_text.pretrained())


def test_templates_without_a_word_of_the_lexicon_are_refused(tmp_path):
    words = {"attribute": "species", "groups": {"a": ["cat"], "b": ["dog"]}, "pairs": [["cat", "dog"]]}
    path = str(write(tmp_path / "species.json", json.dumps(words)))
    changes = {"mabel": {"pairs": "templates"}, "data": {"lexicon": path, "max_examples": 20}}
    with pytest.raises(ConfigError, match=r"species\.json': the templates hold none of its words"):
        load_pair_examples(config(**changes), tiny_text.pretrained())


def batch_of(
    views: int = 4, boundaries: WordBoundaries | None = None, **settings
) -> tuple[dict[str, np.ndarray], list[np.ndarray], Pipeline]:
    examples = tiny.examples(10 * views)
    pipeline = Pipeline(
        Examples(examples, views=views, layout=LAYOUT),
        PipelineConfig(seed=1, batch_size=4, row_tokens=32, mask_prob=0.5, **settings),
        special_ids=[tiny.PAD, tiny.CLS, tiny.SEP, tiny.MASK],
        mask_token_id=tiny.MASK,
        vocab_size=tiny.VOCAB,
        slot_of_token=tiny.classes().slot_of_token,
        boundaries=boundaries,
    )
    return {name: value[0] for name, value in pipeline.batch(2).items() if value.ndim}, examples, pipeline


@pytest.mark.parametrize("views", [4, 6])
def test_batch_holds_every_sentence_clean_and_masked(views):
    batch, examples, pipeline = batch_of(views)
    ids = pipeline.example_ids(2)
    assert len(ids) == 2  # the short last batch of ten pairs
    assert batch["example_cls"].shape == (len(ids), views, 2)
    tokens, segments = batch["tokens"], batch["segment_ids"]
    clean = np.zeros_like(tokens, bool)
    for example, places in zip(ids, batch["example_cls"], strict=True):
        for view, (row, column) in enumerate(places):
            own = segments[row] == segments[row, column]
            np.testing.assert_array_equal(tokens[row][own], examples[views * example + view])
            assert batch["positions"][row, column] == 0
            clean[row] |= own
    masked = (segments > 0) & ~clean
    assert masked.sum() == clean.sum()
    restored = tokens.copy()
    used = batch["masked_weights"] > 0
    row = np.nonzero(used)[0]
    column = batch["masked_positions"][used]
    assert len(row) > 0 and masked[row, column].all()
    restored[row, column] = batch["masked_labels"][used]
    copies = Counter(
        tuple(restored[r][segments[r] == s].tolist())
        for r, s in {(r, segments[r, t]) for r, t in zip(*np.nonzero(masked), strict=True)}
    )
    assert copies == Counter(tuple(examples[views * i + v].tolist()) for i in ids for v in range(views))


@pytest.mark.parametrize("labels", ["original", "input"])
def test_only_clean_sentences_hold_classes(labels):
    batch, examples, pipeline = batch_of(labels=labels)
    expected = Counter(
        int(slot)
        for i in pipeline.example_ids(2)
        for v in range(4)
        for slot in tiny.classes().slot_of_token[examples[4 * i + v]]
    )
    found = Counter(batch["slots"].ravel().tolist())
    del expected[6], found[6]
    assert found == expected and expected.total() > 0
    nothing_is_whole = WordBoundaries(np.zeros(tiny.VOCAB, bool), *np.zeros((2, tiny.VOCAB), np.int8))
    assert np.all(batch_of(labels=labels, boundaries=nothing_is_whole)[0]["slots"] == 6)
