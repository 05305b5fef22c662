"""Several processes come together, notice who is lost, and leave; each by one line and a status for a scheduler."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

from ncfair_jax import exits
from ncfair_jax.native_errors import LOSS, NativeErrors
from ncfair_jax.processes import LostError, Member, ProcessesError, come_together, lost_text, own_member, told_loss
from tests.started import environment
from tests.test_train import command, metrics, setting  # noqa: F401 (a fixture)


@pytest.fixture
def port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("host", 2, 1), "--coordinator='host' is not host:port, e.g. host:12345, nor 'auto'"),
        (("host:", 2, 1), "--coordinator='host:' is not host:port"),
        ((":123", 2, 1), "--coordinator=':123' is not host:port"),
        (("host:99999", 2, 1), "--coordinator='host:99999' is not host:port"),
        (("host:123", 2, None), "needs --num_processes=N"),
        (("host:123", None, 0), "needs --num_processes=N"),
        (("host:123", 2, 2), "--process_id=2 is not from 0 to 1"),
        (("host:123", 2, -1), "--process_id=-1 is not from 0 to 1"),
        (("host:123", 1, 1), "--process_id=1 is not from 0 to 0"),
        (("", None, 1), "--process_id=1: no --coordinator=host:port of process 0 is given; add it"),
        (("", 2, 0), "--num_processes=2 and --process_id=0: no --coordinator"),
        (("auto", 2, None), "--num_processes=2: the cluster tells these; leave them out"),
    ],
)
def test_flags_that_do_not_fit_are_told(flags, told):
    with pytest.raises(ProcessesError) as error:
        own_member(*flags)
    assert told in str(error.value)


def test_one_process_needs_no_others():
    assert own_member("", None, None) is own_member("", 1, 0) is own_member("host:123", 1, 0) is None
    assert own_member("[::1]:123", 3, 2).address == ("::1", 123)


def outcomes(port: int, *who: tuple[int, int], seconds: float = 5.0) -> list[str]:
    """What each of these (number of processes, id) ends in, all coming at once."""

    def outcome(place: Member) -> str:
        try:
            come_together(place, seconds)
        except (ProcessesError, LostError) as error:
            return f"{type(error).__name__}: {error}"
        return "together"

    with ThreadPoolExecutor(len(who)) as pool:
        return list(pool.map(outcome, [Member(f"localhost:{port}", num, i) for num, i in who]))


def test_all_come_together_and_again_at_once_at_the_same_port(port):
    for _ in range(2):
        assert outcomes(port, (3, 2), (3, 0), (3, 1)) == ["together"] * 3


@pytest.mark.parametrize("twice", [0, 1])
def test_an_id_given_twice_is_told_to_all(twice, port):
    began = time.monotonic()
    told = outcomes(port, (4, 0), (4, 1), (4, twice), (4, 3), seconds=20)
    assert time.monotonic() - began < 10
    for text in told:
        assert text.startswith("ProcessesError: process ")
        assert f"--process_id={twice} is given to two processes" in text
        assert f"(coordinator localhost:{port})" in text


def test_another_number_of_processes_is_told_to_all(port):
    for text in outcomes(port, (3, 0), (2, 1)):
        assert "process 0 has --num_processes=3, process 1 has 2; give all the same" in text


def test_who_does_not_come_is_named_to_all_who_did(port):
    for text in outcomes(port, (3, 0), (3, 1), seconds=1.0):
        assert text.startswith("LostError: process ")
        assert f"not all came to the coordinator localhost:{port} within 1 s: process id 2 of 3 is missing" in text


def test_a_coordinator_that_nobody_is_or_that_is_something_else_is_told(port):
    (text,) = outcomes(port, (2, 1), seconds=0.5)
    assert text.startswith("LostError: process 1 of 2 could not come together")
    assert f"localhost:{port} within 0.5 s (" in text and "refused" in text
    with socket.create_server(("", port)):
        for text, failed in zip(
            outcomes(port, (2, 0), (2, 1), seconds=1.0), ("not listen", "not come together"), strict=True
        ):
            assert failed in text and "timed out" in text


def test_a_process_that_went_before_all_had_come_may_come_again(port):
    address = ("localhost", port)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(come_together, Member(f"localhost:{port}", 3, 0), 20.0)
        for hello in (b"ncfair_jax 1 3\n", b"GET / HTTP/1.0\n"):  # one that is killed, and a stranger
            while True:
                try:
                    gone = socket.create_connection(address)
                    break
                except OSError:
                    time.sleep(0.01)
            with gone:
                gone.sendall(hello)
        assert outcomes(port, (3, 1), (3, 2), seconds=20.0) == ["together"] * 2
        first.result()


HEARTBEAT = """UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
1
The tasks have crashed. RPC: /xla.coordination.CoordinationService/PollForError"""


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (HEARTBEAT, "process 1 was lost"),
        ("UNAVAILABLE: CoordinationService/PollForError Socket closed", "the coordinator (process 0) was lost"),
        ("DEADLINE_EXCEEDED: CoordinationService/Heartbeat", "the coordinator (process 0) was lost"),
        ("UNKNOWN: Gloo AllGather failed: Connection closed by peer", "a peer or the coordinator was lost"),
        ("DEADLINE_EXCEEDED: Barrier timed out. Id: leave::0.", "a peer or the coordinator was lost"),
    ],
)
def test_an_error_of_a_lost_process_is_told_from_others_and_becomes_one_line(text, lost):
    try:
        raise jax.errors.JaxRuntimeError(text)
    except RuntimeError as cause:
        later = KeyError("while it was handled")
        later.__context__ = cause
    assert told_loss(later) == text
    line = lost_text(Member("host:123", 3, 2), text)
    assert line.startswith(f"process 2 of 3, coordinator at host:123: {lost}") and "same command again" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "error", [ValueError("config.data: no Gloo"), jax.errors.JaxRuntimeError("INTERNAL: no memory"), OSError("NCCL: x")]
)
def test_other_errors_stay_what_they_are(error):
    assert told_loss(error) is None


def test_lines_of_c_code_pass_but_for_those_of_a_loss(tmp_path):
    code = (
        "import os, sys; from ncfair_jax.native_errors import NativeErrors\n"
        "def lost(text): print('lost', len(text.splitlines()), file=sys.stderr, flush=True); os._exit(75)\n"
        "errors = NativeErrors(lost)\n"
        "for line in sys.argv[1:]: os.write(2, line.encode() + b'\\n')\n"
        "os.abort()\n"
    )
    loss = "E1127 11:20:49.227790 11796 coordination_service_agent.cc:289] Polled an error from coordination service"

    def end(*lines: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *lines], env=environment(1), capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr

    assert end("before", loss, "    @ 0x7f5d5a540634 frame") == (exits.TRY_AGAIN, "before\nlost 2\n")
    assert end("another fatal error") == (-signal.SIGABRT, "another fatal error\n")
    assert LOSS.match(
        b"F1127 10:13:42.7 6513 client.h:80] Terminating process because the JAX distributed service detec"
    )


def test_afterwards_stderr_is_what_it_was(capfd):
    before = sys.stderr
    errors = NativeErrors(pytest.fail)
    os.write(2, b"native\n")
    print("python", file=sys.stderr)
    errors.release()
    os.write(2, b"later\n")
    assert sys.stderr is before and signal.getsignal(signal.SIGABRT) == signal.SIG_DFL
    assert sorted(capfd.readouterr().err.split()) == ["later", "native", "python"]


def place_flags(port: int, num: int, process: int) -> list[str]:
    return [f"--coordinator=localhost:{port}", f"--num_processes={num}", f"--process_id={process}"]


@contextmanager
def started(commands: list[list[str]]):
    """The processes of these commands; none is left behind."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(args, env=environment(1), **pipes) for args in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ends(commands: list[list[str]]) -> list[tuple[int, list[str]]]:
    """Status and lines on stderr of processes that run side by side."""
    with started(commands) as processes:
        lines = [process.communicate(timeout=600)[1].splitlines() for process in processes]
        return [(process.returncode, told) for process, told in zip(processes, lines, strict=True)]


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--process_id=1"], exits.MISTAKE, "error: --process_id=1: no --coordinator=host:port of process 0 is given"),
        (["--coordinator=auto"], exits.MISTAKE, "error: --coordinator=auto: no cluster tells who the processes are"),
        (["--coordinator_timeout=1"], exits.TRY_AGAIN, "error: process 1 of 2 could not come together"),
    ],
)
def test_the_command_tells_one_line_and_a_status(flags, code, told, tmp_path, port):
    (tmp_path / "config.py").write_text("from ncfair_jax.recipes import base_config as get_config\n")
    if code == exits.TRY_AGAIN:
        flags = [*flags, *place_flags(port, 2, 1)]
    ((status, lines),) = ends([command(tmp_path, tmp_path / "run", *flags)])
    assert status == code
    assert len(lines) == 1 and lines[0].startswith(told), lines


