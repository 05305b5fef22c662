import pytest

from ncfair_jax.data.text import read_text
from ncfair_jax.files.reading import DataError


def test_file_and_folder_in_path_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.txt").write_text("last one.\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("One. Two.\n\n  Three.\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("not read", encoding="utf-8")
    assert list(read_text(tmp_path / "a.txt")) == ["One.", "Two.", "Three."]
    assert list(read_text(tmp_path)) == ["One.", "Two.", "Three.", "last one."]


@pytest.mark.parametrize("end", [" ", "\r", "\n", "\r\n"])
def test_no_line_is_too_long_and_every_line_end_counts(tmp_path, end):
    sentences = [f"The nurse saw patient {number} today." for number in range(525)]  # 3150 words
    (tmp_path / "a.txt").write_bytes(end.join(sentences).encode())
    assert list(read_text(tmp_path / "a.txt")) == sentences


def test_faults_name_file_and_line(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.txt files"):
        list(read_text(tmp_path))
    (tmp_path / "a.txt").write_text("fine\n\n\u200b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.txt:3: sentence '\\u200b' has no visible character"):
        list(read_text(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"a.txt:2: not UTF-8"):
        list(read_text(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        list(read_text(tmp_path / "missing.txt"))
