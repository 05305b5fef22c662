"""Several processes that make up one run: how they come together, what they say when one is lost, and how they leave.

Before jax knows of the others, all announce themselves to process 0, so that an address that nobody answers and a process
id that two have are told in one line. Later on jax notices who is lost. It tells so in an error of a collective, or by
aborting the process in C++ with a stack dump; both become one line and exits.TRY_AGAIN here.
"""

import atexit
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, NoReturn

import jax
from jax._src import distributed  # jax.distributed lends neither its client nor its barriers

from ncfair_jax import exits
from ncfair_jax.native_errors import NativeErrors

AUTO = "auto"
RETRY_SECONDS = 0.2
ANNOUNCE_SECONDS = 3.0  # for one line over an open connection
LEAVE_SECONDS = 5.0  # for all to tell an error that all have, before the first of them is missed
SHUTDOWN_SECONDS = 24 * 3600  # process 0 writes the export and the report while the others wait; if it dies they notice
WHAT_TO_DO = (
    "look at what the others say, then start all with the same command again: it goes on from the last checkpoint"
)
# Of a status that C++ code reports: collectives on a CPU and on GPUs, barriers, and the coordinator.
LOSS = re.compile(r"^[A-Z_]+: .*(Gloo|NCCL|Barrier|coordination ?service)", re.DOTALL | re.IGNORECASE)


class ProcessesError(ValueError):
    """Flags that do not fit each other or those of another process; one line."""


class LostError(Exception):
    """A peer or the coordinator did not come or is gone; one line."""


class Member(NamedTuple):
    """Which process of a run this one is."""

    coordinator: str  # host:port of process 0, or "auto"
    num: int
    id: int

    def __str__(self) -> str:
        return f"process {self.id} of {self.num}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of process 0."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


class Caller(NamedTuple):
    """What another process says of itself to process 0, and how to answer it."""

    id: int
    num: int
    connection: socket.socket


@contextmanager
def together(
    coordinator: str,
    num_processes: int | None,
    process_id: int | None,
    coordinator_timeout: int,
    peer_timeout: int,
) -> Iterator[None]:
    """Inside, this process is one of those of a run; must be entered before any other use of jax.

    A lost peer ends the process at any moment with one line on stderr and exits.TRY_AGAIN. A process that leaves by an error
    of its own does not wait for the others.

    Args:
        coordinator: host:port of process 0, or "auto" where the cluster (TPU VM, SLURM, GKE) tells; "" = one process.
        num_processes: how many make up the run; None with "auto" or for one process.
        process_id: which of them this one is, from 0; None with "auto" or for one process.
        coordinator_timeout: seconds for all of them to come together.
        peer_timeout: seconds without a sign of life after which a process is lost.
    Raises:
        ProcessesError: for flags that do not fit.
    """
    member = own_member(coordinator, num_processes, process_id)
    if member is None:
        yield
        return
    errors = NativeErrors(lambda text: end_lost(lost_text(member, text)))
    try:
        join(member, coordinator_timeout, peer_timeout)
        yield
        jax.distributed.shutdown()  # returns when all are here
    except LostError as error:
        end_lost(str(error))
    except BaseException as error:
        if (text := told_loss(error)) is not None:
            end_lost(lost_text(member, text))
        code = exit_code(error)
        errors.on_loss = lambda _: os._exit(code)  # it has its own error to tell
        atexit.register(leave, code)
        raise
    errors.release()


