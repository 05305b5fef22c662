import re

import pytest

from ncfair_jax.data.gap import read_gap, split_sentences
from ncfair_jax.files.reading import DataError

COLUMNS = ("", "ID", "Text", "Pronoun", "Pronoun-offset", "A", "A-offset", "A-coref", "B", "B-offset", "B-coref", "URL")


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
    with pytest.raises(DataError, match=r"gap.tsv: no column 'Text'; the header has \['ID', 'text'\]"):
        read_gap(write(tmp_path, columns=("ID", "text")))
    path = write(tmp_path, "fine", "tab\tinside")
    with pytest.raises(DataError, match=r"gap.tsv:3: 13 cells, but the header has 12"):
        read_gap(path)


def test_the_official_files_have_no_column_of_row_numbers(tmp_path):
    path = tmp_path / "gap-development.tsv"
    rows = ["development-1\tZoe said she won. Kim left.\tshe\t9\tZoe\t0\tTRUE\tKim\t18\tFALSE\thttp://x"]
    path.write_text("\n".join(["\t".join(COLUMNS[1:]), *rows]) + "\n")
    assert read_gap(path) == ["Zoe said she won.", "Kim left."]


def test_empty_text_names_the_line(tmp_path):
    with pytest.raises(DataError, match=r"gap.tsv:3: sentence '' has no visible"):
        read_gap(write(tmp_path, "fine", ""))


def test_header_alone(tmp_path):
    with pytest.raises(DataError, match="a header and no rows"):
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
