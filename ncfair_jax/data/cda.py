"""Counterfactual data augmentation: the words of one group of a lexicon exchanged for their partners in another.

Source: Zhao et al. 2018 (augmentation), Hall Maudsley et al. 2019 (substitution: the swapped text instead of the
original), with the word rules of MABEL (He et al. 2022).
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ncfair_jax.lexicons.lexicon import Lexicon

MODES = ("none", "one_sided", "two_sided")

# After one of these "her" was an object ("told her that"), before any other word a possessive ("her book").
AFTER_OBJECT = frozenset("and or to in on at with for as when while that but from by is was".split())  # noqa: SIM905
NEXT_WORD = re.compile(r"\s+([^\W\d_]+)")


def swap_words(text: str, lexicon: Lexicon) -> str:
    """Exchange every word of the lexicon's pairs for its partner, keeping lower, Title or UPPER case.

    Words match at word boundaries, whatever their case, longest first, so that `man.` and `man's` change and `manner`
    does not. Where a word has several partners the first pair decides, but for "her", which becomes "his" before a word
    that can follow a possessive and "him" otherwise. For words with one partner, swapping twice gives the text back.

    Raises:
        ValueError: if the lexicon has no pairs.
    """
    pattern, partner_of = _swap_table(lexicon)

    def replace(match: re.Match[str]) -> str:
        word = match.group()
        lower = word.lower()
        partner = partner_of[lower]
        if lower == "her" and partner in ("him", "his"):
            partner = "his" if _is_possessive(text, match.end()) else "him"
        return _with_case_of(word, partner)

    return pattern.sub(replace, text)


def counterfactual(sentences: Sequence[str], lexicon: Lexicon, mode: str = "none") -> list[str]:
    """The corpus as it is (`none`), every sentence swapped (`one_sided`), or both, originals first (`two_sided`).

    Under `two_sided` a sentence that the swap leaves unchanged appears once.

    Raises:
        ValueError: unknown mode, or the lexicon has no pairs.
    """
    if mode not in MODES:
        raise ValueError(f"counterfactual={mode!r}; choose from {sorted(MODES)}")
    if mode == "none":
        return list(sentences)
    swapped = [swap_words(sentence, lexicon) for sentence in sentences]
    if mode == "one_sided":
        return swapped
    changed = [after for before, after in zip(sentences, swapped, strict=True) if after != before]
    return [*sentences, *changed]


@lru_cache(maxsize=16)
def _swap_table(lexicon: Lexicon) -> tuple[re.Pattern[str], dict[str, str]]:
    if not lexicon.pairs:
        raise ValueError(f"lexicon {lexicon.attribute!r} has no pairs to swap; add them to its JSON file as 'pairs'")
    partner_of: dict[str, str] = {}
    for left, right in lexicon.pairs:
        partner_of.setdefault(left, right)
        partner_of.setdefault(right, left)
    return re.compile(rf"\b{any_of(partner_of)}\b", re.IGNORECASE), partner_of


def any_of(words: Iterable[str]) -> str:
    """A regular expression for the longest of the words that stands at a place."""
    # Words that begin alike share their beginning: a flat alternation of 700 words is thirty times slower.
    rests: dict[str, list[str]] = {}
    for word in words:
        rests.setdefault(word[:1], []).append(word[1:])
    may_end = rests.pop("", None)
    branches = "|".join(re.escape(first) + any_of(rest) for first, rest in sorted(rests.items()))
    return f"(?:{branches})" + ("?" if may_end else "") if branches else ""


def _is_possessive(text: str, end: int) -> bool:
    following = NEXT_WORD.match(text, end)
    return following is not None and following.group(1).lower() not in AFTER_OBJECT


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
