"""Counterfactual data augmentation: the words of one group of a lexicon exchanged for their partners in another.

Source: Zhao et al. 2018 (augmentation), Hall Maudsley et al. 2019 (substitution: the swapped text instead of the
original), with the word rules of MABEL (He et al. 2022).
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from ncfair_jax.lexicons.lexicon import Lexicon
from ncfair_jax.lexicons.matching import compose, whole_words
from ncfair_jax.lexicons.pronouns import DETERMINER, reading
from ncfair_jax.strings import several_strings

MODES = ("none", "one_sided", "two_sided")
POSSESSIVES = ("context", "next_word")

# The next-word rule: after one of these "her" was an object ("told her that"), before any other word a determiner.
AFTER_OBJECT = frozenset("and or to in on at with for as when while that but from by is was".split())  # noqa: SIM905
NEXT_WORD = re.compile(r"\s+([^\W\d_]+)")
# As determiner, and as pronoun: the partners of "her" and "his", which have two readings each.
TWO_READINGS = {"her": ("his", "him"), "his": ("her", "hers")}


def swap_words(text: str, lexicon: Lexicon, possessives: str = "context") -> str:
    """Exchange every word of the lexicon's pairs for its partner, keeping lower, Title or UPPER case.

    Words match whole, whatever their case, longest first, so that `man.` and `man's` change and `manner` does not; accents
    may be composed or not. Where a word has several partners the first pair decides, but for words with two readings: "her"
    becomes "his" or "him", and "his" becomes "her" or "hers". For words with one partner, swapping twice gives the text back.

    Args:
        possessives: "context" reads the words around (`pronouns.reading`). "next_word" is the rule documented for MABEL: "her"
            becomes "his" before a word that is not on a short list and "him" otherwise; "his" always becomes "her".
    Raises:
        ValueError: unknown `possessives`, or the lexicon has no pairs.
    """
    if possessives not in POSSESSIVES:
        raise ValueError(f"possessives={possessives!r}; choose from {sorted(POSSESSIVES)}")
    pattern, partner_of = _swap_table(lexicon)
    composed, starts = compose(text)
    parts, done = [], 0
    for match in pattern.finditer(composed):
        word = match.group().lower()
        partner = partner_of[word]
        if partner in TWO_READINGS.get(word, ()):
            partner = _of_reading(composed, match, possessives)
        parts += [text[done : starts[match.start()]], _with_case_of(match.group(), partner)]
        done = starts[match.end()]
    return "".join([*parts, text[done:]])


def counterfactual(
    sentences: Sequence[str], lexicon: Lexicon, mode: str = "none", possessives: str = "context"
) -> list[str]:
    """The corpus as it is (`none`), every sentence swapped (`one_sided`), or both, originals first (`two_sided`).

    Under `two_sided` a sentence that the swap leaves unchanged appears once. `possessives`: see `swap_words`.

    Raises:
        TypeError: `sentences` is a single string.
        ValueError: unknown mode or `possessives`, or the lexicon has no pairs.
    """
    sentences = several_strings("sentences", sentences)
    if mode not in MODES:
        raise ValueError(f"counterfactual={mode!r}; choose from {sorted(MODES)}")
    if mode == "none":
        return sentences
    forms = [sentence_forms(lexicon, mode, possessives, sentence) for sentence in sentences]
    return [first for first, *_ in forms] + [second for _, *rest in forms for second in rest]


def sentence_forms(lexicon: Lexicon, mode: str, possessives: str, sentence: str) -> tuple[str, ...]:
    """What a sentence becomes: swapped (`one_sided`), or itself and, if that differs, swapped (`two_sided`).

    Raises:
        ValueError: as `swap_words`.
    """
    swapped = swap_words(sentence, lexicon, possessives)
    if mode == "one_sided":
        return (swapped,)
    return (sentence,) if swapped == sentence else (sentence, swapped)


@lru_cache(maxsize=16)
def _swap_table(lexicon: Lexicon) -> tuple[re.Pattern[str], dict[str, str]]:
    if not lexicon.pairs:
        raise ValueError(f"lexicon {lexicon.attribute!r} has no pairs to swap; add them to its JSON file as 'pairs'")
    partner_of: dict[str, str] = {}
    for left, right in lexicon.pairs:
        partner_of.setdefault(left, right)
        partner_of.setdefault(right, left)
    return whole_words(partner_of, re.IGNORECASE), partner_of


def _of_reading(text: str, match: re.Match[str], possessives: str) -> str:
    word = match.group().lower()
    determiner, pronoun = TWO_READINGS[word]
    if possessives == "context":
        return determiner if reading(text, *match.span()) == DETERMINER else pronoun
    following = NEXT_WORD.match(text, match.end())
    before_noun = following is not None and following.group(1).lower() not in AFTER_OBJECT
    return determiner if before_noun or word == "his" else pronoun


def _with_case_of(word: str, partner: str) -> str:
    parts, partner_parts = re.split(r"(\W)", word), re.split(r"(\W)", partner)
    if len(parts) == len(partner_parts):  # word by word: "Boy Scouts"
        return "".join(map(_one_word_case, parts, partner_parts))
    return _one_word_case(word, partner)


def _one_word_case(word: str, partner: str) -> str:
    if word.isupper():
        return partner.upper()
    if word[:1].isupper():
        return partner[:1].upper() + partner[1:]
    return partner
