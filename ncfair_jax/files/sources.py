"""Where benchmark files come from: a local folder, or a public source pinned by its SHA-256."""

import hashlib
import http.client
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub.constants import HF_HUB_OFFLINE

from ncfair_jax.files import seat_files
from ncfair_jax.files.atomic import written
from ncfair_jax.files.reading import DataError
from ncfair_jax.fingerprint import cache_folder, file_fingerprints, files_fingerprint

TIMEOUT_S = 60


class Source(NamedTuple):
    """A public file and the SHA-256 of the version that the package was tested with."""

    url: str
    sha256: str


_RAW = "https://raw.githubusercontent.com"
SOURCES: dict[str, Source] = {
    "crows_pairs/crows_pairs_anonymized.csv": Source(
        f"{_RAW}/nyu-mll/crows-pairs/master/data/crows_pairs_anonymized.csv",
        "dfb36986ce0502abbaf7055b9176da3d08d48e07df1251991b5dfbcbceab9d0c",
    ),
    "stereoset/gender_intrasentence.json": Source(
        f"{_RAW}/zjunlp/EditBias/main/bias_tracing/data/domain/gender.json",
        "c200a615cf6d0c5f0bfd938f5a96fea9944efe974dc461bebbfe2f0eb6057705",
    ),
    "bec_pro/BEC-Pro_EN.tsv": Source(
        f"{_RAW}/marionbartl/gender-bias-BERT/master/BEC-Pro/BEC-Pro_EN.tsv",
        "228b44c62d7830fec13a1eee52bbe8afff82be455abb9d8a07c17d9d0b48e20f",
    ),
    "bec_pro/BEC-Pro_DE.tsv": Source(
        f"{_RAW}/marionbartl/gender-bias-BERT/master/BEC-Pro/BEC-Pro_DE.tsv",
        "1803abb492ebf28e64acaa8f12d5ccb24caf08847a06ba325d4b374e120af805",
    ),
    "eec/EEC_TM_TAM.tsv": Source(
        f"{_RAW}/marionbartl/gender-bias-BERT/master/data/EEC_TM_TAM.tsv",
        "d39058ab5eb7d4169f3ffd97e507410d31f90005df3ecd663b6452690e08b305",
    ),
    "gap/gap_flipped.tsv": Source(
        f"{_RAW}/marionbartl/gender-bias-BERT/master/data/gap_flipped.tsv",
        "d4857fd416a16a636ccc74b84041d887df0d2c66b34dec4694222439bd226479",
    ),
    "winobias/pro_stereotyped_type1.txt.dev": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/pro_stereotyped_type1.txt.dev",
        "dd55a0d220fe4c0ceb63dd4648223fb4fe1a58d5ad95c116a002ad24b0e292a5",
    ),
    "winobias/pro_stereotyped_type1.txt.test": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/pro_stereotyped_type1.txt.test",
        "db7838907238a758eeb5779e48f38c013b892910d6fe864456c59f04245c6689",
    ),
    "winobias/anti_stereotyped_type1.txt.dev": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/anti_stereotyped_type1.txt.dev",
        "a4e0ebae344e78b56f657a42e8ae684b9db7747d177c5e7149c0907ebb7f3bf6",
    ),
    "winobias/anti_stereotyped_type1.txt.test": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/anti_stereotyped_type1.txt.test",
        "331db5bd74bfefebf146a60b67645152a4a1991570d2a56f57154103ac361dd2",
    ),
    "winobias/pro_stereotyped_type2.txt.dev": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/pro_stereotyped_type2.txt.dev",
        "8f0250de723cea9328e3eaf7169e07936f01aa5909ce7aa580db66eb803f4e86",
    ),
    "winobias/pro_stereotyped_type2.txt.test": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/pro_stereotyped_type2.txt.test",
        "ea1c1fd94fa612e3cc44d7fa3cc4cb76021bb63fdf94f9826f430051e9052438",
    ),
    "winobias/anti_stereotyped_type2.txt.dev": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/anti_stereotyped_type2.txt.dev",
        "763ad829ad724f9a85ead689ba8ca69072020cb1238def6210f0fc6a47b97e59",
    ),
    "winobias/anti_stereotyped_type2.txt.test": Source(
        f"{_RAW}/uclanlp/corefBias/master/WinoBias/wino/data/anti_stereotyped_type2.txt.test",
        "336571ac1ea8c06cd2aba8e5dd2bd98e00acc0c48da3e4ec5ec7e54eb2633a8f",
    ),
    "winogender/all_sentences.tsv": Source(
        f"{_RAW}/rudinger/winogender-schemas/master/data/all_sentences.tsv",
        "bd69da16bf228cb8df63fd0843aec2d8b5c36a7f21bf8c7b168bcc83932556c8",
    ),
    "winogender/occupations-stats.tsv": Source(
        f"{_RAW}/rudinger/winogender-schemas/master/data/occupations-stats.tsv",
        "3f7f37c16381a70571356982ea7fe613ac700ad04a6d3b19b9f2be18248df567",
    ),
    "wikitext2/test.txt": Source(
        f"{_RAW}/pytorch/examples/main/word_language_model/data/wikitext-2/test.txt",
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
    **{
        f"seat/{name}.jsonl": Source(f"{seat_files.ADDRESS}/{name}.jsonl", sha256)
        for name, sha256 in seat_files.SHA256.items()
    },
}


class DataFolder(NamedTuple):
    """Finds benchmark files.

    Attributes:
        folder: a folder that holds them; None: a cache below the user's home, filled from the public sources.
        offline: never fetch; say what would have been fetched. By default as the Hugging Face libraries:
            HF_HUB_OFFLINE=1 forbids it.
    """

    folder: Path | None
    offline: bool = HF_HUB_OFFLINE

    def has(self, name: str) -> bool:
        """Whether an optional file is there; nothing is fetched."""
        return self.folder is not None and (self.folder / name).is_file()

    def path(self, name: str) -> Path:
        """Path of a file such as "bec_pro/BEC-Pro_EN.tsv", fetched if need be.

        Raises:
            DataError: if it is not there, cannot be fetched, or is not the pinned version.
        """
        source = SOURCES[name]
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

    def fingerprint(self, names: Sequence[str]) -> str:
        """Fingerprint of the contents of those of the files that a benchmark finds, fetched if need be.

        Args:
            names: every file that the benchmark reads, or reads if it is there.
        Raises:
            DataError: if a public file cannot be fetched.
        """
        if self.folder is None:
            return files_fingerprint({name: self.path(name) for name in names if name in SOURCES})
        return files_fingerprint({name: self.folder / name for name in names if self.has(name)})


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
