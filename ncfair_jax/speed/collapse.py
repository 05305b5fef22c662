"""What measuring costs beside the work that it cannot do without.

Pairwise figures of a whole vocabulary beside the bare matrix products of the same tiles, NC4 beside its two products, the
moments pass beside the plain encoder on the same batches, and a reading of the tracker beside the steps between two.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncfair_jax.collapse import pairs
from ncfair_jax.collapse.accumulators import ClassMoments, counted_rows
from ncfair_jax.collapse.agreement import nc4_decisions
from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.measures import measure
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.packing import pack_for_inference
from ncfair_jax.data.texts import text_sentences
from ncfair_jax.engine.batching import batches
from ncfair_jax.engine.forward import accumulate_rows, hidden_states, untuned_jit
from ncfair_jax.lexicons.classes import build_classes
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.speed.contestants import Result, spread, workers

CLASSES, WIDTH = 30522, 768  # BERT-base's vocabulary and width
NC4_ROWS = 2048
ROUNDS = 5
ROW_TOKENS, BATCH_ROWS = 128, 16


def run(model: str, data: str, classes: int = CLASSES, width: int = WIDTH) -> Result:
    """All measurements, each in a process of its own, so that its peak memory is its own."""
    size = {"classes": classes, "width": width}
    arguments = {"pairs": size, "nc4": size, "pass": {"model": model, "data": data}}
    found = {}
    for name in MEASUREMENTS:
        spec = {"kind": "collapse_cost", "measurement": name, "arguments": arguments[name]}
        with workers({name: spec}) as started:
            found[name] = started[name].facts
    return found


def vocabulary(classes: int, width: int) -> tuple[ClassStats, Any]:
    """Moments and classifier rows of random words with a common component, as real ones have."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(classes, width)).astype(np.float32) + rng.normal(size=width).astype(np.float32)
    arrays: Any = np.full(classes, 5, np.int32), mean, rng.uniform(1, 9, classes).astype(np.float32) * width
    return ClassStats(*arrays), rng.normal(size=(classes, width)).astype(np.float32)


def time_pairs(classes: int, width: int) -> Result:
    """Seconds of `measure` on a vocabulary, and of the bare products of the tiles it goes through."""
    stats, rows = vocabulary(classes, width)
    measure(stats, rows)  # compiles
    whole = seconds(lambda: measure(stats, rows))
    padded = jnp.asarray(np.pad(rows, ((0, -classes % pairs.TILE), (0, 0))))

    @jax.jit
    def product(matrix: Any, first: int, second: int) -> Any:
        a, b = (jax.lax.dynamic_slice_in_dim(matrix, start, pairs.TILE) for start in (first, second))
        return jnp.matmul(a, b.T, precision="highest")

    def products() -> None:
        starts = range(0, classes, pairs.TILE)
        for _ in ("means", "classifier rows"):
            for first, second in ((first, second) for first in starts for second in starts if second >= first):
                product(padded, first, second).block_until_ready()
        for first, second in ((first, second) for first in starts for second in starts):  # NC4 of the means
            product(padded, first, second).block_until_ready()

    products()
    return {"classes": classes, "width": width, "seconds": whole, "product_seconds": seconds(products)}


def time_nc4(classes: int, width: int) -> Result:
    """Seconds of NC4's decisions on held-out rows, and of the two products they need."""
    stats, weight = vocabulary(classes, width)
    features = np.random.default_rng(1).normal(size=(NC4_ROWS, width)).astype(np.float32)
    arrays = jax.device_put((stats, weight, features))
    decide = jax.jit(nc4_decisions)

    @jax.jit
    def products(weight: Any, means: Any, features: Any) -> Any:
        return tuple(jnp.sum(jnp.matmul(features, x.T, precision="highest"), axis=1) for x in (weight, means))

    timed = [
        lambda: jax.block_until_ready(decide(*arrays)),
        lambda: jax.block_until_ready(products(arrays[1], arrays[0].mean, arrays[2])),
    ]
    for function in timed:
        function()
    taken = [spread([seconds(function) for _ in range(ROUNDS)]) for function in timed]
    return {"rows": NC4_ROWS, "classes": classes, "width": width, "seconds": taken[0], "product_seconds": taken[1]}


def time_pass(model: str, data: str) -> Result:
    """Tokens a second of the moments pass on the gender lexicon, and of the encoder alone, in turns on the same batches."""
    pretrained = load_pretrained(model, offline=True)
    words = build_classes(load_lexicon("gender"), pretrained.tokenizer)
    examples = encode_sentences(list(text_sentences("gap", data))[:600], pretrained.tokenizer, ROW_TOKENS)
    packed = pack_for_inference(examples, ROW_TOKENS)
    params, slot_of_token = jax.device_put((pretrained.params, words.slot_of_token))
    parts = [jax.device_put(rows) for rows in batches(counted_rows(packed, words.boundaries), BATCH_ROWS)]
    parts = parts[:-1]  # full ones only
    forward = untuned_jit(lambda params, rows: hidden_states(pretrained.config, params, rows).hidden_states)
    accumulator = ClassMoments(("hidden",), "same")
    empty = {"hidden": ClassStats.zeros(words.num_classes, pretrained.config.hidden_size)}

    def encoder_only() -> None:
        with jax.default_matmul_precision("highest"):
            jax.block_until_ready([forward(params, rows) for rows in parts])

    def moments() -> None:
        stats: Any = empty
        with jax.default_matmul_precision("highest"):
            for rows in parts:
                stats = accumulate_rows(pretrained.config, accumulator, None, params, stats, slot_of_token, rows)
        jax.block_until_ready(stats)

    tokens = sum(int((rows["segment_ids"] > 0).sum()) for rows in parts)
    encoder_only()
    moments()
    rounds = [(seconds(encoder_only), seconds(moments)) for _ in range(ROUNDS)]
    return {
        "tokens": tokens,
        "encoder_tokens_per_second": spread([tokens / alone for alone, _ in rounds]),
        "tokens_per_second": spread([tokens / both for _, both in rounds]),
        "fraction_of_encoder": spread([alone / both for alone, both in rounds]),
    }


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


MEASUREMENTS: dict[str, Callable[..., Result]] = {"pairs": time_pairs, "nc4": time_nc4, "pass": time_pass}
