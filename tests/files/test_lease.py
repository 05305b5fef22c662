"""One process at a time in a folder on a bucket."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ncfair_jax import exits
from ncfair_jax.files import lease as lease_module
from ncfair_jax.files.bucket import BucketError, BucketPath, path_of
from ncfair_jax.files.lease import LEASE_FILE, HeldError, Lease
from ncfair_jax.files.locking import LockedError, held, held_by_all

HOLD = """
import sys
from ncfair_jax.files import lease
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.locking import held

lease.RENEW = lease.LOOK = 0.2
with held(path_of(sys.argv[1]), wait=sys.argv[2] == "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(bucket, request, monkeypatch) -> BucketPath:
    monkeypatch.setattr(lease_module, "LOOK", 0.05)
    monkeypatch.setattr(lease_module, "RENEW", 0.2)
    return path_of("/".join([bucket, *re.findall(r"\w+", request.node.name)]))


def start(folder: BucketPath, *, wait: bool) -> subprocess.Popen:
    """Another process that has the folder, once it has said so, until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(folder), "wait" if wait else "refuse"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


@pytest.fixture
def other(folder):
    """Another process that has the folder."""
    with start(folder, wait=False) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def write(folder: BucketPath, **changes) -> None:
    """A lease of a process of another machine."""
    content = {"pid": 7, "host": "far", "machine": "far", "until": time.time() + 600, "token": "theirs"} | changes
    (folder / LEASE_FILE).write_text(json.dumps(content))


def test_the_holder_is_named_and_a_dead_one_of_this_machine_holds_nothing(folder, other):
    named = rf"is in use by process {other.pid} on {socket.gethostname()}; wait until it ends, stop it, or use another"
    for having in (held, held_by_all):
        with pytest.raises(LockedError, match=named), having(folder):
            pytest.fail("two processes have one folder")
    other.kill()
    other.wait()
    with held_by_all(folder), held(folder):
        assert json.loads((folder / LEASE_FILE).read_text())["pid"] == os.getpid()
    assert not folder.exists()


def test_waiting_ends_when_the_holder_does(folder, other):
    with start(folder, wait=True) as waiter:
        assert f"is held by process {other.pid}" in waiter.stderr.readline()
        time.sleep(1)
        assert waiter.poll() is None
        other.stdin.close()
        assert waiter.stdout.readline() == "held\n"
        waiter.kill()


def test_a_lease_of_another_machine_is_taken_over_when_it_has_run_out(folder, monkeypatch):
    monkeypatch.setattr(lease_module, "SKEW", 0.5)
    began = time.time()
    write(folder, until=began + 1.0)
    with held(folder):
        assert time.time() > began + 1.5


def test_a_damaged_lease_has_run_out(folder):
    (folder / LEASE_FILE).write_text("{")
    with held(folder):
        pass


def test_of_many_who_come_at_once_one_gets_it(folder):
    write(folder, until=0)
    leases, got, gate = [Lease(folder) for _ in range(6)], [], threading.Barrier(6)

    def come(one: Lease) -> None:
        gate.wait()
        try:
            one.acquire(wait=False)
            got.append(one)
        except HeldError:
            pass

    threads = [threading.Thread(target=come, args=(one,)) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].release()


def test_it_is_renewed(folder):
    with held(folder):
        first = json.loads((folder / LEASE_FILE).read_text())["until"]
        time.sleep(1)
        assert json.loads((folder / LEASE_FILE).read_text())["until"] > first


@pytest.mark.parametrize("how", ["taken", "gone"])
def test_who_lost_it_ends_at_once_in_one_line(folder, other, how):
    if how == "taken":
        write(folder)
    else:
        other.send_signal(signal.SIGSTOP)
        (folder / LEASE_FILE).unlink()
        other.send_signal(signal.SIGCONT)
    assert other.wait(timeout=60) == exits.TRY_AGAIN
    (line,) = other.stderr.read().splitlines()
    assert line.startswith(f"error: the lease of {folder} was lost") and "same command" in line


def test_a_bucket_that_is_not_there_is_told_in_one_line(bucket):
    with (
        pytest.raises(BucketError, match=r"gs://another/run cannot be written .*; check its name"),
        held(path_of("gs://another/run")),
    ):
        pytest.fail("there is no such bucket")


def test_an_answer_that_was_lost_is_no_loss(folder, monkeypatch):
    one = Lease(folder)
    write_once = one._write

    def unheard(generation: int) -> bool:
        assert write_once(generation)
        one._generation = 0
        monkeypatch.setattr(one, "_write", write_once)
        return False

    monkeypatch.setattr(one, "_write", unheard)
    one.acquire(wait=False)
    time.sleep(0.5)  # it can be renewed
    assert one._generation > 0
    one.release()
    assert not (folder / LEASE_FILE).exists()