def own_member(coordinator: str, num_processes: int | None, process_id: int | None) -> Member | None:
    """What the flags say, or None for a process of its own.

    Raises:
        ProcessesError: if they do not fit each other.
    """
    given = {"num_processes": num_processes, "process_id": process_id}
    told = " and ".join(f"--{name}={value}" for name, value in given.items() if value is not None)
    if coordinator in ("", AUTO):
        if told and not (coordinator == "" and num_processes in (None, 1) and process_id in (None, 0)):
            missing = "the cluster tells these" if coordinator else "no --coordinator=host:port of process 0 is given"
            raise ProcessesError(f"{told}: {missing}; {'leave them out' if coordinator else 'add it'}")
        return Member(AUTO, 0, 0) if coordinator else None
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ProcessesError(
            f"--coordinator={coordinator!r} is not host:port, e.g. {host or port or 'host'}:12345, nor 'auto'"
        )
    if num_processes is None or process_id is None:
        raise ProcessesError(
            f"--coordinator={coordinator} needs --num_processes=N, how many processes make up the run, and --process_id=I, "
            "which of them this one is, from 0 to N-1"
        )
    if not 0 <= process_id < num_processes:
        raise ProcessesError(f"--process_id={process_id} is not from 0 to {num_processes - 1} (--num_processes - 1)")
    return Member(coordinator, num_processes, process_id) if num_processes > 1 else None


