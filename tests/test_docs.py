"""What the documentation names is part of the project."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import tiny_hub

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_are_there_and_not_ignored_by_git(page):
    named = set(re.findall(r"\b(?:docs|configs|launch|tests)/[\w./-]*\w", page.read_text(encoding="utf-8")))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing
    if (ROOT / ".git").exists():
        ignored = subprocess.run(["git", "-C", ROOT, "check-ignore", *named], capture_output=True, text=True).stdout
        assert not ignored


def test_the_example_of_models_runs(tmp_path, monkeypatch, capsys):
    tiny_hub.write(tmp_path / "folder", "bert")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.DOTALL
    )
    exec(compile(example, "models.md", "exec"), {})
    assert capsys.readouterr().out
    assert "config.json" in os.listdir("copy")
