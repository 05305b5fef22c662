"""From the corpus a config names to encoded training and development examples."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError, DataConfig
from ncfair_jax.data.encoding import encode_sentences, tokenizer_content
from ncfair_jax.data.gap import read_gap, split_sentences
from ncfair_jax.data.text import read_text, text_files
from ncfair_jax.data.token_building import Forms, as_it_is, build
from ncfair_jax.data.token_store import TokenStore
from ncfair_jax.engine.progress import shown
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.fingerprint import cache_folder, files_fingerprint, fingerprint_of
from ncfair_jax.files.locking import held
from ncfair_jax.files.sources import GAP, DataFolder
from ncfair_jax.lexicons.cda import counterfactual, sentence_forms
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
STORE_VERSION = 1  # grows whenever the same text would be read, cut into sentences, swapped or encoded in another way
DEV_STREAM = 2  # key of the permutation that sets development sentences aside


def read_sentences(config: DataConfig) -> Iterator[str]:
    """The corpus as sentences, in file order, before any swap, as they are read.

    Raises:
        ConfigError: if no path is given.
    """
    if not config.path and config.corpus != "gap":
        raise ConfigError(
            f"config.data.path is empty; name the file, folder or Hub data set of corpus {config.corpus!r}"
        )
    sentences: Iterable[str]
    if config.corpus == "gap":
        sentences = read_gap(config.path or DataFolder(None).path(GAP))
    elif config.corpus == "text":
        sentences = read_text(config.path)
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
        sentences = (sentence for text in texts for sentence in split_sentences(text))
    return islice(sentences, config.max_examples or None)


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
    train, dev = set_aside(list(read_sentences(config)), config.dev_examples, seed)
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
    aside = drawn_aside(len(items), dev_examples, seed)
    return list(compress(items, ~aside)), list(compress(items, aside))


def drawn_aside(number: int, dev_examples: int, seed: int) -> np.ndarray:
    """Which of so many items are set aside, bool[number].

    Raises:
        ConfigError: if nothing is left to train on.
    """
    if dev_examples >= number:
        raise ConfigError(f"config.data.dev_examples={dev_examples} leaves nothing of {number} examples to train on")
    aside = np.zeros(number, bool)
    aside[np.random.Generator(np.random.Philox(key=[seed, DEV_STREAM])).permutation(number)[:dev_examples]] = True
    return aside


def load_examples(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Encoded training and development sentences of `load_sentences`, i32[L] each; those of a text or the Hub lie on disk."""
    if config.corpus == "gap":
        train, dev = (encode_sentences(part, tokenizer, config.max_tokens) for part in load_sentences(config, seed))
        return train, dev
    store = corpus_store(config, tokenizer)
    aside = drawn_aside(store.num_texts, config.dev_examples, seed)
    return store.of_texts(~aside), store.of_texts(aside)


def corpus_store(config: DataConfig, tokenizer: PreTrainedTokenizerBase) -> TokenStore:
    """The encoded corpus in the cache folder, where all runs on this machine find it that read the same text the same way.

    Built by the first of them, with all processors; a killed one is gone on with.
    """
    forms: Forms = as_it_is
    if config.counterfactual != "none":
        forms = partial(sentence_forms, load_lexicon(config.lexicon), config.counterfactual, config.possessives)
    parts = {
        "version": STORE_VERSION,
        "text": corpus_content(config),
        "first": config.max_examples,
        "max_tokens": config.max_tokens,
        "swap": [config.counterfactual, config.possessives] if forms is not as_it_is else None,
        "tokenizer": tokenizer_content(tokenizer),
    }
    folder = cache_folder() / "tokens" / fingerprint_of([json.dumps(parts).encode()])
    with held(folder, wait=True):
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        sentences = shown(read_sentences(config), f"encoding {config.path}", sys.stderr.isatty())
        return build(sentences, tokenizer, config.max_tokens, folder, forms, processes)


def corpus_content(config: DataConfig) -> list[str]:
    """What says whether a corpus, its lexicon included, is the one of another time."""
    files = corpus_files(config)
    found = [config.corpus, files_fingerprint([file for of_field in files.values() for file in of_field])]
    if config.corpus == "hub":
        found += [config.subset, config.split, config.text_field]
        if not files["data.path"]:
            from ncfair_jax.files.hub import content_of

            found.append(content_of(config.path, config.subset, config.split, config.streaming))
    return found


def corpus_text(config: DataConfig) -> str:
    """The corpus and what was done to it, in words."""
    names = {"gap": "GAP", "text": "text", "hub": "Hub data set"}
    place = " ".join(part for part in (config.path, config.subset) if part)
    return f"{names[config.corpus]}{f' ({place})' if place else ''}{swap_text(config)}"


def swap_text(config: DataConfig) -> str:
    """Which sides of a counterfactual corpus there are, in words; "" for the text as it is."""
    swapped = {"one_sided": ", swapped counterfactuals only", "two_sided": ", originals and swapped counterfactuals"}
    return swapped.get(config.counterfactual, "")
