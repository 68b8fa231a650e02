"""Pages for programmers: every block of Python runs as it stands, and prints what they say."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Pages whose blocks of Python run one after the other in one namespace. A block of `text` right
# below one of `python` is what that prints.
PAGES = ("python.md",)
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_page_python_runs_as_written_and_prints_what_it_says(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python") > 0
    assert sum(block[2] is not None for block in blocks) == text.count("```text")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        code = compile("\n" * line + block[1], page, "exec")  # errors name the page's own line
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, namespace)
        if block[2] is not None:
            assert out.getvalue() == block[2], f"{page}:{line}"


def test_python_page_tells_of_every_method() -> None:
    from hydra_edge import Personalizer

    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    methods = {n for n, m in vars(Personalizer).items() if callable(m) and not n.startswith("_")}
    assert {n for n in methods if f"{n}(" not in text} == set()
    assert {"open", "from_records"} <= {
        n for n in vars(Personalizer) if f"Personalizer.{n}(" in text
    }


def test_embedding_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "embed_in_app.py")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "you took" in done.stdout