@pytest.mark.slow
def test_an_id_twice_among_three_ends_all_three(tmp_path, port):
    (tmp_path / "config.py").write_text("from ncfair_jax.recipes import base_config as get_config\n")
    for status, lines in ends([command(tmp_path, tmp_path / "run", *place_flags(port, 3, i)) for i in (0, 1, 1)]):
        assert status == exits.MISTAKE
        assert len(lines) == 1 and "--process_id=1 is given to two processes" in lines[0], lines


@pytest.mark.slow
@pytest.mark.parametrize("who", [(0,), (1,), (0, 1)])
def test_a_mistake_ends_all_each_with_its_own_line(who, setting, port):  # noqa: F811
    workdir = setting / f"mistake{who}"
    wrong = ["--config.data.path=nowhere.txt"]
    commands = [command(setting, workdir, *place_flags(port, 2, i), *(wrong if i in who else [])) for i in range(2)]
    for i, (status, lines) in enumerate(ends(commands)):
        assert status == (exits.MISTAKE if i in who else exits.TRY_AGAIN), lines
        assert ("nowhere.txt" if i in who else f"process {i} of 2, coordinator at localhost:{port}") in lines[-1]
        errors = [line for line in lines if not line.startswith("warning:")]
        assert len(errors) == 1 and errors[0].startswith("error: "), lines


