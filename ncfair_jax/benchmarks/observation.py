"""Watching what benchmarks ask of an engine and get back, from outside: for timing and comparing, not for scoring."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from ncfair_jax.models.hf import Pretrained

Settings = ParamSpec("Settings")
Asked = TypeVar("Asked", bound=Sequence)
Answer = TypeVar("Answer")


class Observation(NamedTuple):
    """One call of an engine: its function's name, what it was asked, its answer, and how long it took in seconds."""

    engine: str
    asked: Sequence[Any]
    answer: Any
    seconds: float


_observer: ContextVar[Callable[[Observation], object] | None] = ContextVar("observer", default=None)


@contextmanager
def observed(callback: Callable[[Observation], object]) -> Iterator[None]:
    """Within this context every finished call of an engine is told to `callback`, instead of to one further out."""
    token = _observer.set(callback)
    try:
        yield
    finally:
        _observer.reset(token)


def observable(
    engine: Callable[Concatenate[Pretrained, Asked, Settings], Answer],
) -> Callable[Concatenate[Pretrained, Asked, Settings], Answer]:
    """Decorates an engine, a function of a model and of what it is asked, so that `observed` is told of its calls."""

    @wraps(engine)
    def call(pretrained: Pretrained, asked: Asked, /, *args: Settings.args, **kwargs: Settings.kwargs) -> Answer:
        began = time.perf_counter()
        answer = engine(pretrained, asked, *args, **kwargs)
        callback = _observer.get()
        if callback is not None:
            callback(Observation(engine.__name__, asked, answer, time.perf_counter() - began))
        return answer

    return call
