"""Who is told of an engine's calls, and what."""

import pytest

from ncfair_jax.benchmarks.embedder import embed
from ncfair_jax.benchmarks.observation import observable, observed
from ncfair_jax.benchmarks.scorer import score_with_top1


@observable
def engine(pretrained, asked, *, factor=2):
    """Multiplies."""
    if not asked:
        raise ValueError("nothing asked")
    return [factor * item for item in asked]


def test_calls_are_told_with_answer_and_time():
    seen = []
    with observed(seen.append):
        assert engine(None, [1, 2]) == [2, 4]
        engine(None, [3], factor=5)
    engine(None, [4])
    assert [(call.engine, call.asked, call.answer) for call in seen] == [
        ("engine", [1, 2], [2, 4]),
        ("engine", [3], [15]),
    ]
    assert all(call.seconds > 0 for call in seen)


def test_the_inner_observer_is_told_and_the_outer_one_again_after_it():
    outer, inner = [], []
    with observed(outer.append):
        with observed(inner.append):
            engine(None, [1])
        with pytest.raises(ValueError, match="nothing asked"), observed(inner.append):
            engine(None, [])
        engine(None, [2])
    assert [call.asked for call in inner] == [[1]]
    assert [call.asked for call in outer] == [[2]]


def test_engines_keep_name_and_docstring():
    assert (score_with_top1.__name__, embed.__name__, engine.__doc__) == ("score_with_top1", "embed", "Multiplies.")
