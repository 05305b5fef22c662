"""What is measured in which order and time, and that nothing ends the whole but the end of the time."""

import json
import re
from itertools import pairwise

import pytest

from ncfair_jax.speed import device
from ncfair_jax.speed.contestants import SpeedError, Worker
from ncfair_jax.speed.device import OURS, TORCH, Measurement, Settings, Sides, plan
from ncfair_jax.speed.device_table import device_table

SPREAD = {"median": 0.1, "min": 0.1, "max": 0.2}
OURS_MEASURED = {
    "tokens": 6000,
    "flops": 10**12,
    "seconds": SPREAD,
    "rows": 64,
    "row_tokens": 128,
    "attention": "cudnn",
    "compile_seconds": 9.0,
    "peak_bytes": 2**31,
    "host": {"batch_seconds": 0.01, "fresh_seconds": 0.1, "hidden": 0.93},
    "profile": {"idle": 0.02},
}
THEIRS_MEASURED = OURS_MEASURED | {"tokens": 1500, "peak_bytes": None}


class Fake(Worker):
    """A worker that says what it is told to, and remembers what it was asked."""

    def __init__(self, side, spec, seconds, environment):
        assert spec == {"kind": side} and seconds > 0 and environment
        self.side, self.killed = side, False
        self.facts = {"device": "card", "platform": "gpu", "bare_flops": 1e14, "versions": {side: "1"}}
        started.append(self)

    def ask(self, command, seconds):
        call, arguments = command["run"]
        asked.append((self.side, call, seconds))
        if (said := answers.get((call, arguments.get("attention"), arguments.get("row_tokens")))) is not None:
            if isinstance(said, Exception):
                raise said
            return said
        if call == "kernel":
            errors = {"values": 0.004, "gradients": 0.005}
            return {"errors": {arguments["name"]: errors, "xla": errors}, "leak": 0.0, "agrees": True}
        if call == "compile_together":
            return {"programs": len(arguments["settings"]), "together_seconds": 20.0}
        if call == "costs":
            return {
                "extra": {"nc3": 0.004, "guarded": 0.001},
                "host_reads": {"seconds": 0.1},
                "tracking": {"extra": 0.0004},
            }
        return dict(OURS_MEASURED if self.side == OURS else THEIRS_MEASURED)

    def kill(self):
        self.killed = True


started: list[Fake] = []
asked: list = []
answers: dict = {}


@pytest.fixture
def fakes(monkeypatch):
    for collection in (started, asked, answers):
        collection.clear()
    monkeypatch.setattr(device, "Worker", Fake)
    monkeypatch.setattr(device, "store_sentences", lambda preset, settings, file: None)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None if name == "grain" else name)


def lines(table: str) -> dict[str, str]:
    """By its first cell, the rest of each line of the table."""
    return dict(re.findall(r"^\| ([^|]+?) \| (.*) \|$", table, re.MULTILINE))


def test_the_plan_fits_its_time_and_begins_with_what_matters_most():
    settings = Settings()
    measurements = plan(settings)
    names = [each.name for each in measurements]
    assert len(names) == len(set(names))
    sides = [each.side for each in measurements]
    changes = 1 + sum(one != other for one, other in pairwise(sides))
    assert changes <= 4
    headlines = [name for name in names if re.fullmatch(r"bert-(base|large) (128|512)", name)]
    assert len(headlines) == 4
    first = measurements[: names.index("bert-base 128, choices compiled")]
    assert {*headlines, "bert-base costs", "bert-base PyTorch, padded", "bert-base PyTorch, as released"} <= {
        each.name for each in first
    }
    assert sum(each.seconds for each in first) + 2 * device.BEGIN < settings.seconds
    assert sum(each.seconds for each in measurements) + changes * device.BEGIN < 1.2 * settings.seconds
    assert settings.seconds <= 560  # the rest of ten minutes is for beginning and ending
    for tokens in (128, 512):
        changed = {name.split(", ", 1)[1] for name in names if name.startswith(f"bert-base {tokens}, ")}
        assert changed >= {"attention=xla", "attention=cudnn", "attention=pallas_gpu", "layers=unrolled"}
        assert changed >= {
            "choices compiled",
            "dropout_bits=rbg",
            "dropout_bits=unsafe_rbg",
            "attention=xla, dropout in it",
        }
    rows = {each.name: each.arguments.get("rows") for each in measurements}
    assert (rows["bert-base 128"], rows["bert-base 512"], rows["bert-large 512"]) == (256, 64, 32)


