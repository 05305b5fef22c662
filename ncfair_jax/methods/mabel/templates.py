"""Entailed pairs of sentences made from templates: what MABEL can be run on without SNLI and MNLI.

The hypothesis says less than the premise, so it follows from it. Both genders fill every template alike.
"""

import re

import numpy as np

PAIRS = 8000  # distinct pairs; the templates hold several times as many
STREAM = 3  # key of the generator: the pairs are one fixed corpus, whatever a run's seed

# (male, female). Names in braces are filled; a capital first letter there gives one in the text.
GENDERED = {
    "person": (("man", "woman"), ("boy", "girl"), ("father", "mother"), ("gentleman", "lady"), ("king", "queen")),
    "relative": (
        ("brother", "sister"), ("son", "daughter"), ("husband", "wife"), ("nephew", "niece"),
        ("grandfather", "grandmother"),
    ),
    "people": (("men", "women"), ("boys", "girls"), ("fathers", "mothers"), ("brothers", "sisters")),
    "he": (("he", "she"),),
    "his": (("his", "her"),),
    "himself": (("himself", "herself"),),
}  # fmt: skip
NEUTRAL = {
    "trait": ("young", "tall", "cheerful", "tired", "patient", "polite", "brave", "wealthy"),
    "job": (
        "nurse", "doctor", "teacher", "carpenter", "librarian", "pilot", "secretary", "lawyer", "dancer", "mechanic",
        "cleaner", "manager", "programmer", "hairdresser", "plumber", "surgeon",
    ),
    "doing": (
        "reading a newspaper", "playing the guitar", "eating a sandwich", "painting a fence", "riding a bicycle",
        "carrying a suitcase", "taking a photograph", "drinking coffee", "selling flowers", "washing a car",
    ),
    "group_doing": ("playing cards", "waiting in line", "singing a song", "building a wall", "watching a film"),
    "place": (
        "in the park", "at the station", "near the river", "in front of a shop", "on the beach", "in the kitchen",
        "outside the school", "at the market",
    ),
    "workplace": ("hospital", "school", "hotel", "factory", "theatre", "bank", "library", "town hall"),
    "thing": ("coat", "watch", "camera", "book", "bicycle", "guitar", "suitcase", "phone"),
    "colour": ("red", "blue", "green", "brown", "white", "grey"),
    "feeling": ("happy", "hungry", "nervous", "worried", "bored", "proud"),
    "number": ("two", "three", "four", "five"),
}  # fmt: skip
TEMPLATES = (
    ("A {trait} {person} is {doing} {place}.", "A {person} is {doing}."),
    ("A {trait} {person} is {doing} {place}.", "Somebody is {place}."),
    ("The {person} in the {colour} coat is {doing}.", "The {person} is wearing something {colour}."),
    ("{Number} {people} are {group_doing} {place}.", "Some {people} are {place}."),
    ("{Number} {trait} {people} are {group_doing}.", "{Number} people are {group_doing}."),
    ("The {trait} {person} works as a {job} at the {workplace}.", "The {person} is a {job}."),
    ("The {person} works as a {job} at the {workplace}.", "Somebody has a job at the {workplace}."),
    ("{He} is a {trait} {job} who likes {doing}.", "{He} likes {doing}."),
    ("The {job} told {his} {relative} that {he} was {feeling}.", "The {job} spoke to {his} {relative}."),
    ("The {job} left {his} {colour} {thing} at the {workplace}.", "The {job} left {his} {thing} behind."),
    ("The {job} bought {himself} a {colour} {thing}.", "The {job} has a {colour} {thing}."),
    ("{His} {relative} is {doing} {place}, and {he} is {feeling}.", "{He} is {feeling}."),
    ("My {relative} became a {job} because {he} was {trait}.", "My {relative} was {trait}."),
)
FIELD = re.compile(r"\{(\w+)\}")


def template_pairs(count: int = PAIRS) -> list[tuple[str, str]]:
    """The first `count` distinct (premise, hypothesis) of one fixed order.

    Raises:
        ValueError: if count is not between 1 and `PAIRS`.
    """
    if not 1 <= count <= PAIRS:
        raise ValueError(f"count={count}; the templates give 1 to {PAIRS} pairs")
    rng = np.random.Generator(np.random.Philox(key=[0, STREAM]))
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        premise, hypothesis = TEMPLATES[rng.integers(len(TEMPLATES))]
        gender = int(rng.integers(2))
        words = {}
        for name in dict.fromkeys(field.lower() for field in FIELD.findall(premise)):
            options = NEUTRAL.get(name) or tuple(pair[gender] for pair in GENDERED[name])
            words[name] = options[rng.integers(len(options))]
        found[_filled(premise, words), _filled(hypothesis, words)] = None
    return list(found)


def _filled(template: str, words: dict[str, str]) -> str:
    def word(match: re.Match[str]) -> str:
        name = match.group(1)
        found = words[name.lower()]
        return found[:1].upper() + found[1:] if name[0].isupper() else found

    return FIELD.sub(word, template)
