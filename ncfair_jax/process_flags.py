"""The flags of a command that several processes run together: each is given the same, but for its own --process_id."""

from absl import flags

COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0 of several, or 'auto' on a cluster.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are; with --coordinator=host:port.")
PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")
COORDINATOR_TIMEOUT = flags.DEFINE_integer(
    "coordinator_timeout", 120, "Seconds for all processes to come together; then exit code 75.", lower_bound=1
)
PEER_TIMEOUT = flags.DEFINE_integer(
    "peer_timeout", 30, "Seconds without a sign of life until a process counts as lost; exit code 75.", lower_bound=1
)


def asked() -> tuple[str, int | None, int | None, int, int]:
    """What the command line says, as `processes.together` takes it."""
    return COORDINATOR.value, PROCESSES.value, PROCESS.value, COORDINATOR_TIMEOUT.value, PEER_TIMEOUT.value
