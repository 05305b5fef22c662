"""Usefulness of a masked language model on held-out text: what debiasing must not cost.

top1 (fraction) and loss (nats): 15% of each sentence's tokens, drawn once for all models, are all replaced by [MASK] at once
and predicted. pseudo_perplexity: exp of the mean negative log-probability of each token masked alone, over a fixed 200
sentences of at most 64 tokens (Salazar et al. 2020).

    evaluate(load_pretrained("my-model"), [["A sentence.", "Another one of the same paragraph."], …]).metrics["top1"]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ncfair_jax.benchmarks.benchmark import Benchmark, Headline
from ncfair_jax.benchmarks.crows_pairs import one_mask_each
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, holds_unknown, repeats, stored_flags
from ncfair_jax.benchmarks.requests import Request, mask_id
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.benchmarks.scorer import score_with_top1
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.gap import split_sentences
from ncfair_jax.data.wikitext import FILE, heldout_text
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import FRACTION, POSITIVE, REAL

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
    return [split_sentences(line) for line in heldout_text(data.path(FILE))]


def evaluate(
    pretrained: Pretrained,
    paragraphs: Sequence[Sequence[str]],
    *,
    pseudo: bool = True,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Result:
    """Scores sentences, grouped by paragraph, which is what the intervals resample.

    Args:
        pseudo: whether to score the pseudo-perplexity too, which takes two thirds of the time; undefined without.
    Returns:
        metrics: top1, loss, n_positions, pseudo_perplexity, n_sentences (those of the pseudo-perplexity).
    """
    mask = mask_id(pretrained)
    lines = [i for i, sentences in enumerate(paragraphs) for _ in sentences]
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    encoded = encode_sentences(sentences, pretrained.tokenizer, min(MAX_TOKENS, pretrained.config.max_tokens))
    masked = [masked_request(tokens, number, mask) for number, tokens in enumerate(encoded)]
    alone = {i: one_mask_each(encoded[i], mask) for i in pseudo_sentences(encoded)} if pseudo else {}
    requests = masked + [request for group in alone.values() for request in group]
    scores = score_with_top1(pretrained, requests, mesh=mesh, progress=progress)
    table: Table = {
        "line": lines,
        "sentence": list(range(len(sentences))),
        "positions": [len(request.positions) for request in masked],
        "correct": [float(top.sum()) for top in scores.top1[: len(masked)]],
        "loss_sum": [-float(values.sum(dtype=np.float64)) for values in scores.log_probs[: len(masked)]],
        "pseudo_positions": [len(alone.get(i, ())) for i in range(len(sentences))],
        "pseudo_loss_sum": [0.0] * len(sentences),
    }
    done = len(masked)
    for i, group in alone.items():
        table["pseudo_loss_sum"][i] = -float(
            sum(values[0].astype(float) for values in scores.log_probs[done : done + len(group)])
        )
        done += len(group)
    table |= {
        "unknown": holds_unknown(encoded, pretrained.tokenizer),
        "duplicate": repeats(sentences),
        "malformed": [
            int(WIKITEXT_GAP in sentence or spelled)
            for sentence, spelled in zip(sentences, holds_control_token(sentences, pretrained.tokenizer), strict=True)
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


def masked_request(tokens: np.ndarray, number: int, mask: int) -> Request:
    """Masks ceil(15%) of a sentence's tokens but the first and the last, a pure function of the seed, its number and length."""
    inner = len(tokens) - 2
    rng = np.random.Generator(np.random.Philox(key=[SEED, number]))
    chosen = 1 + np.sort(rng.permutation(inner)[: int(np.ceil(MASK_PROB * inner))])
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


def run(pretrained: Pretrained, data: DataFolder, selector: str, mesh: Mesh | None, progress: bool) -> Result:
    """`evaluate` on the held-out text of a data folder; the selector "masked" leaves out the pseudo-perplexity."""
    if selector not in ("", MASKED_ONLY):
        raise ValueError(f"masked_lm:{selector} is unknown; choose masked_lm or masked_lm:{MASKED_ONLY}")
    pseudo = selector != MASKED_ONLY
    return evaluate(pretrained, load_paragraphs(data), pseudo=pseudo, mesh=mesh, progress=progress)


BENCHMARK = Benchmark(
    run,
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
    takes_selector=True,
    flags=flags,
    flag_columns=TEXT_FLAGS,
    version=2,
    files=lambda selector: (FILE,),
)
