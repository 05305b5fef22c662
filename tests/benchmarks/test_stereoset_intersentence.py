"""The next-sentence benchmark: equal to PyTorch's BertForPreTraining, the official file, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncfair_jax.benchmarks import stereoset_examples
from ncfair_jax.benchmarks import stereoset_intersentence as inter
from ncfair_jax.benchmarks.registry import EvaluationError
from ncfair_jax.benchmarks.registry import evaluate as run_benchmarks
from ncfair_jax.engine import RequestError
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.models.hf import ModelFolderError, load_pretrained, save_pretrained
from tests.benchmarks import plain

NAME = "stereoset_intersentence"

LABELS = ("stereotype", "anti-stereotype", "unrelated")
FOLLOWING = [
    ("nurse", "The nurse was tired.", ("she said that.", "he said that.", "the the.")),
    ("man", "A man.", ("he was tired", "the nurse said that a woman was tired.", "she was a nurse")),
]


def write_official(folder):
    """dev.json and test.json in the official layout, one example each; they have no intrasentence examples."""
    (folder / "stereoset").mkdir(parents=True)
    for split, (target, context, sentences) in zip(("dev", "test"), FOLLOWING, strict=True):
        item = {
            "id": f"{split}0",
            "target": target,
            "bias_type": "gender",
            "context": context,
            "sentences": [  # in another order than the table's
                {"id": label, "sentence": text, "gold_label": label, "labels": []}
                for label, text in reversed(list(zip(LABELS, sentences, strict=True)))
            ],
        }
        document = {"version": "1.0", "data": {"intrasentence": [], "intersentence": [item]}}
        (folder / f"stereoset/{split}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random BERT with a masked-LM head, a pooler and a next-sentence head."""
    folder = tmp_path_factory.mktemp("model") / "bert"
    model = plain.pretrained("bert")
    save_pretrained(folder, model)
    rng = np.random.default_rng(0)
    size = model.config.hidden_size
    shapes = {
        "bert.pooler.dense.weight": (size, size),
        "bert.pooler.dense.bias": (size,),
        "cls.seq_relationship.weight": (2, size),
        "cls.seq_relationship.bias": (2,),
    }
    rewrite(folder, lambda tensors: tensors | {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()})
    return folder


def rewrite(folder, change, to=None):
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, (to or folder) / "model.safetensors", metadata={"format": "pt"})
    ((to or folder) / "digests.json").unlink(missing_ok=True)  # of the weights as they were


@pytest.mark.parity
def test_probabilities_are_those_of_pytorch(folder, data):
    torch = pytest.importorskip("torch")
    from transformers import BertForPreTraining

    saved = folder.parent / "by_transformers"
    reference = BertForPreTraining.from_pretrained(folder, attn_implementation="eager").eval()
    reference.save_pretrained(saved)
    model = load_pretrained(folder)
    model.tokenizer.save_pretrained(saved)
    model = load_pretrained(saved, nsp=True)
    examples = inter.load_examples(DataFolder(data))
    result = plain.result(inter, model, examples)
    expected = []
    for example in examples:
        for sentence in example.sentences:
            batch = model.tokenizer(example.context, sentence, return_tensors="pt", return_token_type_ids=True)
            assert batch["token_type_ids"].sum() > 0
            with torch.no_grad():
                expected.append(torch.softmax(reference(**batch).seq_relationship_logits[0], -1)[inter.NEXT].item())
    ours = np.stack([result.scores[name] for name in ("stereotype", "anti_stereotype", "unrelated")], axis=-1)
    np.testing.assert_allclose(ours, np.reshape(expected, (-1, 3)), **plain.CLOSE)
    assert np.ptp(expected) > 1e-2


def test_official_files_and_aggregates(folder, data, tmp_path):
    examples = inter.load_examples(DataFolder(data))
    assert [(e.target, e.context, e.sentences, e.split) for e in examples] == [
        (*item, split) for item, split in zip(FOLLOWING, ("dev", "test"), strict=True)
    ]
    model = load_pretrained(folder, nsp=True)
    document = run_benchmarks(model, NAME, data, tmp_path, model_name="tiny", offline=True)[NAME]
    result = plain.result(inter, model, examples)
    stereotype, anti, unrelated = (np.array(result.scores[n]) for n in ("stereotype", "anti_stereotype", "unrelated"))
    related = (stereotype > unrelated).mean() + (anti > unrelated).mean()
    figures = document["metrics"]["gender"]["all"]
    assert (figures["ss"], figures["lm"]) == (100 * (stereotype > anti).mean(), 50 * related)
    assert {part: f["n"] for part, f in document["metrics"]["overall"].items()} == {"all": 2, "dev": 1, "test": 1}
    assert document["counts"]["official_count"] == 6


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (("bert.pooler.dense.weight", "bert.pooler.dense.bias"), r"lack the pooler \(pooler.dense\);"),
        (("cls.seq_relationship.weight",), r"lack the next-sentence head \(cls.seq_relationship\);"),
        (
            ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "cls.seq_relationship.weight", "cls.seq_relationship.bias"),
            "the model has none",
        ),
    ],
)  # fmt: skip
def test_a_model_without_the_head_is_refused_in_one_line(folder, data, tmp_path, missing, message):
    save_pretrained(tmp_path / "model", load_pretrained(folder))
    rewrite(folder, lambda t: {name: v for name, v in t.items() if name not in missing}, to=tmp_path / "model")
    model = load_pretrained(tmp_path / "model", nsp=True)
    with pytest.raises(EvaluationError, match=message) as error:
        run_benchmarks(model, NAME, data, tmp_path / "out", model_name="tiny", offline=True)
    assert "\n" not in str(error.value)


def test_other_families_and_models_loaded_without_it_are_refused(folder):
    assert "nsp" not in load_pretrained(folder).params
    with pytest.raises(RequestError, match="nsp=True"):
        inter.check_next_sentence_head(load_pretrained(folder))
    with pytest.raises(RequestError, match="roberta model has none"):
        inter.check_next_sentence_head(plain.pretrained("roberta"))


def test_a_head_of_another_shape_is_refused(folder, tmp_path):
    save_pretrained(tmp_path / "model", load_pretrained(folder))
    rewrite(folder, lambda t: t | {"cls.seq_relationship.weight": np.ones((3, 16), np.float32)}, to=tmp_path / "model")
    with pytest.raises(ModelFolderError, match=r"seq_relationship.weight has shape \[3, 16\]"):
        load_pretrained(tmp_path / "model", nsp=True)
    load_pretrained(tmp_path / "model")


def test_missing_and_cut_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"dev.json or stereoset/test.json"):
        inter.load_examples(DataFolder(tmp_path))
    write_official(tmp_path / "data")
    path = tmp_path / "data/stereoset/dev.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match="cut off"):
        inter.load_examples(DataFolder(tmp_path / "data"))
    path.write_text(json.dumps({"data": {"intrasentence": plain.stereoset_items()}}))
    with pytest.raises(DataError, match="intersentence"):
        stereoset_examples.read_examples(path, "dev", stereoset_examples.INTERSENTENCE)
