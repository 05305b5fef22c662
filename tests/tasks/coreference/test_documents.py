"""Documents as word pieces in segments, and batches of them."""

import numpy as np
import pytest

from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.files.reading import DataError
from ncfair_jax.tasks.coreference.conll import Document
from ncfair_jax.tasks.coreference.documents import (
    Encoded,
    apart,
    columns_of,
    encode_document,
    first_segment,
    lay_out,
    made_of,
    read_documents,
    shape_of,
)
from ncfair_jax.vocabulary import WordBoundaries
from tests import tiny_coref, tiny_hub

# "nurses" is two pieces, "nurse ##s", "Zyx" none of the vocabulary's.
DOCUMENT = Document(
    "nw/a",
    0,
    (("The", "nurses", "was", "tired"), ("he", "said", "Zyx"), ("she",)),
    ("A", "B", "A"),
    (((0, 1), (4, 4)), ((6, 6), (7, 7)), ((1, 4), (5, 5))),
)


def ids(*words: str) -> list[int]:
    vocabulary = tiny_hub.tokenizer("bert").get_vocab()
    return [vocabulary[word] for word in words]


def test_one_segment():
    encoded = encode_document(DOCUMENT, tiny_hub.tokenizer("bert"), 40)
    words = ids("the", "nurse", "##s", "was", "tired", "he", "said", "[UNK]", "she")
    assert encoded.tokens.tolist() == [*ids("[CLS]"), *words, *ids("[SEP]")]
    assert encoded.segments.tolist() == [0] * 11
    assert encoded.sentences.tolist() == [-1, 0, 0, 0, 0, 0, 1, 1, 1, 2, -1]
    assert encoded.words.tolist() == [-1, 0, 1, 1, 2, 3, 4, 5, 6, 7, -1]
    assert encoded.speakers.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert encoded.genre == 3
    assert encoded.mentions.tolist() == [[1, 3, 1], [6, 6, 1], [8, 8, 2], [9, 9, 2], [2, 6, 3], [7, 7, 3]]
    assert encode_document(DOCUMENT._replace(name="x"), tiny_hub.tokenizer("bert"), 40).genre == 7


def test_segments_end_with_sentences_or_else_with_words():
    tokenizer = tiny_hub.tokenizer("bert")
    assert encode_document(DOCUMENT, tokenizer, 8).segments.tolist() == [0] * 7 + [1] * 6  # "he" would fit the first
    # Room for 4: "The nurses was | tired he said Zyx | she".
    encoded = encode_document(DOCUMENT, tokenizer, 6)
    assert encoded.segments.tolist() == [0] * 6 + [1] * 6 + [2] * 3
    assert encoded.sentences.tolist() == [-1, 0, 0, 0, 0, -1, -1, 1, 2, 2, 2, -1, -1, 3, -1]
    assert columns_of(encoded).tolist() == [*range(6), *range(6), *range(3)]
    # The words 1 to 4 go over an end and are left out.
    assert encoded.mentions.tolist() == [[1, 3, 1], [8, 8, 1], [10, 10, 2], [13, 13, 2], [9, 9, 3]]
    part = encoded.some(1, 1)
    assert part.tokens.tolist() == encoded.tokens[6:12].tolist() and part.segments.tolist() == [0] * 6
    assert part.mentions.tolist() == [[2, 2, 1], [4, 4, 2], [3, 3, 3]]
    with pytest.raises(DataError, match="nw/a_0: a word has 2 pieces; a segment has room for 1"):
        encode_document(DOCUMENT, tiny_hub.tokenizer("bert"), 3)


def test_lay_out():
    encoded = encode_document(DOCUMENT, tiny_hub.tokenizer("bert"), 6)
    short = encoded.some(2, 1)
    batch = lay_out([encoded, short], rows=3, segment_tokens=6, max_width=3)
    assert batch["tokens"].shape == (3, 3, 6) and batch["gold"].shape == (3, 18, 3)
    for row, document in enumerate((encoded, short)):
        inside = batch["segment_ids"][row] > 0
        for name in ("tokens", "sentences", "speakers"):
            np.testing.assert_array_equal(batch[name][row][inside], getattr(document, name))
    assert batch["positions"][0].tolist() == [[*range(6)], [*range(6)], [0, 1, 2, 0, 0, 0]]
    assert np.all(batch["sentences"][batch["segment_ids"] == 0] == -1)
    assert batch["weights"].tolist() == [1, 1, 0] and batch["genre"].tolist() == [3, 3, 0]
    gold = {(row, start, width): cluster for (row, start, width), cluster in np.ndenumerate(batch["gold"]) if cluster}
    assert gold == {(0, 1, 2): 1, (0, 8, 0): 1, (0, 9, 0): 3, (0, 10, 0): 2, (0, 13, 0): 2, (1, 1, 0): 2}


