"""The readings of "her" and "his": sentences, and their share of right ones in text whose reading is known."""

import csv
import re

import pytest

from ncfair_jax.lexicons.pronouns import DETERMINER, PRONOUN, reading

# Each pronoun of a sentence is followed by d (determiner) or p (pronoun) in its place here.
CASES = {
    # her
    "Give her/p the book.": "article",
    "I saw her/p yesterday.": "adverb of time",
    "I saw her/p. Her/d car": "end of the clause",
    "her/d car": "noun",
    "Her/d 1992 album, her/d 2 dogs": "number",
    "told her/p that her/d book is on her/d desk": "conjunction",
    "loved her/p very much but her/d very own way": "word that is looked past",
    "greeted her/p warmly; her/d newly built house": "adverb",
    "met her/d family and left her/p": "noun that ends like an adverb",
    "made her/p angry; her/d angry answer": "adjective",
    "had her/p arrested, her/d beloved and betrayed friend": "participle",
    "let her/p try, made her/p feel well": "infinitive",
    "call her/p back, behind her/d back": "back",
    "drove her/p home, sold her/d home": "home",
    "charged her/p one of them; her/d one wish": "one",
    "to her/p, I think": "comma",
    'the "love of her/d life" is "about her/p" now': "quotes",
    "her/d 'best friend' and her/d (then) husband": "opening quote or bracket",
    "her/d US team asked her/p us": "acronym",
    "I SAW HER/p AND LEFT HER/d BOOK": "capitals",
    "her/d on-screen death , her/d on @-@ screen death": "hyphens",
    "her/p": "end of the text",
    "[her/d] life, saw [her/p].": "brackets",
    # his
    "The car is his/p.": "predicate",
    "a friend of his/p in Rome and his/d friend": "preposition",
    "his/p is red; his/p and mine": "auxiliary",
    "his/d or her/d book, his/d / their book": "coordination",
    "is it his/p or hers": "coordination of pronouns",
    "gave his/d money; let his/d hair grow; his/d every move": "never an object",
    "In his/d will": "noun and auxiliary",
}


@pytest.mark.parametrize("case", CASES, ids=CASES.values())
def test_readings(case):
    text, wanted = "", []
    for piece in re.split(r"(/[dp])", case):
        if piece in ("/d", "/p"):
            wanted.append((len(text), DETERMINER if piece == "/d" else PRONOUN))
        else:
            text += piece
    assert [reading(text, end - 3, end) for end, _ in wanted] == [found for _, found in wanted]


def known_by_the_male_form(text: str) -> list[tuple[str, int, str]]:
    """Every "his" and "him" of a text written as "her": the text, its place, and the reading that the male form tells."""
    places = []
    for match in re.finditer(r"\b(?:his|him)\b", text, re.IGNORECASE):
        her = "Her" if match.group()[0].isupper() else "her"
        known = DETERMINER if match.group().lower() == "his" else PRONOUN  # a rare "is his" counts as wrong
        places.append((text[: match.start()] + her + text[match.end() :], match.start(), known))
    return places


def known_by_the_twin(text: str, twin: str) -> list[tuple[str, int, str]]:
    """Every "her" and "his" of a text that its twin of the other gender has another word for."""
    words, others = (list(re.finditer(r"\w+|[^\w\s]", side)) for side in (text, twin))
    readings = {"his": DETERMINER, "him": PRONOUN, "her": DETERMINER, "hers": PRONOUN}
    pairs = [(a, b.group().lower()) for a, b in zip(words, others, strict=False)] if len(words) == len(others) else []
    known = {"her": ("his", "him"), "his": ("her", "hers")}
    return [(text, a.start(), readings[b]) for a, b in pairs if b in known.get(a.group().lower(), ())]


def share_right(places: list[tuple[str, int, str]]) -> float:
    return sum(reading(text, start, start + 3) == known for text, start, known in places) / len(places)


# Right shares in the comment; next_word, the rule documented for MABEL, in brackets. The rule was written looking at errors in
# GAP, WikiText-2 and WinoBias; Winogender and CrowS-Pairs were only scored.
@pytest.mark.parametrize(
    ("file", "number", "least"), [("wikitext2/valid.txt", 908, 0.97), ("wikitext2/test.txt", 1420, 0.98)]
)
def test_wikitext(shared, file, number, least):  # 97.9 % (87.4), 98.6 % (87.0)
    lines = shared(f"data/{file}").read_text(encoding="utf-8").splitlines()
    places = [place for line in lines if not line.strip().startswith("= ") for place in known_by_the_male_form(line)]
    assert len(places) == number
    assert share_right(places) >= least


def test_gap(shared):  # 97.4 % (91.3)
    lines = shared("data/gap/gap_flipped.tsv").read_text(encoding="utf-8").splitlines()[1:]
    places = [place for line in lines for place in known_by_the_male_form(line.split("\t")[2])]
    assert len(places) == 3762
    assert share_right(places) >= 0.97


def test_winogender(shared):  # all right (98.3)
    lines = shared("data/winogender/all_sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]
    sentences = dict(line.split("\t") for line in lines)
    pairs = [(s, sentences[key.replace(".male.", ".female.")]) for key, s in sentences.items() if ".male." in key]
    places = [place for a, b in pairs for place in known_by_the_twin(a, b) + known_by_the_twin(b, a)]
    assert len(places) == 62 + 54
    assert share_right(places) == 1.0


def test_crows_pairs(shared):  # 98.7 % (94.0)
    with shared("data/crows_pairs/crows_pairs_anonymized.csv").open(encoding="utf-8", newline="") as file:
        pairs = [(row["sent_more"], row["sent_less"]) for row in csv.DictReader(file)]
    places = [place for a, b in pairs for place in known_by_the_twin(a, b) + known_by_the_twin(b, a)]
    assert len(places) == 82 + 67
    assert share_right(places) >= 0.98


def test_winobias(shared):  # 96.7 % (73.1)
    places = []
    for kind in (1, 2):
        for part in ("dev", "test"):
            names = [f"data/winobias/{side}_stereotyped_type{kind}.txt.{part}" for side in ("pro", "anti")]
            sides = [shared(name).read_text(encoding="utf-8").splitlines() for name in names]
            for pair in zip(*sides, strict=True):
                # Only the bracketed pronoun is swapped; the marks go with the brackets.
                pro, anti = (re.sub(r"^\d+\s+|[\[\]]", "", line) for line in pair)
                places += known_by_the_twin(pro, anti) + known_by_the_twin(anti, pro)
    assert len(places) > 900
    assert share_right(places) >= 0.96
