import hashlib

import numpy as np
import pytest

from ncfair_jax.data.encoded import Encoded, end_to_end

SEQUENCES = [np.array(ids, np.int32) for ids in ([1, 5, 2], [1, 2], [1, 7, 7, 9, 2])]


def hashed(encoded: Encoded) -> str:
    digest = hashlib.sha256()
    encoded.hashed(digest)
    return digest.hexdigest()


def test_sequences_come_back():
    encoded = end_to_end(SEQUENCES)
    assert [found.tolist() for found in encoded] == [wanted.tolist() for wanted in SEQUENCES]
    assert [found.tolist() for found in encoded[::-2]] == [wanted.tolist() for wanted in SEQUENCES[::-2]]
    assert encoded[-1].tolist() == SEQUENCES[-1].tolist()
    assert (len(encoded), encoded.token_range) == (3, (1, 9))
    assert end_to_end(encoded) is encoded
    with pytest.raises(IndexError):
        encoded[3]
    assert (len(end_to_end([])), end_to_end([]).token_range) == (0, (0, 0))


def test_parts_of_an_array_of_short_integers():
    tokens = np.array([9, 1, 5, 2, 60000], np.uint16)
    encoded = Encoded(tokens, np.array([1, 3]), np.array([2, 2]))
    assert [found.tolist() for found in encoded] == [[1, 5], [2, 60000]]
    assert encoded[0].dtype == np.int32


def test_content_is_hashed_unless_it_is_known():
    encoded = end_to_end(SEQUENCES)
    other = end_to_end([*SEQUENCES[:2], SEQUENCES[2] + 1])
    cut_elsewhere = end_to_end([np.concatenate(SEQUENCES[:2]), SEQUENCES[2]])
    assert len({hashed(encoded), hashed(other), hashed(cut_elsewhere)}) == 3
    known = Encoded(encoded.tokens, encoded.starts, encoded.lengths, content="abc")
    assert hashed(known) == hashlib.sha256(b"abc").hexdigest()
