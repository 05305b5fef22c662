"""What is known of a tokenizer: its special tokens and where they stand, where its words begin and end, and forms of words.

Nothing outside this file places special tokens. Letters: V vocabulary, N tokens, L tokens of a sequence.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

# What a piece writes in front of a word: byte-level BPE and SentencePiece. WordPiece marks the other pieces, with ##.
WORD_STARTS = ("Ġ", "▁")
# Kinds of characters; byte-level BPE cuts a text where the kind changes. Blanks alone join what follows them; INSIDE are the
# later bytes of a character that an earlier token began.
BLANK, INSIDE, LETTER, NUMBER, SPACE, OTHER, SPECIAL = range(-2, 5)


@dataclass(frozen=True)
class Template:
    """Where special tokens stand around one text or two: `start` a `end`, or `start` a `between` b `end`.

    Attributes:
        start, between, end: ids; () where there are none.
        types: token types of start, first text, between, second text and end in a pair. One text has those of the first.
    """

    start: tuple[int, ...]
    between: tuple[int, ...]
    end: tuple[int, ...]
    types: tuple[int, int, int, int, int]

    def around(self, ids: Sequence[int]) -> np.ndarray:
        """The sequence of one text: i32[L]."""
        return np.array([*self.start, *ids, *self.end], np.int32)

    def pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The sequence of two texts, and its token types: i32[L] each."""
        parts = (self.start, first, self.between, second, self.end)
        tokens = np.array([token for part in parts for token in part], np.int32)
        return tokens, np.repeat(np.array(self.types, np.int32), [len(part) for part in parts])

    def specials(self, texts: int = 1) -> int:
        """Special tokens of a sequence of so many texts (1 or 2)."""
        return len(self.start) + len(self.end) + (len(self.between) if texts == 2 else 0)

    def inside(self, length: int) -> slice:
        """Where the text stands in a sequence of one text that has this length."""
        return slice(len(self.start), length - len(self.end))


@dataclass(frozen=True)
class Vocabulary:
    """Special tokens of a tokenizer. Ids are None where it has no such token.

    Attributes:
        size: V, ids of tokens are below it.
        special_ids: of all special tokens, ascending.
        cls, sep: for texts that say themselves where they begin and end; elsewhere the template places them.
        mask_takes: whether the mask token takes the blanks before it, and those behind it, to itself.
        marks_blanks: whether a word has another token behind a blank than at the start of a text.
    """

    size: int
    special_ids: tuple[int, ...]
    unknown: int | None
    cls: int | None
    sep: int | None
    mask: int | None
    pad: int | None
    mask_takes: tuple[bool, bool]
    marks_blanks: bool
    template: Template

    def trimmed(self, parts: Sequence[str]) -> list[str]:
        """Parts of a text with a mask between each two, without the blanks that the masks take to themselves."""
        before, behind = self.mask_takes
        last = len(parts) - 1
        trimmed = [part.rstrip() if before and place < last else part for place, part in enumerate(parts)]
        return [part.lstrip() if behind and place else part for place, part in enumerate(trimmed)]

    def masked(self, parts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """The sequence of a text with gaps, a mask token in each.

        Args:
            parts: ids left of the first gap, between two gaps, and right of the last one.
        Returns:
            Tokens i32[L], and the places of the masks i64[parts − 1].
        """
        ends = np.cumsum([len(part) for part in parts[:-1]], dtype=np.int64)
        places = len(self.template.start) + ends + np.arange(len(ends))
        assert self.mask is not None, "the tokenizer has no mask token"
        ids = [token for part in parts[:-1] for token in (*part, self.mask)]
        return self.template.around([*ids, *parts[-1]]), places

    def bare(self, tokens: Iterable[int]) -> list[int]:
        """The tokens of a sequence without the special ones, and the pads, at its ends; others inside stay."""
        ids, closing = [int(token) for token in tokens], {*self.template.end, self.pad}
        while ids and ids[0] in self.template.start:
            ids = ids[1:]
        while ids and ids[-1] in closing:
            ids = ids[:-1]
        return ids


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """What a fast tokenizer says of itself."""
    mask: Any = None if tokenizer.mask_token_id is None else tokenizer.added_tokens_decoder[tokenizer.mask_token_id]
    return Vocabulary(
        size=len(tokenizer),
        special_ids=tuple(sorted(tokenizer.all_special_ids)),
        unknown=tokenizer.unk_token_id,
        cls=tokenizer.cls_token_id,
        sep=tokenizer.sep_token_id,
        mask=tokenizer.mask_token_id,
        pad=tokenizer.pad_token_id,
        mask_takes=(False, False) if mask is None else (mask.lstrip, mask.rstrip),
        marks_blanks=not isinstance(tokenizer.backend_tokenizer.model, WordPiece),
        template=template_of(tokenizer),
    )


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """The template by which a fast tokenizer puts special tokens around texts."""
    encoded = tokenizer(["a"], ["a"], return_token_type_ids=True)
    ids, types, texts = encoded["input_ids"][0], encoded["token_type_ids"][0], encoded.sequence_ids(0)
    first, second = texts.index(0), texts.index(1)
    behind_first, behind_second = first + texts.count(0), second + texts.count(1)
    cuts = (slice(first), slice(first, behind_first), slice(behind_first, second), slice(second, behind_second),
            slice(behind_second, None))  # fmt: skip
    start, _, between, _, end = (tuple(ids[cut]) for cut in cuts)
    kinds = [types[cut][0] if types[cut] else 0 for cut in cuts]
    return Template(start, between, end, (kinds[0], kinds[1], kinds[2], kinds[3], kinds[4]))


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
    cuts = np.ones(len(tokens) + 1, bool)  # in front of each token, and behind the last
    if not first.any() and not last.any():  # one kind of character alone, where it never changes
        cuts[1:-1] = opens[tokens[1:]] | (positions[1:] == 0)
        return cuts[:-1] & cuts[1:]
    left, right = last[tokens], first[tokens[1:]]
    if (inside := left == INSIDE).any():  # such a token ends with the character that the last one before it began
        left = left[np.maximum.accumulate(np.where(inside, 0, np.arange(len(tokens))))]
    left = left[:-1]
    changes = (left != right) & (left != BLANK) & (right != INSIDE)
    cuts[1:-1] = opens[tokens[1:]] | changes | (positions[1:] == 0)
    return cuts[:-1] & cuts[1:]


def word_forms(word: str) -> tuple[str, str, str]:
    """A word inside a sentence, the same capitalised, and capitalised at the start of a text.

    A blank in front gives the form inside a sentence for byte-level BPE and SentencePiece, and changes nothing for WordPiece.
    """
    capitalised = word[0].upper() + word[1:]
    return f" {word}", f" {capitalised}", capitalised


def pieces_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text, none special unless the text spells it."""
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def text_of_piece(piece: str) -> str:
    """A piece of the vocabulary with a blank in front where it opens a word."""
    return f" {piece[1:]}" if piece.startswith(WORD_STARTS) else piece


def plain_words(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Ids of the pieces that are words of two letters and more, as inside a sentence: i64, ascending; none is special."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks_starts = sum(piece.startswith(WORD_STARTS) for piece in pieces) > len(pieces) / 10
    special = set(tokenizer.all_special_ids)
    return np.array([i for i, p in enumerate(pieces) if i not in special and _is_word(p, marks_starts)], np.int64)


def _is_word(piece: str, marks_starts: bool) -> bool:
    if marks_starts:
        return piece.startswith(WORD_STARTS) and len(piece) > 2 and piece[1:].isascii() and piece[1:].isalpha()
    return len(piece) > 1 and piece.isalpha()


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
