"""A SLURM cluster of this one machine: two tasks train, are cancelled, and the same job submitted again goes on bit for bit.

`pytest -m slow -s tests/pod/test_slurm.py` as root, with Debian's packages slurm-wlm and munge. What SLURM says is printed.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from ncfair_jax.checkpoint import read_checkpoint_params
from ncfair_jax.models.folders import WEIGHTS
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.workdir import EXPORT
from tests.test_train import ROOT, environment, metrics, setting  # noqa: F401 (a fixture)

STEPS = 24
CONF = """
ClusterName=here
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=120
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("slurmctld") or not shutil.which("munged"), reason="needs slurm-wlm and munge"),
    pytest.mark.skipif(getpass.getuser() != "root", reason="only root can start slurmd"),
]


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Munge, slurmctld and slurmd of a folder of their own; the environment in which SLURM's commands find them."""
    folder = tmp_path_factory.mktemp("slurm")
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)  # munge refuses a socket that others cannot reach
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, ports = socket.gethostname().split(".")[0], free_ports(2)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, ports=ports, cpus=os.cpu_count()))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    own = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *own.values()]
    found = environment(1) | {"SLURM_CONF": f"{folder}/slurm.conf", "XLA_FLAGS": os.environ["XLA_FLAGS"]}
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
            daemons.append(subprocess.Popen(command, env=found, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT))
            time.sleep(2)
        yield found
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


def say(env: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    print("$", *command, "\n" + done.stdout + done.stderr, end="", flush=True)
    assert done.returncode == 0
    return done.stdout


def submitted(env: dict[str, str], setting: Path, workdir: Path) -> str:  # noqa: F811
    """The id of a job of two tasks that runs launch/pod/slurm.sbatch."""
    options = ["--parsable", "--ntasks=2", "--ntasks-per-node=2", f"--output={workdir}.log", "--time=30"]
    flags = [f"--config={setting}/config.py", f"--workdir={workdir}", f"--compilation_cache={setting}/xla"]
    return say(env, "sbatch", *options, "launch/pod/slurm.sbatch", "train", *flags).strip()


def ended(env: dict[str, str], job: str) -> str:
    """The state in which a job ended."""
    deadline = time.time() + 900
    while time.time() < deadline:
        told = subprocess.run(["scontrol", "show", "job", job], env=env, capture_output=True, text=True).stdout
        state = told.split("JobState=")[1].split()[0]
        if state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            print(f"job {job}: {state}, exit code {told.split('ExitCode=')[1].split()[0]}", flush=True)
            return state
        time.sleep(0.5)
    pytest.fail(f"job {job} did not end:\n{told}")


def test_cancelled_and_submitted_again_it_ends_bit_for_bit_the_same(cluster, setting):  # noqa: F811
    python = setting / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shutil.which("python")} "$@"\n')
    python.chmod(0o755)
    env = cluster | {"VENV": str(setting / "venv")}
    say(env, "sinfo")
    undisturbed, cancelled = setting / "undisturbed", setting / "cancelled"
    assert ended(env, submitted(env, setting, undisturbed)) == "COMPLETED", Path(f"{undisturbed}.log").read_text()
    job, log = submitted(env, setting, cancelled), cancelled / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 8):
        time.sleep(0.01)
    say(env, "squeue", "--steps")
    say(env, "scancel", job)
    assert ended(env, job) == "CANCELLED"
    told = Path(f"{cancelled}.log").read_text()
    assert told.count("stopped by SIGTERM at step") >= 1 and "which is saved" in told, told
    assert ended(env, submitted(env, setting, cancelled)) == "COMPLETED"
    told = Path(f"{cancelled}.log").read_text()
    print(*(line for line in told.splitlines() if line.startswith(("stopped by", "resuming"))), sep="\n")
    assert "resuming at step" in told
    like = load_pretrained(undisturbed / "export").params
    for step in (STEPS - 3, STEPS):  # the last checkpoints, written by both tasks and read by this process
        ours, theirs = (read_checkpoint_params(f"{run}@{step}", like) for run in (cancelled, undisturbed))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert (cancelled / EXPORT / WEIGHTS).read_bytes() == (undisturbed / EXPORT / WEIGHTS).read_bytes()
    assert [line["loss"] for line in metrics(cancelled)] == [line["loss"] for line in metrics(undisturbed)]
    print("checkpoints, exported weights and logged losses are the same, bit for bit")
