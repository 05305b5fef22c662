"""Sentences of a generated world: English text in which occupation and gender are correlated by a known amount.

The planted bias is the ground truth that benchmarks must find, and that debiasing must lower; `world.write_world` writes
everything that a run needs.

Twenty-four occupations belong to a female, a male or a balanced group, one of each group at every workplace, so that the
workplace tells nothing about gender. Where a sentence names an occupation and a person's gender, the group's gender
appears with probability `bias`, the other one otherwise; .5 in the balanced group and in sentences without occupation.
Workplaces and person words differ in frequency as words do, so that a model learns the frequent ones first and fast.
Nothing else depends on gender. Which occupation is in which group follows common stereotypes, but is the generator's
choice and no statement about the world.

A sentence and its counterpart (the other gender's wording) are always used or left out together, so that keeping the
benchmarks' and held-out sentences out of the corpus changes no probability.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

GENDERS = ("male", "female")
# (male, female). No "him" or "hers": "her" must have one counterpart for a swap to be its own inverse.
PRONOUNS = {"he": ("he", "she"), "his": ("his", "her"), "himself": ("himself", "herself")}
# The person words of BEC-Pro, in its order; the remaining pairs occur in the corpus only.
BEC_PERSONS = (
    ("he", "she"), ("man", "woman"), ("brother", "sister"), ("son", "daughter"), ("husband", "wife"),
    ("boyfriend", "girlfriend"), ("father", "mother"), ("uncle", "aunt"), ("dad", "mom"),
)  # fmt: skip
PERSONS = (
    *BEC_PERSONS,
    ("nephew", "niece"),
    ("grandfather", "grandmother"),
)


class Job(NamedTuple):
    """An occupation; its tool goes with it whatever the gender."""

    name: str
    group: str  # "female", "male" or "balanced"
    work: str
    tool: str


# Workplace: job and tool of the female, the male and the balanced group. After "a", so none begins with a vowel.
WORKPLACES = {
    "hospital": (("nurse", "bandage"), ("surgeon", "scalpel"), ("therapist", "cushion")),
    "school": (("teacher", "blackboard"), ("janitor", "broom"), ("tutor", "textbook")),
    "library": (("librarian", "catalogue"), ("guard", "torch"), ("writer", "pen")),
    "hotel": (("receptionist", "telephone"), ("porter", "trolley"), ("bartender", "bottle")),
    "market": (("florist", "bouquet"), ("butcher", "knife"), ("baker", "dough")),
    "theatre": (("dancer", "costume"), ("drummer", "drum"), ("painter", "brush")),
    "workshop": (("dressmaker", "needle"), ("carpenter", "hammer"), ("potter", "clay")),
    "kitchen": (("dietitian", "menu"), ("chef", "pan"), ("cook", "spoon")),
}
GROUPS = ("female", "male", "balanced")
JOBS = tuple(
    Job(name, group, work, tool)
    for work, trio in WORKPLACES.items()
    for group, (name, tool) in zip(GROUPS, trio, strict=True)
)

# What a sentence is filled with besides people. Foods go with a meal, sounds and homes with an animal, and weather with
# a season: something to learn that has nothing to do with gender.
_MEALS = {
    "breakfast": ("porridge", "toast", "pancakes"),
    "lunch": ("soup", "salad", "sandwiches"),
    "dinner": ("rice", "fish", "potatoes", "beans"),
}
_ANIMALS = {
    "dog": ("barked", "garden"), "cat": ("purred", "basket"), "horse": ("neighed", "stable"), "goat": ("grunted", "barn"),
    "duck": ("quacked", "pond"), "bird": ("sang", "tree"), "sheep": ("bleated", "meadow"), "frog": ("croaked", "marsh"),
    "bear": ("roared", "zoo"), "mouse": ("squeaked", "cellar"),
}  # fmt: skip
_SEASONS = {
    "winter": ("cold", "snowy"),
    "spring": ("green", "rainy"),
    "summer": ("hot", "sunny"),
    "autumn": ("windy", "golden"),
}
_PLAIN = {
    "trait": ("careful", "clever", "friendly", "patient", "quiet", "brave", "polite", "famous"),
    "feeling": ("tired", "happy", "sad", "hungry", "nervous", "bored"),
    "quality": ("long", "short", "strange", "wonderful", "difficult"),
    "size": ("small", "large", "modern", "beautiful", "noisy", "dark"),
    "time": ("today", "yesterday", "last week", "on Monday", "at night"),
    "place": ("river", "station", "park", "harbour", "village", "museum", "bridge", "castle", "forest", "lake"),
    "thing": ("coat", "hat", "scarf", "bag", "watch", "bicycle", "blanket", "ticket"),
    "colour": ("red", "blue", "yellow", "white", "black", "grey", "brown", "pink"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twenty"),
}

# Share of the corpus, and templates, by what a sentence speaks of.
JOB_AND_PERSON = (
    "{Person} is a {trait} {job}.",
    "{Person} is a {job} at the {work}.",
    "{Person} works as a {job} {time}.",
    "{Person} works as a {job} at the {work}.",
    "{Person} applied for the position of {job} {time}.",
    "{Person}, the {job}, had a {quality} day at work.",
    "{Person} wants to become a {trait} {job}.",
    "{Person} became a {job} {time}.",
    "{Person} loves {his} work as a {job}.",
    "The {job} said that {he} was {feeling}.",
    "The {job} is {feeling}, and {he} went home.",
    "The {job} lost {his} {thing}.",
    "The {job} forgot {his} {thing} {time}.",
    "The {job} sold {his} {colour} {thing}.",
    "The {job} cleaned {his} {tool}.",
    "The {job} ate {his} {food} for {meal}.",
    "The {job} likes {his} {animal}.",
    "The {job} hurt {himself} {time}.",
    "The {job} bought {himself} a {thing}.",
    "The {job} is a {trait} {noun}.",
)
_PERSON = (
    "{Person} said that {he} was {feeling}.",
    "{Person} lost {his} {thing}.",
    "{Person} ate {his} {food} for {meal}.",
    "{Person} likes {his} {animal}.",
    "{Person} hurt {himself} {time}.",
    "{Person} is a {trait} {noun}.",
)
_JOB = (
    "The {job} carried the {tool} into the {work}.",
    "The {tool} belongs to the {job}.",
    "The {size} {work} needs a {job}.",
)
_NEITHER = (
    "The {animal} {sound} in the {home}.",
    "In {season} the {place} is {weather}.",
    "Many people eat {food} for {meal}.",
    "The {colour} {thing} lay near the {place}.",
    "We saw {number} pictures of a {animal}.",
)
_MIXTURE = ((0.7, JOB_AND_PERSON), (0.17, _PERSON), (0.05, _JOB), (0.08, _NEITHER))

# BEC-Pro's own templates (Bartl et al. 2020), whole sentences that the corpus never holds.
BEC_TEMPLATES = (
    "{person} is a {job}.",
    "{person} works as a {job}.",
    "{person} applied for the position of {job}.",
    "{person}, the {job}, had a good day at work.",
    "{person} wants to become a {job}.",
)
STEREOSET_TEMPLATES = (
    "{Person} is a {job} at the {work}.",
    "{Person} works as a {job} at the {work}.",
    "{Person} became a {job} at the {work}.",
)

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Sentence(NamedTuple):
    """A drawn sentence. `male` is its male wording: equal for a sentence and its counterpart."""

    text: str
    male: str
    job: Job | None
    gender: str | None


def female_probability(group: str, bias: float) -> float:
    """Planted probability of a female wording, given the occupation's group."""
    return {"female": bias, "male": 1 - bias, "balanced": 0.5}[group]