def join(member: Member, coordinator_timeout: int, peer_timeout: int) -> None:
    """Brings the processes together, for themselves and for jax."""
    jax.config.update("jax_enable_preemption_service", False)  # its handler of SIGTERM would replace ours (`stopping`)
    initialize = partial(
        jax.distributed.initialize,
        initialization_timeout=coordinator_timeout,
        heartbeat_timeout_seconds=peer_timeout,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    if member.coordinator != AUTO:
        come_together(member, coordinator_timeout)
        initialize(member.coordinator, member.num, member.id)
        return
    try:
        initialize()
    except ValueError as error:
        raise ProcessesError(
            f"--coordinator=auto: no cluster tells who the processes are ({error}); give --coordinator=host:port, "
            "--num_processes and --process_id"
        ) from error


def come_together(member: Member, seconds: float) -> None:
    """Returns when as many processes as there should be, each with another id, know of each other.

    Process 0 listens on the coordinator's port, which jax takes over later; the others announce themselves there.

    Raises:
        ProcessesError: in all of them, if an id is there twice or they disagree on their number.
        LostError: after the time limit.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if member.id == 0 and (server := listening(member.address[1])) is not None:
                with server:
                    return gather(server, member, deadline, seconds)
            return announce(member, deadline)
        except OSError as error:
            if time.monotonic() + RETRY_SECONDS > deadline:
                failed = "could not listen at" if member.id == 0 else "could not come together with the others at"
                raise LostError(
                    f"{member} {failed} the coordinator {member.coordinator} within {seconds:g} s ({error}); see that "
                    "process 0 runs there and that the port is free and open, or raise --coordinator_timeout"
                ) from error
            time.sleep(RETRY_SECONDS)


def listening(port: int) -> socket.socket | None:
    """A server on all addresses of this machine; None if the port is taken, maybe by another process 0."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise


def gather(server: socket.socket, member: Member, deadline: float, seconds: float) -> None:
    """Process 0 waits for all others and tells them to go on, or what is wrong.

    A mistake is told when the others had a little time to come and hear of it.
    """
    came: list[Caller] = []
    wrong = ""
    while len(came) < member.num - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connection, _ = server.accept()
        except TimeoutError:
            break
        if (caller := announced(connection)) is None:
            connection.close()  # something else
            continue
        came = [other for other in came if not closed(other.connection)]
        if mistake := wrong or mistaken(caller, came, member):
            wrong = mistake
            deadline = min(deadline, time.monotonic() + LEAVE_SECONDS)
        came.append(caller)
    if wrong:
        text = f"{wrong} (coordinator {member.coordinator})"
        answer(came, exits.MISTAKE, text)
        raise ProcessesError(f"{member}: {text}")
    if missing := set(range(1, member.num)) - {caller.id for caller in came}:
        text = (
            f"not all came to the coordinator {member.coordinator} within {seconds:g} s: process id "
            f"{', '.join(map(str, sorted(missing)))} of {member.num} is missing; start all again, or raise "
            "--coordinator_timeout"
        )
        answer(came, exits.TRY_AGAIN, text)
        raise LostError(f"{member}: {text}")
    answer(came, exits.DONE, "")


def mistaken(caller: Caller, came: list[Caller], member: Member) -> str:
    """What is wrong with one more process beside process 0 and those who came; "" if nothing is."""
    if caller.num != member.num:
        return f"process 0 has --num_processes={member.num}, process {caller.id} has {caller.num}; give all the same"
    if caller.id in (member.id, *(other.id for other in came)):
        return f"--process_id={caller.id} is given to two processes; give each another one, 0 to {member.num - 1}"
    return ""


def announced(connection: socket.socket) -> Caller | None:
    """Who is at the other end, or None if it is none of ours."""
    connection.settimeout(ANNOUNCE_SECONDS)
    with suppress(OSError), connection.makefile("rb") as lines:
        if match := re.fullmatch(rb"ncfair_jax (\d+) (\d+)\n", lines.readline(100)):
            return Caller(int(match[1]), int(match[2]), connection)
    return None


def closed(connection: socket.socket) -> bool:
    """Whether the other end is gone."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def answer(came: list[Caller], code: int, text: str) -> None:
    """Sends an exit code of exits.py, and what to tell, to all who wait for it."""
    for _, _, connection in came:
        with suppress(OSError), connection:
            connection.settimeout(ANNOUNCE_SECONDS)
            connection.sendall(f"ncfair_jax {code} {text}\n".encode())


def announce(member: Member, deadline: float) -> None:
    """Tells process 0 who is here, and waits until all are.

    Raises:
        ProcessesError, LostError: what process 0 answers.
        OSError: if nobody, or something else, answers.
    """
    left = max(deadline - time.monotonic(), RETRY_SECONDS)
    with socket.create_connection(member.address, timeout=min(left, ANNOUNCE_SECONDS)) as connection:
        connection.sendall(f"ncfair_jax {member.id} {member.num}\n".encode())
        connection.settimeout(left + ANNOUNCE_SECONDS)  # process 0 knows best what is wrong at the limit
        with connection.makefile("rb") as lines:
            match = re.fullmatch(rb"ncfair_jax (\d+) (.*)\n", lines.readline(10_000))
    if match is None:
        raise OSError("what listens there is no process 0 of this run")
    text = f"{member}: {match[2].decode()}"
    if int(match[1]) == exits.TRY_AGAIN:
        raise LostError(text)
    if int(match[1]) != exits.DONE:
        raise ProcessesError(text)


def told_loss(error: BaseException | None) -> str | None:
    """What an error, or one that it came from, says of a lost process; None if nothing does."""
    while error is not None:
        if isinstance(error, (ValueError, RuntimeError)) and LOSS.match(str(error)):  # jax raises either
            return str(error)
        error = error.__cause__ or error.__context__
    return None


def lost_text(member: Member, text: str) -> str:
    """One line from what C++ code tells in many."""
    if match := re.search(r"stopped sending heartbeats\):\s*(\d+(?:\s+\d+)*)", text):
        lost = f"process {', '.join(match[1].split())}"
    elif re.search("CoordinationService/(PollForError|Heartbeat)", text):
        lost = "the coordinator (process 0)"
    else:
        lost = "a peer or the coordinator"
    who, where = (str(member), f" at {member.coordinator}") if member.num else ("this process", "")
    if member.coordinator == AUTO and distributed.global_state.num_processes > 1:
        state = distributed.global_state
        who, where = f"process {state.process_id} of {state.num_processes}", f" at {state.coordinator_address}"
    return f"{who}, coordinator{where}: {lost} was lost, or stopped by itself; {WHAT_TO_DO}"


def end_lost(text: str) -> NoReturn:
    """Ends this process from any thread: what waits for a lost process would wait for ever."""
    print(f"error: {text}", file=sys.stderr, flush=True)
    os._exit(exits.TRY_AGAIN)


def exit_code(error: BaseException) -> int:
    """Status of a process that ends by this error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return exits.STOPPED_BY_CTRL_C if isinstance(error, KeyboardInterrupt) else exits.MISTAKE


def leave(code: int) -> NoReturn:
    """Ends this process, its error told: at once with the others if all end, else a little later without them.

    jax's own end would wait for them, and they for a collective with this one.
    """
    if (client := distributed.global_state.client) is not None:
        with suppress(RuntimeError):
            client.wait_at_barrier("leave", int(1000 * LEAVE_SECONDS))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
