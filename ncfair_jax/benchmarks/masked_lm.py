"""Usefulness of a masked language model on held-out text: what debiasing must not cost.

top1 (fraction) and loss (nats): 15% of each sentence's tokens, drawn once for all models, are all replaced by [MASK] at once
and predicted. pseudo_perplexity: exp of the mean negative log-probability of each token masked alone, over a fixed 200
sentences of at most 64 tokens (Salazar et al. 2020).

    model = load_pretrained("my-model")
    questions = ask([["A sentence.", "Another one of the same paragraph."], …], model)
    questions.answered_by(forward_of(model)).metrics["top1"]
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.base import MASKED, Benchmark, Headline, Questions
from ncfair_jax.benchmarks.crows_pairs import one_mask_each
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, holds_unknown, repeats, stored_flags
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.gap import split_sentences
from ncfair_jax.data.wikitext import heldout_text
from ncfair_jax.engine.requests import Answer, Request, hits, mask_id, scored_log_probs
from ncfair_jax.files.sources import WIKITEXT2, DataFolder
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import FRACTION, POSITIVE, REAL
from ncfair_jax.vocabulary import Template, template_of

COLUMNS: dict[str, type] = {
    "line": int,
    "sentence": int,
    "positions": int,
    "correct": float,
    "loss_sum": float,
    "pseudo_positions": int,
    "pseudo_loss_sum": float,
}
EXAMPLE_COLUMNS: dict[str, type] = {}
WIKITEXT_GAP = "<unk>"  # WikiText's own mark of a rare word
SEED = 0
MASK_PROB = 0.15
MAX_TOKENS = 128  # longer sentences are cut, as in training
PSEUDO_SENTENCES = 200
PSEUDO_MAX_TOKENS = 64
SCALES = {"top1": FRACTION, "loss": REAL, "pseudo_perplexity": POSITIVE}
MASKED_ONLY = "masked"  # selector


def load_paragraphs(data: DataFolder) -> list[list[str]]:
    """The held-out paragraphs of WikiText-2, each as its sentences."""
    return [split_sentences(line) for line in heldout_text(data.path(WIKITEXT2))]


class Text(NamedTuple):
    """Paragraphs, each as its sentences, which is what the intervals resample.

    `pseudo` says whether the pseudo-perplexity is wanted too, which takes two thirds of the time; undefined without.
    """

    paragraphs: Sequence[Sequence[str]]
    pseudo: bool = True


def ask(text: Text, model: Pretrained) -> Questions:
    """The masked tokens of each sentence, and of those of the pseudo-perplexity each token alone.

    Returns:
        Questions, and by them a Result:
        metrics: top1, loss, n_positions, pseudo_perplexity, n_sentences (those of the
        pseudo-perplexity).
    """
    mask, template, (paragraphs, pseudo) = mask_id(model), template_of(model.tokenizer), text
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    encoded = encode_sentences(sentences, model.tokenizer, min(MAX_TOKENS, model.config.max_tokens))
    masked = [masked_request(tokens, number, mask, template) for number, tokens in enumerate(encoded)]
    alone = {i: one_mask_each(encoded[i], mask, template) for i in pseudo_sentences(encoded)} if pseudo else {}
    requests = masked + [request for group in alone.values() for request in group]
    alone_counts = {i: len(group) for i, group in alone.items()}
    return Questions(requests, partial(_result, paragraphs, encoded, alone_counts, model.tokenizer))


def _result(
    paragraphs: Sequence[Sequence[str]],
    encoded: Sequence[np.ndarray],
    alone: dict[int, int],
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Result:
    """Args: `alone`: by sentence of the pseudo-perplexity, how many tokens it has but the special ones."""
    lines = [i for i, sentences in enumerate(paragraphs) for _ in sentences]
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    log_probs = [scored_log_probs(answer) for answer in answers]
    table: Table = {
        "line": lines,
        "sentence": list(range(len(sentences))),
        "positions": [len(values) for values in log_probs[: len(encoded)]],
        "correct": [float(hits(answer).sum()) for answer in answers[: len(encoded)]],
        "loss_sum": [-float(values.sum(dtype=np.float64)) for values in log_probs[: len(encoded)]],
        "pseudo_positions": [alone.get(i, 0) for i in range(len(sentences))],
        "pseudo_loss_sum": [0.0] * len(sentences),
    }
    done = len(encoded)
    for i, count in alone.items():
        table["pseudo_loss_sum"][i] = -float(sum(values[0].astype(float) for values in log_probs[done : done + count]))
        done += count
    table |= {
        "unknown": holds_unknown(encoded, tokenizer),
        "duplicate": repeats(sentences),
        "malformed": [
            int(WIKITEXT_GAP in sentence or spelled)
            for sentence, spelled in zip(sentences, holds_control_token(sentences, tokenizer), strict=True)
        ],
    }
    metrics, intervals = summarise_sample(samples(table)[""])
    settings = {
        "seed": SEED,
        "mask_prob": MASK_PROB,
        "max_tokens": MAX_TOKENS,
        "pseudo_max_tokens": PSEUDO_MAX_TOKENS,
        "mean_of": "positions",
    }
    return Result(metrics, intervals, len(sentences), {"lines": len(paragraphs)}, settings, table, {})


def masked_request(tokens: np.ndarray, number: int, mask: int, template: Template) -> Request:
    """Masks ceil(15%) of a sentence's tokens but the special ones, a pure function of the seed, its number and length."""
    inside = np.arange(len(tokens))[template.inside(len(tokens))]
    rng = np.random.Generator(np.random.Philox(key=[SEED, number]))
    chosen = inside[np.sort(rng.permutation(len(inside))[: int(np.ceil(MASK_PROB * len(inside)))])]
    masked = tokens.copy()
    masked[chosen] = mask
    return Request(masked, chosen, tokens[chosen])


