"""docs/security.md names a test for each defence: the tests it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def named_proofs(text: str) -> list[tuple[str, str]]:
    """Return each named test as file and function; a bare ``::name`` is of the file before it."""
    proofs, file = [], ""
    for path, name in re.findall(r"`([\w/]*(?:\.py)?)(?:::(\w+))?`", text):
        file = path if path.endswith(".py") else file
        if name or path.endswith(".py"):
            proofs.append((file, name))
    return proofs


@pytest.mark.parametrize(("file", "name"), named_proofs(TEXT))
def test_security_page_names_tests_that_exist(file: str, name: str) -> None:
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert re.search(rf"^(?:async )?def {name}\b" if name else "^def test_", source, re.MULTILINE)


def test_security_page_names_a_proof_for_every_door() -> None:
    files = {file for file, _ in named_proofs(TEXT)}
    assert files >= {
        "attacks/test_bundle_folder.py", "attacks/test_importers.py",
        "attacks/test_llm_server.py", "attacks/test_server.py", "attacks/test_store_files.py",
        "unit/test_mcp_private.py", "unit/test_personalizer_egress.py",
    }  # fmt: skip
