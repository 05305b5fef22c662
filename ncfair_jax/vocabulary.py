"""What is known of a tokenizer: where its words begin and end.

Letters: V vocabulary, N tokens.
"""

import unicodedata
from typing import NamedTuple

import numpy as np
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

# What a piece writes in front of a word: byte-level BPE and SentencePiece. WordPiece marks the other pieces, with ##.
WORD_STARTS = ("Ġ", "▁")
# Kinds of characters; byte-level BPE cuts a text where the kind changes. Blanks alone join what follows them; INSIDE are the
# later bytes of a character that an earlier token began.
BLANK, INSIDE, LETTER, NUMBER, SPACE, OTHER, SPECIAL = range(-2, 5)


class WordBoundaries(NamedTuple):
    """Where a tokenizer's pre-tokenisation cuts a text, as far as token ids tell.

    A word ends between two tokens if the second one opens a word, or if the first ends with another kind of character than
    the second begins with. WordPiece needs only the first of these: its other pieces are marked.

    Attributes:
        opens: bool[V], whether a word always begins at the token.
        first, last: i8[V], kind of the token's first and last character; all the same for WordPiece.
    """

    opens: np.ndarray
    first: np.ndarray
    last: np.ndarray


def word_boundaries(tokenizer: PreTrainedTokenizerBase) -> WordBoundaries:
    """Boundaries of a fast tokenizer: WordPiece, byte-level BPE, or SentencePiece (where punctuation ends a word, too).

    They are those of the tokenizer's own pre-tokenisation, except that letters are no word of their own where they follow a
    contraction without a blank ("he" in "'she", which is cut into "'s" and "he"), or stand beside a token of one byte
    that may belong to a letter.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = np.zeros(len(pieces), bool)
    special[tokenizer.all_special_ids] = True
    model = tokenizer.backend_tokenizer.model
    if isinstance(model, WordPiece):
        opens = np.array([not piece.startswith(model.continuing_subword_prefix) for piece in pieces])
        kinds = np.zeros(len(pieces), np.int8)
        return WordBoundaries(opens | special, kinds, kinds)
    if any(piece.startswith("Ġ") for piece in pieces):
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        texts = [bytes(byte_of.get(character, ord("?")) for character in piece) for piece in pieces]
    else:
        texts = [piece.replace("▁", " ").encode() for piece in pieces]
    opens = np.array([text.startswith(b" ") and not text.isspace() for text in texts])
    first, last = np.array([_kinds(text) for text in texts], np.int8).T
    first[special] = last[special] = SPECIAL
    return WordBoundaries(opens | special, first, last)


def whole_words(tokens: np.ndarray, positions: np.ndarray, boundaries: WordBoundaries) -> np.ndarray:
    """Whether each token is a whole word of its text (or a whole mark or number): bool[N].

    Args:
        tokens: i32[N], texts laid end to end, before any masking.
        positions: i32[N], place of each token in its text, from 0; 0 at pads.
    """
    opens, first, last = boundaries
    left, right = last[tokens], first[tokens[1:]]
    if (inside := left == INSIDE).any():  # such a token ends with the character that the last one before it began
        left = left[np.maximum.accumulate(np.where(inside, 0, np.arange(len(tokens))))]
    left = left[:-1]
    changes = (left != right) & (left != BLANK) & (right != INSIDE)
    cuts = np.ones(len(tokens) + 1, bool)  # in front of each token, and behind the last
    cuts[1:-1] = opens[tokens[1:]] | changes | (positions[1:] == 0)
    return cuts[:-1] & cuts[1:]


def _kinds(text: bytes) -> tuple[int, int]:
    """Kinds of the first and last character of a piece, which may begin and end within one."""
    if text.isspace():
        return SPACE, BLANK if text.strip(b" ") == b"" else SPACE
    starts = [place for place, byte in enumerate(text) if byte & 0xC0 != 0x80]  # of characters
    if not starts:
        return INSIDE, INSIDE
    first = _kind(text[: (*starts, len(text))[1]]) if starts[0] == 0 else INSIDE
    return first, _kind(text[starts[-1] :])


def _kind(begun: bytes) -> int:
    """Kind of a character, of which the last bytes may be missing: then a letter's if one begins like this, else a mark's."""
    length = 1 + sum(begun[0] >= least for least in (0xC0, 0xE0, 0xF0))
    missing = length - len(begun)
    if not missing:
        return _kind_of_character(begun.decode(errors="replace")[0])
    if missing == 3:  # any of 2^18 characters
        return LETTER
    code = begun[0] & (0x7F >> length)
    for byte in begun[1:]:
        code = code << 6 | byte & 0x3F
    possible = range(code << 6 * missing, min((code + 1) << 6 * missing, 0x110000))
    return LETTER if LETTER in {_kind_of_character(chr(code)) for code in possible} else OTHER


def _kind_of_character(character: str) -> int:
    if character.isspace():
        return SPACE
    return {"L": LETTER, "N": NUMBER}.get(unicodedata.category(character)[0], OTHER)
