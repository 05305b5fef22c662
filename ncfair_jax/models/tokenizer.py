"""The tokenizer of a Hugging Face folder: read, checked against the model and against its own vocabulary, written."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ncfair_jax.models.base import ModelConfig
from ncfair_jax.models.folders import TOKENIZER_CONFIG, TOKENIZER_FILES, ModelFolderError, one_line, read_json, refuse

_SPARE_ROWS = (
    1024  # vocabularies are padded to a multiple of 8 to 512; more rows without a token is the wrong tokenizer
)
# Measured: 29% of the entries of BERT's cased vocabulary have capital letters, 0% of the uncased one; by multilingual
# pieces 16 to 18%.
_MOST_CAPITALISED = 0.05  # of an uncased vocabulary's entries
_LEAST_CASED = 0.5  # below, most of the vocabulary is of scripts without capitals, and case says little about it
_PROBE_WORDS = 200
_PROBE = "A \u2603 walks."  # encoding it fails where known pieces, or what stands for unknown ones, are missing
_MOST_UNKNOWN = 0.5


def read_tokenizer(folder: Path, config: ModelConfig) -> PreTrainedTokenizerBase:
    """The folder's fast tokenizer, without truncation and padding.

    Raises:
        ModelFolderError: if there is none, it does not work, or it does not fit the model or its own vocabulary.
    """
    # Checked here because transformers 5 makes a tokenizer of five tokens out of a folder without vocabulary.
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        choices = " or ".join(" + ".join(names) for names in TOKENIZER_FILES)
        raise ModelFolderError(
            f"{folder} has no tokenizer files (expected {choices}); copy them from the original model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
        problems = _problems(tokenizer, config) or case_problems(tokenizer)
        if not problems:
            _reset(tokenizer)
            tokenizer(_PROBE)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever the tokenizer libraries raise (a panic of theirs is no Exception)
        reason = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            one_line(f"{folder}: the tokenizer does not work ({type(error).__name__}: {reason}); copy its files again")
        ) from error
    refuse(folder, problems)
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes the tokenizer's files, without what says how it was loaded here."""
    _reset(tokenizer)
    tokenizer.save_pretrained(folder)
    path = folder / TOKENIZER_CONFIG
    content = read_json(path)
    for name in ("is_local", "local_files_only", "name_or_path"):
        content.pop(name, None)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def case_problems(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is wrong where a tokenizer lower-cases and its vocabulary does not, or the reverse; [] if they fit.

    A vocabulary says itself whether it is cased, in any language: by its entries with capital letters where text is
    lower-cased, and by its own words, capitalised, where text is not. Vocabularies mostly of scripts without capitals fit
    both ways.
    """
    entries = [entry for entry in tokenizer.get_vocab() if not re.fullmatch(r"\[.*\]|<.*>", entry)]
    cased = [entry for entry in entries if entry.lower() != entry.upper()]
    capitalised = sorted(entry for entry in cased if entry != entry.lower())
    vocabulary_is_cased = len(capitalised) > _MOST_CAPITALISED * len(entries)
    if _lower_cases(tokenizer):
        if not vocabulary_is_cased:
            return []
        return [
            f"the tokenizer lower-cases all text, but {len(capitalised):,} of the {len(entries):,} entries of its vocabulary "
            f"have capital letters (such as {_examples(capitalised)}) and can never occur; "
            f'set "do_lower_case": false in {TOKENIZER_CONFIG} (add the file if there is none)'
        ]
    if vocabulary_is_cased or tokenizer.unk_token is None or len(cased) < _LEAST_CASED * len(entries):
        return []
    words = sorted(entry for entry in cased if entry.isalpha() and entry == entry.lower() and len(entry) > 2)
    probe = [word.capitalize() for word in words[:: max(1, len(words) // _PROBE_WORDS)]]
    unknown = [word for word in probe if tokenizer.unk_token in tokenizer.tokenize(word)]
    if len(unknown) <= _MOST_UNKNOWN * len(probe):
        return []
    return [
        f"the tokenizer keeps capital letters, but its vocabulary has next to none: {len(unknown)} of {len(probe)} of its own "
        f"words, capitalised (such as {_examples(unknown)}), are unknown to it; "
        f'set "do_lower_case": true in {TOKENIZER_CONFIG} (add the file if there is none)'
    ]


def _lower_cases(tokenizer: PreTrainedTokenizerBase) -> bool:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "A" not in normalizer.normalize_str("A")


def _examples(entries: Sequence[str]) -> str:
    """Three of them, whole words if there are any."""
    words = [entry for entry in entries if entry.isalpha() and len(entry) > 2] or list(entries)
    return ", ".join(words[:: max(1, len(words) // 3)][:3])


def _problems(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> list[str]:
    problems = []
    if not tokenizer.is_fast:
        problems.append(f"{type(tokenizer).__name__} is not a fast tokenizer; save it once as tokenizer.json")
    if not len(tokenizer) <= config.vocab_size < len(tokenizer) + _SPARE_ROWS:
        problems.append(
            f"the tokenizer has {len(tokenizer):,} tokens, the model's vocabulary {config.vocab_size:,} rows; "
            f"take the tokenizer of this model"
        )
    token, last = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if last >= config.vocab_size:
        problems.append(
            f"the tokenizer gives {token!r} the id {last:,}, the model's vocabulary has {config.vocab_size:,} rows; "
            f"take the tokenizer of this model"
        )
    for name in () if config.causal else ("mask", "cls", "sep", "pad"):
        if getattr(tokenizer, f"{name}_token_id") is None:
            problems.append(f"the tokenizer has no {name} token; set {name}_token in {TOKENIZER_CONFIG}")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != config.pad_token_id:
        problems.append(
            f"the tokenizer pads with id {tokenizer.pad_token_id}, config.json says pad_token_id={config.pad_token_id}; "
            f"make them equal"
        )
    return problems


def _reset(tokenizer: PreTrainedTokenizerBase) -> None:
    """Forgets truncation and padding, which a tokenizer.json may carry and every padded call leaves behind."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
