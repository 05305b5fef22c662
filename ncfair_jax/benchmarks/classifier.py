"""Outputs of a fine-tuned classifier for texts.

Letters: E examples, C classes.
"""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from ncfair_jax.engine import ClassHead, Request, forward_of
from ncfair_jax.engine.naming import quoted
from ncfair_jax.engine.requests import CLASS_LOGITS
from ncfair_jax.models.base import Params
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.classification.labelled import Labelled, encode_labelled


def outputs(
    model: Pretrained,
    head: Params,
    examples: Sequence[Labelled],
    max_tokens: int,
    row_tokens: int,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Logits of the classes, or the predicted value, of each example: f32[E,C] in the order of the examples.

    Args:
        head: the classifier's parameters, as `models.heads.class_outputs` takes them.
        row_tokens: T, at least `max_tokens`; examples share rows.
        mesh: the rows lie over all its devices. Every process calls with the same examples and gets all outputs.
    Raises:
        NonFiniteError: if an output is not finite, quoting the text.
    """
    encoded = encode_labelled(examples, model.tokenizer, max_tokens)
    requests = [
        Request(tokens, token_types=types, name=quoted(example.first), ask=CLASS_LOGITS)
        for tokens, types, example in zip(encoded.tokens, encoded.token_types, examples, strict=True)
    ]
    answers = forward_of(model, head=ClassHead(head, row_tokens), mesh=mesh, progress=progress)(requests)
    values = np.zeros((len(examples), head["classifier"]["kernel"].shape[1]), np.float32)
    for i, answer in enumerate(answers):
        values[i] = answer.vector
    return values


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities f64[E,C] of the classes."""
    wide = logits.astype(np.float64)
    top = wide.max(1, keepdims=True)
    return wide - top - np.log(np.exp(wide - top).sum(1, keepdims=True))
