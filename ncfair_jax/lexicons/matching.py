"""Listed words found in a text as whole words, accents composed."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ncfair_jax.strings import several_strings

# Accents that follow their letter as characters of their own; \w does not hold them.
ACCENTS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
ACCENTED = re.compile(f"[^{ACCENTS}][{ACCENTS}]+")


def whole_words(words: Iterable[str], flags: int = 0) -> re.Pattern[str]:
    """A pattern that matches any of the words where no letter, digit, underscore or accent touches it, the longest first.

    It expects text as `compose` returns it. Without words it matches nothing.

    Raises:
        TypeError: `words` is a single string.
    """
    alternatives = _any_of(unicodedata.normalize("NFC", word) for word in several_strings("words", words)) or "(?!)"
    return re.compile(rf"(?<![\w{ACCENTS}]){alternatives}(?![\w{ACCENTS}])", flags)


def compose(text: str) -> tuple[str, Sequence[int]]:
    """The text with every letter and its accents as one character where Unicode has one (NFC), and where each was.

    Returns:
        The composed text, and for each of its characters, and for its end, the place in `text` where it begins.
    """
    if unicodedata.is_normalized("NFC", text):
        return text, range(len(text) + 1)
    parts, starts, done = [], [], 0
    for match in ACCENTED.finditer(text):
        letter = unicodedata.normalize("NFC", match.group())
        parts += [text[done : match.start()], letter]
        starts += [*range(done, match.start()), *[match.start()] * len(letter)]
        done = match.end()
    return "".join([*parts, text[done:]]), [*starts, *range(done, len(text) + 1)]


def _any_of(words: Iterable[str]) -> str:
    # Words that begin alike share their beginning: a flat alternation of 700 words is thirty times slower.
    rests: dict[str, list[str]] = {}
    for word in words:
        rests.setdefault(word[:1], []).append(word[1:])
    may_end = rests.pop("", None)
    branches = "|".join(re.escape(first) + _any_of(rest) for first, rest in sorted(rests.items()))
    return f"(?:{branches})" + ("?" if may_end else "") if branches else ""
