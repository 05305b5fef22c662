"""PyTorch's side of a device, here on a CPU with a tiny model that needs no folder."""

import jax
import pytest

from ncfair_jax.models.presets import preset_model
from ncfair_jax.speed import device
from ncfair_jax.speed.timing import outcome

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def device_torch():
    found = pytest.importorskip("ncfair_jax.speed.device_torch", exc_type=ImportError)
    threads = found.torch.get_num_threads()
    found.torch.set_num_threads(1)  # on so little work they wait for each other
    yield found
    found.torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    file = tmp_path_factory.mktemp("stored") / "tiny.npz"
    device.store_sentences("tiny", device.small("tiny", device.Settings()), file)
    return str(file)


def test_a_model_of_a_presets_size_without_a_folder(device_torch):
    """As many parameters as ours, which has the same tied head; no dropout of attention probabilities, as ours is timed."""
    from ncfair_jax.speed.train_step import random_params

    model = device_torch.torch_side.fresh(device.torch_settings("tiny")["sizes"], "sdpa")
    ours = sum(leaf.size for leaf in jax.tree.leaves(random_params(preset_model("tiny", "float32", "xla"))))
    assert sum(parameter.numel() for parameter in model.parameters()) == ours
    assert model.config.attention_probs_dropout_prob == 0.0 and model.config.hidden_dropout_prob == 0.1
    assert model.config._attn_implementation == "sdpa"


def test_both_styles_are_timed_on_the_stored_sentences(device_torch, stored, monkeypatch):
    monkeypatch.setattr(device_torch, "ROUNDS", 1)
    settings = device.torch_settings("tiny")
    how = {"sentences": stored, "number": 3, "steps": 1, "settings": settings}
    fair = device_torch.training(style="fair", bfloat16=True, compiled=False, **how)
    released = device_torch.training(style="release", bfloat16=False, compiled=False, **how)
    assert fair["rows"] == released["rows"] == 3 and fair["tokens"] == released["tokens"]
    assert fair["row_tokens"] < 129 and released["row_tokens"] == 256
    for each in (fair, released):
        assert each["seconds"]["median"] > 0 and each["peak_bytes"] is None
        assert 0 < each["loss"] < 200  # NC3's weight is 100


@pytest.mark.slow
def test_a_compiled_model_learns_as_one_that_is_not(device_torch, stored):
    """The whole model is one graph: a break would be an error here."""
    how = {"sentences": stored, "style": "fair", "number": 3, "steps": 1, "bfloat16": False}
    settings = device.torch_settings("tiny")
    settings["sizes"]["hidden_dropout_prob"] = 0.0
    compile_model = device_torch.torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_torch.torch, "compile", lambda *args, **more: compile_model(*args, fullgraph=True, **more))
        losses = []
        for compiled in (False, True):
            device_torch.torch.manual_seed(0)
            losses.append(device_torch.training(compiled=compiled, settings=settings, **how)["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)  # float32 in another order


def test_half_the_sentences_are_taken_until_they_fit(device_torch, stored, monkeypatch):
    tried = []

    def timed(style, settings, group, steps):
        tried.append(len(group))
        if len(group) > 2:
            raise device_torch.torch.OutOfMemoryError("CUDA out of memory")
        return {"rows": len(group)}

    monkeypatch.setattr(device_torch, "timed", timed)
    how = {"sentences": stored, "style": "fair", "steps": 1, "bfloat16": True, "compiled": False}
    settings = device.torch_settings("tiny")
    assert device_torch.training(number=8, settings=settings, **how) == {"rows": 2}
    assert tried == [8, 4, 2]


def test_a_loss_that_is_not_finite_is_an_error(device_torch, tmp_path, stored):
    settings = device.torch_settings("tiny") | {"weight": float("nan")}
    how = {"style": "fair", "number": 2, "steps": 1, "bfloat16": False, "compiled": False, "settings": settings}
    found = outcome(lambda: device_torch.training(sentences=stored, **how))
    assert found == {"error": "SpeedError: the loss is nan"}


def test_the_facts_of_the_device(device_torch):
    found = device_torch.facts()
    assert (
        found["platform"] == "cpu" and found["bare_flops"] > 1e6 and set(found["versions"]) == {"torch", "transformers"}
    )
