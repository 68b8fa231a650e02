"""What the package imports is declared, and what the README links to is in the source archive."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOR_USERS = ("local", "keyring", "server", "mcp")  # extras; the others are for development


def imported(path: Path) -> set[str]:
    """Return the top-level packages a file imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_package_imports_only_what_is_declared() -> None:
    project = PROJECT["project"]
    lines = [*project["dependencies"]]
    lines += [line for extra in FOR_USERS for line in project["optional-dependencies"][extra]]
    declared = {re.split(r"[\[<>=!~;, ]", line)[0].replace("-", "_").lower() for line in lines}
    used = set().union(*map(imported, (ROOT / "hydra_edge").rglob("*.py")))
    used -= {*sys.stdlib_module_names, "hydra_edge"}
    brought_by = packages_distributions()

    undeclared = {
        name for name in used
        if not declared.intersection(
            dist.replace("-", "_").lower() for dist in brought_by.get(name, [name])
        )
    }  # fmt: skip
    assert undeclared == set()


def test_source_archive_has_what_the_readme_links_to() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#:/]+)[^)]*\)", text)) - {"http", "https"}

    assert {"docs", "CONTRIBUTING.md"} <= linked <= set(included)
