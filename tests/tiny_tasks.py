"""Small files of the real formats, whose labels can be learned, and a tiny model of their words."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from transformers import BertTokenizerFast

from ncfair_jax.models.hf import Pretrained, save_pretrained
from ncfair_jax.tasks.classification.bias_nli import load_lists
from ncfair_jax.tasks.classification.config import ClassificationRun
from tests import tiny

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
THINGS = ["coat", "apple", "bus", "lamp", "table", "duck"]
SUBJECTS = ["man", "woman", "king", "nurse", "poet", "dentist"]
WORK = {"nurse": "patients", "poet": "verses", "dentist": "teeth", "surgeon": "operations"}
OTHER = [
    "a",
    "an",
    "the",
    "he",
    "she",
    ".",
    "bought",
    "sold",
    "sleeps",
    "nobody",
    "likes",
    "old",
    "young",
    "tall",
    "and",
]


def words() -> list[str]:
    lists = load_lists()
    known = [*lists.occupations, *(w for w, _ in lists.words), *(w for pair in lists.actions for w in pair)]
    pieces = [piece for word in known for piece in word.split()]
    return list(dict.fromkeys([*THINGS, *SUBJECTS, *WORK, *WORK.values(), *OTHER, *pieces]))


def pretrained(seed: int = 3) -> Pretrained:
    vocabulary = SPECIAL + words()
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=40)
    model = dataclasses.replace(tiny.MODEL, vocab_size=len(vocabulary), hidden_dropout=0.1, attention_dropout=0.1)
    return Pretrained(model, tiny.params(seed, model), tokenizer)


def write_model(folder: Path) -> Path:
    save_pretrained(folder / "model", pretrained())
    return folder / "model"


def biographies(count: int, seed: int) -> list[dict]:
    """As the crawler has them: the first sentence names the profession, what follows tells it by its work."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        title, gender = str(rng.choice(list(WORK))), str(rng.choice(["M", "F"]))
        he = "he" if gender == "M" else "she"
        lead = f"The {title} . "
        filler = " ".join(rng.choice(OTHER[6:], 3))
        rows.append(
            {
                "title": title,
                "raw": f"{lead}{he} likes {WORK[title]} {filler}",
                "start_pos": len(lead),
                "gender": gender,
            }
        )
    return rows


def entailments(count: int, seed: int) -> list[dict]:
    """Same verb and thing: entailment for "somebody"-like subjects, contradiction for "nobody", else neutral."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        subject, thing = rng.choice(SUBJECTS), rng.choice(THINGS)
        other = rng.choice([s for s in SUBJECTS if s != subject])
        label = number % 3
        hypothesis = (f"the {subject} sleeps", f"the {other} bought a {thing} .", f"nobody bought a {thing} .")[label]
        row = {"premise": f"the {subject} bought a {thing} .", "hypothesis": hypothesis, "label": label}
        rows.append(row if number % 25 else row | {"label": -1})
    return rows


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def config(model: Path, source: Path, task: str, **changes: dict) -> ClassificationRun:
    """A short run of a task with tiny rows."""
    parts: dict[str, dict] = {
        "model": {"path": str(model)},
        "classification": {"task": task},
        "data": {"path": str(source), "max_tokens": 32, "row_tokens": 32},
        "optimizer": {"learning_rate": 1e-2},
        "train": {"batch_size": 16, "steps": 60, "log_every": 20, "save_every": 60, "collapse_every": 0},
    }
    for name, values in changes.items():
        parts[name] = parts.get(name, {}) | values
    base = ClassificationRun(name=f"tiny-{task}")
    return dataclasses.replace(base, **{n: dataclasses.replace(getattr(base, n), **v) for n, v in parts.items()})
