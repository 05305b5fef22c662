"""From the corpus a config names to encoded training and development examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError, DataConfig
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.gap import read_gap, split_sentences
from ncfair_jax.data.text import read_text, text_files
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.sources import GAP, DataFolder
from ncfair_jax.lexicons.cda import counterfactual
from ncfair_jax.lexicons.lexicon import lexicon_file, load_lexicon
from ncfair_jax.unread import Switch

T = TypeVar("T")

# Of the methods that train on the sentences of `config.data.corpus`.
CORPUS_SWITCHES = (
    Switch(
        ("data.lexicon", "data.possessives"),
        lambda config: config.data.counterfactual != "none",
        "config.data.counterfactual is 'one_sided' or 'two_sided'",
    ),
    Switch(
        ("data.subset", "data.split", "data.text_field", "data.streaming"),
        lambda config: config.data.corpus == "hub",
        "config.data.corpus='hub'",
    ),
)
DEV_STREAM = 2  # key of the permutation that sets development sentences aside


def read_sentences(config: DataConfig) -> list[str]:
    """The corpus as sentences, in file order, before any swap.

    Raises:
        ConfigError: if no path is given.
    """
    if not config.path and config.corpus != "gap":
        raise ConfigError(
            f"config.data.path is empty; name the file, folder or Hub data set of corpus {config.corpus!r}"
        )
    if config.corpus == "gap":
        sentences = read_gap(config.path or DataFolder(None).path(GAP))
    elif config.corpus == "text":
        sentences = list(read_text(config.path))
    else:
        from ncfair_jax.files.hub import read_hub  # loading `datasets` takes a second that other corpora need not wait

        texts = read_hub(
            config.path,
            subset=config.subset,
            split=config.split,
            text_field=config.text_field,
            streaming=config.streaming,
            max_examples=config.max_examples,
        )
        sentences = [sentence for text in texts for sentence in split_sentences(text)]
    return sentences[: config.max_examples or None]


def corpus_files(config: DataConfig) -> dict[str, list[Path]]:
    """By field of the config, the local files that `load_sentences` reads; data sets of the Hub have none."""
    files: dict[str, list[Path]] = {"data.path": []}
    if config.corpus == "gap":
        files["data.path"] = [path_of(config.path or DataFolder(None).path(GAP))]
    elif config.corpus == "text" and config.path:
        files["data.path"] = text_files(config.path)
    elif config.path and path_of(config.path).is_dir():
        files["data.path"] = sorted(path for path in path_of(config.path).rglob("*") if path.is_file())
    if config.counterfactual != "none":
        files["data.lexicon"] = [lexicon_file(config.lexicon)]
    return files


def load_sentences(config: DataConfig, seed: int) -> tuple[list[str], list[str]]:
    """Training and development sentences, after the swap that the config asks for.

    The development sentences are drawn by `seed` before the swap, so that a sentence and its counterfactual lie on the same
    side; they get the same treatment as the training sentences.
    """
    train, dev = set_aside(read_sentences(config), config.dev_examples, seed)
    if config.counterfactual == "none":
        return train, dev
    lexicon = load_lexicon(config.lexicon)
    how = (lexicon, config.counterfactual, config.possessives)
    return counterfactual(train, *how), counterfactual(dev, *how)


def set_aside(items: Sequence[T], dev_examples: int, seed: int) -> tuple[list[T], list[T]]:
    """Training and development items, the latter drawn by `seed`; both in the order of the corpus.

    Raises:
        ConfigError: if nothing is left to train on.
    """
    if dev_examples >= len(items):
        raise ConfigError(
            f"config.data.dev_examples={dev_examples} leaves nothing of {len(items)} examples to train on"
        )
    order = np.random.Generator(np.random.Philox(key=[seed, DEV_STREAM])).permutation(len(items))
    aside = set(order[:dev_examples].tolist())
    return [item for i, item in enumerate(items) if i not in aside], [items[i] for i in sorted(aside)]


def load_examples(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Encoded training and development sentences of `load_sentences`, i32[L] each."""
    train, dev = load_sentences(config, seed)
    return encode_sentences(train, tokenizer, config.max_tokens), encode_sentences(dev, tokenizer, config.max_tokens)


def corpus_text(config: DataConfig) -> str:
    """The corpus and what was done to it, in words."""
    names = {"gap": "GAP", "text": "text", "hub": "Hub data set"}
    place = " ".join(part for part in (config.path, config.subset) if part)
    return f"{names[config.corpus]}{f' ({place})' if place else ''}{swap_text(config)}"


def swap_text(config: DataConfig) -> str:
    """Which sides of a counterfactual corpus there are, in words; "" for the text as it is."""
    swapped = {"one_sided": ", swapped counterfactuals only", "two_sided": ", originals and swapped counterfactuals"}
    return swapped.get(config.counterfactual, "")
