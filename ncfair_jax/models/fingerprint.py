"""Fingerprints of models: the first 16 hex digits of a SHA-256, equal where two models give equal figures."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from ncfair_jax.models.base import NSP, Params
from ncfair_jax.models.hf import Pretrained

# Fields of a config that act in training only, or that change memory and not results.
_NOT_JUDGED = ("hidden_dropout", "attention_dropout", "remat")


def params_fingerprint(params: Params) -> str:
    """Fingerprint of all values, in the order of their paths."""
    return _digest(np.ascontiguousarray(leaf).data for leaf in jax.tree.leaves(params))


def model_fingerprint(model: Pretrained) -> str:
    """Fingerprint of a loaded model: architecture, parameters and tokenizer, whatever files they came from.

    A next-sentence head does not count, since it is loaded only where it is asked for.
    """
    config = {name: value for name, value in dataclasses.asdict(model.config).items() if name not in _NOT_JUDGED}
    tokenizer = json.loads(model.tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):  # of its last call
        tokenizer.pop(state, None)
    parts = {name: part for name, part in model.params.items() if name != NSP}
    text = json.dumps([config, tokenizer, sorted(parts)], sort_keys=True, default=str)
    return _digest([text.encode(), params_fingerprint(parts).encode()])


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
