"""The pages on desktops, packaging and security: their example runs, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
LINKS = [
    (page, target)
    for page in ("desktop.md", "packaging.md", "security.md")
    for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text(encoding="utf-8"))
]


def test_desktop_page_example_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "desktop.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
    said = capsys.readouterr().out
    assert said.count("heard:") == 3
    assert said.endswith("the head is now version 1\n")


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_page_link_leads_somewhere(page: str, target: str) -> None:
    assert (DOCS / target).exists(), f"{page} links to {target}"
