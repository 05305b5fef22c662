import re

import pytest

from ncfair_jax.data.files import CorpusError
from ncfair_jax.data.gap import COLUMNS, read_gap, split_sentences


def write(tmp_path, *texts: str, columns=COLUMNS):
    path = tmp_path / "gap.tsv"
    rows = ["\t".join([str(i), "id", text, *["x"] * 9]) for i, text in enumerate(texts)]
    path.write_text("\n".join(["\t".join(columns), *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("She left. He stayed! Why? 1990 came.", ["She left.", "He stayed!", "Why?", "1990 came."]),
        ('He said "No." Then (she left.) She slept.', ['He said "No."', "Then (she left.)", "She slept."]),
        ("It ended. ``So what?'' he asked.", ["It ended.", "``So what?'' he asked."]),
        (
            "Mr. J. R. Smith met Dr. Jones at St. Paul's. They ate.",
            ["Mr. J. R. Smith met Dr. Jones at St. Paul's.", "They ate."],
        ),
        ("Rome (c. 1280) vs. Siena. So did I. She won.", ["Rome (c. 1280) vs. Siena.", "So did I.", "She won."]),
        ("Wait... Then go. ok. no split", ["Wait...", "Then go. ok. no split"]),
        ("Élan won. Öl sank.", ["Élan won.", "Öl sank."]),
        ("  one   ", ["one"]),
        (" ", []),
    ],
)
def test_sentence_rule(text, sentences):
    assert split_sentences(text) == sentences


def test_reader_splits_the_text_column_in_order(tmp_path):
    assert read_gap(write(tmp_path, "She sat. He stood.", 'A "quote" stays.')) == [
        "She sat.",
        "He stood.",
        'A "quote" stays.',
    ]


def test_wrong_columns_name_the_line(tmp_path):
    with pytest.raises(CorpusError, match=r"gap.tsv:1: columns \['ID', 'Text'\]; expected"):
        read_gap(write(tmp_path, columns=("ID", "Text")))
    path = write(tmp_path, "fine", "tab\tinside")
    with pytest.raises(CorpusError, match=r"gap.tsv:3: 13 columns; expected 12"):
        read_gap(path)


def test_empty_text_names_the_line(tmp_path):
    with pytest.raises(CorpusError, match=r"gap.tsv:3: sentence '' has no visible"):
        read_gap(write(tmp_path, "fine", ""))


def test_header_alone(tmp_path):
    with pytest.raises(CorpusError, match="a header and no rows"):
        read_gap(write(tmp_path))


def test_the_real_file_loses_no_character_and_gives_about_three_sentences_a_row(shared):
    path = shared("data/gap/gap_flipped.tsv")
    sentences = read_gap(path)
    assert len(sentences) == 13189
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert len(lines) == 4455
    texts = "".join(line.split("\t")[2] for line in lines[1:])
    assert re.sub(r"\s", "", "".join(sentences)) == re.sub(r"\s", "", texts)
    assert max(len(sentence.split()) for sentence in sentences) == 163