def test_shapes_are_few():
    encoded = encode_document(DOCUMENT, tiny_hub.tokenizer("bert"), 40)
    assert shape_of([encoded], 40) == (1, 16)
    assert shape_of([encoded], 12) == (1, 12)
    many = encode_document(DOCUMENT, tiny_hub.tokenizer("bert"), 4)
    assert many.num_segments == 5 and shape_of([many, encoded.some(0, 1)], 4) == (8, 4)


def encoded_documents(segment_tokens: int = 8) -> list[Encoded]:
    tokenizer = tiny_coref.pretrained().tokenizer
    return [encode_document(document, tokenizer, segment_tokens) for document in tiny_coref.documents(9)]


def pipeline(boundaries: WordBoundaries | None = None, **settings) -> Pipeline:
    return Pipeline(
        made_of(encoded_documents(), max_segments=2, max_width=5),
        PipelineConfig(seed=3, batch_size=4, row_tokens=8, **settings),
        special_ids=[0],
        mask_token_id=3,
        vocab_size=60,
        slot_of_token=np.where(np.arange(60) == 7, 0, 1).astype(np.int32),
        boundaries=boundaries,
    )


def test_batches():
    ours = pipeline(row_multiple=2, accumulation=2)
    assert ours.num_examples == 9 and ours.steps_per_epoch == 3
    last = ours.batch(2)  # one document is left of the epoch
    assert last["tokens"].shape == (2, 2, 2, 8) and last["gold"].shape == (2, 2, 16, 5)
    assert last["weights"].sum() == 1 and last["num_examples"] == 1 and last["step"] == 2
    for step in (0, 5):
        once, again = ours.batch(step), pipeline(row_multiple=2, accumulation=2).batch(step)
        assert all(np.array_equal(once[name], again[name]) for name in once)
    slots = np.where(last["segment_ids"] > 0, np.where(last["tokens"] == 7, 0, 1), 1)
    np.testing.assert_array_equal(last["slots"], slots)
    shifted = pipeline(row_multiple=2, accumulation=2, alignment="next").batch(2)["slots"]
    np.testing.assert_array_equal(shifted[..., :-1], slots[..., 1:])
    assert np.all(shifted[..., -1] == 1)
    kinds = np.zeros(60, np.int8)
    boundaries = WordBoundaries(np.arange(60) != 8, kinds, kinds)  # 8 continues the word before it
    whole = pipeline(row_multiple=2, accumulation=2, boundaries=boundaries).batch(2)
    continued = np.pad(last["tokens"][..., 1:] == 8, ((0, 0),) * 3 + ((0, 1),))
    np.testing.assert_array_equal(whole["slots"], np.where(continued, 1, slots))


def test_long_documents_give_other_segments_each_time():
    spare = 3
    taken = [first_segment(spare, seed=3, step=step, number=1) for step in range(20)]
    assert set(taken) == set(range(spare + 1))
    assert taken == [first_segment(spare, seed=3, step=step, number=1) for step in range(20)]
    assert first_segment(0, 3, 0, 1) == first_segment(-2, 3, 0, 1) == 0
    documents, ours = encoded_documents(), pipeline()
    assert max(document.num_segments for document in documents) > 3
    for step in range(6):
        batch = ours.batch(step)
        for row, number in enumerate(ours.example_ids(step)):
            document = documents[number]
            first = first_segment(document.num_segments - 2, 3, step, int(number))
            tokens = batch["tokens"][0, row]
            assert tokens[batch["segment_ids"][0, row] > 0].tolist() == document.some(first, 2).tokens.tolist()


def test_documents_come_apart_as_they_were():
    ours, documents = pipeline(), encoded_documents()
    drawn = ours.drawn(1)
    found, parts = apart(drawn, drawn.tokens)
    for number, document, tokens in zip(drawn.ids, found, parts, strict=True):
        for value, expected in zip(document, documents[number], strict=True):
            np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(tokens, document.tokens)


@pytest.mark.parametrize("field", [name for name in Encoded._fields if name != "segments"])
def test_the_fingerprint_follows_every_part_of_a_document(field):
    first, *others = encoded_documents()
    changed = first._replace(**{field: getattr(first, field) + 1})
    prints = [made_of([document, *others], 2, 5).fingerprint for document in (first, changed)]
    assert prints[0] == pipeline().fingerprint != prints[1]


def test_the_fingerprint_follows_the_segments():
    assert made_of(encoded_documents(9), 2, 5).fingerprint != pipeline().fingerprint


def test_files_and_folders(tmp_path):
    for name in ("a.v4_gold_conll", "b.v4_gold_conll"):
        (tmp_path / "en").mkdir(exist_ok=True)
        tiny_coref.write(tmp_path / "en" / name, 2)
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text("1 [The cook] left because [he] was tired.\n")
    found = read_documents(f"{tmp_path}, {tmp_path / 'pro_stereotyped_type1.txt.dev'}")
    assert len(found) == 5 and found[-1].name == "nw/dev_type1/stereotype//0"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file whose name ends with _conll"):
        read_documents(str(tmp_path / "empty"))
