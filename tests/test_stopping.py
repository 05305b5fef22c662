"""Ctrl-C and SIGTERM, in real processes: the first stops where it can go on, the second at once."""

import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys, time
from ncfair_jax import stopping

def wait():
    print("ready", flush=True)
    time.sleep(60)

try:
    with stopping.stoppable():
        {body}
except stopping.Interrupted as stopped:
    print(stopped.message, file=sys.stderr)
    raise SystemExit(stopped.code)
print("not stopped")
"""
ANYWHERE = """
        with stopping.stage("judging the start model"):
            wait()"""
SAVING = """
        with stopping.stage("training"), stopping.deferred():
            print("ready", flush=True)
            while not stopping.received():
                time.sleep(0.01)
            {then}
        with stopping.stage("judging"):
            wait()"""


def start(body: str) -> subprocess.Popen:
    script = SCRIPT.format(body=body.strip())
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_a_stage_that_can_stop_anywhere_does_and_says_where(number, name, code):
    process = start(ANYWHERE)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert err == f"stopped by {name} while judging the start model; the same command goes on from there\n"


@pytest.mark.parametrize("then", ["raise stopping.interrupted(' at step 7, which is saved')", "pass"])
def test_training_saves_first_and_a_stop_in_its_last_step_is_not_forgotten(then):
    process = start(SAVING.format(then=then))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    where = "at step 7, which is saved" if "raise" in then else "while training"
    assert err.splitlines()[-2:] == [
        "Ctrl-C: saving, then leaving; once more leaves at once",
        f"stopped by Ctrl-C {where}; the same command goes on from there",
    ]


def test_the_second_signal_ends_the_process_at_once():
    process = start(SAVING.format(then="time.sleep(60)"))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped at once"
