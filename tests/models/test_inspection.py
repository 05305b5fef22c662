"""Logits in one call: against PyTorch, with padding, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.models import load_pretrained, logits
from tests import tiny_hub

SENTENCES = [
    "The nurse said that she was tired.",
    "He said",
    "A man and a woman walk into a bar, and the bar says hello.",
]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["minilm6-mlm", "roberta-tiny-random"])
def test_logits_of_padded_sentences_are_those_of_pytorch(name, shared):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForMaskedLM

    folder = shared(f"models/{name}")
    model = load_pretrained(folder)
    batch = model.tokenizer(SENTENCES, padding=True, return_tensors="np")
    reference = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = reference(**{key: torch.tensor(batch[key]) for key in ("input_ids", "attention_mask")}).logits.numpy()
    ours = logits(model, batch["input_ids"], batch["attention_mask"])
    assert (ours.shape, ours.dtype) == (theirs.shape, jnp.float32)
    real = batch["attention_mask"] == 1
    assert not real.all()
    np.testing.assert_allclose(
        np.asarray(ours)[real], theirs[real], atol=2e-5 * max(1.0, np.abs(theirs).max() / 10), rtol=0
    )


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_pads_change_nothing_and_arrays_may_be_of_jax(kind):
    model = tiny_hub.pretrained(kind)
    ids = np.array([[2, 6, 5, 7, 3]])
    alone = logits(model, ids)
    padded = np.pad(ids, ((0, 1), (0, 3)), constant_values=model.config.pad_token_id)
    mask = (np.arange(8) < np.array([[5], [1]])).astype(int)
    both = logits(model, jnp.asarray(padded), jnp.asarray(mask))
    np.testing.assert_allclose(both[:1, :5], alone, atol=1e-5)
    assert alone.shape == (1, 5, model.config.vocab_size)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([2, 6], None, r"tokens has shape \(2,\)"),
        ([[2, 6]], [[1]], r"attention_mask \(1, 1\); expected two equal"),
        ([[2, 6]], [[0, 1]], "pad on the right"),
        ([[2, 6]], [[1, 2]], "pad on the right"),
        ([[2] * 41], None, "tokens has rows of 41, the model has positions for 40"),
        ([[2, 10_000]], None, "tokens has the id 10000, the model has 21"),
    ],
)
def test_what_cannot_be_computed_is_refused(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        logits(tiny_hub.pretrained("bert"), np.array(ids), None if mask is None else np.array(mask))
