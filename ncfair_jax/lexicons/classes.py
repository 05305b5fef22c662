"""Fairness classes: which rows of the vocabulary stand for the words of a lexicon, and which of their tokens count.

Letters: K classes, V vocabulary (the tokenizer's).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.files.notes import WithoutClass, add
from ncfair_jax.lexicons.lexicon import SHIPPED, Lexicon, LexiconError, load_lexicon
from ncfair_jax.vocabulary import (
    WordBoundaries,
    pieces_of,
    plain_words,
    text_of_piece,
    whole_words,
    word_boundaries,
    word_forms,
)

WORD_RULES = ("first_piece", "whole_word", "listed_token")
CONTROLS = ("random", "frequency-matched")
SHARED = -1
SHOWN = 10  # words that a message names
PART = 8192  # examples in memory at once
NEIGHBOURS = 20  # words that a class of a matched list is drawn from


@dataclass(frozen=True, eq=False)
class FairnessClasses:
    """K vocabulary entries whose representations are measured or regularised.

    Attributes:
        words: K texts of the pieces; with a leading blank where the vocabulary distinguishes it (" woman", "Woman").
        token_ids: i32[K], ascending.
        group: i32[K], index of the word's group in the lexicon; -1 where two groups claim the piece (first_piece only).
        slot_of_token: i32[V], class of each token, K for none. Special tokens never are classes.
        fingerprint: first 16 hex digits of a SHA-256 over all else.
        boundaries: a token counts as its class only where it is a whole word by them; None: it counts everywhere.
        groups: names of the lexicon's groups; () for other words.
    """

    words: tuple[str, ...]
    token_ids: np.ndarray
    group: np.ndarray
    slot_of_token: np.ndarray
    fingerprint: str
    boundaries: WordBoundaries | None = None
    groups: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.words)


def build_classes(
    lexicon: Lexicon,
    tokenizer: PreTrainedTokenizerBase,
    rule: str = "whole_word",
) -> FairnessClasses:
    """Classes of a lexicon's words under a tokenizer. Words that yield none are noted by name (`files.notes`).

    Args:
        rule: `whole_word`: one class for each form of a word that is a single piece; forms are the word in a sentence,
            the same capitalised, and capitalised at the start of a text (for WordPiece the last two are one form, for
            an uncased vocabulary all three). A token counts only where it is the whole word: "ma", but not the first
            piece of "ma ##rie". `listed_token`: the same classes, but their tokens count everywhere, as fragments, too.
            `first_piece`: the first piece of the word in a sentence, whatever follows, and it counts everywhere: the
            rule of the released code, which makes fragments like "so" gendered.
    Raises:
        ValueError: unknown rule.
        LexiconError: no word of a group yields a class.
    """
    if rule not in WORD_RULES:
        raise ValueError(f"rule={rule!r}; choose from {sorted(WORD_RULES)}")
    group_of_id: dict[int, int] = {}
    without_class: list[str] = []
    for group, words in enumerate(lexicon.words):
        ids_of_words = _class_ids(words, tokenizer, rule)
        if not any(ids_of_words.values()):
            raise LexiconError(
                f"lexicon {lexicon.attribute!r}: no word of group {lexicon.groups[group]!r} ({listed(words)}) is one token of "
                "this vocabulary, so the group would be missing from all figures; give it such words, remove it, use the rule "
                "first_piece, or take a lexicon in the model's language"
            )
        without_class += [word for word, ids in ids_of_words.items() if not ids]
        for token_id in sorted(set().union(*ids_of_words.values())):
            group_of_id[token_id] = group if group_of_id.get(token_id, group) == group else SHARED
    if without_class:
        add(WithoutClass(lexicon.attribute, sum(map(len, lexicon.words)), tuple(without_class)))
    boundaries = word_boundaries(tokenizer) if rule == "whole_word" else None
    return replace(_make_classes(group_of_id, tokenizer, boundaries), groups=lexicon.groups)


def lexicon_or_control(
    name: str, rule: str, tokenizer: PreTrainedTokenizerBase, examples: Sequence[np.ndarray], seed: int
) -> FairnessClasses:
    """Classes of a lexicon, or of a control that stands in for it: "gender", "gender:random", "gender:frequency-matched".

    A control holds as many neutral words that occur in the text; the matched one about as frequent ones. Their tokens count
    where those of the lexicon would: as whole words, or everywhere.

    Args:
        name: shipped name or JSON file, and the control after a colon.
        examples: the encoded text, i32[L] each.
        seed: of the control.
    Raises:
        ValueError: for an unknown control.
    """
    lexicon, control = split_control(name)
    classes = build_classes(load_lexicon(lexicon), tokenizer, rule)
    if not control:
        return classes
    counts = token_counts(examples, len(tokenizer), classes.boundaries)
    if control == "random":
        absent = np.flatnonzero(counts == 0).tolist()
        return random_classes(classes.num_classes, seed, tokenizer, absent, classes.boundaries)
    return frequency_matched(classes, counts, seed, tokenizer)


def split_control(name: str) -> tuple[str, str]:
    """The lexicon and the control of a name such as "gender:random"; "" where it is the lexicon itself.

    Raises:
        ValueError: for an unknown control.
    """
    lexicon, colon, control = name.rpartition(":")
    if not colon or "/" in control or "\\" in control:  # no colon, or that of a Windows drive
        return name, ""
    if control not in CONTROLS:
        raise ValueError(f"lexicon {name!r}: unknown control {control!r}; choose from {', '.join(CONTROLS)}")
    return lexicon, control


def random_classes(
    num_classes: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    exclude: Iterable[int] = (),
    boundaries: WordBoundaries | None = None,
) -> FairnessClasses:
    """Control: K random whole words of the vocabulary, all in group 0.

    Args:
        exclude: token ids not to draw, besides every word of the shipped lexicons.
        boundaries: as of `FairnessClasses`.
    Raises:
        ValueError: if the vocabulary has fewer such words.
    """
    candidates = _neutral_words(tokenizer, exclude)
    if not 1 <= num_classes <= len(candidates):
        raise ValueError(f"num_classes={num_classes}; the vocabulary has 1 to {len(candidates)} words to draw from")
    chosen = np.random.default_rng(seed).choice(candidates, num_classes, replace=False)
    return _make_classes(dict.fromkeys(chosen.tolist(), 0), tokenizer, boundaries)


def frequency_matched(
    classes: FairnessClasses, counts: np.ndarray, seed: int, tokenizer: PreTrainedTokenizerBase
) -> FairnessClasses:
    """Control: for each class a neutral whole word that is about as frequent, drawn without replacement.

    The most frequent class chooses first (its range is the thinnest) and takes the word of the nearest count, ties at
    random. The word inherits the class's group, and its tokens count where those of the classes do.

    Args:
        counts: i64[V], occurrences of each token in the corpus (`token_counts` with the boundaries of the classes).
    Raises:
        ValueError: if counts and vocabulary differ in size or the neutral words do not suffice.
    """
    if len(counts) != len(classes.slot_of_token):
        raise ValueError(f"counts has {len(counts)} entries, the vocabulary {len(classes.slot_of_token)}")
    rng = np.random.default_rng(seed)
    candidates = rng.permutation(_neutral_words(tokenizer, classes.token_ids.tolist()))
    if len(candidates) < classes.num_classes:
        raise ValueError(f"{len(candidates)} neutral words cannot match {classes.num_classes} classes")
    candidate_counts = counts[candidates].astype(np.float64)
    group_of_id: dict[int, int] = {}
    wanted = counts[classes.token_ids]
    for k in np.argsort(-wanted, kind="stable"):
        nearest = int(np.abs(candidate_counts - wanted[k]).argmin())  # shuffled, so the first of a tie is random
        group_of_id[int(candidates[nearest])] = int(classes.group[k])
        candidate_counts[nearest] = np.inf
    return _make_classes(group_of_id, tokenizer, classes.boundaries)


def matched_lists(
    classes: FairnessClasses, counts: np.ndarray, number: int, seed: int, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """Many random lists at once, for a permutation test: of the classes and neutral whole words together, equally frequent.

    In each list every class, in random order, is replaced by one of the `NEIGHBOURS` words nearest to it in rank of count that
    the list does not hold yet, itself among them. That makes the classes exchangeable with the others where they differ in
    nothing; lists of neutral words only are too alike, and reject a true null in 8% of the texts at 5% (by simulation).

    Args:
        counts: i64[V], occurrences of each token in the corpus (`token_counts` with the boundaries of the classes).
    Returns:
        Token ids i32[number, K], each row ascending.
    Raises:
        ValueError: if counts and vocabulary differ in size or the neutral words that occur do not suffice.
    """
    if len(counts) != len(classes.slot_of_token):
        raise ValueError(f"counts has {len(counts)} entries, the vocabulary {len(classes.slot_of_token)}")
    rng = np.random.default_rng(seed)
    neutral = _neutral_words(tokenizer, classes.token_ids.tolist())
    neutral = neutral[counts[neutral] > 0]
    reach = classes.num_classes + NEIGHBOURS  # so many on one side: enough whatever the list holds already
    if len(neutral) < reach:
        raise ValueError(
            f"{len(neutral)} neutral words occur in the text; {reach} are needed to match {classes.num_classes} classes: "
            "give more text"
        )
    candidates = rng.permutation(np.concatenate([classes.token_ids, neutral]))  # ties are in random order
    candidates = candidates[np.argsort(counts[candidates], kind="stable")]
    ranks = np.flatnonzero(np.isin(candidates, classes.token_ids))
    lists = np.zeros((number, classes.num_classes), np.int32)
    for row in lists:
        free = np.ones(len(candidates), bool)
        for place in rng.permutation(classes.num_classes):
            start = max(0, ranks[place] - reach)
            near = start + np.flatnonzero(free[start : ranks[place] + reach])
            near = near[np.argsort(np.abs(near - ranks[place]), kind="stable")[:NEIGHBOURS]]
            chosen = rng.choice(near)
            free[chosen] = False
            row[place] = candidates[chosen]
        row.sort()
    return lists


def classes_of(
    token_ids: Iterable[int], tokenizer: PreTrainedTokenizerBase, boundaries: WordBoundaries | None = None
) -> FairnessClasses:
    """The given tokens as classes, all in group 0; with boundaries they count where they are whole words."""
    return _make_classes(dict.fromkeys(map(int, token_ids), 0), tokenizer, boundaries)


def occurring(classes: FairnessClasses, counts: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> FairnessClasses:
    """Those of the classes that occur in a text; `counts` i64[V] as of `token_counts` with their boundaries."""
    pairs = zip(classes.token_ids.tolist(), classes.group.tolist(), strict=True)
    kept = {token: group for token, group in pairs if counts[token] > 0}
    return replace(_make_classes(kept, tokenizer, classes.boundaries), groups=classes.groups)


def refuse_missing_groups(classes: FairnessClasses, counts: np.ndarray) -> None:
    """A text that holds no word of some group says nothing of that group.

    Args:
        counts: i64[V] as of `token_counts` with the boundaries of the classes.
    Raises:
        LexiconError: naming the group and its words.
    """
    for number, group in enumerate(classes.groups):
        members = np.flatnonzero(classes.group == number)
        if len(members) and not np.any(counts[classes.token_ids[members]]):
            raise LexiconError(
                f"no word of the lexicon's group {group!r} ({listed([classes.words[k].strip() for k in members])}) occurs in "
                "the text, so the group would be missing from the figures; give more text, or a lexicon without this group"
            )


def full_vocabulary(tokenizer: PreTrainedTokenizerBase, boundaries: WordBoundaries | None = None) -> FairnessClasses:
    """Every token but the special ones, all in group 0; with boundaries they count where they are whole words."""
    special = set(tokenizer.all_special_ids)
    return classes_of((i for i in range(len(tokenizer)) if i not in special), tokenizer, boundaries)


def token_counts(
    examples: Sequence[np.ndarray], vocab_size: int, boundaries: WordBoundaries | None = None
) -> np.ndarray:
    """Occurrences i64[V] of each token id in encoded examples (i32[L] each); with boundaries, as a whole word only."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(examples), PART):
        part = examples[start : start + PART]
        tokens = np.concatenate(part)
        if boundaries is not None:
            positions = np.concatenate([np.arange(len(example)) for example in part])
            tokens = tokens[whole_words(tokens, positions, boundaries)]
        counts += np.bincount(tokens, minlength=vocab_size)
    return counts


