"""config.json: every field with a wrong type, range or null is named, and what transformers reads alike is read."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from ncfair_jax.models.hf import ModelFolderError, load_pretrained
from tests import tiny_hub


@pytest.fixture(scope="module", params=tiny_hub.KINDS)
def original(request, tmp_path_factory) -> Path:
    return tiny_hub.write(tmp_path_factory.mktemp("config") / "model", request.param)


@pytest.fixture
def edited(original):
    """Writes changes into the folder's config.json; the old one comes back afterwards."""
    path = original / "config.json"
    text = path.read_text()

    def edit(**changes) -> Path:
        path.write_text(json.dumps(json.loads(text) | changes))
        return original

    yield edit
    path.write_text(text)


SIZES = [
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
]  # fmt: skip
NUMBERS = ["layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"]


def test_every_wrong_size_is_named(edited):
    for name in SIZES:
        for value in ("16", 16.0, True, None, 0, -1, [16]):
            with pytest.raises(ModelFolderError) as error:
                load_pretrained(edited(**{name: value}))
            shown = f"{value!r} (a string)" if isinstance(value, str) else json.dumps(value)
            assert f"config.json has {name}={shown}, expected a whole number of at least 1" in str(error.value)
            assert "\n" not in str(error.value)


def test_every_wrong_number_is_named(edited):
    for name in NUMBERS:
        for value in ("0.1", None, -0.1, True, [0.1], float("nan"), float("inf")):
            with pytest.raises(ModelFolderError, match=rf"config\.json has {name}=.*expected a number from 0"):
                load_pretrained(edited(**{name: value}))
    with pytest.raises(ModelFolderError, match=r"hidden_dropout_prob=1\.0, expected a number from 0 to below 1"):
        load_pretrained(edited(hidden_dropout_prob=1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new', supported: 'gelu', 'gelu_python'"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"hidden_act": None}, "hidden_act=null"),
        ({"is_decoder": True}, "is_decoder=true, supported: false"),
        ({"add_cross_attention": True}, "add_cross_attention=true"),
        ({"quantization_config": {"bits": 4}}, "quantization_config="),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false', expected true or false"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings=null"),
        ({"pad_token_id": -1}, "pad_token_id=-1, expected the id of a token"),
        ({"pad_token_id": 100_000}, "pad_token_id=100000"),
        ({"pad_token_id": "0"}, "pad_token_id='0'"),
        ({"hidden_size": 16, "num_attention_heads": 3}, "is not a multiple of num_attention_heads=3"),
        ({"max_position_embeddings": 2}, "max_position_embeddings=2, which leaves room for"),
    ],
)
def test_other_wrong_fields_are_named(edited, changes, message):
    with pytest.raises(ModelFolderError) as error:
        load_pretrained(edited(**changes))
    assert message in str(error.value)


def test_all_wrong_fields_are_listed_at_once(edited):
    with pytest.raises(ModelFolderError, match="3 problems") as error:
        load_pretrained(edited(hidden_size="16", layer_norm_eps=None, hidden_act="relu"))
    assert all(name in str(error.value) for name in ("hidden_size", "layer_norm_eps", "hidden_act"))


def test_a_key_named_twice_is_refused(edited):
    path = edited() / "config.json"
    path.write_text(path.read_text().replace("{", '{"hidden_size": 32, ', 1))
    with pytest.raises(ModelFolderError, match=r"config\.json: the key 'hidden_size' is there twice"):
        load_pretrained(path.parent)


def test_absent_fields_have_the_defaults_of_transformers(edited):
    folder = edited()
    path = folder / "config.json"
    content = json.loads(path.read_text())
    optional = [*NUMBERS, "hidden_act", "position_embedding_type", "tie_word_embeddings", "pad_token_id"]
    path.write_text(json.dumps({name: value for name, value in content.items() if name not in optional}))
    ours, theirs = load_pretrained(folder).config, AutoConfig.from_pretrained(folder)
    assert (ours.layer_norm_eps, ours.hidden_dropout, ours.attention_dropout) == (
        theirs.layer_norm_eps,
        theirs.hidden_dropout_prob,
        theirs.attention_probs_dropout_prob,
    )
    assert (ours.initializer_range, ours.pad_token_id) == (theirs.initializer_range, theirs.pad_token_id)
    assert theirs.tie_word_embeddings


def test_an_unsupported_family_is_told_first_and_alone(edited):
    folder = edited()
    for content, said in (
        ({"model_type": "distilbert", "dim": 768, "n_layers": 6}, "has model_type='distilbert'"),
        ({"dim": 768}, "has no model_type"),
        ({"model_type": None}, "has model_type=null"),
        ({"model_type": ["bert"]}, 'has model_type=["bert"]'),
    ):
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(ModelFolderError) as error:
            load_pretrained(folder)
        assert f"{said}; only models of the families bert and roberta are supported" in str(error.value)
        assert "hidden_size" not in str(error.value)


def test_null_is_no_pad_id_for_bert_and_an_error_for_roberta(edited):
    folder = edited(pad_token_id=None)
    if json.loads((folder / "config.json").read_text())["model_type"] == "bert":
        assert load_pretrained(folder).config.pad_token_id == 0  # what transformers loads with equal logits
    else:
        with pytest.raises(ModelFolderError, match="pad_token_id=null"):  # transformers fails at the first text
            load_pretrained(folder)
