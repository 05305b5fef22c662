import json

import numpy as np
import pytest
from transformers import BertTokenizerFast, RobertaTokenizerFast

from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.gap import read_gap
from ncfair_jax.files.notes import WithoutClass, collected, total_counts
from ncfair_jax.lexicons.classes import (
    build_classes,
    frequency_matched,
    full_vocabulary,
    lexicon_or_control,
    matched_lists,
    random_classes,
    refuse_missing_groups,
    split_control,
    token_counts,
)
from ncfair_jax.lexicons.lexicon import LexiconError, load_lexicon, make_lexicon
from ncfair_jax.vocabulary import word_boundaries

TINY_VOCAB = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] he she He She sun moon tree ##ing wal ##k woman river stone cloud . , a Her her him"
)
TINY = make_lexicon("gender", {"female": ["she", "her", "walking"], "male": ["he", "him", "walk"]})
LISTS = {
    "adept": ("adept/female.txt", "adept/male.txt"),
    "ase": ("ase/female_word_file.txt", "ase/male_word_file.txt"),
}


@pytest.fixture
def tiny(tmp_path) -> BertTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(TINY_VOCAB.split()), encoding="utf-8")
    return BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), do_lower_case=False)


@pytest.fixture(scope="session")
def uncased(shared) -> BertTokenizerFast:
    return BertTokenizerFast(vocab=str(shared("data/vocab/bert-base-uncased-vocab.txt")), do_lower_case=True)


@pytest.fixture(scope="session")
def cased(shared) -> BertTokenizerFast:
    return BertTokenizerFast(vocab=str(shared("data/vocab/bert-base-cased-vocab.txt")), do_lower_case=False)


@pytest.fixture(scope="session")
def roberta(shared) -> RobertaTokenizerFast:
    folder = shared("data/vocab/roberta-base")
    return RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))


def released_lexicon(shared, name: str):
    female, male = (shared(f"data/words/{file}").read_text(encoding="utf-8").split("\n") for file in LISTS[name])
    return make_lexicon("gender", {"female": filter(None, female), "male": filter(None, male)})


def test_whole_word_takes_each_single_piece_form_as_a_class(tiny):
    classes = build_classes(TINY, tiny)
    assert classes.words == ("he", "she", "He", "She", "Her", "her", "him")
    assert classes.group.tolist() == [1, 0, 1, 0, 0, 0, 1]
    ids = tiny.convert_tokens_to_ids(list(classes.words))
    assert classes.token_ids.tolist() == ids
    expected = np.full(len(tiny), 7)
    expected[ids] = np.arange(7)
    np.testing.assert_array_equal(classes.slot_of_token, expected)


def test_first_piece_takes_fragments_and_marks_those_of_both_groups(tiny):
    classes = build_classes(TINY, tiny, "first_piece")
    assert classes.words == ("he", "she", "wal", "her", "him")
    assert classes.group.tolist() == [1, 0, -1, 0, 1]


def test_fingerprint_follows_the_classes(tiny):
    assert build_classes(TINY, tiny).fingerprint == build_classes(TINY, tiny).fingerprint
    assert build_classes(TINY, tiny).fingerprint != build_classes(TINY, tiny, "first_piece").fingerprint
    regrouped = make_lexicon("gender", {"female": ["she", "her", "him"], "male": ["he"]})
    assert build_classes(TINY, tiny).fingerprint != build_classes(regrouped, tiny).fingerprint
    listed = build_classes(TINY, tiny, "listed_token")  # the same words, but other tokens count
    assert listed.words == build_classes(TINY, tiny).words
    assert listed.fingerprint != build_classes(TINY, tiny).fingerprint


def test_special_tokens_are_never_classes(tiny):
    lexicon = make_lexicon("odd", {"a": ["[MASK]", "[PAD]", "Zebra", "sun"], "b": ["moon"]})
    for classes in (build_classes(lexicon, tiny), full_vocabulary(tiny), random_classes(4, 0, tiny)):
        assert (classes.slot_of_token[tiny.all_special_ids] == classes.num_classes).all()


def test_classes_cannot_be_written_to(tiny):
    with pytest.raises(ValueError, match="read-only"):
        build_classes(TINY, tiny).token_ids[0] = 3


