import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfair_jax.lexicons.cda import counterfactual, swap_words
from ncfair_jax.lexicons.lexicon import load_lexicon, make_lexicon

GENDER = load_lexicon("gender")
# Words in one pair only, with a partner in one pair only.
USES = Counter(word for pair in GENDER.pairs for word in pair)
UNAMBIGUOUS = sorted(word for pair in GENDER.pairs for word in pair if max(USES[pair[0]], USES[pair[1]]) == 1)


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("She told her that her book was hers.", "He told him that his book was his."),
        ("his book, him and himself", "her book, her and herself"),
        ("I saw her. Her! HER name", "I saw him. Him! HIS name"),
        ("the man's MAN, Mr. Smith", "the woman's WOMAN, Mrs. Smith"),
        ("manner, human, sheet, hero-like", "manner, human, sheet, heroine-like"),
        ("her mother-in-law's ex-wife", "his father-in-law's ex-husband"),
        ("Boy Scouts and a girl scout", "Girl Scouts and a boy scout"),
        ("my fiancée (MA'AM)", "my fiancé (SIR)"),
        ("The car is his. HIS! Her name", "The car is hers. HERS! His name"),
        ("Give her the book; I saw her yesterday.", "Give him the book; I saw him yesterday."),
        ("his fiance\u0301e, not\u00e9 not\u0065\u0301", "her fiancé, not\u00e9 not\u0065\u0301"),  # accents apart
        ("the fiance\u0301", "the fiancée"),
        ("mother\u0301", "mother\u0301"),  # the accent makes it another word
        ("“he”—she", "“she”—he"),
        ("no such word", "no such word"),
        ("", ""),
    ],
)
def test_swap(text, swapped):
    assert swap_words(text, GENDER) == swapped


def test_next_word_rule_before_words_that_follow_an_object():
    assert swap_words("I gave her to him and met her on time with her 2 dogs, her", GENDER, "next_word") == (
        "I gave him to her and met him on time with him 2 dogs, him"
    )


def test_next_word_rule_reads_a_short_list_and_never_writes_hers():
    text = "The car is his. Give her the book, I saw her yesterday."
    assert swap_words(text, GENDER, "next_word") == "The car is her. Give his the book, I saw his yesterday."
    with pytest.raises(ValueError, match=r"possessives='tagger'; choose from \['context', 'next_word'\]"):
        swap_words(text, GENDER, "tagger")
    assert counterfactual([text], GENDER, "one_sided", "next_word") == [swap_words(text, GENDER, "next_word")]


def test_a_swap_keeps_the_text_between_its_words_byte_by_byte():
    between = " cafe\u0301  \u1100\u1161 \u212b\n"  # neither composed nor otherwise normalised
    assert swap_words(f"She{between}king", GENDER) == f"He{between}queen"


CASES = st.sampled_from([str.lower, str.upper, str.capitalize])
WORDS = st.builds(lambda case, word: case(word), CASES, st.sampled_from(UNAMBIGUOUS))
# Nothing that could join two words into a phrase of the lexicon, such as a hyphen.
FILLERS = st.text(alphabet=string.digits + " .,;:!?()[]\n", min_size=1, max_size=5)


@given(st.lists(st.tuples(WORDS, FILLERS), min_size=1, max_size=8))
def test_swapping_unambiguous_words_twice_gives_the_text_back(pieces):
    text = "".join(word + f" {filler} " for word, filler in pieces)
    swapped = swap_words(text, GENDER)
    assert swap_words(swapped, GENDER) == text
    assert swapped.lower() != text.lower()


@given(st.text(alphabet="bcdgklt .,'-019é", max_size=60))
def test_text_without_listed_words_is_left_alone(text):
    assert swap_words(text, GENDER) == text


def test_modes():
    sentences = ["She runs.", "It rains.", "A king sits."]
    swapped = ["He runs.", "It rains.", "A queen sits."]
    assert counterfactual(sentences, GENDER) == sentences
    assert counterfactual(sentences, GENDER, "one_sided") == swapped
    assert counterfactual(sentences, GENDER, "two_sided") == [*sentences, swapped[0], swapped[2]]
    with pytest.raises(ValueError, match=r"counterfactual='both'; choose from \['none', 'one_sided', 'two_sided'\]"):
        counterfactual(sentences, GENDER, "both")


def test_any_pairs_can_be_swapped_and_none_is_an_error():
    faiths = make_lexicon("faith", {"a": ["Jew"], "b": ["muslim"], "c": ["Hindu"]}, [["Jew", "muslim"]])
    assert swap_words("A Jew, a Muslim and a Hindu", faiths) == "A Muslim, a Jew and a Hindu"
    with pytest.raises(ValueError, match="lexicon 'race' has no pairs to swap"):
        swap_words("text", load_lexicon("race"))


def test_swap_of_the_real_corpus_turns_its_pronouns_around(shared):
    text = shared("data/gap/gap_flipped.tsv").read_text(encoding="utf-8")
    swapped = swap_words(text, GENDER, "next_word")
    words, after = (Counter(t.lower().replace(".", " ").replace(",", " ").split()) for t in (text, swapped))
    assert words["she"] > 3000
    for left, right in (("she", "he"), ("herself", "himself"), ("mother", "father"), ("daughter", "son")):
        assert (after[left], after[right]) == (words[right], words[left])
    assert after["her"] == words["his"] + words["him"]
