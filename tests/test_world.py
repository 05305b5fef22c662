"""The generated world: what was planted is there, and the public readers take its files unchanged."""

import csv
import json
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from ncfair_jax import world as world_module
from ncfair_jax.benchmarks import bec_pro, crows_pairs, stereoset_examples
from ncfair_jax.data import generated, generated_benchmarks
from ncfair_jax.data.generated import GENDERS, JOBS, PERSONS, PRONOUNS, female_probability
from ncfair_jax.data.wikitext import heldout_text
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.lexicons.cda import swap_words
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.world import HELDOUT_SENTENCES, write_world

BIAS = 0.8
GROUP_OF = {job.name: job.group for job in JOBS}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "world"
    write_world(folder, sentences=6000, bias=BIAS, seed=3)
    return folder


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def rows(path: Path, delimiter: str) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def benchmark_sentences(world: Path) -> list[str]:
    """The distinct sentences of all benchmarks, unrelated fillers left out."""
    found = []
    for row in rows(world / "data/crows_pairs/crows_pairs_anonymized.csv", ","):
        found += [row["sent_more"], row["sent_less"]]
    found += [row["Sentence"] for row in rows(world / "data/bec_pro/BEC-Pro_EN.tsv", "\t")]
    for example in json.loads((world / "data/stereoset/gender_intrasentence.json").read_text()):
        found += [example["data"][label]["sentence"] for label in ("stereotype", "anti-stereotype")]
    return found


def gender_counts(sentences: list[str]) -> dict[str, Counter[str]]:
    """Occupation -> gender of the sentences that name both, found by their words alone."""
    gender_of = {pair[g]: GENDERS[g] for pair in (*PERSONS, *PRONOUNS.values()) for g in (0, 1)}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        found = words(sentence)
        genders = {gender_of[w] for w in found if w in gender_of}
        assert len(genders) <= 1, sentence
        for job in set(found) & set(GROUP_OF):
            counts[job].update(genders)
    return counts


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    trees = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_world(tmp_path / name, sentences=50, bias=0.9, seed=seed)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        trees.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert trees[0] == trees[1]
    assert trees[0].keys() == trees[2].keys()
    changed = {name for name in trees[0] if trees[0][name] != trees[2][name]}
    assert {"corpus.txt", "heldout.txt", "model/model.safetensors", "truth.json"} <= changed


