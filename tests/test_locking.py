"""One process at a time in a folder."""

import multiprocessing
import os
import signal
import socket
import time

import pytest

from ncfair_jax.locking import LockedError, held, held_by_all


def hold(folder, ready):
    """What another process does: has the folder until it is killed."""
    with held(folder):
        ready.set()
        time.sleep(60)


@pytest.fixture
def other(tmp_path):
    """Another process that has tmp_path/"run"."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def test_the_holder_is_named_and_a_dead_one_holds_nothing(tmp_path, other):
    folder = tmp_path / "run"
    named = (
        rf"run is in use by process {other.pid} on {socket.gethostname()}; wait until it ends, stop it, or use another"
    )
    for having in (held, held_by_all):
        with pytest.raises(LockedError, match=named), having(folder):
            pytest.fail("two processes have one folder")
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with held_by_all(folder):
        pass


def test_waiting_ends_when_the_holder_does(tmp_path, other, capsys):
    os.kill(other.pid, signal.SIGSTOP)  # it is alive, but does nothing
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    waiter = context.Process(target=wait, args=(tmp_path / "run", entered))
    waiter.start()
    assert not entered.wait(5)
    os.kill(other.pid, signal.SIGKILL)
    assert entered.wait(60)
    waiter.join()


def wait(folder, entered):
    """What the waiting process does."""
    with held(folder, wait=True):
        entered.set()


def test_a_folder_may_be_held_within_itself_and_is_free_afterwards(tmp_path):
    with held(tmp_path):
        with held(tmp_path):
            assert (tmp_path / ".holder").exists()
        assert (tmp_path / ".holder").exists()
    assert not (tmp_path / ".holder").exists()
    with held(tmp_path):
        pass