def steps_logged(workdir: Path) -> int:
    log = workdir / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def when_training(processes: list[subprocess.Popen], workdir: Path, steps: int) -> None:
    while steps_logged(workdir) < steps:
        assert all(process.poll() is None for process in processes), [p.stderr.read() for p in processes]
        time.sleep(0.005)


@pytest.fixture(scope="module")
def by_two(setting) -> Path:  # noqa: F811
    """A run by two processes that nothing disturbed."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    commands = [command(setting, setting / "by_two", *place_flags(port, 2, i)) for i in range(2)]
    assert [status for status, _ in ends(commands)] == [exits.DONE] * 2
    return setting / "by_two"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_other_within_the_limit_and_the_same_command_goes_on(victim, setting, by_two, port):  # noqa: F811
    workdir = setting / f"lost{victim}"
    commands = [command(setting, workdir, *place_flags(port, 2, i), "--peer_timeout=10") for i in range(2)]
    with started(commands) as processes:
        when_training(processes, workdir, 8)
        processes[victim].send_signal(signal.SIGKILL)
        other, began = processes[1 - victim], time.monotonic()
        told = [line for line in other.communicate(timeout=60)[1].splitlines() if not line.startswith("warning: ")]
        assert time.monotonic() - began < 20  # the limit, and time to end on a busy machine
        assert other.returncode == exits.TRY_AGAIN, told
    errors = [line for line in told if not line.startswith("training")]
    assert len(errors) == 1, told
    assert errors[0].startswith(f"error: process {1 - victim} of 2, coordinator at localhost:{port}: ")
    assert [status for status, _ in ends(commands)] == [exits.DONE] * 2
    exported = Path("export") / "model.safetensors"
    assert (workdir / exported).read_bytes() == (by_two / exported).read_bytes()
    assert [line["loss"] for line in metrics(workdir)] == [line["loss"] for line in metrics(by_two)]


@pytest.mark.slow
def test_sigterm_to_all_saves_and_all_say_so(setting, port):  # noqa: F811
    workdir = setting / "terminated_two"
    with started([command(setting, workdir, *place_flags(port, 2, i)) for i in range(2)]) as processes:
        when_training(processes, workdir, 4)
        for process in processes:
            process.terminate()
        errors = [process.communicate(timeout=100)[1] for process in processes]
        assert [process.returncode for process in processes] == [exits.STOPPED_BY_SIGTERM] * 2, errors
    for told in errors:
        assert "stopped by SIGTERM at step" in told