def test_unknown_rule_and_foreign_lexicon_are_refused(tiny):
    with pytest.raises(ValueError, match=r"rule='piece'; choose from \['first_piece', 'listed_token', 'whole_word'\]"):
        build_classes(TINY, tiny, "piece")
    with pytest.raises(
        LexiconError, match=r"lexicon 'x': no word of group 'a' \(zzz\) is one token of this vocabulary"
    ):
        build_classes(make_lexicon("x", {"a": ["zzz"], "b": ["qqq"]}), tiny)


def test_a_group_without_classes_is_refused_by_name(uncased):
    groups = {"female": ["businesswoman", "policewoman"], "male": ["he", "man", "his"]}
    lexicon = make_lexicon("gender", groups)
    for rule in ("whole_word", "listed_token"):
        with pytest.raises(LexiconError, match=r"group 'female' \(businesswoman, policewoman\) is one token"):
            build_classes(lexicon, uncased, rule)
    assert build_classes(lexicon, uncased, "first_piece").groups == ("female", "male")


def test_words_without_a_class_are_noted_by_name(uncased, caplog):
    groups = {"female": ["she", "businesswoman"], "male": ["he", "policemanlike", "man"]}
    lexicon = make_lexicon("gender", groups)
    with collected() as notes:
        assert build_classes(lexicon, uncased).words == ("he", "she", "man")
        build_classes(lexicon, uncased, "first_piece")
    assert notes == [WithoutClass("gender", 5, ("businesswoman", "policemanlike"))]
    assert total_counts(notes) == {"words_without_class": 2}
    build_classes(lexicon, uncased)
    assert (
        "lexicon 'gender': 2 of 5 words are not one token of this vocabulary and were left out: businesswoman, pol"
        in caplog.text
    )


def test_a_group_that_does_not_occur_is_refused_by_name(tiny):
    classes = build_classes(TINY, tiny)
    male = np.where(np.isin(np.arange(len(tiny)), classes.token_ids[classes.group == 1]), 3, 0)
    with pytest.raises(LexiconError, match=r"no word of the lexicon's group 'female' \(she, She, Her, her\) occurs"):
        refuse_missing_groups(classes, male)
    refuse_missing_groups(classes, np.ones(len(tiny), int))
    refuse_missing_groups(random_classes(3, 0, tiny), np.zeros(len(tiny), int))


def test_random_classes_are_seeded_whole_words_without_fairness_words(tiny):
    classes = random_classes(6, 3, tiny, exclude=tiny.convert_tokens_to_ids(["sun"]))
    # "woman" is in the shipped lexicon, "##ing" no word, "sun" excluded
    assert set(classes.words) == {"moon", "tree", "wal", "river", "stone", "cloud"}
    assert (classes.group == 0).all()
    assert random_classes(3, 3, tiny).words == random_classes(3, 3, tiny).words
    assert len({random_classes(3, seed, tiny).words for seed in range(4)}) > 1
    with pytest.raises(ValueError, match="num_classes=8; the vocabulary has 1 to 7 words"):
        random_classes(8, 0, tiny)


def test_frequency_matched_takes_the_nearest_count_without_replacement(tiny):
    lexicon = make_lexicon("gender", {"female": ["she"], "male": ["he", "him"]})
    # lower-case forms only: "He" and "She" are absent from the counts
    classes = build_classes(lexicon, tiny, "first_piece")
    counts = np.zeros(len(tiny), np.int64)
    for word, count in {"he": 90, "him": 88, "she": 10, "sun": 91, "moon": 70, "tree": 12, "river": 9}.items():
        counts[tiny.convert_tokens_to_ids(word)] = count
    matched = frequency_matched(classes, counts, 0, tiny)
    assert set(matched.words) == {"sun", "moon", "river"}
    assert dict(zip(matched.words, matched.group.tolist(), strict=True)) == {"sun": 1, "moon": 1, "river": 0}
    with pytest.raises(ValueError, match="counts has 3 entries, the vocabulary 25"):
        frequency_matched(classes, counts[:3], 0, tiny)


def test_frequency_ties_are_broken_by_the_seed(tiny):
    classes = build_classes(make_lexicon("g", {"a": ["she"], "b": ["he"]}), tiny, "first_piece")
    counts = np.zeros(len(tiny), np.int64)
    assert len({frequency_matched(classes, counts, seed, tiny).words for seed in range(4)}) > 1


def test_full_vocabulary_lists_all_but_the_special_tokens(tiny):
    assert full_vocabulary(tiny).num_classes == len(tiny) - 5


def test_token_counts():
    examples = [np.array([2, 5, 5, 3], np.int32), np.array([2, 7, 3], np.int32)]
    assert token_counts(examples, 9).tolist() == [0, 0, 2, 2, 0, 2, 0, 1, 0]
    assert token_counts([], 3).tolist() == [0, 0, 0]


