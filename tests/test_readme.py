"""The code in the README and the documentation runs as it is printed."""

import re
import warnings
from pathlib import Path

import pytest
from pnncore.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Return every block of Python with the line of the page that it begins at."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        indent = len(found[1])
        lines = [line[indent:] for line in found[2].splitlines()]
        yield text[: found.start(2)].count("\n") + 1, "\n".join(lines)


def with_code():
    return [
        pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if any(blocks(page))
    ]


@pytest.mark.parametrize("page", with_code())
def test_code_runs(page, tmp_path, monkeypatch, request):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line, source in blocks(page):
            # Every block is a script of its own, in an empty folder.
            (folder := tmp_path / f"block{line}").mkdir()
            monkeypatch.chdir(folder)
            # Errors name the page and its line.
            code = compile("\n" * (line - 1) + source, str(page), "exec")
            try:
                exec(code, {"__name__": "__main__"})
            except DataError as error:
                if "is not found; it needs" not in str(error):
                    raise
                # Once more where the tests keep their data sets; skips, and says why, where there
                # are none.
                monkeypatch.setenv("PNNCORE_DATA", str(request.getfixturevalue("data_dir")))
                exec(code, {"__name__": "__main__"})


def test_the_readme_has_code_and_its_links_lead_somewhere():
    readme = ROOT / "README.md"
    assert len(list(blocks(readme))) >= 2
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", readme.read_text(encoding="utf-8"))
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), f"README.md links to {link}, which is not there"


def test_no_line_of_code_is_too_wide():
    for page in PAGES:
        for line, source in blocks(page):
            for number, text in enumerate(source.splitlines(), line):
                assert len(text) <= 120, f"{page.name}, line {number}: {len(text)} characters"
