"""A tiny BERT, a tiny corpus and tiny batches, shared by the tests of training."""

from functools import cache, partial

import jax
import numpy as np
from transformers import BertTokenizerFast

from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Examples, Pipeline
from ncfair_jax.engine import forward
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.methods.base import evaluate_objective
from ncfair_jax.models import bert
from ncfair_jax.models.base import Ask, Rows
from ncfair_jax.models.bert import BertConfig

VOCAB, PAD, CLS, SEP, MASK, FIRST_WORD = 60, 0, 1, 2, 3, 5
MODEL = BertConfig(
    model_type="bert",
    vocab_size=VOCAB,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=32,
    max_positions=40,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    pad_token_id=PAD,
    initializer_range=0.2,
)


WORDS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{i}" for i in range(FIRST_WORD, VOCAB))]
TOKENIZER = BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})

evaluate = jax.jit(evaluate_objective, static_argnums=0)


# One program instead of one for each operation.
@partial(jax.jit, static_argnums=0, static_argnames=("all_layers", "received_attention"))
def encode(config, params, tokens, segment_ids, positions, *, token_types=None, **asked):
    """`bert.hidden` of rows that are given one by one."""
    return bert.hidden(config, params, Rows(tokens, segment_ids, positions, token_types), Ask(**asked))


def params(seed: int = 0, model: BertConfig = MODEL):
    """Parameters distributed as `bert.init` draws them, by numpy: nothing is compiled for them."""
    shapes, rng = _shapes(model), np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("bias", "scale"):
            return np.full(leaf.shape, float(path[-1].key == "scale"), np.float32)
        return rng.normal(0, model.initializer_range, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@cache
def _shapes(model: BertConfig):
    return jax.eval_shape(partial(bert.init, model), jax.random.key(0))


def examples(count: int = 40, seed: int = 0) -> list[np.ndarray]:
    """Sentences that count upwards from a random word, so that a masked word can be told from its neighbours."""
    rng = np.random.default_rng(seed)
    words = VOCAB - FIRST_WORD
    return [
        np.array([CLS, *(FIRST_WORD + (rng.integers(words) + np.arange(rng.integers(4, 12))) % words), SEP], np.int32)
        for _ in range(count)
    ]


def classes() -> FairnessClasses:
    ids = np.array([6, 9, 12, 20, 33, 47], np.int32)
    slots = np.full(VOCAB, len(ids), np.int32)
    slots[ids] = np.arange(len(ids))
    return FairnessClasses(
        words=tuple(f"w{i}" for i in ids),
        token_ids=ids,
        group=np.array([0, 0, 0, 1, 1, 1], np.int32),
        slot_of_token=slots,
        fingerprint="tiny",
    )


def pipeline(batch_size: int = 8, **settings) -> Pipeline:
    config = PipelineConfig(seed=1, batch_size=batch_size, row_tokens=32, **{"row_multiple": 2} | settings)
    return Pipeline(
        Examples(examples()),
        config,
        special_ids=[PAD, CLS, SEP, MASK],
        mask_token_id=MASK,
        vocab_size=VOCAB,
        slot_of_token=classes().slot_of_token,
    )


def engine_shapes(monkeypatch):
    """Two lists that fill from now on: shapes [R,T] of the rows that the engine traces a program for, and that it runs."""
    traced, batches = [], []
    original, put = forward.hidden_states, forward.put_rows

    def counting(config, params, rows, **kwargs):
        traced.append(rows["tokens"].shape)
        return original(config, params, rows, **kwargs)

    def putting(batch, mesh):
        if "tokens" in batch:  # else of the head
            batches.append(batch["tokens"].shape)
        return put(batch, mesh)

    monkeypatch.setattr(forward, "hidden_states", counting)
    monkeypatch.setattr(forward, "put_rows", putting)
    jax.clear_caches()
    return traced, batches
