"""A plain forward pass of one sequence, which the packed scorer must agree with, and small benchmark files of our own."""

import csv
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ncfair_jax.benchmarks.results import Result
from ncfair_jax.engine import Request, forward_of
from ncfair_jax.models.base import Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained
from tests import tiny, tiny_hub
from tests.rounding import encoder_operations, rounding

# Log-probabilities of `pretrained`, which are of size 10: the way through the encoder, a product of 16 and a sum of 270.
CLOSE = dict.fromkeys(("rtol", "atol"), rounding(encoder_operations(tiny.MODEL) + 16 + 270))


def stride(some: int) -> int:
    """Step over golden examples: `some`, or with NCFAIR_FULL=1 all of them, which takes minutes more."""
    return 1 if os.environ.get("NCFAIR_FULL") else some


def pretrained(kind: str) -> Pretrained:
    """A tiny model whose scores depend on the context: weights of both signs, unlike those of `tiny_hub`."""
    model = tiny_hub.pretrained(kind)

    def centred(path: tuple, leaf: np.ndarray) -> np.ndarray:
        return leaf if path[-1].key == "scale" else 2 * (leaf - 0.5)

    return model._replace(params=jax.tree_util.tree_map_with_path(centred, model.params))


LENGTH = 38  # what RoBERTa takes with 40 position rows; all are padded to it: one compilation a model


def log_probs(pretrained: Pretrained, tokens: np.ndarray, attention_mask: np.ndarray | None = None) -> np.ndarray:
    """Natural log-probabilities f32[L,V] of one sequence in a row of its own."""
    padding = (0, LENGTH - len(tokens))
    row = np.pad(np.asarray(tokens, np.int32), padding)[None]
    attended = np.ones(len(tokens), np.int32) if attention_mask is None else attention_mask
    attended = np.pad(attended, padding)[None]
    return np.asarray(_log_probs(pretrained.config, pretrained.params, row, attended))[: len(tokens)]


@partial(jax.jit, static_argnums=0)
def _log_probs(config: ModelConfig, params: Params, row: jax.Array, attended: jax.Array) -> jax.Array:
    hidden = (
        family_of(config)
        .hidden(config, params, Rows(row, attended, jax.numpy.arange(LENGTH)[None]), Ask())
        .hidden_states[0]
    )
    return jax.nn.log_softmax(
        family_of(config).logits(config, params, family_of(config).features(config, params, hidden))
    )


def hidden_states(pretrained: Pretrained, tokens: np.ndarray) -> np.ndarray:
    """Last layer f32[L,D] of one sequence in a row of its own."""
    padding = (0, LENGTH - len(tokens))
    row, attended = (
        np.pad(part, padding)[None] for part in (np.asarray(tokens, np.int32), np.ones(len(tokens), np.int32))
    )
    return np.asarray(_hidden_states(pretrained.config, pretrained.params, row, attended))[: len(tokens)]


@partial(jax.jit, static_argnums=0)
def _hidden_states(config: ModelConfig, params: Params, row: jax.Array, attended: jax.Array) -> jax.Array:
    return (
        family_of(config)
        .hidden(config, params, Rows(row, attended, jax.numpy.arange(LENGTH)[None]), Ask())
        .hidden_states[0]
    )


def result(benchmark: Any, model: Pretrained, examples: Any, **options: Any) -> Result:
    """What the model makes of a benchmark module's examples."""
    found: Result = benchmark.ask(examples, model, **options).answered_by(forward_of(model))
    return found


def log_probs_of(model: Pretrained, requests: Sequence[Request], **options: Any) -> list[np.ndarray]:
    """Log-probabilities that the engine answers."""
    return [answer.log_probs for answer in forward_of(model, **options)(requests)]


def write_crows_pairs(path: Path) -> None:
    """Four pairs of two bias types in the published columns."""
    rows = [
        ("the nurse said she was tired", "the nurse said he was tired", "stereo", "gender"),
        ("the man was tired", "the woman was tired", "antistereo", "gender"),
        ("a woman said that", "a man said that", "stereo", "gender"),
        ("the nurse was tired", "the man was tired", "stereo", "socioeconomic"),
    ]
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"])
        writer.writerows([(i, *row) for i, row in enumerate(rows)])


def stereoset_items() -> list[dict]:
    """Four examples of three terms in the flat layout, two of them of a term of the dev part."""
    made = [
        ("male", "the man was BLANK.", ("tired", "nurse", "the")),
        ("male", "BLANK said that he was tired", ("he", "she", "a")),
        ("woman", "a woman said BLANK was tired", ("nurses", "man", "that")),
        ("nurse", "the nurse said that BLANK was tired", ("she", "he", "mans")),
    ]
    labels = ("stereotype", "anti-stereotype", "unrelated")
    return [
        {
            "id": f"e{i}",
            "target": target,
            "bias_type": "gender",
            "context": context,
            "data": {
                label: {"id": f"e{i}{label}", "sentence": context.replace("BLANK", word)}
                for label, word in zip(labels, words, strict=True)
            },
        }
        for i, (target, context, words) in enumerate(made)
    ]


def write_stereoset(path: Path) -> None:
    """The examples of `stereoset_items`."""
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stereoset_items()), encoding="utf-8")


BEC_HEADER = ["", "Sentence", "Sent_TM", "Sent_AM", "Sent_TAM", "Template", "Person", "Gender", "Profession"]


def bec_lines() -> list[list[str]]:
    """Two templates, two person pairs, and a profession of one and of two words, in the published columns and order."""
    lines = []
    for profession, group in (("nurse", "female"), ("tired man", "male")):
        hidden = " ".join("[MASK]" for _ in profession.split())
        for template in ("{} was a {}.", "{} said that the {} was tired."):
            for person, gender in (("he", "male"), ("she", "female"), ("a man", "male"), ("a woman", "female")):
                masked_person = " ".join([*person.split()[:-1], "[MASK]"])
                lines.append([
                    str(len(lines)),
                    template.format(person, profession),
                    template.format(masked_person, profession),
                    template.format(person, hidden),
                    template.format(masked_person, hidden),
                    template, person, gender, profession, group,
                ])  # fmt: skip
    return lines


def write_bec_pro(path: Path) -> None:
    """The rows of `bec_lines`."""
    path.parent.mkdir(parents=True)
    rows = [[*BEC_HEADER, "Prof_Gender"], *bec_lines()]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def write_wikitext(path: Path) -> None:
    """24 paragraphs under a heading: six of them are held out, of 15 sentences."""
    path.parent.mkdir(parents=True)
    lines = ["the man was tired. A woman said that. The nurse was a man.", "She said that he was tired. The man said."]
    path.write_text("\n".join([" = A heading = ", *(12 * lines)]) + "\n", encoding="utf-8")


def write_seat(path: Path) -> None:
    """A test of two targets a side."""
    path.parent.mkdir(parents=True)
    lists = {"targ1": ["he", "man"], "targ2": ["she", "woman"], "attr1": ["tired"], "attr2": ["nurse", "said that"]}
    path.write_text(json.dumps({key: {"category": key, "examples": texts} for key, texts in lists.items()}))


def write_data_folder(folder: Path) -> Path:
    """All of the above at the names that the registry looks for."""
    write_crows_pairs(folder / "crows_pairs/crows_pairs_anonymized.csv")
    write_stereoset(folder / "stereoset/gender_intrasentence.json")
    write_bec_pro(folder / "bec_pro/BEC-Pro_EN.tsv")
    write_seat(folder / "seat/weat6.jsonl")
    write_wikitext(folder / "wikitext2/test.txt")
    return folder
