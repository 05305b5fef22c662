"""Batches of every method, bit for bit as they were since `pipeline.VERSION` grew last: that must grow if these change."""

import dataclasses
import hashlib

import numpy as np
import pytest

from ncfair_jax.config import MeshConfig
from ncfair_jax.data.pipeline import VERSION
from ncfair_jax.models.hf import save_pretrained
from ncfair_jax.prepare import prepare
from ncfair_jax.registry import METHODS
from ncfair_jax.sharding import make_mesh
from tests import tiny_coref, tiny_tasks, tiny_text

# SHA-256 of the first eight training and two development batches of version 2; of "coref", which neither masks nor packs, as
# commit 0fc234d made them.
HASHES = {
    "mlm": "9fa9cfd58bf8ee5de9a911624d75f57f4426a2580cff06091fc2298f7be6618d",
    "mlm-masks": "1592284a545c8dc947ef8dc35c53daccb3363d07922a056910a873be14dec33d",
    "mabel": "c306d4b71525b8d233a781ca8fa7282a8f97b57526ba3217625770824253956e",
    "adept": "510f32af66b3d4fab9653dfe90e0f87ffd1e9608e522a37bad283958d3ac9e83",
    "ase": "0949b3107adfd31631c6db91b8bb71117637f41c7f5569ad76bbe33ddb91a793",
    "coref": "deb272a8e1ae4b310566127df62988aa6a627bee2bf3677373251b73978778e6",
    "bios": "e779b410bda829c5a255e680878ae3b7c278a20a51def623830c7a6bf01c5309",
    "bias_nli": "939967f41551d44d505179bf565d96e9c05e7e44fc18daa011da94e5c4bc2378",
}
NEXT = {"weight": 1.0, "alignment": "next", "labels": "input"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    tiny_text.write(folder)
    tiny_tasks.write_model(folder)
    save_pretrained(folder / "coref-model", tiny_coref.pretrained())
    (folder / "neutral.txt").write_text("\n".join(tiny_text.NEUTRAL) + "\n")
    (folder / "words.tsv").write_text("kitek\tbara\n")
    lines, rows = ["a,b,c,d"], []
    rng = np.random.default_rng(0)
    for number, sentence in enumerate(tiny_text.sentences(24, seed=4)):
        he, she = ("he", "she") if number % 2 else ("she", "he")
        short = " ".join(sentence.split()[:3])
        lines.append(f"{he} {sentence},{he} {short},{she} {sentence},{she} {short}")
        words = " ".join(rng.choice(tiny_text.NEUTRAL, 1 + number % 9))
        rows.append((f"[CLS] {words} bara [MASK] kitek [SEP]", ("he", "him")[number % 2]))
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    flip = {"he": "she", "him": "her"}
    for name, of in (("original_data.csv", lambda p: p), ("flipped_data.csv", flip.get)):
        (folder / name).write_text("\n".join(["text,pronouns", *(f"{t},{of(p)}" for t, p in rows)]) + "\n")
    tiny_coref.write(folder / "train.v4_gold_conll", 12)
    for part, count in (("train", 60), ("dev", 20), ("test", 20)):
        tiny_tasks.write_jsonl(folder / "bios" / f"{part}.jsonl", tiny_tasks.biographies(count, seed=count))
        tiny_tasks.write_jsonl(folder / "snli" / f"{part}.jsonl", tiny_tasks.entailments(count, seed=count))
    return folder


def changes(folder, name):
    """The fields of a run of each kind that differ from their default."""
    text = {"corpus": "text", "path": str(folder / "text.txt"), "max_tokens": 32, "row_tokens": 32, "dev_examples": 30}
    short = {"max_tokens": 32, "row_tokens": 32}
    words, tasks = {"path": str(folder / "model-3")}, {"path": str(folder / "model")}
    return {
        "mlm": {"model": words, "data": text, "nc3": NEXT, "train": {"accumulation": 2}},
        "mlm-masks": {"model": words, "data": text, "objective": {"mask_prob": 0.9, "random_frac": 0.2}},
        "mabel": {
            "model": words,
            "mabel": {"pairs": str(folder / "pairs.csv")},
            "data": {"max_tokens": 32, "row_tokens": 64, "dev_examples": 4},
            "nc3": {"weight": 1.0},
            "train": {"batch_size": 10},
        },
        "adept": {
            "model": words,
            "adept": {"neutral": str(folder / "neutral.txt"), "mode": "quality"},
            "data": text | {"dev_examples": 60},
            "nc3": NEXT | {"labels": "original"},
            "train": {"batch_size": 8},
        },
        "ase": {
            "model": words,
            "ase": {"source": "csv", "stereotypes": str(folder / "words.tsv")},
            "data": short | {"path": str(folder), "counterfactual": "two_sided", "dev_examples": 5},
            "nc3": NEXT,
            "train": {"batch_size": 6},
        },
        "coref": {
            "model": {"path": str(folder / "coref-model")},
            "coref": {"train": str(folder / "train.v4_gold_conll"), "max_width": 4, "max_segments": 2},
            "data": {"max_tokens": 8, "row_tokens": 8, "dev_examples": 3},
            "nc3": NEXT | {"labels": "original"},
            "train": {"batch_size": 4, "accumulation": 2},
        },
        "bios": {
            "model": tasks,
            "classification": {"task": "bios"},
            "data": short | {"path": str(folder / "bios"), "dev_examples": 10},
            "nc3": {"weight": 1.0, "lexicon": "gender"},
        },
        "bias_nli": {
            "model": tasks,
            "classification": {"task": "bias_nli", "pairs": 10},
            "data": short | {"path": str(folder / "snli"), "dev_examples": 10},
            "train": {"accumulation": 2},
        },
    }[name]


def config_of(name, parts):
    """A config with some fields changed."""
    method = {"mlm-masks": "mlm", "bios": "classification", "bias_nli": "classification"}.get(name, name)
    base = METHODS[method].Config(name="batches")
    parts = parts | {"train": {"collapse_every": 0} | parts.get("train", {})}
    return dataclasses.replace(base, **{n: dataclasses.replace(getattr(base, n), **v) for n, v in parts.items()})


@pytest.mark.parametrize("name", ["mlm", "mlm-masks", "mabel", "adept", "ase", "coref", "bios", "bias_nli"])
def test_batches_are_what_they_were(folder, name):
    assert VERSION == 3
    run = prepare(config_of(name, changes(folder, name)), make_mesh(MeshConfig(), 1))
    assert run.pipeline.steps_per_epoch > 1 and (run.dev is not None) == (run.config.data.dev_examples > 0)
    digest = hashlib.sha256()
    for pipeline, steps in ((run.pipeline, 8), (run.dev, 2)):
        for batch in () if pipeline is None else map(pipeline.batch, range(steps)):
            for key, value in sorted(batch.items()):
                digest.update(f"{key} {value.dtype.str} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    assert digest.hexdigest() == HASHES[name]
