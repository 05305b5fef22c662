"""GAP, the corpus of ambiguous pronouns (Webster et al. 2018), or its gender-flipped form of Bartl et al. 2020."""

import re
from pathlib import Path

from ncfair_jax.files.reading import Place, accepted, check_visible
from ncfair_jax.files.rows import Row, text_cell
from ncfair_jax.files.tables import tab_separated, table_rows

FILE = "gap/gap_flipped.tsv"  # in a folder of data: as released by BEC
TEXT = "Text"

# A sentence ends at .?! with closing quotes or brackets, before a blank and what can begin a sentence.
# The corpus writes opening quotes as ``.
SENTENCE_END = re.compile(r"(?P<mark>[.?!]+[\"'”’»)\]]*)(?P<blank>\s+)(?=[\"'“‘«(\[`]*[^\W_a-z])")
# A single period after one of these, or after an initial, does not end a sentence.
_ABBREVIATIONS = """
    mr mrs ms mme mlle dr prof rev hon st ste sr jr mt ft gen col capt cmdr lt lieut sgt maj adm gov sen rep pres supt
    insp vs etc cf eg ie al ca fl approx no nos vol vols ed eds pp fig inc ltd co corp bros dept univ
    jan feb mar apr jun jul aug sept sep oct nov dec ph.d
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
WORD_BEFORE = re.compile(r"[^\s\"“«(\[`]*$")


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences by a deterministic rule; no sentence is empty and none has outer blanks.

    It splits after `.?!` with closing quotes or brackets, before blanks and a capital, a digit or an opening quote or
    bracket, unless a lone period follows an abbreviation or an initial. (The original work used NLTK's Punkt model,
    whose data would have to be downloaded.)
    """
    sentences = []
    start = 0
    for match in SENTENCE_END.finditer(text):
        if match["mark"] == "." and _abbreviates(text[start : match.start()]):
            continue
        sentences.append(text[start : match.start("blank")].strip())
        start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def read_gap(path: str | Path) -> list[str]:
    """Sentences of the column Text of a GAP file (tab separated, with a header), in file order.

    Only Text is flipped in the released file: the other columns describe the original text and are not used. Its 4454
    rows give 13,189 sentences (14.0 thousand if every period before a capital ended one).

    Raises:
        DataError: missing, empty or undecodable file, no column Text, or more than 1 % malformed rows.
    """
    rows = table_rows(tab_separated(path), path, (TEXT,))
    return [sentence for sentences in accepted(rows, _sentences) for sentence in sentences]


def _sentences(place: Place, row: Row) -> list[str]:
    text = text_cell(row, (TEXT,), place)
    sentences = split_sentences(text)
    for sentence in sentences or [text]:
        check_visible(sentence, place)
    return sentences


def _abbreviates(before: str) -> bool:
    found = WORD_BEFORE.search(before)
    word = found.group().lstrip("'‘") if found else ""
    initials = re.fullmatch(r"(?:[A-Za-z]\.-?)*[A-Za-z]", word) is not None and word != "I"
    return initials or word.lower() in ABBREVIATIONS
