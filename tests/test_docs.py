"""What the documentation names is part of the project."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import tiny_hub, tiny_text
from tests.benchmarks import plain

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_are_there_and_not_ignored_by_git(page):
    named = set(re.findall(r"\b(?:docs|configs|launch|tests|ncfair_jax)/[\w./-]*\w", page.read_text(encoding="utf-8")))
    named = {name for name in named if "NAME" not in name}  # which stands for the reader's own
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing
    if (ROOT / ".git").exists():
        ignored = subprocess.run(["git", "-C", ROOT, "check-ignore", *named], capture_output=True, text=True).stdout
        assert not ignored


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links)


def test_tests_that_the_promises_name_are_there():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for path, name in re.findall(r"([\w/]*\btest_\w+\.py)(?:::(\w+))?", text):
        (file,) = (ROOT / "tests").rglob(path)
        assert f"def {name or 'test_'}" in file.read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The Python examples of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def run(page: str, count: int) -> None:
    """Runs the examples of a page one after the other, each by itself."""
    assert len(blocks(page)) == count
    for number, block in enumerate(blocks(page), start=1):
        exec(compile(block, f"{page}, example {number}", "exec"), {})


def test_every_page_with_examples_is_tested_here():
    pages = [page.name for page in (ROOT / "docs").rglob("*.md") if "```python" in page.read_text(encoding="utf-8")]
    assert sorted(pages) == ["benchmarks.md", "collapse.md", "extending.md", "models.md"]


def test_the_example_of_models_runs(tmp_path, monkeypatch, capsys):
    tiny_hub.write(tmp_path / "folder", "bert")
    monkeypatch.chdir(tmp_path)
    run("models.md", 1)
    assert capsys.readouterr().out
    assert "config.json" in os.listdir("copy")


def test_the_examples_of_collapse_run(tmp_path, monkeypatch, capsys):
    model, _ = tiny_text.write(tmp_path)
    model.rename(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    run("collapse.md", 2)
    surveyed, regularised, measured = capsys.readouterr().out.splitlines()
    assert "nan" not in surveyed and "(200, 16)" in regularised
    assert float(measured) == pytest.approx(float(regularised.split()[0]), rel=1e-5)


def test_the_examples_of_benchmarks_run(tmp_path, monkeypatch, capsys):
    tiny_hub.write(tmp_path / "folder", "bert")
    data = plain.write_data_folder(tmp_path / "data")
    (tmp_path / "my_pairs.csv").symlink_to(data / "crows_pairs" / "crows_pairs_anonymized.csv")
    (tmp_path / "my_examples.json").symlink_to(data / "stereoset" / "gender_intrasentence.json")
    (tmp_path / "my_rows.tsv").symlink_to(data / "bec_pro" / "BEC-Pro_EN.tsv")
    monkeypatch.chdir(tmp_path)
    run("benchmarks.md", 2)
    assert "CrowS-Pairs" in capsys.readouterr().out
    assert {"crows_pairs.json", "stereoset.json"} <= set(os.listdir("out"))


def test_the_examples_of_extending_are_what_the_tests_run():
    files = [ROOT / "tests" / f"toy_{name}.py" for name in ("family", "method", "benchmark")]
    sources = [file.read_text(encoding="utf-8") for file in files]
    found = [[block in source for source in sources] for block in blocks("extending.md")]
    assert len(found) > 10 and all(sum(places) == 1 for places in found)
    assert all(any(column) for column in zip(*found, strict=True))