def listed(words: Sequence[str]) -> str:
    """The words with commas between, at most `SHOWN` of them."""
    return ", ".join(words[:SHOWN]) + (", …" if len(words) > SHOWN else "")


def _class_ids(words: Sequence[str], tokenizer: PreTrainedTokenizerBase, rule: str) -> dict[str, set[int]]:
    """Of each word the tokens that stand for it; none where it is several pieces."""
    forms = [(word, form) for word in words for form in word_forms(word)[: 1 if rule == "first_piece" else None]]
    encoded = pieces_of([form for _, form in forms], tokenizer)
    special = set(tokenizer.all_special_ids)
    found: dict[str, set[int]] = {word: set() for word in words}
    for (word, _), ids in zip(forms, encoded, strict=True):
        if ids and ids[0] not in special and (rule == "first_piece" or len(ids) == 1):
            found[word].add(ids[0])
    return found


def _neutral_words(tokenizer: PreTrainedTokenizerBase, exclude: Iterable[int]) -> np.ndarray:
    """Ids of the whole words that no shipped lexicon lists in any form, ascending."""
    excluded = set(exclude)
    for name in SHIPPED:
        for words in load_lexicon(name).words:
            excluded = excluded.union(*_class_ids(words, tokenizer, "whole_word").values())
    words_of_vocabulary = plain_words(tokenizer)
    return words_of_vocabulary[~np.isin(words_of_vocabulary, list(excluded))]


def _make_classes(
    group_of_id: Mapping[int, int], tokenizer: PreTrainedTokenizerBase, boundaries: WordBoundaries | None
) -> FairnessClasses:
    token_ids = np.array(sorted(group_of_id), np.int32)
    group = np.array([group_of_id[i] for i in token_ids.tolist()], np.int32)
    pieces = tokenizer.convert_ids_to_tokens(token_ids.tolist())
    words = tuple(map(text_of_piece, pieces))
    slot_of_token = np.full(len(tokenizer), len(words), np.int32)
    slot_of_token[token_ids] = np.arange(len(words))
    assert (slot_of_token[tokenizer.all_special_ids] == len(words)).all()
    digest = hashlib.sha256("\0".join(words).encode())
    for array in (token_ids, group, slot_of_token):
        digest.update(array.astype("<i4").tobytes())
        array.setflags(write=False)
    for table in boundaries or ():
        digest.update(table.tobytes())
    return FairnessClasses(words, token_ids, group, slot_of_token, digest.hexdigest()[:16], boundaries)
