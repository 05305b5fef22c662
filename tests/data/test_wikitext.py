import pytest

from ncfair_jax.data.wikitext import heldout_text
from ncfair_jax.files.reading import DataError


def test_first_quarter_of_the_paragraphs_as_they_stand(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text(" \n = Title = \n\n one @-@ 1 <unk> \n = = Part = = \n two \n" + " more \n" * 7, encoding="utf-8")
    assert heldout_text(path) == ["one @-@ 1 <unk>", "two"]


def test_too_short_a_file(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text(" = Title = \n one \n", encoding="utf-8")
    with pytest.raises(DataError, match="1 paragraphs; expected the test part"):
        heldout_text(path)


def test_the_real_file_gives_545_paragraphs(shared):
    paragraphs = heldout_text(shared("data/wikitext2/test.txt"))
    assert len(paragraphs) == 545
    assert paragraphs[0].startswith("Robert <unk> is an English film , television and theatre actor .")
    assert any(" @-@ " in paragraph for paragraph in paragraphs)
