"""Processes that take turns, and the spread of what they report."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

Result = dict[str, Any]


class SpeedError(ValueError):
    """What the user can mend, in one line."""


class LeftOutError(SpeedError):
    """What cannot be measured here, and need not be: the reason, in one line."""


def sizes(flag: str, texts: Sequence[str]) -> tuple[int, ...]:
    """Positive whole numbers of a comma-separated flag.

    Raises:
        SpeedError: naming the flag and what is no such number.
    """
    for text in texts:
        if not text.isdecimal() or int(text) == 0:
            raise SpeedError(f"--{flag}={','.join(texts)}: {text!r} is no positive whole number; write e.g. 16,64")
    return tuple(map(int, texts))


def spread(values: Sequence[float]) -> Result:
    """Median and range."""
    return {"median": float(np.median(values)), "min": float(min(values)), "max": float(max(values))}


class Worker:
    """A contestant's process, which waits on its stdin while others have their turn.

    Args:
        spec: says what it is (`worker`).
        seconds: that it may take to be ready; None: any time.
        environment: variables of its own.
    """

    def __init__(
        self, name: str, spec: Result, seconds: float | None = None, environment: Mapping[str, str] | None = None
    ):
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ncfair_jax.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"TRANSFORMERS_VERBOSITY": "error"} | dict(environment or {}),
        )
        self.facts = self.ask(spec, seconds)

    def ask(self, command: Result, seconds: float | None = None) -> Result:
        """Sends one line and waits for the answer.

        Raises:
            SpeedError: if the process dies, with the last line that it wrote; or if it takes longer than so many seconds,
                after which it is ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # its last words are told below
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        # Every answer is one line, so none waits in the buffer of an earlier read.
        if seconds is not None and not select.select([self._process.stdout], [], [], max(seconds, 0.0))[0]:
            self.kill()
            raise SpeedError(f"contestant {self.name} took more than {seconds:.0f} s and was ended")
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip() or "nothing on stderr").splitlines()[-1]
            raise SpeedError(f"contestant {self.name} ended with status {code}: {last}")
        content: Result = json.loads(answer)
        return content

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Ends the process by closing its stdin; it may have ended before."""
        self._process.communicate()
        self._errors.close()


@contextmanager
def workers(specs: dict[str, Result]) -> Iterator[dict[str, Worker]]:
    """Starts the contestants one after the other (so that their setting up disturbs nobody) and ends them all."""
    with ExitStack() as stack:
        started = {}
        for name, spec in specs.items():
            started[name] = Worker(name, spec)
            stack.callback(started[name].close)
        yield started
