"""Pictures: what is drawn, and that a map's labels can be read."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot as plt
from transformers import BertTokenizerFast

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.jackknife import Measured
from ncfair_jax.collapse.stored import save_stats
from ncfair_jax.files.reading import DataError
from ncfair_jax.lexicons.classes import classes_of
from ncfair_jax.measurement import Words, write_words
from ncfair_jax.report import collapse_figures
from tests import tiny_text


@pytest.fixture
def stored(tmp_path):
    """Means of all words near their classifier rows, and the rows of words.csv for them."""
    tokenizer = tiny_text.pretrained().tokenizer
    words = classes_of(range(5, 5 + len(tiny_text.WORDS)), tokenizer)
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(words.num_classes, 12)).astype(np.float32)
    mean = weight + 0.5 * rng.normal(size=weight.shape).astype(np.float32)
    stats = ClassStats(
        np.arange(1, words.num_classes + 1, dtype=np.int32), mean, np.ones(words.num_classes, np.float32)
    )
    save_stats(tmp_path / "stats.npz", stats, words, weight, np.zeros(words.num_classes, np.float32))
    rows = [
        {"word_set": "lexicon", "word": word, "token_id": int(token), "count": count + 1, "cosine": 0.01 * count}
        for count, (word, token) in enumerate(zip(words.words, words.token_ids, strict=True))
    ]
    return tmp_path, rows


def test_a_map_names_every_word_without_labels_on_each_other(stored):
    folder, rows = stored
    figure = collapse_figures.word_map(folder, rows[:40], "title")
    (axes,) = figure.axes
    figure.canvas.draw()
    assert {text.get_text() for text in axes.texts} == {row["word"] for row in rows[:40]}
    boxes = [text.get_window_extent() for text in axes.texts]
    assert sum(a.overlaps(b) for a, b in itertools.combinations(boxes, 2)) <= 2
    drawn = [collection.get_offsets() for collection in axes.collections]
    assert [len(points) for points in drawn] == [40, 40]
    plt.close(figure)


def test_cosines_stand_at_their_words(stored):
    _, rows = stored
    shuffled = [row | {"cosine": 1 - row["cosine"]} for row in rows]
    figure = collapse_figures.word_cosines({"a": rows, "b": shuffled})
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [row["word"] for row in rows]  # ascending in the first model
    for points, table in zip(axes.collections, (rows, shuffled), strict=True):
        np.testing.assert_allclose(points.get_offsets()[:, 0], [row["cosine"] for row in table])
    plt.close(figure)


def test_layers_and_steps_draw_their_numbers():
    measured = [Measured({"nc3": v, "unc3": 2 * v}, {"nc3": [v, v], "unc3": [2 * v, 2 * v]}) for v in (0.3, 0.2, 0.1)]
    figure = collapse_figures.by_layer({"m": {"lexicon": {f"layer_{i}": one for i, one in enumerate(measured)}}})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.3, 0.2, 0.1])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.6, 0.4, 0.2])
    rows = [{"step": 0, "lexicon_unc3": 0.2}, {"step": 10, "loss": 1.0}, {"step": 20, "lexicon_unc3": 0.1}]
    steps = collapse_figures.over_steps({"run": rows})
    np.testing.assert_allclose(steps.axes[2].lines[0].get_xydata(), [[0, 0.2], [20, 0.1]])
    assert not steps.axes[0].lines
    plt.close("all")


def test_words_that_look_like_formulas_are_safe_in_words_csv_and_come_back(tmp_path):
    listed = ["=", "-", "@", "+", "he"]
    vocab = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *listed])}
    words = classes_of(range(5, 10), BertTokenizerFast(vocab=vocab))
    weight = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    stats = ClassStats(np.full(5, 3, np.int32), weight[5:] + 1, np.ones(5, np.float32))
    path = tmp_path / "words.csv"
    write_words(path, Words({"lexicon": words}, np.zeros((0, 0), np.int32), words), [stats], weight)
    assert [line.split(",")[1] for line in path.read_text().splitlines()[1:]] == ["'=", "'-", "'@", "'+", "he"]
    rows = collapse_figures.read_words(tmp_path)
    assert [(row["word"], row["token_id"], row["count"]) for row in rows] == [
        (word, 5 + number, 3) for number, word in enumerate(listed)
    ]
    path.write_text(path.read_text()[:-60])
    with pytest.raises(DataError, match=r"words\.csv:6: .*measure again"):
        collapse_figures.read_words(tmp_path)
    path.write_text("word_set,word,token_id,count,cosine\nlexicon,he,x,3,0.5\n")
    with pytest.raises(DataError, match=r"words\.csv:2: .*measure again"):
        collapse_figures.read_words(tmp_path)
