import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ncfair_jax.lexicons.matching import compose, whole_words


def test_whole_words_longest_first():
    pattern = whole_words(["step", "step mother", "mr.", "fiance\u0301"], re.IGNORECASE)
    found = [
        match.group() for match in pattern.finditer("Step mother, steps, step_, step2 mr. fiancé fianc\u00e9e STEP")
    ]
    assert found == ["Step mother", "mr.", "fianc\u00e9", "STEP"]


def test_no_words_match_nothing():
    assert whole_words([]).search("any text") is None


def test_an_accent_is_part_of_the_word():
    assert whole_words(["fiance", "x"]).search("fiance\u0301 x\u0301") is None


def test_composed_text_and_where_its_characters_were():
    text = "ae\u0301x\u0301\u0327b"
    composed, starts = compose(text)
    assert composed == unicodedata.normalize("NFC", text)
    assert list(starts) == [0, 1, *[3] * (len(composed) - 3), 6, 7]


@given(st.text(alphabet="aeé\u0301\u0327 ,.가\u1100", max_size=20))
def test_places_are_ascending_and_composed_text_keeps_them(text):
    composed, starts = compose(text)
    assert list(starts) == sorted(starts) and (starts[0], starts[-1], len(starts)) == (0, len(text), len(composed) + 1)
    assert unicodedata.normalize("NFC", composed) == unicodedata.normalize("NFC", text)
    if unicodedata.is_normalized("NFC", text):
        assert composed == text and list(starts) == list(range(len(text) + 1))
