"""Fingerprints of models: what work on a model is recognised by, whatever files it came from."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np

from ncfair_jax.files.fingerprint import fingerprint_of
from ncfair_jax.models.base import Params
from ncfair_jax.models.hf import Pretrained

# Fields of a model's config that act in training only, or that change memory or time and not results.
_NOT_JUDGED = ("hidden_dropout", "attention_dropout", "remat")
_JUDGED_AS: dict[str, Any] = {"attention": "xla", "scan_layers": False}


def params_fingerprint(params: Params) -> str:
    """Fingerprint of all values, in the order of their paths."""
    return fingerprint_of(np.ascontiguousarray(leaf).data for leaf in jax.tree.leaves(params))


def model_fingerprint(model: Pretrained) -> str:
    """Fingerprint of a loaded model: architecture, parameters and tokenizer, whatever files they came from.

    A next-sentence head does not count, since it is loaded only where it is asked for.
    """
    fields = dataclasses.asdict(model.config) | _JUDGED_AS
    config = {name: value for name, value in fields.items() if name not in _NOT_JUDGED}
    tokenizer = json.loads(model.tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):  # of its last call
        tokenizer.pop(state, None)
    parts = {name: part for name, part in model.params.items() if name != "nsp"}
    text = json.dumps([config, tokenizer, sorted(parts)], sort_keys=True, default=str)
    return fingerprint_of([text.encode(), params_fingerprint(parts).encode()])
