"""One process at a time in a folder."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from ncfair_jax.files.locking import LockedError, held, held_by_all

HOLD = """
import sys
from pathlib import Path
from ncfair_jax.files.locking import held

with held(Path(sys.argv[1]), wait=sys.argv[2] == "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start(folder, *, wait):
    """Another process that has the folder, once it has said so, until its standard input ends."""
    command = [sys.executable, "-c", HOLD, folder, "wait" if wait else "refuse"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def other(tmp_path):
    """Another process that has tmp_path/"run"."""
    with start(tmp_path / "run", wait=False) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_holder_is_named_and_a_dead_one_holds_nothing(tmp_path, other):
    folder = tmp_path / "run"
    named = (
        rf"run is in use by process {other.pid} on {socket.gethostname()}; wait until it ends, stop it, or use another"
    )
    for having in (held, held_by_all):
        with pytest.raises(LockedError, match=named), having(folder):
            pytest.fail("two processes have one folder")
    other.kill()
    other.wait()
    with held_by_all(folder):
        pass


def test_waiting_ends_when_the_holder_does(tmp_path, other):
    other.send_signal(signal.SIGSTOP)  # it is alive, but does nothing
    with start(tmp_path / "run", wait=True) as waiter:
        os.set_blocking(waiter.stdout.fileno(), False)
        with pytest.raises(subprocess.TimeoutExpired):
            waiter.wait(5)
        assert not waiter.stdout.read()
        os.set_blocking(waiter.stdout.fileno(), True)
        other.kill()
        assert waiter.stdout.readline() == b"held\n"
        waiter.stdin.close()
        assert waiter.wait() == 0


def test_a_folder_may_be_held_within_itself_and_is_free_afterwards(tmp_path):
    with held(tmp_path):
        with held(tmp_path):
            assert (tmp_path / ".holder").exists()
        assert (tmp_path / ".holder").exists()
    assert not (tmp_path / ".holder").exists()
    with held(tmp_path):
        pass
