"""Held-out figures against plain forward passes, and the fixed draw of what is masked."""

import numpy as np
import pytest

from ncfair_jax.benchmarks import masked_lm
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.vocabulary import Template
from tests import tiny_hub
from tests.benchmarks import plain

TEMPLATE = Template((2,), (3,), (3,), (0, 0, 0, 1, 1))
PARAGRAPHS = [
    ["the nurse said that she was tired.", "he was a man."],
    ["a woman said that."],
    ["she was the nurse that the man said was tired."],
    ["the woman was tired."],
    ["he said that she was a nurse."],
]


def test_masked_positions_are_15_percent_of_the_inner_tokens_and_fixed():
    for length in (3, 9, 30, 128):
        tokens = np.arange(100, 100 + length, dtype=np.int32)
        request = masked_lm.masked_request(tokens, 7, 4, TEMPLATE)
        assert len(request.positions) == np.ceil(0.15 * (length - 2)) == len(set(request.positions.tolist()))
        assert request.positions.min() >= 1
        assert request.positions.max() <= length - 2
        np.testing.assert_array_equal(request.targets, tokens[request.positions])
        np.testing.assert_array_equal(np.flatnonzero(request.tokens != tokens), request.positions)
        assert (request.tokens[request.positions] == 4).all()
        # Whatever the tokens are, so that a debiased model is asked the same; another sentence draws anew.
        np.testing.assert_array_equal(masked_lm.masked_request(tokens + 1, 7, 4, TEMPLATE).positions, request.positions)
    draws = {tuple(masked_lm.masked_request(tokens, number, 4, TEMPLATE).positions) for number in range(20)}
    assert len(draws) == 20


def test_pseudo_perplexity_takes_200_short_sentences_drawn_once():
    lengths = np.random.default_rng(0).integers(3, 129, 1000)
    encoded = [np.zeros(length, np.int32) for length in lengths]
    chosen = masked_lm.pseudo_sentences(encoded)
    assert len(set(chosen)) == len(chosen) == 200
    assert chosen == sorted(chosen)
    assert lengths[chosen].max() <= 64
    assert max(chosen) > 900
    assert min(chosen) < 100
    assert masked_lm.pseudo_sentences(encoded) == chosen
    assert masked_lm.pseudo_sentences(encoded[:50]) == [i for i in range(50) if lengths[i] <= 64]


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_figures_are_those_of_plain_passes(kind):
    model = plain.pretrained(kind)
    mask = model.tokenizer.mask_token_id
    result = plain.result(masked_lm, model, masked_lm.Text(PARAGRAPHS))
    losses, hits, alone, cut = [], [], [], model.config.max_tokens
    for number, sentence in enumerate(s for paragraph in PARAGRAPHS for s in paragraph):
        tokens = np.array(model.tokenizer(sentence)["input_ids"], np.int32)
        tokens = tokens if len(tokens) <= cut else np.append(tokens[: cut - 1], tokens[-1])
        request = masked_lm.masked_request(tokens, number, mask, TEMPLATE)
        table = plain.log_probs(model, request.tokens)[request.positions]
        losses += (-table[np.arange(len(table)), request.targets]).tolist()
        hits += (table.argmax(-1) == request.targets).tolist()
        for place in range(1, len(tokens) - 1):
            masked = tokens.copy()
            masked[place] = mask
            alone.append(-plain.log_probs(model, masked)[place, tokens[place]])
    metrics = result.metrics
    assert (metrics["n_positions"], metrics["n_sentences"]) == (len(losses), 6)
    np.testing.assert_allclose(
        [metrics["loss"], metrics["top1"], metrics["pseudo_perplexity"]],
        [np.mean(losses), np.mean(hits), np.exp(np.mean(alone))],
        rtol=1e-5,
    )
    assert (result.n, result.counts["lines"]) == (6, 5)
    assert result.scores["line"] == [0, 0, 1, 2, 3, 4]  # paragraphs are the independent units
    low, high = result.intervals["loss"]
    assert low <= metrics["loss"] <= high
    assert low < high


def test_the_selector_leaves_out_the_pseudo_perplexity_only(tmp_path, monkeypatch):
    model = plain.pretrained(tiny_hub.KINDS[0])
    monkeypatch.setattr(masked_lm, "load_paragraphs", lambda data: PARAGRAPHS)
    data = DataFolder(tmp_path)
    whole, part = (
        plain.result(masked_lm, model, masked_lm.read(data, selector)).metrics for selector in ("", "masked")
    )
    assert (part["pseudo_perplexity"], part["n_sentences"], part["n_positions"]) == (None, 0, whole["n_positions"])
    assert part["loss"] == pytest.approx(whole["loss"], rel=1e-5)  # packed otherwise
    with pytest.raises(ValueError, match="masked_lm:all is unknown; choose masked_lm or masked_lm:masked"):
        masked_lm.read(data, "all")


def test_the_held_out_text_is_the_first_quarter_of_wikitext(shared):
    paragraphs = masked_lm.load_paragraphs(DataFolder(shared("data")))
    assert len(paragraphs) == 545
    assert all(sentence.strip() for paragraph in paragraphs for sentence in paragraph)
    assert sum(map(len, paragraphs)) > 2 * 545
