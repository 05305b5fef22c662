"""Ctrl-C and SIGTERM: the first one stops the run where it can go on later, the second one ends it at once.

Most stages (judging, measuring, exporting) can stop anywhere, since files appear only when they are whole: there a signal
raises `Interrupted` on the spot. Training saves first: inside `deferred` a signal is only noted.

Only the standard library is imported here, so that a command can use it before it imports anything that takes time.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interrupted(SystemExit):
    """Stopped by a signal; the exit code is 128 plus its number, as a shell counts. `message` is one line."""

    def __init__(self, number: int, message: str):
        super().__init__(128 + number)
        self.message = message


class _State:
    """What the handler needs to know; there is one, as there is one handler in a process."""

    handled = False
    deferring = False
    received = 0  # number of the first signal
    stage = "starting"


_state = _State()


@contextmanager
def stoppable() -> Iterator[None]:
    """While inside, Ctrl-C and SIGTERM are handled as this module says. Signals reach the main thread only."""
    if _state.handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.handled, _state.received = True, 0
    previous = {number: signal.signal(number, _handle) for number in NAMES}
    try:
        yield
    finally:
        _state.handled = False
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def told() -> Iterator[None]:
    """What a command does all its work in: `stoppable`, and a stop is one line on stderr and an exit code."""
    try:
        with stoppable():
            yield
    except Interrupted as stopped:
        print(stopped.message, file=sys.stderr)
        raise SystemExit(stopped.code) from None


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Says what is being done, for the message of a signal that arrives meanwhile: "judging the start model".

    Raises:
        Interrupted: if a signal arrived before.
    """
    raise_if_received()
    previous, _state.stage = _state.stage, name
    try:
        yield
    finally:
        _state.stage = previous


@contextmanager
def deferred() -> Iterator[None]:
    """While inside, the first signal is only noted, to be asked for with `received`; the second still ends the process.

    Raises:
        Interrupted: at the end, if a signal arrived and nothing was raised because of it.
    """
    with stoppable():
        previous, _state.deferring = _state.deferring, True
        try:
            yield
        finally:
            _state.deferring = previous
        if not previous:
            raise_if_received()


def received() -> int:
    """The number of the first signal that arrived, or 0."""
    return _state.received


def raise_if_received() -> None:
    """Stops here if a signal arrived.

    Raises:
        Interrupted: naming the stage.
    """
    if _state.received:
        raise interrupted()


def interrupted(where: str = "") -> Interrupted:
    """What to raise when a signal has arrived, here or in another process of the run.

    Args:
        where: how far the run came and what is kept, " at step 7, …"; "" = the stage, which the same command does again.
    """
    number = signal.Signals(_state.received or signal.SIGTERM)
    where = where or f" while {_state.stage}"
    return Interrupted(number, f"stopped by {NAMES[number]}{where}; the same command goes on from there")


def _handle(number: int, frame: Any) -> None:
    del frame
    if _state.received:
        os.write(2, b"\nstopped at once\n")  # nothing may be flushed here: the signal may have come in the middle of it
        os._exit(128 + number)
    _state.received = number
    if _state.deferring:
        print(f"\n{NAMES[signal.Signals(number)]}: saving, then leaving; once more leaves at once", file=sys.stderr)
        return
    raise_if_received()
