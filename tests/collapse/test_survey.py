"""Survey: moments and NC4 against unpacked forward passes, one device against eight, and a killed survey that goes on."""

import dataclasses
import hashlib
import json
import socket
import subprocess
import sys
from functools import partial, reduce

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from ncfair_jax.collapse.class_stats import ClassStats, merge
from ncfair_jax.collapse.stored import StoredGroups, SurveyError
from ncfair_jax.collapse.survey import HeldOut, Plan, group_batches, survey, survey_nc4
from ncfair_jax.data import runs
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.models import bert
from ncfair_jax.models.families import family_of
from ncfair_jax.vocabulary import WordBoundaries
from tests import tiny
from tests.rounding import encoder_operations, rounding
from tests.started import environment
from tests.tiny import encode

ROUNDING = rounding(encoder_operations(tiny.MODEL) + 40)  # and the mean of at most 40 rows a class


CONTINUE = (34,)  # tokens that continue the word before them: 33 is a class


def whole_word_classes():
    opens = ~np.isin(np.arange(tiny.VOCAB), CONTINUE)
    kinds = np.zeros(tiny.VOCAB, np.int8)
    return dataclasses.replace(tiny.classes(), boundaries=WordBoundaries(opens, kinds, kinds))


def moments_one_by_one(examples, params, features, alignment, classes) -> ClassStats:
    """Each sentence on its own, no packing, float64 numpy moments."""
    rows, slots = [], []
    width = max(len(example) for example in examples)
    tokens, segments = np.zeros((2, len(examples), width), np.int32)
    for row, example in enumerate(examples):
        tokens[row, : len(example)], segments[row, : len(example)] = example, 1
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape)
    forward = jax.jit(lambda *rows: encode(tiny.MODEL, params, *rows).hidden_states)
    hidden = forward(tokens, segments, positions)
    hidden = np.asarray(
        hidden if features == "hidden" else family_of(tiny.MODEL).features(tiny.MODEL, params, hidden), np.float64
    )
    for row, example in enumerate(examples):
        for place, token in enumerate(example):
            source = place if alignment == "same" else place - 1
            if token in classes.token_ids and (classes.boundaries is None or example[place + 1] not in CONTINUE):
                rows.append(hidden[row, source])
                slots.append(classes.slot_of_token[token])
    rows, slots = np.array(rows), np.array(slots)
    groups = [rows[slots == k] for k in range(classes.num_classes)]
    return ClassStats(
        np.array([len(group) for group in groups], np.int32),
        np.array([group.mean(axis=0) for group in groups]),
        np.array([np.square(group - group.mean(axis=0)).sum() for group in groups]),
    )


@pytest.mark.parametrize("classes", [tiny.classes(), whole_word_classes()], ids=["listed_token", "whole_word"])
@pytest.mark.parametrize(("features", "alignment"), [("hidden", "same"), ("transform", "next")])
def test_equals_a_forward_pass_of_single_sentences(features, alignment, classes):
    examples, params = tiny.examples(60), tiny.params()
    groups = survey(
        tiny.MODEL, params, examples, classes, features=(features,), alignment=alignment, row_tokens=32, groups=5
    )[features]
    assert len(groups) == 5
    expected = moments_one_by_one(examples, params, features, alignment, classes)
    assert expected.count.min() > 0
    found = reduce(merge, groups)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=ROUNDING)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-5)
    first = moments_one_by_one(
        examples[:12] * 10, params, features, alignment, classes
    )  # the first fifth, ten times over
    np.testing.assert_array_equal(10 * groups[0].count, first.count)


def test_one_device_equals_eight():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    examples, params = tiny.examples(50), tiny.params()
    features = ("transform", "layer_1")
    options = {"features": features, "row_tokens": 32, "groups": 3}
    alone = survey(tiny.MODEL, params, examples, tiny.classes(), **options)
    shared_out = survey(tiny.MODEL, params, examples, tiny.classes(), batch_rows=8, mesh=mesh, **options)
    for name in features:
        for one, eight in zip(alone[name], shared_out[name], strict=True):
            np.testing.assert_array_equal(one.count, eight.count)
            np.testing.assert_allclose(one.mean, eight.mean, rtol=1e-5, atol=ROUNDING)
            np.testing.assert_allclose(one.m2, eight.m2, rtol=1e-5)
    rows, bias = bert.classifier(params)
    listed = tiny.classes().token_ids
    words = {"words": HeldOut(tiny.classes(), reduce(merge, alone["transform"]), rows[listed], bias[listed])}
    found = [
        survey_nc4(tiny.MODEL, params, tiny.examples(40, seed=1), words, row_tokens=32, groups=2, mesh=where)["words"]
        for where in (None, mesh)
    ]
    assert jax.tree.map(np.ndarray.tolist, found[0]) == jax.tree.map(np.ndarray.tolist, found[1])
    assert sum(found[0]["nc4"][0].matches) + sum(found[0]["nc4"][0].misses) > 10


