"""Reading, aligning and counting pairs by hand; scores of the reference are in test_golden.py."""

import numpy as np
import pytest

from ncfair_jax.benchmarks import crows_pairs
from ncfair_jax.benchmarks.crows_pairs import Pair, align, ordered, outcome_columns, pair_scores, read_pairs, select
from ncfair_jax.engine import RequestError
from ncfair_jax.files import notes
from ncfair_jax.files.sources import DataError
from ncfair_jax.vocabulary import Template
from tests.benchmarks import plain

TEMPLATE = Template((0,), (9,), (9,), (0, 0, 0, 1, 1))


def test_alignment_depends_on_which_sentence_comes_first():
    first, second = [0, 1, 2, 9], [0, 2, 1, 9]
    assert align(first, second).shared == ([0, 1, 3], [0, 2, 3])
    assert align(first, second).modified == ([2], [1])
    assert align(second, first).shared == ([0, 1, 3], [0, 2, 3])  # the 2 is kept here, not the 1


def test_scores_of_modified_and_shared_positions():
    alignment = align([0, 5, 6, 7, 9], [0, 5, 8, 8, 7, 9])
    first = np.array([np.nan, -1.0, -2.0, -4.0, np.nan])
    second = np.array([np.nan, -1.5, -3.0, -5.0, -0.25, np.nan])
    assert pair_scores(alignment, TEMPLATE, first, second) == ((-2.0, -4.0), (-5.0, -1.75))
    means, _ = pair_scores(align([0, 5, 9], [0, 5, 6, 9]), TEMPLATE, np.full(3, -1.0), np.full(4, -1.0))
    assert means == (None, -1.0)


def test_outcomes_and_percentages_by_hand():
    direction = ["stereo", "stereo", "stereo", "antistereo", "antistereo", "stereo"]
    more = [-1.0, -2.0004, -3.0, -1.0, -2.0, None]
    less = [-2.0, -2.0, -1.0, -2.0, -1.0, -1.0]
    columns = outcome_columns(direction, more, less)
    # Neutral to three decimals: the second. Skipped: the last.
    assert columns.sum(0).tolist() == [5, 1, 2, 1, 2, 1]
    figures = crows_pairs.figures(columns.sum(0))
    assert {name: float(value) for name, value in figures.items()} == {
        "metric_score": 40.0,  # 2 hits of 5: a neutral pair stays in the denominator
        "stereotype_score": 50.0,
        "antistereotype_score": 50.0,
    }
    assert np.isnan(crows_pairs.figures(columns[:3].sum(0))["antistereotype_score"])


def test_more_and_less_do_not_depend_on_the_order_of_scoring(tmp_path):
    model = plain.pretrained("bert")
    plain.write_crows_pairs(tmp_path / "data/pairs.csv")
    pairs = read_pairs(tmp_path / "data/pairs.csv")
    assert ordered(pairs[0]) == (pairs[0].more, pairs[0].less)
    assert ordered(pairs[1]) == (pairs[1].less, pairs[1].more)
    result = plain.result(crows_pairs, model, pairs)
    for row, words in enumerate((("she", "he"), ("man", "woman"))):
        for text, word, column in zip((pairs[row].more, pairs[row].less), words, ("more", "less"), strict=True):
            tokens = np.array(model.tokenizer(text)["input_ids"], np.int32)
            (place,) = np.flatnonzero(tokens == model.tokenizer.convert_tokens_to_ids(word))
            by_place = []
            for position in range(1, len(tokens) - 1):
                masked = tokens.copy()
                masked[position] = model.tokenizer.mask_token_id
                by_place.append(plain.log_probs(model, masked)[position, tokens[position]])
            np.testing.assert_allclose(result.scores[f"score_{column}"][row], by_place[place - 1], **plain.CLOSE)
            shared = sum(by_place) - by_place[place - 1]
            np.testing.assert_allclose(result.scores[f"shared_{column}"][row], shared, atol=1e-4)


def test_equal_sentences_are_skipped_by_one_metric_and_neutral_in_the_other():
    model = plain.pretrained("bert")
    pairs = [Pair(0, "the nurse", "The Nurse", "stereo", "gender"), Pair(1, "he said", "she said", "stereo", "gender")]
    result = plain.result(crows_pairs, model, pairs)
    assert (result.metrics["modified_mean"]["gender"]["n"], result.counts["skipped"]) == (1, 1)
    assert (result.metrics["shared_sum"]["gender"]["n"], result.metrics["shared_sum"]["gender"]["neutral"]) == (2, 1)


def test_the_published_file_has_1508_pairs(shared):
    pairs = read_pairs(shared("data/crows_pairs/crows_pairs_anonymized.csv"))
    assert [pair.index for pair in pairs] == list(range(1508))
    gender = select(pairs, "gender")
    assert (len(gender), sum(pair.direction == "stereo" for pair in gender)) == (262, 159)
    assert select(pairs, "") == pairs


COLUMNS = "sent_more,sent_less,stereo_antistereo,bias_type"
ROWS = [f"she saw {i},he saw {i},stereo,gender" for i in range(200)]


def test_a_malformed_row_is_skipped_and_the_others_keep_their_numbers(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["\ufeff" + COLUMNS, *ROWS[:5], "she saw,he saw,stereo", *ROWS[5:], ""]) + "\n")
    with notes.collected() as found:
        pairs = read_pairs(path)
    assert [pair.index for pair in pairs] == [i for i in range(201) if i != 5]
    assert (pairs[5].index, pairs[5].more) == (6, "she saw 5")
    assert [(note.rows, note.lines) for note in found] == [(201, (7,))]
    assert found[0].first == "3 cells, but the header has 4; is the row cut off?"


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (f"{COLUMNS},sent_more", f"{ROWS[0]},x", "the header names 'sent_more' more than once"),
        (COLUMNS, f"{ROWS[0]},x", r"pairs\.csv:2: 5 cells, but the header has 4"),
        (COLUMNS, " ,he saw,stereo,gender", r"pairs\.csv:2: sent_more is empty"),
    ],
)
def test_faults_are_named_with_line_and_column(tmp_path, header, row, message):
    (tmp_path / "pairs.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "pairs.csv")


def test_bad_files_and_bias_types_are_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("sent_more,sent_less,stereo_antistereo,bias_type\na,b,neither,gender\n")
    with pytest.raises(DataError, match=r"pairs.csv:2: stereo_antistereo holds 'neither'; expected 'stereo'"):
        read_pairs(path)
    with pytest.raises(DataError, match="choose from"):
        select([Pair(0, "a", "b", "stereo", "gender")], "sex")


def test_a_sentence_that_is_too_long_is_named_by_its_pair():
    long = "the nurse said that she was tired and " * 9
    pairs = [Pair(0, "he said", "she said", "stereo", "gender"), Pair(6, "he said", long, "antistereo", "gender")]
    message = r"^pair 6 \('the nurse said that .* …\) has \d+ tokens, but the model takes \d+"
    with pytest.raises(RequestError, match=message):
        plain.result(crows_pairs, plain.pretrained("bert"), pairs)
