"""The step at a preset's size, on a size small enough for a test."""

import json

import pytest

from ncfair_jax.models.presets import preset_model
from ncfair_jax.speed import accelerator, tables
from ncfair_jax.speed.contestants import SpeedError


def test_tiny_preset():
    result = accelerator.time_train_step(
        "tiny",
        dtype="bfloat16",
        attention="xla",
        dropout_bits="rbg",
        row_tokens=[64, 128],
        rows=4,
        steps=2,
        matmul=64,
    )
    result = json.loads(json.dumps(result))
    assert [item["rows"] for item in result["steps"]] == [8, 4]
    for item in result["steps"]:
        assert item["step_milliseconds"]["min"] > 0
        assert item["tokens_per_second"]["median"] > 0
        assert item["fraction_of_matmul"] > 0
        assert item["pad_fraction"] < 0.5
        assert item["xla_flops_per_step"] == pytest.approx(
            item["flops_per_step"], rel=0.5
        )  # element-wise work of a tiny model
    assert tables.accelerator_table(result).count("| tiny |") == 2


def test_unknown_preset():
    with pytest.raises(ValueError, match="choose from tiny, minilm, bert-base, bert-large"):
        preset_model("bert", "float32", "xla")


def test_layers_of_a_preset():
    for layers, looped in (("scanned", True), ("unrolled", False)):
        assert accelerator.preset_model("tiny", "float32", "xla", layers).scan_layers is looped


def test_too_long_rows():
    with pytest.raises(SpeedError, match="tokens=1024"):
        accelerator.time_train_step("tiny", dtype="float32", attention="xla", row_tokens=[1024])


def test_bert_base_is_bert_base():
    """110 million parameters with the pooler, which a masked LM lacks."""
    import jax

    from ncfair_jax.models.families import family_of

    model = preset_model("bert-base", "bfloat16", "xla")
    shapes = jax.eval_shape(lambda: family_of(model).init(model, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 109_514_298