def test_layers_in_one_pass_equal_passes_of_their_own():
    examples, params = tiny.examples(30), tiny.params()
    names = ("layer_0", "layer_1", "layer_2", "hidden", "transform")
    options = {"row_tokens": 32, "groups": 2}
    together = survey(tiny.MODEL, params, examples, tiny.classes(), features=names, **options)
    for name in names:
        alone = survey(tiny.MODEL, params, examples, tiny.classes(), features=(name,), **options)[name]
        for one, other in zip(alone, together[name], strict=True):
            jax.tree.map(partial(np.testing.assert_allclose, rtol=ROUNDING, atol=ROUNDING), one, other)
    np.testing.assert_array_equal(together["hidden"][0].mean, together["layer_2"][0].mean)
    assert np.abs(together["layer_0"][0].mean - together["layer_1"][0].mean).max() > 0.1


@pytest.mark.parametrize("classes", [tiny.classes(), whole_word_classes()], ids=["listed_token", "whole_word"])
def test_nc4_counts_the_rows_of_single_sentences(classes):
    params = tiny.params()
    rows, bias = (np.asarray(x)[classes.token_ids] for x in bert.classifier(params))
    stats = reduce(merge, survey(tiny.MODEL, params, tiny.examples(40), classes, row_tokens=32)["hidden"])
    held_out = tiny.examples(12, seed=5)
    words = {"words": HeldOut(classes, stats, rows, bias)}
    found = survey_nc4(tiny.MODEL, params, held_out, words, features="hidden", row_tokens=32, groups=3)["words"]
    matches, listed = {"nc4": 0, "nc4_bias": 0}, 0
    for example in held_out:
        tokens = example[None]
        hidden = encode(tiny.MODEL, params, tokens, np.ones_like(tokens), np.arange(len(example))[None]).hidden_states[
            0
        ]
        for place, (row, token) in enumerate(zip(np.asarray(hidden, np.float64), example, strict=True)):
            if token in classes.token_ids and (classes.boundaries is None or example[place + 1] not in CONTINUE):
                listed += 1
                nearest = np.square(np.asarray(stats.mean) - row).sum(axis=1).argmin()
                matches["nc4"] += (rows @ row).argmax() == nearest
                matches["nc4_bias"] += (rows @ row + bias).argmax() == nearest
    for kind, number in matches.items():
        assert len(found[kind]) == 3
        assert sum(int(part.matches.sum()) for part in found[kind]) == number
        assert sum(int(part.matches.sum() + part.misses.sum()) for part in found[kind]) == listed


def test_word_sets_of_different_rules_are_refused():
    sets = {
        str(classes.boundaries is None): HeldOut(classes, *[np.zeros(0)] * 3)
        for classes in (tiny.classes(), whole_word_classes())
    }
    with pytest.raises(ValueError, match="word sets of different word rules; build all of them by the same one"):
        survey_nc4(tiny.MODEL, tiny.params(), tiny.examples(4), sets, row_tokens=32)


def test_stored_survey_goes_on_bit_for_bit(tmp_path, monkeypatch):
    options = {"features": ("hidden", "transform"), "row_tokens": 32, "groups": 6}
    survey(tiny.MODEL, tiny.params(), tiny.examples(40), tiny.classes(), folder=tmp_path / "whole", **options)

    written = StoredGroups.write

    def dies(folder, number, stats):
        if number == 3:
            raise KeyboardInterrupt
        written(folder, number, stats)

    monkeypatch.setattr(StoredGroups, "write", staticmethod(dies))
    with pytest.raises(KeyboardInterrupt):
        survey(tiny.MODEL, tiny.params(), tiny.examples(40), tiny.classes(), folder=tmp_path / "parts", **options)
    monkeypatch.undo()
    before = (tmp_path / "parts" / "group-002.npz").stat().st_mtime_ns
    found = survey(tiny.MODEL, tiny.params(), tiny.examples(40), tiny.classes(), folder=tmp_path / "parts", **options)
    assert (tmp_path / "parts" / "group-002.npz").stat().st_mtime_ns == before
    for name, groups in found.items():
        for group, other in zip(groups, StoredGroups(tmp_path / "whole", 6, name), strict=True):
            assert [leaf.tobytes() for leaf in group] == [leaf.tobytes() for leaf in other]
    chosen = found["hidden"].select(np.array([4, 1]))
    np.testing.assert_array_equal(chosen[-1].mean, found["hidden"][5].mean[[4, 1]])
    with pytest.raises(SurveyError, match=r"holds another survey: .*weights"):
        survey(tiny.MODEL, tiny.params(1), tiny.examples(40), tiny.classes(), folder=tmp_path / "parts", **options)
    with pytest.raises(SurveyError, match=r"another survey: .*text"):
        survey(tiny.MODEL, tiny.params(), tiny.examples(41), tiny.classes(), folder=tmp_path / "parts", **options)
    whole = (tmp_path / "parts" / "group-001.npz").read_bytes()
    (tmp_path / "parts" / "group-001.npz").write_bytes(whole[:100])
    with pytest.raises(SurveyError, match=r"group-001.npz cannot be read .* delete it"):
        found["hidden"][1]


