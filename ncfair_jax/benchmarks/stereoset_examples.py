"""The examples of StereoSet (Nadeem et al. 2021): its files, and how they are read."""

import string
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.files.reading import DataError, Place, RowError, accepted, read_json
from ncfair_jax.files.sources import GITHUB, DataFolder, Source

FILE = Source(
    "stereoset/gender_intrasentence.json",
    f"{GITHUB}/zjunlp/EditBias/main/bias_tracing/data/domain/gender.json",
    "c200a615cf6d0c5f0bfd938f5a96fea9944efe974dc461bebbfe2f0eb6057705",
)
SPLIT_FILE = Source("stereoset/gender_split_ids.json")
OFFICIAL_FILES = {split: Source(f"stereoset/{split}.json") for split in ("dev", "test")}
# The terms of the 255 gender examples in the official dev.json; the other 30 terms are in the test part.
GENDER_DEV_TARGETS = frozenset(
    {"gentlemen", "grandfather", "herself", "himself", "male", "mommy", "mother", "schoolboy", "schoolgirl", "sister"}
)
LABELS = ("stereotype", "anti-stereotype", "unrelated")
BLANK = "BLANK"
INTRASENTENCE, INTERSENTENCE = "intrasentence", "intersentence"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Example(NamedTuple):
    """A context and its sentences in the order stereotype, anti-stereotype, unrelated.

    Intrasentence, the context has a BLANK that the sentences fill; intersentence, they follow it. split is "dev", "test",
    or "" where unknown.
    """

    id: str
    target: str
    bias_type: str
    context: str
    sentences: tuple[str, str, str]
    split: str = ""

    @property
    def fillers(self) -> list[str]:
        """The sentences' words at the BLANK."""
        return [filler(self.context, sentence) for sentence in self.sentences]

    @property
    def faithful(self) -> bool:
        """Whether the filled sentences agree with the context everywhere but at the BLANK."""
        return all(_rest(self.context, self.context) == _rest(self.context, text) for text in self.sentences)


def read_examples(path: str | Path, split: str = "", part: str = INTRASENTENCE) -> list[Example]:
    """Reads the official layout (data.intrasentence) or the flat one (a list with stereotype/anti-stereotype/unrelated).

    Args:
        part: of the official layout, "intrasentence" or "intersentence".
    Raises:
        DataError: for a file that is not JSON, empty or of neither layout, or of which more than 1 % of the examples are
            malformed: a field or one of the three labels is missing or there twice, the id of an earlier example, or,
            intrasentence, no BLANK or a sentence without a word there.
    """
    content = read_json(path)
    layout = f"expected StereoSet's data.{part}, or a list of examples with id, target, bias_type, context and data"
    try:
        items = content if isinstance(content, list) else content["data"][part]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: no {error}; {layout}") from None
    if not isinstance(items, list) or not items:
        raise DataError(f"{path} has no examples; {layout}")
    seen: set[str] = set()

    def example(place: Place, item: Any) -> Example:
        found = _example(place, item, split, part, layout)
        if found.id in seen:
            raise RowError(place, "its id is there twice; give each example an id of its own")
        seen.add(found.id)
        return found

    names = (item.get("id") if isinstance(item, dict) else None for item in items)
    places = (Place(str(path), n, f"{path}: example {n} (id {name})") for n, name in enumerate(names, start=1))
    return list(accepted(zip(places, items, strict=True), example))


def _example(place: Place, item: Any, split: str, part: str, layout: str) -> Example:
    try:
        if "sentences" in item:
            labelled = [(sentence["gold_label"], sentence["sentence"]) for sentence in item["sentences"]]
        else:
            labelled = [(label, sentence["sentence"]) for label, sentence in item["data"].items()]
        name, target, bias_type, context = (item[field] for field in ("id", "target", "bias_type", "context"))
    except (KeyError, TypeError, AttributeError) as error:
        raise RowError(place, f"no {error}; {layout}") from None
    labels = [label for label, _ in labelled]
    if sorted(map(str, labels)) != sorted(LABELS):
        raise RowError(place, f"its sentences are labelled {labels}; expected one each of {', '.join(LABELS)}")
    sentences = dict(labelled)
    stereotype, anti, unrelated = (sentences[label] for label in LABELS)
    texts = (name, target, bias_type, context, stereotype, anti, unrelated)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise RowError(place, f"a field is empty or no text among {texts}")
    example = Example(name, target, bias_type, context, (stereotype, anti, unrelated), split)
    if part == INTRASENTENCE:
        if BLANK not in context:
            raise RowError(place, f"its context {context!r} has no {BLANK}")
        try:
            _ = example.fillers
        except ValueError as error:
            raise RowError(place, str(error)) from None
    return example


def _blanks(context: str) -> list[int]:
    """Numbers of the words that hold a BLANK, counted in single spaces."""
    return [number for number, word in enumerate(context.split(" ")) if BLANK in word]


def _rest(context: str, sentence: str) -> list[str]:
    """The words of a filled sentence but those at BLANKs, case aside."""
    blanks = _blanks(context)
    return [word for number, word in enumerate(sentence.lower().split(" ")) if number not in blanks]


def filler(context: str, sentence: str) -> str:
    """The word of the filled sentence at the place of the (last) BLANK, counted in single spaces, without ASCII punctuation.

    Three of the official examples have two BLANKs.

    Raises:
        ValueError: if the sentence has no word there.
    """
    place = _blanks(context)[-1]
    words = sentence.split(" ")
    word = words[place].translate(_NO_PUNCTUATION) if place < len(words) else ""
    if not word:
        raise ValueError(f"sentence {sentence!r} has no word at the BLANK of {context!r}; correct the file")
    return word


def load_examples(data: DataFolder) -> list[Example]:
    """The examples of a data folder: official dev.json and test.json where there are any, else the gender file.

    The gender file's split comes from gender_split_ids.json or, without it, from the target terms of the official dev part.
    """
    official = {split: file for split, file in OFFICIAL_FILES.items() if data.has(file)}
    if official:
        return [e for split, file in official.items() for e in read_examples(data.path(file), split)]
    examples = read_examples(data.path(FILE))
    if data.has(SPLIT_FILE):
        splits = read_json(data.path(SPLIT_FILE))
        if not isinstance(splits, dict) or not all(isinstance(splits.get(name), list) for name in ("dev", "test")):
            raise DataError(f"{data.path(SPLIT_FILE)}: expected an object with the lists dev and test of examples' ids")
        dev, test = frozenset(splits["dev"]), frozenset(splits["test"])
        return [e._replace(split="dev" if e.id in dev else "test" if e.id in test else "") for e in examples]
    return [e._replace(split="dev" if e.target in GENDER_DEV_TARGETS else "test") for e in examples]