def test_without_time_all_is_skipped_by_name(fakes, tmp_path):
    result = device.run(Settings(seconds=0.0), tmp_path / "device.json")
    assert not started
    names = [each.name for each in plan(Settings())]
    shown = lines((tmp_path / "device.md").read_text())
    assert list(result["measurements"]) == names
    for name in names:
        assert re.search(r"skipped: 0 s are left, it takes about \d+", shown[name])
    assert json.loads((tmp_path / "device.json").read_text()) == json.loads(json.dumps(result))


def test_a_whole_run(fakes, tmp_path, capsys):
    result = device.run(Settings(), tmp_path / "device.json")
    assert [worker.side for worker in started] == [OURS, TORCH, OURS, TORCH]
    assert all(worker.killed for worker in started)
    assert result["missing"] == ["grain"]
    table = (tmp_path / "device.md").read_text()
    assert "card, our_device 1, torch_device 1. Bare bfloat16 matrix product: 100 TFLOP/s" in table
    assert "Not installed: grain" in table
    shown = lines(table)
    cells = shown["bert-base 128"].split(" | ")
    assert cells[:9] == ["60,000", "100", "10", "10% (aim 50%)", "4 (aim 2)", "4 (aim 8)", "27%", "9", "2.0"]
    assert cells[9] == "64 rows of 128; cudnn; a batch takes the host 10 ms, 93% of it hidden; device idle 2.0%"
    assert shown["bert-base PyTorch, padded"].split(" | ")[4:6] == ["", ""]
    assert "NC3 +0.40%, guard and norm +0.10%, tracking +0.04% (aim below 1%)" in shown["bert-base costs"]
    assert "agrees with xla" in shown["check cudnn"]
    assert shown["bert-base 512, choices compiled"].endswith("8 programs in 20 s, all at the same time")
    assert capsys.readouterr().err.count(": done\n") == len(result["measurements"])


def test_ratios_are_those_to_the_release_in_float32(fakes, tmp_path):
    """Its lines in bfloat16 must not take that place; and a model is compared with one of its own size."""
    result = device.run(Settings(only=r"128$|PyTorch"), tmp_path / "device.json")
    found = result["measurements"]
    found["bert-base PyTorch, as released"]["tokens"] = 500
    found["bert-base PyTorch, as released, in bfloat16"]["tokens"] = 1
    found["bert-large PyTorch, as released"]["tokens"] = 1000
    shown = lines(device_table(result))
    assert shown["bert-base 128"].split(" | ")[4:6] == ["4 (aim 2)", "12 (aim 8)"]
    assert shown["bert-large 128"].split(" | ")[5] == "6 (aim 8)"


def test_what_fails_is_a_line_and_the_others_go_on(fakes, tmp_path):
    answers["training", "pallas_gpu", 128] = {"error": "XlaRuntimeError: no | such\nkernel"}  # the process lives on
    answers["training", "cudnn", 128] = SpeedError("contestant our_device ended with status -11: fault")
    result = device.run(Settings(only="base 128"), tmp_path / "device.json")
    assert len(started) == 2 and started[0].killed  # one process died, and the rest went to another
    shown = lines((tmp_path / "device.md").read_text())
    assert shown["bert-base 128, attention=cudnn"].endswith("error: contestant our_device ended with status -11: fault")
    assert shown["bert-base 128, attention=pallas_gpu"].endswith("error: XlaRuntimeError: no / such kernel")
    assert sum("error" in found for found in result["measurements"].values()) == 2
    assert shown["bert-base 128, layers=unrolled"].startswith("60,000")