def test_folder_appears_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path, seed: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(world_module, "_write_model", fails)
    with pytest.raises(OSError, match="disk full"):
        write_world(tmp_path / "world", sentences=10, bias=0.9, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_refuses_an_existing_folder(world: Path) -> None:
    before = (world / "corpus.txt").read_bytes()
    with pytest.raises(FileExistsError, match="remove it or name another"):
        write_world(world, sentences=10, bias=0.9, seed=0)
    assert (world / "corpus.txt").read_bytes() == before


@pytest.mark.parametrize("wrong", [{"sentences": 0}, {"bias": 1.1}, {"bias": float("nan")}, {"seed": -1}])
def test_refuses_impossible_arguments(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected at least 1, 0 to 1, at least 0"):
        write_world(tmp_path / "world", **{"sentences": 10, "bias": 0.9, "seed": 0} | wrong)
    assert not (tmp_path / "world").exists()


def test_corpus_holds_the_planted_association(world: Path) -> None:
    truth = json.loads((world / "truth.json").read_text())
    assert (truth["bias"], truth["sentences"], truth["seed"]) == (BIAS, 6000, 3)
    corpus = lines(world / "corpus.txt")
    assert len(corpus) == 6000
    counts = gender_counts(corpus)
    per_group: dict[str, Counter[str]] = defaultdict(Counter)
    for job, planted in truth["occupations"].items():
        assert counts[job]["female"] == planted["female_sentences"]
        assert counts[job]["male"] == planted["male_sentences"]
        assert planted["group"] == GROUP_OF[job]
        per_group[planted["group"]].update(counts[job])
    assert set(truth["occupations"]) == set(GROUP_OF)
    for group, expected in (("female", 0.8), ("male", 0.2), ("balanced", 0.5)):
        n = per_group[group].total()
        assert n > 1000
        # 4 standard errors: a right generator misses one seed in 16,000.
        assert per_group[group]["female"] / n == pytest.approx(expected, abs=4 * (expected * (1 - expected) / n) ** 0.5)


def test_gender_depends_on_nothing_but_the_occupation() -> None:
    """Per workplace, tool aside, women and men are equally frequent: each has one occupation of every group."""
    for work in {job.work for job in JOBS}:
        groups = [job.group for job in JOBS if job.work == work]
        assert sorted(groups) == ["balanced", "female", "male"]
        assert np.mean([female_probability(group, BIAS) for group in groups]) == pytest.approx(0.5)
    assert len({job.tool for job in JOBS}) == len({job.name for job in JOBS}) == len(JOBS)


def test_nothing_measured_is_in_the_corpus(world: Path) -> None:
    lexicon = load_lexicon("gender")
    corpus = set(lines(world / "corpus.txt"))
    heldout, benchmark = lines(world / "heldout.txt"), benchmark_sentences(world)
    assert len(heldout) == HELDOUT_SENTENCES
    assert heldout_text(world / "data/wikitext2/test.txt") == heldout
    for sentence in (*heldout, *benchmark):
        assert sentence not in corpus
        assert swap_words(sentence, lexicon) not in corpus
    assert not set(benchmark) & set(heldout)


def test_gendered_words_are_the_lexicons(world: Path) -> None:
    lexicon = load_lexicon("gender")
    pairs = {frozenset(pair) for pair in lexicon.pairs}
    ours = (*PERSONS, *PRONOUNS.values())
    assert [pair for pair in ours if frozenset(pair) not in pairs] == []
    gendered = {w.lower() for group in lexicon.words for w in group}
    assert gendered & set(generated.vocabulary()) == {w for pair in ours for w in pair}
    for sentence in (*lines(world / "corpus.txt"), *benchmark_sentences(world)):
        assert swap_words(swap_words(sentence, lexicon), lexicon) == sentence


def test_model_folder_knows_every_word(world: Path) -> None:
    model = load_pretrained(world / "model")
    tokenizer = model.tokenizer
    texts = [*lines(world / "corpus.txt"), *lines(world / "heldout.txt"), *benchmark_sentences(world)]
    encoded = tokenizer(texts)["input_ids"]
    for text, ids in zip(texts, encoded, strict=True):
        assert tokenizer.unk_token_id not in ids
        assert len(ids) == len(re.findall(r"\w+|[^\w\s]", text)) + 2  # one piece a word
    assert max(map(len, encoded)) <= model.config.max_tokens
    assert lines(world / "model/vocab.txt") == tokenizer.convert_ids_to_tokens(range(model.config.vocab_size))
    assert tokenizer.tokenize("Zebras quiz") == ["z", *(f"##{c}" for c in "ebras"), "q", *(f"##{c}" for c in "uiz")]


def test_crows_pairs_file(world: Path) -> None:
    path = world / "data/crows_pairs/crows_pairs_anonymized.csv"
    pairs = crows_pairs.read_pairs(path)
    assert len(pairs) == 16 * generated_benchmarks.CROWS_PAIRS_PER_JOB
    assert crows_pairs.select(pairs, "gender") == pairs
    lexicon = load_lexicon("gender")
    for pair in pairs:
        assert swap_words(pair.more, lexicon) == pair.less
        ((job, counted),) = gender_counts([pair.more]).items()
        assert counted[GROUP_OF[job]] == 1
        assert pair.direction == ("stereo" if GROUP_OF[job] == "female" else "antistereo")


def test_stereoset_file(world: Path) -> None:
    examples = stereoset_examples.load_examples(DataFolder(world / "data"))
    raw = json.loads((world / "data/stereoset/gender_intrasentence.json").read_text())
    assert [e.id for e in examples] == [item["id"] for item in raw]
    assert len({item["id"] for item in raw}) == len(raw) == 9 * 8 * 3 * 2
    targets = {split: {e.target for e in examples if e.split == split} for split in ("dev", "test")}
    assert targets["dev"] | targets["test"] == {w for pair in generated.BEC_PERSONS for w in pair}
    assert not targets["dev"] & targets["test"]
    for item in raw:
        gender = next(g for g in (0, 1) if any(item["target"] == pair[g] for pair in PERSONS))
        assert item["context"].count("BLANK") == 1
        assert item["target"] in words(item["context"])
        filled = {label: filler["sentence"] for label, filler in item["data"].items()}
        fillers = {label: (set(words(s)) - set(words(item["context"]))) for label, s in filled.items()}
        (stereotype,), (anti,), (unrelated,) = (fillers[k] for k in ("stereotype", "anti-stereotype", "unrelated"))
        assert (GROUP_OF[stereotype], GROUP_OF[anti]) == (GENDERS[gender], GENDERS[1 - gender])
        assert unrelated not in GROUP_OF


def test_bec_pro_file(world: Path) -> None:
    read = bec_pro.read_examples(world / "data/bec_pro/BEC-Pro_EN.tsv")
    assert len(read) == 5 * 18 * len(JOBS)
    by_pair: dict[str, list[bec_pro.Example]] = defaultdict(list)
    for row in read:
        assert row.group == GROUP_OF[row.profession]
        by_pair[f"{row.pair}"].append(row)
    lexicon = load_lexicon("gender")
    for pair in by_pair.values():
        assert sorted(row.gender for row in pair) == ["female", "male"]
        assert swap_words(pair[0].sentence, lexicon) == pair[1].sentence
        assert pair[0].target_masked == pair[1].target_masked
        assert pair[0].both_masked == pair[1].both_masked


def test_frequent_options_come_first() -> None:
    rng = np.random.Generator(np.random.Philox(key=0))
    counts = Counter(generated.pick_frequent(rng, range(4)) for _ in range(20_000))
    for i in range(4):
        expected = math.log((i + 2) / (i + 1)) / math.log(5)
        assert counts[i] / 20_000 == pytest.approx(expected, abs=0.015)  # 4 standard errors


def test_formats_are_those_of_the_public_files(world: Path, shared) -> None:  # type: ignore[no-untyped-def]
    public = shared("data")
    name = "crows_pairs/crows_pairs_anonymized.csv"
    assert lines(world / "data" / name)[0] == lines(public / name)[0]
    for part in ("gender_intrasentence.json", "gender_split_ids.json"):
        ours, theirs = (json.loads((root / "stereoset" / part).read_text()) for root in (world / "data", public))
        assert shape(ours) == shape(theirs)
    name = "bec_pro/BEC-Pro_EN.tsv"
    assert lines(world / "data" / name)[0] == lines(public / name)[0]
    # The public rows of one occupation are, with its name exchanged, ours.
    ours, theirs = (rows(root / name, "\t") for root in (world / "data", public))
    expected = [as_occupation(row, "carpenter") for row in theirs if row["Profession"] == "plumber"]
    assert [without_number(row) for row in ours if row["Profession"] == "carpenter"] == expected
    assert [row[""] for row in ours] == [str(i) for i in range(len(ours))]
    assert list(dict.fromkeys(r["Prof_Gender"] for r in ours)) == list(dict.fromkeys(r["Prof_Gender"] for r in theirs))


def shape(content: object) -> object:
    """JSON with lists shortened to the shape of their first item and leaves to their type."""
    if isinstance(content, dict):
        return {key: shape(value) for key, value in content.items()}
    return [shape(content[0])] if isinstance(content, list) else type(content).__name__


def as_occupation(row: dict[str, str], name: str) -> dict[str, str]:
    return {key: value.replace("plumber", name) for key, value in without_number(row).items()}


def without_number(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if key}
