"""What C++ code of jax writes to stderr when it ends the process since another one was lost: one message instead."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from threading import Thread

# absl's prefix: W(arning), E(rror) or F(atal), month and day; then source files and words that speak of other processes.
LOSS = re.compile(rb"[WEF]\d{4} .*(coordination.service|distributed service|preemption_sync)")
DRAIN_SECONDS = 2.0
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


class NativeErrors:
    """From its making to `release`, stderr passes through here, but for what Python writes.

    Lines are passed on as they come. From the first one that tells of a lost process they are kept: a stack dump and SIGABRT
    follow. Python cannot handle SIGABRT itself (its handlers run after C code returns, and abort() does not), so the
    handler is set by libc, and called in the thread that aborts.
    """

    def __init__(self, on_loss: Callable[[str], object]) -> None:
        """Args: on_loss: called with the kept lines instead of an abort; must end the process."""
        self.on_loss = on_loss
        self._kept: list[bytes] = []
        self._real = os.dup(2)
        self._python_stderr = sys.stderr
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self._reader = Thread(target=self._pass_on, args=(reading,), daemon=True)
        self._reader.start()
        self._handler = HANDLER(self._aborting)  # libc holds no reference to it
        ctypes.CDLL(None).signal(signal.SIGABRT, self._handler)

    def _pass_on(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if self._kept or LOSS.match(line):
                    self._kept.append(line)
                else:
                    os.write(self._real, line)

    def _drain(self) -> None:
        os.dup2(self._real, 2)  # the pipe's end, unless a child process holds it open as well
        self._reader.join(DRAIN_SECONDS)

    def _aborting(self, _: int) -> None:
        self._drain()
        text = b"".join(self._kept)
        if not text or os.environ.get("NCFAIR_TRACEBACK"):
            os.write(self._real, text)
        if text:
            self.on_loss(text.decode(errors="replace"))

    def release(self) -> None:
        """stderr and SIGABRT as they were before."""
        self._drain()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        sys.stderr = self._python_stderr  # the other stays open for loggers that hold it
        os.close(self._real)
