"""SNLI, MNLI and GLUE in the layouts they come in."""

import pytest

from ncfair_jax.files import notes
from ncfair_jax.files.reading import DataError
from ncfair_jax.tasks.classification.glue import SOURCES, glue_task, read_glue
from ncfair_jax.tasks.classification.labelled import Labelled
from ncfair_jax.tasks.classification.nli import SPLITS, nli_pairs
from tests import tiny_tasks
from tests.tasks.classification.test_bios import config


def test_snli_in_its_own_names_and_in_the_hubs(tmp_path):
    own = [
        {"sentence1": "a b ", "sentence2": "c", "gold_label": "contradiction", "extra": 1},
        {"sentence1": "a", "sentence2": "b", "gold_label": "-"},
    ]
    tiny_tasks.write_jsonl(tmp_path / "own" / "snli_1.0_dev.jsonl", own)
    assert nli_pairs(str(tmp_path / "own"), SPLITS["dev"]) == [Labelled("a b", "c", 2)]
    hub = [{"premise": "a", "hypothesis": "b", "label": 1}, {"premise": "a", "hypothesis": "b", "label": -1}]
    tiny_tasks.write_jsonl(tmp_path / "hub" / "train.jsonl", hub)
    assert nli_pairs(str(tmp_path / "hub"), SPLITS["train"]) == [Labelled("a", "b", 1)]
    tiny_tasks.write_jsonl(tmp_path / "bad" / "train.jsonl", [hub[0] | {"label": "maybe"}])
    with pytest.raises(DataError, match=r"train\.jsonl:1: label 'maybe'; expected one of entailment"):
        nli_pairs(str(tmp_path / "bad"), SPLITS["train"])


GLUE_FILES = {  # first lines as in GLUE's own files
    "cola": ("gj04\t1\t\tWe left.\ngj04\t0\t*\tLeft we.", [("We left.", None, 1), ("Left we.", None, 0)]),
    "sst2": ("sentence\tlabel\nfine film \t1", [("fine film", None, 1)]),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tone\ttwo", [("one", "two", 0)]),
    "stsb": ("index\tsentence1\tsentence2\tscore\n0\tone\ttwo\t2.75", [("one", "two", 2.75)]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\twhy\thow\t1", [("why", "how", 1)]),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\twho\the\tnot_entailment", [("who", "he", 1)]),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tone\ttwo\tentailment", [("one", "two", 0)]),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tone\ttwo\t1", [("one", "two", 1)]),
}  # fmt: skip


@pytest.mark.parametrize("task", GLUE_FILES)
def test_glues_own_files(tmp_path, task):
    text, expected = GLUE_FILES[task]
    (tmp_path / SOURCES[task].folder).mkdir()
    (tmp_path / SOURCES[task].folder / "dev.tsv").write_text(text + "\n")
    made = glue_task(task)
    assert made.read(config(tmp_path), "test") == [Labelled(*row) for row in expected]
    assert made.read(config(tmp_path), "dev") == []  # never the part that judges
    assert made.classes == (1 if task == "stsb" else 2)


def test_mnli_has_two_validation_parts(tmp_path):
    for group, label in (("matched", "neutral"), ("mismatched", "contradiction")):
        text = f"index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tone\ttwo\tentailment\t{label}\n"
        (tmp_path / f"dev_{group}.tsv").write_text(text)
    assert glue_task("mnli").read(config(tmp_path), "test") == [
        Labelled("one", "two", 1, "matched"),
        Labelled("one", "two", 2, "mismatched"),
    ]


@pytest.mark.parametrize(
    ("task", "header", "good", "bad", "fault"),
    [
        (
            "qqp",
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "{i}\t1\t2\tone?\ttwo?\t1",
            "7\t1\t2\tone?",
            "4 cells",
        ),
        ("sst2", "sentence\tlabel", "fine {i}\t1", "not\tfine\t0", "3 cells"),
    ],
)
def test_rows_with_too_few_or_too_many_cells_are_skipped_and_counted(tmp_path, task, header, good, bad, fault):
    lines = [header, *(good.format(i=i) for i in range(100))]
    (tmp_path / "train.tsv").write_text("\n".join([*lines[:60], bad, *lines[60:]]) + "\n")
    with notes.collected() as found:
        examples = read_glue(task, str(tmp_path), ("train",))
    assert len(examples) == 100 and all(example.label == 1 for example in examples)
    assert [(note.rows, note.lines) for note in found] == [(101, (61,))]
    assert found[0].first.startswith(f"{fault}, but the header has")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "train.tsv").write_text("\n".join([*lines[:60], bad, bad, *lines[60:]]) + "\n")
    with pytest.raises(DataError, match=rf"train\.tsv:61: {fault}.* \(2 of 102 rows are malformed: lines 61, 62\)"):
        read_glue(task, str(tmp_path / "more"), ("train",))


@pytest.mark.parametrize("score", ["nan", "inf", "much"])
def test_a_score_is_a_finite_number(tmp_path, score):
    tiny_tasks.write_jsonl(tmp_path / "train.jsonl", [{"sentence1": "a", "sentence2": "b", "label": score}])
    with pytest.raises(DataError, match=f"score '{score}'; expected a number"):
        read_glue("stsb", str(tmp_path), ("train",))


def test_what_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no train file of rte, nor has RTE below it; get RTE\.zip from gluebenchmark"):
        read_glue("rte", str(tmp_path), ("train",))
    rows = [{"sentence1": "a", "sentence2": "b", "label": "perhaps"}]
    tiny_tasks.write_jsonl(tmp_path / "train.jsonl", rows)
    for task, message in (("rte", "label 'perhaps'; expected one of entailment, 0"), ("stsb", "expected a number")):
        with pytest.raises(DataError, match=message):
            read_glue(task, str(tmp_path), ("train",))
