"""Text columns of data sets on the Hugging Face Hub, or of a local folder that `datasets` understands."""

from itertools import islice
from typing import Any

import datasets

from ncfair_jax.data.files import CorpusError, check_visible


def read_hub(
    name: str,
    *,
    subset: str = "",
    split: str = "train",
    text_field: str = "text",
    streaming: bool = False,
    max_examples: int = 0,
) -> list[str]:
    """Texts of one column, in order; blank ones are skipped.

    With HF_HUB_OFFLINE=1 only the local cache is used. Neither code from the Hub nor pickles are ever run: `datasets`
    (from 4.0) reads data files alone, and refuses pickled ones.

    Args:
        name: `owner/name` on the Hub, or a local folder of parquet, json, csv or text files.
        subset: configuration of the data set, "" for its only or default one.
        split: also a slice such as `train[:1%]` where not streaming.
        streaming: read over the network as needed instead of fetching the whole split first.
        max_examples: stop after so many texts; 0 = all.
    Raises:
        CorpusError: not available (saying what would have been fetched), no such split or column, or no text in it.
    """
    what = described(name, subset, split)
    texts = _texts(load_rows(name, subset, split, streaming), text_field, what)
    found = list(islice(texts, max_examples or None))
    if not found:
        raise CorpusError(f"{what}: column {text_field!r} holds no text")
    return found


def described(name: str, subset: str, split: str) -> str:
    """How messages name a data set."""
    return f"data set {name!r}" + (f", subset {subset!r}" if subset else "") + f", split {split!r}"


def load_rows(name: str, subset: str = "", split: str = "train", streaming: bool = False) -> Any:
    """The rows of one split, as `datasets` has them; arguments as in `read_hub`.

    Raises:
        CorpusError: not available, or no such subset or split.
    """
    what = described(name, subset, split)
    try:
        return datasets.load_dataset(name, subset or None, split=split, streaming=streaming)
    except (ConnectionError, FileNotFoundError) as error:
        if datasets.config.HF_HUB_OFFLINE:
            reason = "offline mode forbids fetching it from the Hugging Face Hub; fetch it once online, or unset HF_HUB_OFFLINE"
        else:
            reason = f"cannot be fetched from the Hugging Face Hub ({_first_line(error)}); check name and network"
        raise CorpusError(f"{what}: not here, and {reason}") from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise CorpusError(f"{what}: {_first_line(error)}") from None


def _texts(rows: Any, text_field: str, what: str) -> Any:
    for number, row in enumerate(rows):
        if text_field not in row:
            raise CorpusError(f"{what}: no column {text_field!r}; choose from {sorted(row)}")
        text = row[text_field]
        if not isinstance(text, str):
            raise CorpusError(f"{what}: row {number} of column {text_field!r} is a {type(text).__name__}, not text")
        if text.strip():
            check_visible(text, what, number)
            yield text.strip()


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
