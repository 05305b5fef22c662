"""The CoNLL-2012 format: a file written by hand, what is refused, and the way back."""

import re

import pytest

from ncfair_jax.files import notes
from ncfair_jax.files.reading import DataError
from ncfair_jax.tasks.coreference.conll import Document, read_conll, write_conll

# Two parts; 13 columns in the first sentence, 12 in the others; nested and crossing brackets.
TEXT = """#begin document (bc/talk/00/talk_0001); part 000
bc/talk/00/talk_0001 0 0 The DT (TOP(S(NP* - - - Ann * (A0* (4|(2
bc/talk/00/talk_0001 0 1 nurse NN *) - - - Ann * *) 2)
bc/talk/00/talk_0001 0 2 's POS * - - - Ann * (V*) -
bc/talk/00/talk_0001 0 3 brother NN * - - - Ann * * (7|4)
bc/talk/00/talk_0001 0 4 /. . * - - - Ann * * 7)

bc/talk/00/talk_0001 0 0 He PRP * - - - Bob * (4)|(9
bc/talk/00/talk_0001 0 1 saw VBD * - - - Bob * (9
bc/talk/00/talk_0001 0 2 her PRP * - - - Bob * (2)|9)|9)

#end document
#begin document (bc/talk/00/talk_0001); part 001
bc/talk/00/talk_0001 1 0 Yes UH * - - - - * -

#end document
"""
FIRST = Document(
    "bc/talk/00/talk_0001",
    0,
    (("The", "nurse", "'s", "brother", "."), ("He", "saw", "her")),
    ("Ann", "Bob"),
    (((0, 1), (7, 7)), ((0, 3), (5, 5)), ((3, 4),), ((5, 7), (6, 7))),
)


def test_read_by_hand(tmp_path):
    path = tmp_path / "a.v4_gold_conll"
    path.write_text(TEXT)
    first, second = read_conll(path)
    assert first == FIRST
    assert second == Document("bc/talk/00/talk_0001", 1, (("Yes",),), ("-",), ())
    assert first.key == "bc/talk/00/talk_0001_0" and second.key == "bc/talk/00/talk_0001_1"


def test_written_documents_come_back(tmp_path):
    path = tmp_path / "b_conll"
    clusters = (((0, 0), (0, 2)), ((0, 3), (2, 2), (3, 3)), ((1, 3),))
    other = Document("wb/x", 3, (("a", "b", "c", "d"),), ("s",), clusters)
    write_conll(path, [FIRST, other])
    assert read_conll(path) == [FIRST, other]
    assert sorted(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("brother NN * - - - Ann * * (7|4)", "brother NN * - - - Ann * * (7|5)", ":5: mention '5)' closes"),
        ("her PRP * - - - Bob * (2)|9)|9)", "her PRP * - - - Bob * (2)|9)", ":8: the bracket of cluster 9 is never"),
        ("saw VBD * - - - Bob * (9", "saw VBD * - - - Bob *", ":9: 11 columns; expected at least 12"),
        ("'s POS * - - - Ann * (V*) -", "'s POS * - - - Ann * (V*) * -", ":4: 14 columns; expected 13"),
        ("'s POS * - - - Ann * (V*) -", "'s POS * - - - Ann * (V*) (x", ":4: mention '(x' in the last column"),
        ("'s POS * - - - Ann * (V*) -", "'s POS * - - - Ann * (V*) 4", ":4: mention '4' in the last column"),
        ("#end document\n#begin", "#begin", ":12: '#begin document (bc/talk/00/talk_0001); part 001'; expected `#end"),
        ("; part 000", "", ":1: '#begin document (bc/talk/00/talk_0001)'; expected `#begin document (NAME)"),
        ("#begin document (bc/talk/00/talk_0001); part 000\n", "", ":1: 'bc/talk/00/talk_0001 0 0 The DT (TOP(S(N' is"),
        ("bc/talk/00/talk_0001 1 0 Yes UH * - - - - * -\n", "", ":15: document bc/talk/00/talk_0001 part 1 has no"),
        ("* -\n\n#end document\n", "* -\n", ":14: document bc/talk/00/talk_0001 has no `#end document`"),
    ],
)
def test_refusals_name_the_line(tmp_path, old, new, message):
    path = tmp_path / "a_conll"
    assert TEXT.count(old) == 1
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(DataError, match=re.escape(f"{path}{message}")) as caught:
        read_conll(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_conll(tmp_path / "missing")
    (tmp_path / "blank").write_text("\n\n")
    with pytest.raises(DataError, match="holds no document"):
        read_conll(tmp_path / "blank")


def test_words_with_other_blanks_stay_whole(tmp_path):
    path = tmp_path / "a_conll"
    word = "1\u00a0000\u3000m"
    lines = TEXT.replace("nurse", word).splitlines()
    tabs = ["\t".join(line.split(" ")) if line and line[0] != "#" else line for line in lines]
    for text in ("\n".join(lines), "\n".join(tabs), "\ufeff" + "\r\n".join(tabs)):
        path.write_bytes(text.encode())
        first = read_conll(path)[0]
        assert first == FIRST._replace(sentences=(("The", word, "'s", "brother", "."), FIRST.sentences[1]))


def test_a_part_with_a_malformed_line_is_left_out_and_counted(tmp_path):
    path = tmp_path / "a_conll"
    part = "#begin document (nw/a); part {:03d}\nnw/a 0 0 Yes UH * - - - - * -\n\n#end document\n"
    parts = [part.format(number) for number in range(100)]
    parts[1] = parts[1].replace("* -\n", "* (7\n")
    path.write_text("".join(parts))
    with notes.collected() as found:
        assert [document.part for document in read_conll(path)] == [0, *range(2, 100)]
    assert found == [notes.Skipped(str(path), 100, (6,), "the bracket of cluster 7 is never closed")]
