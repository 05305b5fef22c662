"""WikiText (Merity et al. 2016): the held-out text of utility figures and neural-collapse statistics."""

from pathlib import Path

from ncfair_jax.files.reading import DataError, read_lines

FILE = "wikitext2/test.txt"  # in a folder of data


def heldout_text(path: str | Path) -> list[str]:
    """The held-out paragraphs: the first quarter of the lines of WikiText-2's test part that are neither blank nor headings.

    The text stays as it stands in the file (` @-@ ` and `<unk>` included), but for the blanks around each line. For the
    public test.txt these are 545 paragraphs. Nothing may train on them.

    Raises:
        DataError: missing, empty or undecodable file, or fewer than four such lines.
    """
    lines = [line.strip() for line in read_lines(path)]
    paragraphs = [line for line in lines if line and not line.startswith("= ")]  # headings: "= … ="
    if len(paragraphs) < 4:
        raise DataError(f"{path}: {len(paragraphs)} paragraphs; expected the test part of WikiText-2")
    return paragraphs[: len(paragraphs) // 4]
