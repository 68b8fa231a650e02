"""The page on desktops: its example runs. All pages: their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md")),
]  # fmt: skip
LINKS = [
    (str(page.relative_to(ROOT)), target, part)
    for page in PAGES
    for target, part in re.findall(
        r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")
    )
]


def headings(page: Path) -> set[str]:
    """Return the headings of a page as links name them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def test_desktop_page_example_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "desktop.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
    said = capsys.readouterr().out
    assert said.count("heard:") == 3
    assert said.endswith("the head is now version 1\n")


@pytest.mark.parametrize(("page", "target", "part"), LINKS)
def test_page_link_leads_somewhere(page: str, target: str, part: str) -> None:
    file = ROOT / page
    to = file.parent / target if target else file
    assert to.exists(), f"{page} links to {target}"
    assert not part or part in headings(to), f"{page} links to {target}#{part}"