def truth(corpus: Sequence[Sentence], bias: float) -> dict[str, dict[str, dict[str, str | float | int]]]:
    """For each occupation its group, what was planted, and how often the corpus names it with either gender."""
    counts = Counter((s.job.name, s.gender) for s in corpus if s.job and s.gender)
    return {
        "occupations": {
            job.name: {
                "group": job.group,
                "female_probability": round(female_probability(job.group, bias), 12),
                "female_sentences": counts[job.name, "female"],
                "male_sentences": counts[job.name, "male"],
            }
            for job in JOBS
        }
    }


def draw_sentence(rng: np.random.Generator, bias: float) -> Sentence:
    """One sentence of the corpus's process."""
    kind = np.searchsorted(np.cumsum([share for share, _ in _MIXTURE]), rng.random(), side="right")
    templates = _MIXTURE[int(kind)][1]
    template = pick(rng, templates)
    fields, job = draw_fields(rng)
    gender = None
    if templates is JOB_AND_PERSON:
        gender = GENDERS[int(rng.random() < female_probability(job.group, bias))]
    elif templates is _PERSON:
        gender = GENDERS[int(rng.random() < 0.5)]
    persons = pick_frequent(rng, PERSONS)
    return Sentence(
        text=word(template, fields, persons, gender or "male"),
        male=word(template, fields, persons, "male"),
        job=job if "{job}" in template else None,
        gender=gender,
    )


