import json

import pytest

from ncfair_jax.lexicons.lexicon import SHIPPED, LexiconError, load_lexicon, make_lexicon

GOOD = {
    "attribute": "age",
    "groups": {"old": ["elder", "Elder", "old_man"], "young": ["kid"]},
    "pairs": [["Elder", "kid"]],
}


def write(tmp_path, content) -> str:
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_users_file_is_read_with_blanks_for_underscores_and_lower_case_pairs(tmp_path):
    lexicon = load_lexicon(write(tmp_path, GOOD))
    assert lexicon.groups == ("old", "young")
    assert lexicon.words == (("elder", "Elder", "old man"), ("kid",))
    assert lexicon.pairs == (("elder", "kid"),)
    assert hash(lexicon) == hash(load_lexicon(write(tmp_path, GOOD)))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_lexicons_list_each_word_once_and_in_lower_case(name):
    lexicon = load_lexicon(name)
    words = [word for group in lexicon.words for word in group]
    assert len(words) == len(set(words))
    assert all(word == word.lower() == word.strip() for word in words)
    assert lexicon.attribute == name


def test_gender_has_hundreds_of_words_with_the_pairs_that_every_swap_needs():
    lexicon = load_lexicon("gender")
    assert all(len(words) > 300 for words in lexicon.words)
    needed = {("she", "he"), ("her", "him"), ("her", "his"), ("hers", "his"), ("woman", "man"), ("mother", "father")}
    assert needed <= set(lexicon.pairs)
    assert lexicon.pairs.index(("her", "his")) < lexicon.pairs.index(("hers", "his"))  # "his" becomes "her"


def test_race_and_religion_have_more_than_two_groups():
    assert {"black", "white", "asian", "hispanic"} <= set(load_lexicon("race").groups)
    assert {"judaism", "christianity", "islam", "buddhism", "hinduism"} == set(load_lexicon("religion").groups)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"mine.json:1: not JSON"),
        ("[1]", "mine.json: holds a list; expected an object"),
        (
            '{"attribute": "age", "groups": {"old": ["x"], "young": ["y"], "old": ["z"]}}',
            "the key 'old' is there twice",
        ),
        ({"groups": GOOD["groups"]}, "field 'attribute' is missing"),
        ({"attribute": "age"}, "field 'groups' is missing"),
        ({"attribute": 3, "groups": {}}, "field 'attribute' must be text"),
        ({"attribute": "age", "groups": ["a"]}, "field 'groups' must be group -> words"),
        ({"attribute": "age", "groups": {"old": ["x"]}}, "two groups or more"),
        ({"attribute": "age", "groups": {"old": ["x"], "young": []}}, "group 'young' is empty"),
        ({"attribute": "age", "groups": {"old": ["x"], "young": "yz"}}, "group 'young' must be a list of words"),
        ({"attribute": "age", "groups": {"old": ["x"], "young": ["_ "]}}, "group 'young' holds an empty word"),
        ({"attribute": "age", "groups": {"old": ["x"], "young": ["X"]}}, "word 'X' is in the groups 'old' and 'young'"),
        (GOOD | {"pairs": [["elder"]]}, "must be a list of two words"),
        (GOOD | {"pairs": "ab"}, "'pairs' must be a list"),
        (GOOD | {"pairs": [["elder", "teen"]]}, "word 'teen' of pair .* is in no group"),
        (GOOD | {"pairs": [["elder", "old man"]]}, "lies within group 'old'"),
    ],
)
def test_every_fault_of_a_file_is_one_line(tmp_path, content, message):
    with pytest.raises(LexiconError, match=message) as raised:
        load_lexicon(write(tmp_path, content))
    assert "\n" not in str(raised.value)


def test_unknown_name_lists_the_shipped_ones():
    with pytest.raises(LexiconError, match=r"'gendre' .*choose from \['gender', 'race', 'religion'\]"):
        load_lexicon("gendre")


def test_file_that_is_not_utf8(tmp_path):
    (tmp_path / "l.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(LexiconError, match=r"l\.json:1: not UTF-8 \(byte 0xff\)"):
        load_lexicon(tmp_path / "l.json")


def test_repeated_words_of_one_group_count_once():
    assert make_lexicon("a", {"x": ["p", "q", "p"], "y": ["r"]}).words == (("p", "q"), ("r",))