def test_token_counts_of_whole_words(tiny):
    examples = encode_sentences(["he woman walking", "woman , womaning a he"], tiny, 20)
    ids = tiny.convert_tokens_to_ids(["he", "woman", "wal", "##ing", "a", ","])
    assert token_counts(examples, len(tiny))[ids].tolist() == [2, 3, 1, 2, 1, 1]
    assert token_counts(examples, len(tiny), word_boundaries(tiny))[ids].tolist() == [2, 2, 0, 0, 1, 1]


def test_controls_count_as_the_lexicon_does(tiny):
    # "moon" is as frequent as "he", but mostly the beginning of "mooning"
    examples = encode_sentences(["he he he he he sun sun sun sun", "mooning mooning mooning mooning moon"], tiny, 20)
    lexicon = make_lexicon("gender", {"female": ["woman"], "male": ["he"]})
    for rule, word in {"whole_word": "sun", "listed_token": "moon"}.items():
        classes = build_classes(lexicon, tiny, rule)
        counts = token_counts(examples, len(tiny), classes.boundaries)
        matched = frequency_matched(classes, counts, 0, tiny)
        assert word in matched.words
        assert (matched.boundaries is None) == (rule == "listed_token")


def test_gap_holds_fragments_that_the_whole_word_rule_leaves_out(shared, uncased):
    """As counted by hand from the word numbers that the tokenizer gives (127 of GAP's sentences' tokens at most)."""
    examples = encode_sentences(read_gap(shared("data/gap/gap_flipped.tsv")), uncased, 128)
    classes = build_classes(load_lexicon("gender"), uncased)
    listed, whole = (token_counts(examples, len(uncased), x)[classes.token_ids] for x in (None, classes.boundaries))
    assert (listed.sum(), whole.sum()) == (20381, 20381 - 798)
    assert ((listed > 0).sum(), (whole > 0).sum()) == (207, 207 - 12)
    place = {word: place for place, word in enumerate(classes.words)}
    fragments = {word: (listed - whole)[place[word]] for word in ("ma", "hen", "pa", "bull")}
    assert fragments == {"ma": 126, "hen": 33, "pa": 32, "bull": 13}


@pytest.mark.parametrize(
    ("name", "vocabulary", "file", "size"),
    [
        ("adept", "uncased", "adept_word_indices_gender_1", 287),
        ("ase", "uncased", "ase_word_indices_gender", 271),
        ("adept", "cased", "derived_adept_word_indices_gender_cased", 239),
        ("ase", "cased", "derived_ase_word_indices_gender_cased", 229),
    ],
)
def test_first_piece_reproduces_the_released_id_lists(shared, request, name, vocabulary, file, size):
    classes = build_classes(released_lexicon(shared, name), request.getfixturevalue(vocabulary), "first_piece")
    released = json.loads(shared(f"data/words/indices/{file}.json").read_text(encoding="utf-8"))
    female, male = (set(released[group].values()) for group in ("female", "male"))
    assert classes.token_ids.tolist() == sorted(female | male)
    assert classes.num_classes == size
    group = {-1: female & male, 0: female - male, 1: male - female}
    for index, ids in group.items():
        assert set(classes.token_ids[classes.group == index].tolist()) == ids


@pytest.mark.parametrize(
    ("name", "vocabulary", "rule", "size"),
    [
        ("adept", "uncased", "whole_word", 213),
        ("ase", "uncased", "whole_word", 197),
        ("adept", "roberta", "whole_word", 353),
        ("ase", "roberta", "whole_word", 320),
        ("adept", "roberta", "first_piece", 274),
        ("ase", "roberta", "first_piece", 263),
    ],
)
def test_class_counts_of_the_released_lists(shared, request, name, vocabulary, rule, size):
    assert build_classes(released_lexicon(shared, name), request.getfixturevalue(vocabulary), rule).num_classes == size


def test_cased_whole_words_are_the_lower_case_ones_and_their_capitals(shared, cased):
    classes = build_classes(released_lexicon(shared, "adept"), cased)
    lower = [word for word in classes.words if word == word.lower()]
    assert len(lower) == 146
    assert {"woman", "Woman", "he", "He"} <= set(classes.words)


