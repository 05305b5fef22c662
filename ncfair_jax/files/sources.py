"""Where benchmark files come from: a local folder, or a public source pinned by its SHA-256."""

import hashlib
import http.client
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub.constants import HF_HUB_OFFLINE

from ncfair_jax.files.atomic import written
from ncfair_jax.files.fingerprint import cache_folder, file_fingerprints, files_fingerprint
from ncfair_jax.files.reading import DataError

TIMEOUT_S = 60


class Source(NamedTuple):
    """A file of a data folder, and where it comes from.

    Attributes:
        name: its path below the folder, such as "bec_pro/BEC-Pro_EN.tsv".
        url: of the public file; "" = there is none.
        sha256: of the version that the package was tested with.
    """

    name: str
    url: str = ""
    sha256: str = ""


GITHUB = "https://raw.githubusercontent.com"
# Texts that both methods and benchmarks read; the files of a benchmark stand with it.
GAP = Source(
    "gap/gap_flipped.tsv",
    f"{GITHUB}/marionbartl/gender-bias-BERT/master/data/gap_flipped.tsv",
    "d4857fd416a16a636ccc74b84041d887df0d2c66b34dec4694222439bd226479",
)
WIKITEXT2 = Source(
    "wikitext2/test.txt",
    f"{GITHUB}/pytorch/examples/main/word_language_model/data/wikitext-2/test.txt",
    "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
)


class DataFolder(NamedTuple):
    """Finds benchmark files.

    Attributes:
        folder: a folder that holds them; None: a cache below the user's home, filled from the public sources.
        offline: never fetch; say what would have been fetched. By default as the Hugging Face libraries:
            HF_HUB_OFFLINE=1 forbids it.
    """

    folder: Path | None
    offline: bool = HF_HUB_OFFLINE

    def has(self, source: Source) -> bool:
        """Whether an optional file is there; nothing is fetched."""
        return self.folder is not None and (self.folder / source.name).is_file()

    def path(self, source: Source) -> Path:
        """Path of a file, fetched if need be.

        Raises:
            DataError: if it is not there, cannot be fetched, or is not the pinned version.
        """
        name = source.name
        if self.folder is not None:
            if not (self.folder / name).is_file():
                raise DataError(
                    f"{self.folder / name} is missing; get it from {source.url}, or leave out the data folder"
                )
            return self.folder / name
        cached = cache_folder() / source.sha256[:16] / Path(name).name
        if not cached.is_file():
            if self.offline:
                raise DataError(
                    f"{name} is not in the cache and this run is offline; it would have been fetched from {source.url} "
                    f"(sha256 {source.sha256}) to {cached}: put it there, or name a data folder that has it"
                )
            fetch(source, cached)
        found = file_fingerprints([cached])[cached]
        if found != source.sha256[: len(found)]:
            raise DataError(
                f"{cached} is not the pinned version of {name}: its sha256 begins with {found}, expected {source.sha256}; "
                f"delete it, or name a data folder to use it nevertheless"
            )
        return cached

    def fingerprint(self, sources: Sequence[Source]) -> str:
        """Fingerprint of the contents of those of the files that a benchmark finds, fetched if need be.

        Args:
            sources: every file that the benchmark reads, or reads if it is there.
        Raises:
            DataError: if a public file cannot be fetched.
        """
        if self.folder is None:
            return files_fingerprint({source.name: self.path(source) for source in sources if source.url})
        return files_fingerprint({source.name: self.folder / source.name for source in sources if self.has(source)})


def fetch(source: Source, destination: Path) -> None:
    """Downloads a file, checks its SHA-256 and puts it in place, whole or not at all.

    Raises:
        DataError: if it cannot be reached or is another version.
    """
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_S) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError; a cut-off answer is not
        raise DataError(f"cannot fetch {source.url} ({error}); get it another way and name its data folder") from error
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise DataError(
            f"{source.url} has sha256 {found}, expected {source.sha256}: it was changed or cut off; "
            "check it, and name a data folder to use it nevertheless"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with written(destination) as temporary:
        temporary.write_bytes(content)
