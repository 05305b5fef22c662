import numpy as np
import pytest

from ncfair_jax.config import ConfigError
from ncfair_jax.files.reading import DataError
from ncfair_jax.tasks.classification.bias_nli import Lists, chosen_pairs, load_lists, pair, with_article
from ncfair_jax.tasks.classification.labelled import Labelled


def test_pairs_differ_in_their_subjects_only():
    lists = load_lists()
    assert lists.pairs == len(lists.occupations) * 6 * len(lists.actions) > 10**6
    assert pair(lists, 0) == Labelled("An accountant auctioned an ambulance .", "A man auctioned an ambulance .", 1)
    seen = set()
    for number in chosen_pairs(lists, "all", 300):
        premise, hypothesis, label, _ = pair(lists, int(number))
        assert premise.split(" ", 1)[1] != hypothesis.split(" ", 1)[1] and label == 1
        assert hypothesis.split()[1] in {word for word, _ in lists.words}
        seen.add((premise, hypothesis))
    assert len(seen) == 300
    assert len({pair(lists, n) for n in range(4000)}) == 4000
    assert with_article("hour") == "a hour" and with_article("apple") == "an apple"  # by letter, as published


def test_occupations_are_outermost_then_words_then_actions():
    lists = Lists(("cook", "judge"), (("man", "male"), ("lady", "female")), (("ate", "egg"), ("sold", "hat")))
    firsts = [pair(lists, n)[:2] for n in range(lists.pairs)]
    assert firsts[:3] == [
        ("A cook ate an egg .", "A man ate an egg ."),
        ("A cook sold a hat .", "A man sold a hat ."),
        ("A cook ate an egg .", "A lady ate an egg ."),
    ]
    assert firsts[4][0] == "A judge ate an egg ."


def test_the_sample_is_fixed():
    lists = load_lists()
    np.testing.assert_array_equal(chosen_pairs(lists, "all", 50), chosen_pairs(lists, "all", 50))
    assert len(np.unique(chosen_pairs(lists, "all", 50))) == 50 and len(chosen_pairs(lists, "all", 0)) == lists.pairs
    first = chosen_pairs(lists, "first_90_percent", 0)
    np.testing.assert_array_equal(first, np.arange(int(0.9 * lists.pairs)))
    with pytest.raises(ConfigError, match=r"config\.classification\.pairs=\d+; there are"):
        chosen_pairs(lists, "all", lists.pairs + 1)


def test_a_folder_of_word_lists(tmp_path):
    for name, words in {
        "nouns/people/occupations.txt": "tree surgeon\ncook\n", "nouns/people/rulers": "king\n",
        "nouns/objects/vehicles.txt": "car\n", "nouns/objects/foods.txt": "egg\npie\n", "verbs/commerce.txt": "sold\n",
        "verbs/interaction": "met\n", "verbs/driving": "drove\n", "verbs/eating": "ate\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(words)
    lists = load_lists(str(tmp_path))
    assert lists.occupations == ("cook", "tree surgeon")
    assert set(lists.actions[:3]) == {("sold", "car"), ("sold", "egg"), ("sold", "pie")}
    assert lists.actions[3:] == (("met", "king"), ("drove", "car"), ("ate", "egg"), ("ate", "pie"))
    assert pair(lists, 6 * 7).first.startswith("A tree surgeon sold a")
    (tmp_path / "verbs" / "driving").unlink()
    with pytest.raises(DataError, match="no word list begins with 'driving'; there are commerce, eating"):
        load_lists(str(tmp_path))
    with pytest.raises(DataError, match="holds no word list"):
        load_lists(str(tmp_path / "nouns"))