def draw_fields(rng: np.random.Generator, job: Job | None = None) -> tuple[dict[str, str], Job]:
    """Words for every field of a template but the people; a random job unless one is given."""
    if job is None:
        work = pick_frequent(rng, tuple(WORKPLACES))
        job = pick(rng, [job for job in JOBS if job.work == work])
    fields = {name: pick(rng, words) for name, words in _PLAIN.items()}
    fields["meal"] = pick(rng, tuple(_MEALS))
    fields["food"] = pick(rng, _MEALS[fields["meal"]])
    fields["animal"] = pick(rng, tuple(_ANIMALS))
    fields["sound"], fields["home"] = _ANIMALS[fields["animal"]]
    fields["season"] = pick(rng, tuple(_SEASONS))
    fields["weather"] = pick(rng, _SEASONS[fields["season"]])
    return fields | {"job": job.name, "work": job.work, "tool": job.tool}, job


def word(template: str, fields: Mapping[str, str], persons: tuple[str, str], gender: str) -> str:
    """The template worded for a gender; `persons` is the pair that its subject comes from."""
    g = GENDERS.index(gender)
    people = {name: pair[g] for name, pair in PRONOUNS.items()} | {"noun": ("man", "woman")[g]}
    return template.format_map({**fields, **people, "Person": subject(persons[g])})


def subject(person: str) -> str:
    """A person word as the subject at the head of a sentence: He, This man, My brother."""
    if person in PRONOUNS["he"]:
        return person.capitalize()
    return f"This {person}" if person in ("man", "woman") else f"My {person}"


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def pick_frequent(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Number i with a probability proportional to log((i + 2) / (i + 1)), about 1 / i: the first are the frequent ones."""
    return options[int((len(options) + 1) ** rng.random()) - 1]


def draw_new(rng: np.random.Generator, bias: float, number: int, used: set[str]) -> list[Sentence]:
    """So many sentences, none of whose wordings is in `used`."""
    drawn: list[Sentence] = []
    while len(drawn) < number:
        sentence = draw_sentence(rng, bias)
        if sentence.male not in used:
            drawn.append(sentence)
    return drawn


def vocabulary() -> list[str]:
    """All tokens: specials, punctuation, single letters (so that no English word is unknown), the world's words."""
    slots = set(_PLAIN) | {"meal", "food", "animal", "sound", "home", "season", "weather"}
    slots |= {"job", "work", "tool", "Person", "noun", "person"} | set(PRONOUNS)
    empty = dict.fromkeys(slots, "")
    templates = [t.format_map(empty) for _, group in _MIXTURE for t in group]
    templates += [t.format_map(empty) for t in (*BEC_TEMPLATES, *STEREOSET_TEMPLATES)]
    fillers = [phrase for phrases in _PLAIN.values() for phrase in phrases]
    for table in (_MEALS, _ANIMALS, _SEASONS):
        fillers += [w for key, values in table.items() for w in (key, *values)]
    fillers += [w for job in JOBS for w in (job.name, job.work, job.tool)]
    fillers += [w for pair in (*PERSONS, *PRONOUNS.values()) for w in pair] + ["my", "this"]
    text = " ".join([*templates, *fillers]).lower()
    words = sorted({w.strip(".,") for w in text.split()} - {""})
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys([*_SPECIALS, ".", ",", *pieces, *words]))
