"""Rows that ASE computes from once, before the first update."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.data.encoding import tokenized
from ncfair_jax.data.layout import Batch, masked_targets
from ncfair_jax.data.packing import Placement, flat_index, pack_for_inference, scatter_rows
from ncfair_jax.lexicons.lexicon import Lexicon, LexiconError
from ncfair_jax.vocabulary import template_of


def direction_rows(lexicon: Lexicon, tokenizer: PreTrainedTokenizerBase, mode: str, max_tokens: int) -> Batch:
    """The words of a lexicon's pairs as packed rows whose weighted sum of hidden states is the gender direction.

    Args:
        mode: "per_word": each word alone, its pieces averaged, pairs averaged; "joined": the words of a group one after
            another in one text, pieces summed and divided by the number of pairs, as released.
        max_tokens: what the model has positions for.
    Returns:
        tokens, segment_ids, positions i32[R,T]; weights f32[R,T]: positive for the second group, 0 at special tokens.
    Raises:
        LexiconError: a lexicon without pairs or of other than two groups, or a text that is too long.
    """
    if len(lexicon.groups) != 2 or not lexicon.pairs:
        raise LexiconError(
            f"lexicon {lexicon.attribute!r} has {len(lexicon.groups)} groups and {len(lexicon.pairs)} pairs; a direction needs "
            "two groups and at least one pair"
        )
    first = {word.lower() for word in lexicon.words[0]}
    oriented = [pair if pair[0] in first else pair[::-1] for pair in lexicon.pairs]
    sides = [list(words) for words in zip(*oriented, strict=True)]
    if mode == "joined":
        sides = [[" ".join(words)] for words in sides]
    pieces = [
        tokenized(tokenizer, [" " + text for text in side], add_special_tokens=False)["input_ids"] for side in sides
    ]
    template = template_of(tokenizer)
    sequences = [template.around(ids) for side in pieces for ids in side]
    longest = max(map(len, sequences))
    if longest > max_tokens:
        raise LexiconError(
            f"lexicon {lexicon.attribute!r}: a text of {longest} tokens, the model has positions for {max_tokens}; use fewer "
            "pairs or config.ase.direction='per_word'"
        )
    packed = pack_for_inference(sequences, min(max_tokens, max(longest, 64)))
    weights = np.zeros(packed.tokens.shape, np.float32)
    signs = [-1.0] * len(pieces[0]) + [1.0] * len(pieces[1])
    for row, offset, sequence, sign in zip(packed.row, packed.offset, sequences, signs, strict=True):
        inside = range(len(sequence))[template.inside(len(sequence))]
        share = len(inside) if mode == "per_word" else 1
        weights[row, offset + inside.start : offset + inside.stop] = sign / (share * len(lexicon.pairs))
    return {
        "tokens": packed.tokens,
        "segment_ids": packed.segment_ids,
        "positions": packed.positions,
        "weights": weights,
    }


def fisher_rows(
    sequences: Sequence[np.ndarray], masked: Sequence[np.ndarray], number: int, mask_token_id: int
) -> Batch:
    """`number` of the examples (all, if there are fewer), evenly spread, masked, one in each row.

    Returns:
        tokens, segment_ids, positions i32[N,T]; masked_positions, masked_labels i32[N,P]; masked_weights f32[N,P].
    """
    count = min(number, len(sequences))
    chosen = np.linspace(0, len(sequences) - 1, count).round().astype(int)
    lengths = np.array([len(sequences[i]) for i in chosen], np.int64)
    original = np.concatenate([sequences[i] for i in chosen])
    selected = np.concatenate([masked[i] for i in chosen])
    first = np.zeros(count, np.int64)
    index = flat_index(Placement(np.arange(count), first, first + 1, count), lengths)
    tokens = np.where(selected, np.int32(mask_token_id), original)
    row_tokens, row_masks = int(lengths.max()), int(np.bincount(index.row, selected).max())
    return {
        "tokens": scatter_rows(tokens, index, count, row_tokens),
        "segment_ids": scatter_rows(index.segment, index, count, row_tokens),
        "positions": scatter_rows(index.position, index, count, row_tokens),
        **masked_targets(original[selected], index.places(row_tokens)[selected], (count, row_tokens, row_masks)),
    }
