"""A model is known by its content, whatever files it came from."""

import dataclasses

import numpy as np

from ncfair_jax.models.fingerprint import model_fingerprint
from ncfair_jax.models.hf import load_pretrained, save_pretrained
from tests import tiny_hub


def test_a_model_is_its_config_weights_and_tokenizer(tmp_path):
    model = tiny_hub.pretrained("bert")
    first = model_fingerprint(model)
    save_pretrained(tmp_path / "model", model)
    loaded = load_pretrained(tmp_path / "model")
    assert model_fingerprint(loaded) == first
    loaded.tokenizer(["the nurse"], truncation=True, max_length=3)  # leaves its settings in the tokenizer
    assert model_fingerprint(loaded) == first
    quiet = dataclasses.replace(model.config, hidden_dropout=0.0, remat=True)
    assert model_fingerprint(model._replace(config=quiet)) == first

    params = dict(model.params) | {"mlm": dict(model.params["mlm"]) | {"bias": model.params["mlm"]["bias"] + 1}}
    others = [
        model._replace(params=params),
        model._replace(config=dataclasses.replace(model.config, layer_norm_eps=1e-5)),
        model._replace(tokenizer=tiny_hub.tokenizer("roberta")),
        model._replace(params=dict(model.params) | {"prefix": np.ones(3, np.float32)}),
    ]
    assert len({first, *map(model_fingerprint, others)}) == 5
    judge = model._replace(params=dict(model.params) | {"nsp": {"bias": np.ones(2, np.float32)}})
    assert model_fingerprint(judge) == first


def test_lower_casing_is_part_of_the_tokenizer():
    model = tiny_hub.pretrained("bert")
    vocabulary = model.tokenizer.get_vocab()
    cased = type(model.tokenizer)(vocab=vocabulary, do_lower_case=False)
    assert model_fingerprint(model._replace(tokenizer=cased)) != model_fingerprint(model)
