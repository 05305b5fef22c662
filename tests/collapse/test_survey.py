"""Survey: moments against an unpacked forward pass, one device against eight, and the jackknife by hand."""

import os
import socket
import subprocess
import sys
from functools import reduce
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from scipy.stats import t as student_t

from ncfair_jax.collapse.class_stats import ClassStats, merge
from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.survey import measure_with_intervals, survey
from ncfair_jax.models.encoder import encode
from ncfair_jax.models.heads import classifier, mlm_transform
from tests import tiny

ROOT = Path(__file__).parents[2]


def moments_one_by_one(examples, params, features, alignment) -> ClassStats:
    """Each sentence on its own, no packing, float64 numpy moments."""
    classes = tiny.classes()
    rows, slots = [], []
    width = max(len(example) for example in examples)
    tokens, segments = np.zeros((2, len(examples), width), np.int32)
    for row, example in enumerate(examples):
        tokens[row, : len(example)], segments[row, : len(example)] = example, 1
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape)
    forward = jax.jit(lambda *rows: encode(tiny.MODEL, params, *rows).hidden_states)
    hidden = forward(tokens, segments, positions)
    hidden = np.asarray(hidden if features == "hidden" else mlm_transform(tiny.MODEL, params, hidden), np.float64)
    for row, example in enumerate(examples):
        for place, token in enumerate(example):
            source = place if alignment == "same" else place - 1
            if token in classes.token_ids:
                rows.append(hidden[row, source])
                slots.append(classes.slot_of_token[token])
    rows, slots = np.array(rows), np.array(slots)
    groups = [rows[slots == k] for k in range(classes.num_classes)]
    return ClassStats(
        np.array([len(group) for group in groups], np.int32),
        np.array([group.mean(axis=0) for group in groups]),
        np.array([np.square(group - group.mean(axis=0)).sum() for group in groups]),
    )


@pytest.mark.parametrize(("features", "alignment"), [("hidden", "same"), ("transform", "next")])
def test_equals_a_forward_pass_of_single_sentences(features, alignment):
    examples, params = tiny.examples(60), tiny.params()
    groups = survey(
        tiny.MODEL, params, examples, tiny.classes(), features=features, alignment=alignment, row_tokens=32, groups=5
    )
    assert len(groups) == 5
    expected = moments_one_by_one(examples, params, features, alignment)
    assert expected.count.min() > 0
    found = reduce(merge, groups)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-5)
    first = moments_one_by_one(examples[:12] * 10, params, features, alignment)  # the first fifth, ten times over
    np.testing.assert_array_equal(10 * groups[0].count, first.count)


def test_one_device_equals_eight():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    examples, params = tiny.examples(50), tiny.params()
    alone = survey(tiny.MODEL, params, examples, tiny.classes(), row_tokens=32, groups=3)
    shared_out = survey(tiny.MODEL, params, examples, tiny.classes(), row_tokens=32, groups=3, batch_rows=8, mesh=mesh)
    for one, eight in zip(alone, shared_out, strict=True):
        np.testing.assert_array_equal(one.count, eight.count)
        np.testing.assert_allclose(one.mean, eight.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.m2, eight.m2, rtol=1e-5)


PROCESS = """
import sys, jax, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from jax.sharding import AxisType
from ncfair_jax.collapse.survey import survey
from tests import tiny
mesh = jax.make_mesh((4, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
groups = survey(tiny.MODEL, tiny.params(), tiny.examples(30), tiny.classes(), row_tokens=32, groups=2, mesh=mesh)
np.savez(sys.argv[3], *[leaf for group in groups for leaf in group])
"""


def test_one_process_equals_two(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    outputs = [tmp_path / f"{process}.npz" for process in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(process), str(output)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, output in enumerate(outputs)
    ]
    for process in processes:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    alone = survey(tiny.MODEL, tiny.params(), tiny.examples(30), tiny.classes(), row_tokens=32, groups=2)
    for output in outputs:
        stored = np.load(output)
        for name, leaf in zip(stored.files, jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(stored[name], leaf, rtol=1e-5, atol=1e-6)


def test_intervals_are_the_delete_a_group_jackknife():
    params = tiny.params()
    groups = survey(tiny.MODEL, params, tiny.examples(60), tiny.classes(), row_tokens=32, groups=4)
    rows = classifier(params)[0][tiny.classes().token_ids]
    figures, intervals = measure_with_intervals(groups, rows)
    assert figures == pytest.approx(measure(reduce(merge, groups), rows), rel=1e-6, nan_ok=True)
    assert set(figures) - set(intervals) == {"classes", "singletons", "pairs_skipped"}
    without = [measure(reduce(merge, groups[:g] + groups[g + 1 :]), rows)["unc3"] for g in range(4)]
    error = np.sqrt(3 / 4 * sum((value - np.mean(without)) ** 2 for value in without))
    low, high = intervals["unc3"]
    assert high - low == pytest.approx(2 * student_t.ppf(0.975, 3) * error, rel=1e-4)
    assert (high + low) / 2 == pytest.approx(figures["unc3"])


def test_jackknife_of_a_mean_is_the_textbook_interval():
    """For the mean of equal groups, the jackknife error is the standard error of the group means."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 2, 3))  # of each group, the only row of each of two classes
    groups = [ClassStats(np.ones(2, np.int32), row.astype(np.float32), np.zeros(2, np.float32)) for row in rows]
    weights = np.eye(2, 3, dtype=np.float32)
    figures, intervals = measure_with_intervals(groups, weights)
    # Two centred means are opposite vectors of half the distance of the means: linear in the data along that line.
    distance = rows[:, 0] - rows[:, 1]
    direction = distance.mean(axis=0) / np.linalg.norm(distance.mean(axis=0))
    error = np.std(distance @ direction / 2, ddof=1) / np.sqrt(20)
    low, high = intervals["nc2_norm_mean"]
    assert figures["nc2_norm_mean"] == pytest.approx(np.linalg.norm(distance.mean(axis=0)) / 2, rel=1e-5)
    assert (high - low) / 2 == pytest.approx(2.093 * error, rel=0.1)  # a norm is linear to first order only


def test_few_groups_and_wrong_calls():
    examples, params = tiny.examples(3), tiny.params()
    groups = survey(tiny.MODEL, params, examples, tiny.classes(), row_tokens=32)
    assert len(groups) == 3
    rows = classifier(params)[0][tiny.classes().token_ids]
    assert all(np.isnan(interval).all() for interval in measure_with_intervals(groups[:1], rows)[1].values())
    for wrong in ({"features": "last"}, {"alignment": "shifted"}, {"groups": 0}, {"row_tokens": 4}):
        with pytest.raises(ValueError, match=r"choose from|at least one|row"):
            survey(tiny.MODEL, params, examples, tiny.classes(), **wrong)
    with pytest.raises(ValueError, match="at least one"):
        survey(tiny.MODEL, params, [], tiny.classes())
    with pytest.raises(ValueError, match="model reads 40"):
        survey(tiny.MODEL, params, [np.full(41, 6, np.int32)], tiny.classes())
    with pytest.raises(ValueError, match="no groups"):
        measure_with_intervals([], rows)