def pseudo_sentences(encoded: Sequence[np.ndarray]) -> list[int]:
    """Numbers of the sentences of the pseudo-perplexity: those short enough, in an order drawn once for all."""
    short = [i for i, tokens in enumerate(encoded) if len(tokens) <= PSEUDO_MAX_TOKENS]
    order = np.random.Generator(np.random.Philox(key=[SEED, 2**32])).permutation(len(short))
    return sorted(short[i] for i in order[:PSEUDO_SENTENCES])


def samples(table: Table) -> dict[str, Any]:
    """One Sample under "": clusters are paragraphs."""
    names = ("correct", "loss_sum", "positions", "pseudo_loss_sum", "pseudo_positions")
    used = np.array(table["pseudo_positions"]) > 0
    columns = np.stack([*(np.array(table[name], float) for name in names), used], axis=-1)
    return {"": Sample(*cluster_sums([str(line) for line in table["line"]], columns), figures, counts, SCALES, sizes)}


def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Fraction, nats and perplexity from summed columns f64[...,6]."""
    correct, loss, positions, pseudo_loss, pseudo_positions, _ = np.moveaxis(sums, -1, 0)
    return {
        "top1": ratio(correct, positions),
        "loss": ratio(loss, positions),
        "pseudo_perplexity": np.exp(ratio(pseudo_loss, pseudo_positions)),
    }


def sizes(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Number of masked positions f64[...] behind each figure."""
    return {"top1": sums[..., 2], "loss": sums[..., 2], "pseudo_perplexity": sums[..., 4]}


def counts(sums: np.ndarray) -> dict[str, int]:
    """Masked positions, and sentences of the pseudo-perplexity."""
    return {"n_positions": int(sums[2]), "n_sentences": int(sums[5])}


def flags(table: Table) -> dict[str, np.ndarray]:
    """Sentences with a token unknown to the vocabulary, those that were there before, and those with a word that WikiText
    left out or with a control token ("malformed")."""
    return stored_flags(table, list(TEXT_FLAGS))


def read(data: DataFolder, selector: str) -> Text:
    """The held-out text of a data folder; the selector "masked" leaves out the pseudo-perplexity."""
    if selector not in ("", MASKED_ONLY):
        raise ValueError(f"masked_lm:{selector} is unknown; choose masked_lm or masked_lm:{MASKED_ONLY}")
    return Text(load_paragraphs(data), selector != MASKED_ONLY)


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    (
        Headline("Held-out top-1 accuracy", (("top1",),), None, ("n_positions",), "utility", "higher"),
        Headline("Held-out loss, nats", (("loss",),), None, ("n_positions",), "utility", "lower"),
        Headline("Pseudo-perplexity", (("pseudo_perplexity",),), None, ("n_sentences",), "utility", "lower"),
    ),
    "CC BY-SA (WikiText-2, Merity et al. 2016)",
    content_warning="",
    read=read,
    ask={MASKED: ask},
    takes_selector=True,
    flags=flags,
    flag_columns=TEXT_FLAGS,
    version=2,
    files=lambda selector: (WIKITEXT2,),
)
