"""Text columns of data sets on the Hugging Face Hub, or of a local folder that `datasets` understands."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub

from ncfair_jax.files.bucket import BucketPath, path_of
from ncfair_jax.files.copies import local_folder
from ncfair_jax.files.fingerprint import files_fingerprint
from ncfair_jax.files.reading import DataError, Place, Records, RowError, accepted, check_visible


def read_hub(
    name: str,
    *,
    subset: str = "",
    split: str = "train",
    text_field: str = "text",
    streaming: bool = False,
    max_examples: int = 0,
) -> Iterator[str]:
    """Texts of one column, in order, as they are read; blank ones are left out.

    With HF_HUB_OFFLINE=1 only the local cache is used. Neither code from the Hub nor pickles are ever run: `datasets`
    (from 4.0) reads data files alone, and refuses pickled ones.

    Args:
        name: `owner/name` on the Hub, or a folder (on disk or a bucket) of parquet, json, csv or text files.
        subset: configuration of the data set, "" for its only or default one.
        split: also a slice such as `train[:1%]` where not streaming.
        streaming: read over the network as needed instead of fetching the whole split first.
        max_examples: stop after so many texts; 0 = all.
    Raises:
        DataError: not available (saying what would have been fetched), no such split or column, or no text in it; when the
            reading comes there.
    """
    what = described(name, subset, split)
    rows = _not_blank(load_rows(name, subset, split, streaming), text_field, what)

    def text(place: Place, row: Mapping[str, Any]) -> str:
        found = row[text_field]
        if not isinstance(found, str):
            raise RowError(place, f"column {text_field!r} holds {found!r}; expected text")
        check_visible(found, place)
        return found.strip()

    number = 0
    for number, found in enumerate(accepted(rows, text, max_examples), start=1):  # noqa: B007
        yield found
    if not number:
        raise DataError(f"{what}: column {text_field!r} holds no text")


def content_of(name: str, subset: str, split: str, streaming: bool) -> str:
    """What says whether a data set of the Hub is the one of another time: fingerprint of its files, or the Hub's commit.

    Raises:
        DataError: as `load_rows`, or the Hub cannot be asked.
    """
    if not streaming:
        rows = load_rows(name, subset, split)
        return files_fingerprint([Path(file["filename"]) for file in rows.cache_files])
    try:
        return str(huggingface_hub.dataset_info(name).sha)
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise DataError(f"{described(name, subset, split)}: {_first_line(error)}; check name and network") from None


def described(name: str, subset: str, split: str) -> str:
    """How messages name a data set."""
    return f"data set {name!r}" + (f", subset {subset!r}" if subset else "") + f", split {split!r}"


def load_rows(name: str, subset: str = "", split: str = "train", streaming: bool = False) -> Any:
    """The rows of one split, as `datasets` has them; arguments as in `read_hub`.

    Raises:
        DataError: not available, or no such subset or split.
    """
    what = described(name, subset, split)
    if isinstance(folder := path_of(name), BucketPath):
        name = str(local_folder(folder, folder.rglob("*")))
    try:
        return datasets.load_dataset(name, subset or None, split=split, streaming=streaming)
    except (ConnectionError, FileNotFoundError) as error:
        if datasets.config.HF_HUB_OFFLINE:
            reason = "offline mode forbids fetching it from the Hugging Face Hub; fetch it once online, or unset HF_HUB_OFFLINE"
        else:
            reason = f"cannot be fetched from the Hugging Face Hub ({_first_line(error)}); check name and network"
        raise DataError(f"{what}: not here, and {reason}") from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{what}: {_first_line(error)}") from None


def _not_blank(rows: Any, text_field: str, what: str) -> Records[Mapping[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if text_field not in row:
            raise DataError(f"{what}: no column {text_field!r}; choose from {sorted(row)}")
        if not isinstance(row[text_field], str) or row[text_field].strip():
            yield Place(what, number, f"{what}, row {number}"), row


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