PROCESS = """
import sys, jax, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from jax.sharding import AxisType
from ncfair_jax.collapse.stored import StoredGroups, SurveyError
from ncfair_jax.collapse.survey import HeldOut, survey, survey_nc4
from tests import tiny
mesh = jax.make_mesh((4, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
groups = survey(tiny.MODEL, tiny.params(), tiny.examples(30), tiny.classes(), row_tokens=32, groups=2, mesh=mesh)["hidden"]
np.savez(sys.argv[3], *[leaf for group in groups for leaf in group])
"""


@pytest.mark.slow
def test_one_process_equals_two(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    outputs = [tmp_path / f"{process}.npz" for process in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(process), str(output)],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, output in enumerate(outputs)
    ]
    for process in processes:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    alone = survey(tiny.MODEL, tiny.params(), tiny.examples(30), tiny.classes(), row_tokens=32, groups=2)["hidden"]
    for output in outputs:
        stored = np.load(output)
        for name, leaf in zip(stored.files, jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(stored[name], leaf, rtol=1e-5, atol=ROUNDING)


def test_groups_in_parts_are_whole_groups(monkeypatch, tmp_path):
    """A group is packed part by part where it is large; that changes nothing but the order of the sums."""
    params, classes, options = tiny.params(), tiny.classes(), {"row_tokens": 32, "groups": 3}
    examples, held_out = tiny.examples(50), tiny.examples(40, seed=1)

    def surveyed(folder):
        groups = survey(tiny.MODEL, params, examples, classes, folder=tmp_path / folder, **options)["hidden"]
        weight, bias = (np.asarray(x)[classes.token_ids] for x in bert.classifier(params))
        words = {"words": HeldOut(classes, reduce(merge, groups), weight, bias)}
        found = survey_nc4(tiny.MODEL, params, held_out, words, features="hidden", **options)["words"]
        return (
            groups,
            jax.tree.map(np.ndarray.tolist, found),
            json.loads((tmp_path / folder / "survey.json").read_text()),
        )

    whole, whole_nc4, whole_identity = surveyed("whole")
    monkeypatch.setattr(runs, "PART", 7)
    assert len(list(group_batches(Plan([range(17)], 32, 100, 1), examples, 0, None))) == 3
    in_parts, nc4, identity = surveyed("parts")
    for one, other in zip(whole, in_parts, strict=True):
        np.testing.assert_array_equal(one.count, other.count)
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5, atol=ROUNDING)
        np.testing.assert_allclose(one.m2, other.m2, rtol=1e-5)
    assert nc4 == whole_nc4
    assert 0 < identity.pop("rows") < whole_identity.pop("rows")  # parts this small do not fill a batch
    assert identity == whole_identity
    text = hashlib.sha256(b"".join(example.astype("<i4").tobytes() + b"." for example in examples)).hexdigest()
    assert identity["text"] == text[:16]


def test_few_groups_and_wrong_calls():
    examples, params = tiny.examples(3), tiny.params()
    assert len(survey(tiny.MODEL, params, examples, tiny.classes(), row_tokens=32)["hidden"]) == 3
    for wrong in ({"features": ["last"]}, {"features": []}, {"alignment": "shifted"}, {"groups": 0}, {"row_tokens": 4}):
        with pytest.raises(ValueError, match=r"choose from|at least one|one or more|row"):
            survey(tiny.MODEL, params, examples, tiny.classes(), **wrong)
    with pytest.raises(ValueError, match="at least one"):
        survey(tiny.MODEL, params, [], tiny.classes())
    with pytest.raises(ValueError, match="model reads 40"):
        survey(tiny.MODEL, params, [np.full(41, 6, np.int32)], tiny.classes())


def test_representations_that_are_not_finite_are_refused():
    """NaN in one position: no figure of the words that stand there, and no nearest class mean, can be told from it."""
    examples, classes = tiny.examples(8), tiny.classes()
    params = jax.tree.map(np.array, tiny.params())
    (groups,) = survey(tiny.MODEL, params, examples, classes, row_tokens=32, groups=1)["hidden"]
    weight, bias = (np.asarray(x)[classes.token_ids] for x in bert.classifier(params))
    held = {"lexicon": HeldOut(classes, groups, weight, bias)}
    survey_nc4(tiny.MODEL, params, examples, held, features="hidden", row_tokens=32, groups=1)
    params["embeddings"]["position"]["embedding"][2] = np.nan
    words = "|".join(classes.words)
    with pytest.raises(NonFiniteError, match=rf'the moments of "({words})" \(hidden features\) is nan'):
        survey(tiny.MODEL, params, examples, classes, row_tokens=32, groups=1)
    with pytest.raises(NonFiniteError, match=r"\d+ tokens of the held-out text representations that are not finite"):
        survey_nc4(tiny.MODEL, params, examples, held, features="hidden", row_tokens=32, groups=1)