def test_a_part_that_fails_leaves_the_other_figures(fakes, tmp_path):
    failed = {"error": "RuntimeError: no | profiler"}
    answers["training", None, 128] = OURS_MEASURED | {"host": failed, "profile": failed}
    device.run(Settings(only="base 128$"), tmp_path / "device.json")
    shown = lines((tmp_path / "device.md").read_text())["bert-base 128"]
    assert shown.startswith("60,000") and shown.endswith(
        "host: RuntimeError: no / profiler; profile: RuntimeError: no / profiler"
    )


def test_a_side_that_cannot_begin_is_asked_once(fakes, tmp_path, monkeypatch):
    def broken(side, *rest):
        started.append(side)
        raise SpeedError(f"contestant {side} ended with status 1: no driver")

    monkeypatch.setattr(device, "Worker", broken)
    result = device.run(Settings(only="base (128$|512$|PyTorch)"), tmp_path / "device.json")
    assert started == [OURS, TORCH]
    assert all("no driver" in found["error"] for found in result["measurements"].values())


def test_a_cpu_where_a_gpu_was_meant_is_refused(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(Fake, "ask", None)
    for on_cpu, refused in ((False, True), (True, False)):
        sides = Sides(tmp_path, {}, on_cpu)
        monkeypatch.setattr(device, "Worker", lambda *given: on_a_cpu(Fake(*given)))
        each = Measurement("x", OURS, "training", {}, 1)
        if refused:
            assert "jax finds no accelerator" in sides.measure(each, 1000.0)["error"] and started[-1].killed
        else:
            with pytest.raises(TypeError):  # it is asked
                sides.measure(each, 1000.0)


def on_a_cpu(worker: Fake) -> Fake:
    worker.facts["platform"] = "cpu"
    return worker


def test_without_pytorch_its_side_is_left_out_by_name(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    device.run(Settings(only="base (128$|PyTorch)"), tmp_path / "device.json")
    assert [worker.side for worker in started] == [OURS]
    shown = lines((tmp_path / "device.md").read_text())
    assert shown["bert-base PyTorch, padded"].endswith("skipped: PyTorch is not installed")
    assert shown["bert-base 128"].split(" | ")[4:6] == ["", ""]


def test_a_measurement_has_what_is_left_or_three_times_its_estimate(fakes, tmp_path):
    sides = Sides(tmp_path, {}, False)
    for estimate, left, allowed in ((10, 1000.0, 120.0), (60, 1000.0, 180.0), (60, 90.0, 90.0)):
        sides.measure(Measurement("x", OURS, "training", {}, estimate), left)
        assert asked[-1][2] == pytest.approx(allowed, abs=0.1)
    assert "skipped" in sides.measure(Measurement("x", OURS, "training", {}, 60), 59.0)
    assert "skipped" in sides.measure(Measurement("x", TORCH, "training", {}, 60), 61.0)  # it would have to begin


def test_only_names_what_there_is(tmp_path):
    with pytest.raises(SpeedError, match=r"only='nothing' matches no measurement; there are: check cudnn, "):
        device.run(Settings(only="nothing"), tmp_path / "device.json")
    with pytest.raises(SpeedError, match=r"only='\(' is no regular expression"):
        device.run(Settings(only="("), tmp_path / "device.json")


def test_a_worker_that_takes_too_long_is_ended():
    with pytest.raises(SpeedError, match="contestant slow took more than 0 s and was ended"):
        Worker("slow", {"kind": "our_device"}, 0.01)


def test_pytorchs_work_counts_every_place():
    found = {"rows": 4, "row_tokens": 50}
    fair, release = (
        device.padded_flops(Measurement("x", TORCH, "training", {"style": style}, 1, "tiny"), found)
        for style in ("fair", "release")
    )
    assert release - fair == 2 * 4 * 49 * 1000 * 32  # the one-hot product
    assert fair > 3 * 2 * 4 * 50 * 1000 * 32  # the head at every place
