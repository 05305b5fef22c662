"""metrics.jsonl after a kill, and files written whole."""

import json

import pytest

from ncfair_jax.files.atomic import write_json
from ncfair_jax.run_log import RunLog, truncate


def test_lines_past_the_checkpoint_and_torn_lines_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    truncate(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_resumed_log_goes_on(tmp_path):
    for start in (0, 2):
        log = RunLog(tmp_path, 4, start, writes=True)
        for step in range(start + 1, 4):
            log.metrics(step, {"loss": float(start)})
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.0), (2, 0.0), (3, 2.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_silent_process_writes_nothing(tmp_path):
    log = RunLog(tmp_path, 4, 0, writes=False)
    log.metrics(1, {"loss": 1.0})
    log.close()
    assert not list(tmp_path.iterdir())


def test_json_is_strict_and_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
