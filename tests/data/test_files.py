import pytest

from ncfair_jax.data.files import CorpusError, check_visible, read_lines


def test_only_line_feeds_end_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("﻿one\r\ntwo two\x0cstill\n\nlast".encode())
    assert read_lines(path) == ["one", "two two\x0cstill", "", "last"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.txt: the file is empty"),
        (b" \n\n", "is empty"),
        (b"ok\nfine\ncaf\xe9\n", r"a.txt:3: not UTF-8 \(byte 0xe9"),
    ],
)
def test_unusable_files_are_named_with_the_line(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_lines(path)


def test_missing_file(tmp_path):
    with pytest.raises(CorpusError, match="nowhere: no such file"):
        read_lines(tmp_path / "nowhere")


@pytest.mark.parametrize("sentence", ["", " \t", "\u200b", "\ufffd", "\u0301", "\x07"])
def test_sentences_without_a_visible_character_are_refused(sentence):
    with pytest.raises(CorpusError, match=r"f.txt:7: sentence .* has no visible character"):
        check_visible(sentence, "f.txt", 7)
    check_visible(sentence + "é.", "f.txt", 7)
