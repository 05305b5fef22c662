"""Which reading "her" and "his" have in a sentence: determiner ("her book") or pronoun ("I saw her", "the book is his").

English writes both readings alike, so a text with swapped genders needs to know which one stands there: her is his or him,
his is her or hers. The words beside it decide, without a tagger. Before the end of a clause, or before a word that cannot
begin the noun phrase (an article, a preposition, a pronoun, an auxiliary …), it is a pronoun; before any other word it is a
determiner. Adverbs and some adjectives may belong to either, so the rule looks past them to the word after them.
"""

import re

DETERMINER, PRONOUN = "determiner", "pronoun"

# Words that no noun phrase goes on with after a determiner.
_PRONOUN_BEFORE = """
    a an the this that these those some any no each all both another either neither
    i you he she it we they me him us them my your our their its his her mine yours ours theirs hers
    myself yourself himself herself itself ourselves themselves
    who whom whose which what whatever someone something anyone anything everyone everything nobody nothing
    about above across after against along alongside amid among amongst around as at before behind below beneath beside
    besides between beyond by despite down during except for from in inside into like of off on onto out outside over per
    regarding since than through throughout to toward towards under underneath until unto up upon via with within without
    and or but nor because although though if unless whereas while when whenever where wherever why how whether
    am is are was were be been has have had do does did would shall should can could may must cannot isn't wasn't aren't
    weren't hasn't haven't hadn't don't doesn't didn't won't wouldn't can't couldn't shouldn't
    again ago alone already also always anymore anyway anyways anywhere apart aside away else ever everywhere forever
    forward here hence instead never not nowhere otherwise rather somehow somewhere soon still straight there therefore
    thereafter thus today together tomorrow tonight too twice yesterday yet
"""
PRONOUN_BEFORE = frozenset(_PRONOUN_BEFORE.split())
# The same for "her" alone: in the place of "him" a verb may follow ("make her feel"), where "his" is no object.
_OBJECT_BEFORE = "every become believe feel get go know say see seem speak think understand"
OBJECT_BEFORE = PRONOUN_BEFORE.union(_OBJECT_BEFORE.split())
# An object stands between one of these and what follows ("let her try", "helped her move").
_OBJECT_AFTER = "let lets letting help helps helped helping wish wishes wished wishing"
OBJECT_AFTER = frozenset(_OBJECT_AFTER.split())

# Words that belong to a noun phrase ("her newly built house") or to the verb before ("greeted her warmly").
_ADVERBS = "even just less more most much next now often once quite so then very well worse better"
ADVERBS = frozenset(_ADVERBS.split())
_ADJECTIVES = "afraid alive angry awake bad famous first free happy jealous mad proud responsible sad safe sick unhappy"
ADJECTIVES = frozenset(_ADJECTIVES.split())
ADVERB_ENDING = re.compile(r".{2,}ly")
ADJECTIVE_ENDING = re.compile(r".{2,}(?:ed|ous|less|able|ible)")
_NOUNS_WITH_SUCH_ENDINGS = """
    ally anomaly assembly belly bully butterfly family folly homily lily melancholy monopoly rally reply supply tally
    bed deathbed beloved betrothed breed creed deed feed greed intended seed shed sled speed steed weed table cable variable
"""
NOUNS_WITH_SUCH_ENDINGS = frozenset(_NOUNS_WITH_SUCH_ENDINGS.split())
JOIN_ADJECTIVES = frozenset(("and", "or", "but", "yet"))

# After a preposition "her back" is a part of the body; after a verb of motion "her home" is a direction.
_PREPOSITIONS = "across against along at behind down for from in into of off on onto over to under up upon with"
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
_MOTION = """
    bring brings bringing brought carried carry drive drives driving drove driven send sends sending sent take takes taking
    taken took walk walked walks walking
"""
MOTION = frozenset(_MOTION.split())

# The next word, past an opening quote, bracket or currency sign. Hyphens join words, also as WikiText writes them.
_WORD = r"\s+(?:[\"“‘'`«(\[<$£€#]\s?)*([^\W_]+(?:(?:[-'’]| @-@ )[^\W_]+)*)"
NEXT_WORD = re.compile(_WORD)
LATER_WORD = re.compile(r"[\])]?" + _WORD)
PREVIOUS_WORD = re.compile(r"([^\W_]+)\s+$")
LONGEST_WORD = 30
CLOSING = re.compile(r"\s?[\])]")
OTHER_DETERMINER = re.compile(r"(?:\s+or\s+|\s?/\s?)(her|his|their|its|my|your|our)\b", re.IGNORECASE)


def reading(text: str, start: int, end: int) -> str:
    """DETERMINER or PRONOUN, for the "her" or "his" at text[start:end].

    The rule knows no grammar and errs where only the sense decides: "gave her flowers" is taken for her own flowers.
    """
    if text[:start].rstrip()[-1:] in ("[", "(") and (closing := CLOSING.match(text, end)):
        end = closing.end()
    if other := OTHER_DETERMINER.match(text, end):  # "his or her book"
        return reading(text, *other.span(1)) if other[1].lower() in ("her", "his") else DETERMINER
    shouted = text[start:end].isupper()
    words = _following(text, end, shouted)
    if text[start:end].lower() == "his":
        return PRONOUN if words[0] in PRONOUN_BEFORE or not words[0] else DETERMINER
    found = PREVIOUS_WORD.search(text, max(0, start - LONGEST_WORD), start)
    return PRONOUN if _is_object(found[1].lower() if found else "", *words) else DETERMINER


def _following(text: str, end: int, shouted: bool) -> tuple[str, str, str]:
    """The next word, the first word after it that need not be looked past, and the word before that one; "" for none."""
    match = NEXT_WORD.match(text, end)
    first = before = word = _folded(match, shouted)
    while match and (word == first or _is_adverb(word) or _is_adjective(word)):
        before = word
        match = LATER_WORD.match(text, match.end())
        word = _folded(match, shouted)
    return first, word, before


def _is_object(previous: str, word: str, later: str, before_later: str) -> bool:
    """Whether "her" is an object between `previous` and `word`; `later` and `before_later` as of `_following`."""
    if not word or word in OBJECT_BEFORE or previous in OBJECT_AFTER:
        return True
    nothing_follows = later == "" or later in PRONOUN_BEFORE
    if word == "back":
        return nothing_follows and previous not in PREPOSITIONS
    if word == "home":
        return previous in MOTION
    if word in ("one", "lots", "plenty"):
        return later == "of"
    if not (_is_adverb(word) or _is_adjective(word)):
        return False
    return nothing_follows and (_is_adverb(before_later) or later not in JOIN_ADJECTIVES)


def _is_adverb(word: str) -> bool:
    return word in ADVERBS or (bool(ADVERB_ENDING.fullmatch(word)) and word not in NOUNS_WITH_SUCH_ENDINGS)


def _is_adjective(word: str) -> bool:
    return word in ADJECTIVES or (bool(ADJECTIVE_ENDING.fullmatch(word)) and word not in NOUNS_WITH_SUCH_ENDINGS)


def _folded(match: re.Match[str] | None, shouted: bool) -> str:
    """The word in lower case, but for an acronym: "her US team" is not "her us"."""
    if match is None:
        return ""
    word = match[1]
    return word if word.isupper() and len(word) > 1 and not shouted else word.lower()
