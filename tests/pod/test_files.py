"""The files of launch/pod/: scripts that a shell accepts, and a JobSet that Kubernetes would."""

import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
POD = ROOT / "launch" / "pod"
SCRIPTS = sorted([*POD.glob("*.sh"), *POD.glob("*.sbatch")])

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "array", "items": {"type": "string"}}
NAMED_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def strict(*needed: str, **fields) -> dict:
    """An object of these fields, those with a name before them needed, and no other."""
    return {"type": "object", "properties": fields, "required": list(needed), "additionalProperties": False}


def listed(item: dict, **limits) -> dict:
    return {"type": "array", "items": item, "minItems": 1, **limits}


METADATA = strict(name=NAME, labels=NAMED_TEXTS, annotations=NAMED_TEXTS)
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+([EPTGMk]i?|m)?$"}}
CONTAINER = strict(
    "name", "image",
    name=NAME, image={"type": "string"}, workingDir={"type": "string", "pattern": "^/"}, command=TEXTS, args=TEXTS,
    env=listed(strict("name", name={"type": "string"}, value={"type": "string"})),
    ports=listed(strict("containerPort", containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
    resources=strict(limits=QUANTITIES, requests=QUANTITIES),
)  # fmt: skip
POD_SPEC = strict(
    "containers", "restartPolicy",
    restartPolicy={"enum": ["Never", "OnFailure"]}, terminationGracePeriodSeconds=COUNT, nodeSelector=NAMED_TEXTS,
    serviceAccountName=NAME, containers=listed(CONTAINER),
)  # fmt: skip
# Of a rule about failed pods: exit codes or conditions. Zero is no failure, so it may not be asked for with "In".
POD_RULE = strict(
    "action",
    action={"enum": ["FailJob", "Ignore", "Count"]},
    onExitCodes=strict(
        "operator", "values",
        containerName=NAME, operator={"enum": ["In", "NotIn"]},
        values=listed({"type": "integer", "minimum": 1, "maximum": 255}, uniqueItems=True, maxItems=255),
    ),
)  # fmt: skip
JOB_SPEC = strict(
    "template",
    parallelism=COUNT, completions=COUNT, completionMode={"enum": ["Indexed", "NonIndexed"]}, backoffLimit=COUNT,
    podFailurePolicy=strict("rules", rules=listed(POD_RULE, maxItems=20)),
    template=strict("spec", metadata=METADATA, spec=POD_SPEC),
)  # fmt: skip
ACTIONS = [f"{what}{even}" for what in ("RestartJobSet", "RestartJob") for even in ("", "AndIgnoreMaxRestarts")]
JOBSET_RULE = strict(
    "name", "action",
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action={"enum": ["FailJobSet", *ACTIONS]},
    onJobFailureReasons={
        "type": "array", "uniqueItems": True,
        "items": {"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"]},
    },
    targetReplicatedJobs=TEXTS,
)  # fmt: skip
# What jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1 say of the fields that the file has, and of a few that it may get.
JOBSET = strict(
    "apiVersion", "kind", "metadata", "spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"}, kind={"const": "JobSet"}, metadata=METADATA | {"required": ["name"]},
    spec=strict(
        "replicatedJobs",
        replicatedJobs=listed(
            strict("name", "template", name=NAME, replicas=COUNT, template=strict("spec", metadata=METADATA, spec=JOB_SPEC))
        ),
        failurePolicy=strict(maxRestarts=COUNT, rules=listed(JOBSET_RULE)),
        successPolicy=strict("operator", operator={"enum": ["All", "Any"]}, targetReplicatedJobs=TEXTS),
        network=strict(
            enableDNSHostnames={"type": "boolean"}, subdomain=NAME, publishNotReadyAddresses={"type": "boolean"}
        ),
        suspend={"type": "boolean"}, ttlSecondsAfterFinished=COUNT,
    ),
)  # fmt: skip


@pytest.fixture
def jobset() -> dict:
    return yaml.safe_load((POD / "gke_jobset.yaml").read_text())


def test_the_jobset_fits_its_schema(jobset):
    jsonschema.Draft202012Validator.check_schema(JOBSET)
    jsonschema.validate(jobset, JOBSET)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(replicas=1),
        lambda spec: spec["failurePolicy"]["rules"][0].update(action="Restart"),
        lambda spec: spec["failurePolicy"].update(maxRestarts="20"),
        lambda spec: spec["replicatedJobs"][0].pop("template"),
        lambda spec: spec["replicatedJobs"][0]["template"]["spec"].update(completionMode="indexed"),
        lambda spec: spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"].update(restartPolicy="Always"),
    ],
)
def test_the_schema_sees_a_mistake(jobset, spoil):
    spoil(jobset["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(jobset, JOBSET)


def test_the_jobset_is_consistent(jobset):
    """What no schema says: a pod for every node, chips that make the topology, and rules of containers that there are."""
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    width, height = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = int(container["resources"]["limits"]["google.com/tpu"])
    assert job["parallelism"] == job["completions"] == width * height // chips
    assert job["backoffLimit"] == 0  # one lost pod ends the job, and the JobSet starts all again together
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"] and pod["restartPolicy"] == "Never"
    assert "--coordinator=auto" in container["args"] and any("gs://" in arg for arg in container["args"])
    script, config = container["command"][-1], next(arg for arg in container["args"] if arg.startswith("--config="))
    assert (ROOT / script).is_file() and (ROOT / config.removeprefix("--config=")).is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_accepts_the_scripts(script):
    subprocess.run(["bash", "-n", script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(POD.iterdir()), ids=lambda path: path.name)
def test_a_header_says_how_to_use_it(path):
    head = [line for line in path.read_text().splitlines()[:16] if line.startswith("#")]
    assert any(path.name in line for line in head), "the header shows the command"
    assert "--coordinator=auto" in path.read_text()


def test_the_scripts_hand_flags_on_as_they_are(tmp_path):
    """With commands in the place of SLURM's and Google's that show what they were called with."""
    for name in ("srun", "gcloud"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@" "--"\n')
        (tmp_path / name).chmod(0o755)
    paths = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(ROOT), "TPU": "pod", "ZONE": "here"}
    flags = ["train", "--config=configs/bert_nc.py", "--config.name=two words"]

    def told(script: str) -> str:
        return subprocess.run(
            [POD / script, *flags], env=paths, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    srun = told("slurm.sbatch").splitlines()
    assert srun[1:] == [".venv/bin/python", "launch/train.py", "--coordinator=auto", *flags[1:], "--"]
    ssh = told("tpu_vm.sh")
    assert ssh.count("--worker=all") == 2 and ssh.count("--zone=here") == 2
    assert "launch/train.py --coordinator=auto --config=configs/bert_nc.py --config.name=two\\ words" in ssh