def test_roberta_forms_of_one_word_are_three_classes(roberta):
    classes = build_classes(load_lexicon("gender"), roberta)
    ids = dict(zip(classes.words, classes.token_ids.tolist(), strict=True))
    assert (ids[" he"], ids["He"], ids[" He"]) == (37, 894, 91)
    assert "he" not in ids  # without a blank and in lower case: mostly the inside of other words


@pytest.mark.parametrize("vocabulary", ["uncased", "cased", "roberta"])
def test_shipped_lexicons_give_classes_in_every_group(request, vocabulary):
    tokenizer = request.getfixturevalue(vocabulary)
    for name in ("gender", "race", "religion"):
        lexicon = load_lexicon(name)
        classes = build_classes(lexicon, tokenizer)
        per_group = np.bincount(classes.group, minlength=len(lexicon.groups))
        assert (per_group >= 5).all(), dict(zip(lexicon.groups, per_group, strict=True))
        control = random_classes(classes.num_classes, 0, tokenizer)
        assert not set(control.token_ids.tolist()) & set(classes.token_ids.tolist())


@pytest.mark.parametrize("vocabulary", ["uncased", "roberta"])
def test_frequency_matching_on_a_zipf_like_vocabulary(request, vocabulary):
    tokenizer = request.getfixturevalue(vocabulary)
    counts = np.random.default_rng(0).zipf(1.3, len(tokenizer)).clip(max=10**6)
    classes = build_classes(load_lexicon("gender"), tokenizer)
    matched = frequency_matched(classes, counts, 0, tokenizer)
    assert matched.num_classes == classes.num_classes
    np.testing.assert_array_equal(np.bincount(matched.group), np.bincount(classes.group))
    ours, theirs = (np.sort(counts[ids]).astype(float) for ids in (classes.token_ids, matched.token_ids))
    assert np.abs(np.log(ours / theirs)).mean() < 0.05


def test_matched_lists_mix_the_classes_with_neutral_words_as_frequent(uncased):
    counts = np.random.default_rng(0).zipf(1.3, len(uncased)).clip(max=10**6)
    classes = build_classes(load_lexicon("gender"), uncased)
    lists = matched_lists(classes, counts, 50, 0, uncased)
    assert lists.shape == (50, classes.num_classes)
    assert all(len(set(row)) == len(row) for row in lists.tolist())
    own = np.isin(lists, classes.token_ids).mean()
    assert 0.02 < own < 0.3  # a class is one of twenty words, more where classes are of like counts
    others = {
        word for name in ("race", "religion") for word in build_classes(load_lexicon(name), uncased).token_ids.tolist()
    }
    assert not set(lists.ravel().tolist()) & (others - set(classes.token_ids.tolist()))
    ours = np.sort(counts[classes.token_ids])
    distances = [np.abs(np.log(ours / np.sort(counts[row]))).mean() for row in lists]
    assert max(distances) < 0.15
    assert len(np.unique(lists)) > 5 * classes.num_classes  # by no means always the same words
    np.testing.assert_array_equal(matched_lists(classes, counts, 50, 0, uncased), lists)
    assert (matched_lists(classes, counts, 50, 1, uncased) != lists).any()
    rare = np.where(np.arange(len(uncased)) < 1100, counts, 0)
    with pytest.raises(ValueError, match="give more text"):
        matched_lists(classes, rare, 5, 0, uncased)


def test_controls_stand_in_for_a_lexicon_by_name(uncased):
    counts = np.random.default_rng(0).zipf(1.3, len(uncased)).clip(max=100)
    counts[20000:] = 0
    text = [np.array([token], np.int32) for token in np.repeat(np.arange(len(uncased)), counts)]
    classes = build_classes(load_lexicon("gender"), uncased)
    assert lexicon_or_control("gender", "whole_word", uncased, text, 0).fingerprint == classes.fingerprint
    for control in ("random", "frequency-matched"):
        found = lexicon_or_control(f"gender:{control}", "whole_word", uncased, text, 0)
        assert found.num_classes == classes.num_classes
        assert not set(found.token_ids.tolist()) & set(classes.token_ids.tolist())
        assert found.boundaries is not None
    assert counts[lexicon_or_control("gender:random", "whole_word", uncased, text, 0).token_ids].min() > 0
    assert lexicon_or_control("gender:random", "first_piece", uncased, text, 0).boundaries is None
    assert split_control("C:\\lexica\\mine.json") == ("C:\\lexica\\mine.json", "")
    with pytest.raises(ValueError, match=r"'gender:common': unknown control 'common'; choose from random"):
        lexicon_or_control("gender:common", "whole_word", uncased, text, 0)
