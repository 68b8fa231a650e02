"""Debian's maintainers as users: whose packages count, and what a record of one says."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.datasets import draw_tasks, read_files
from bench.guard import BenchError
from bench.packages import app, read_packages, users_of

ANN, BEN = "Ann Lee <ann@example.org>", "Ben Ito <ben@example.org>"


def written(folder: Path, found: list[tuple[str, str, str, str]]) -> tuple[Path, Path]:
    """Write packages (name, source, maintainer, section) and their descriptions as Debian does."""
    packages, texts = "", ""
    for name, source, maintainer, section in found:
        of = f"Source: {source} (1.2)\n" if source else ""
        packages += (
            f"Package: {name}\n{of}Version: 1.2\nMaintainer: {maintainer}\nDepends: libc6,\n more\n"
            f"Description: summary of {name}\nDescription-md5: md5 {name}\nSection: {section}\n\n"
        )
        texts += (
            f"Package: {name}\nDescription-md5: md5 {name}\nDescription-en: summary of {name}\n"
            f" What {name} is:\n good.\n .\n  Second paragraph.\n\n"
        )
    paths = folder / "Packages.xz", folder / "Translation-en.xz"
    for path, text in zip(paths, (packages, texts), strict=True):
        path.write_bytes(lzma.compress(text.encode()))
    return paths


def test_a_source_counts_once_by_the_package_named_for_it(tmp_path: Path) -> None:
    paths = written(tmp_path, [
        ("libfoo-dev", "foo", ANN, "libdevel"), ("foo", "", ANN, "non-free/utils"),
        ("libbar1", "bar", ANN, "libs"), ("libbar-dev", "bar", ANN, "libdevel"),
    ])  # fmt: skip
    foo, bar = read_packages(*paths)
    assert (foo.name, foo.section, bar.name, bar.section) == ("foo", "utils", "libbar1", "libs")
    assert foo.maintainer == ANN
    assert foo.summary == "summary of foo"
    assert foo.description == "What foo is:\ngood.\n\nSecond paragraph."


def test_a_user_is_one_person_with_enough_packages(tmp_path: Path) -> None:
    shared = (
        "Debian Med Packaging Team <med@example.org>", "QA <packages@qa.debian.org>",
        "Foo <foo@lists.example.org>", "Bar <pkg-bar-maintainers@example.org>",
    )  # fmt: skip
    found = [
        (f"p{i}-{n}", "", of, "utils") for i, of in enumerate((ANN, *shared)) for n in range(9)
    ]
    found += [(f"q{n}", "", BEN, "net") for n in range(7)]
    users = [*users_of(read_packages(*written(tmp_path, found)), 8)]
    assert [[row["id"][:2] for row in user] for user in users] == [["p0"] * 9], "Ann alone"
    assert [row["seq"] for row in users[0]] == [*range(9)]
    assert [row["id"] for row in users[0]] != [f"p0-{n}" for n in range(9)], "not by their names"
    assert ANN not in json.dumps(users)


def test_both_tasks_are_read_by_the_bench(tmp_path: Path) -> None:
    sections = ("utils", "net", "libs")
    found = [(f"p{n}", "", (ANN, BEN)[n % 2], sections[n % 3]) for n in range(60)]
    paths = written(tmp_path, found)
    out = tmp_path / "made"
    done = CliRunner().invoke(app, [*map(str, paths), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 users with 60 records" in done.output
    files = [out / "package_section.jsonl.gz", out / "package_summary.jsonl.gz"]
    section, summary = draw_tasks(read_files(files), users=2, queries=5, seed=0, specs={}, only=())
    assert (section.name, section.spec.kind) == ("package_section", "label")
    assert section.spec.labels == tuple(sorted(sections))
    assert (summary.name, summary.spec.kind) == ("package_summary", "text")
    with gzip.open(files[1], "rt", encoding="utf-8") as stream:
        row = json.loads(next(stream))
    assert row["output"] == f"summary of {row['id']}"
    assert row["input"] == f"{row['id']}\n\nWhat {row['id']} is:\ngood.\n\nSecond paragraph."


def test_other_files_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    packages, texts = written(tmp_path, [("foo", "", ANN, "utils")])
    other = tmp_path / "other.xz"
    other.write_bytes(lzma.compress(b"nothing of a package\n"))
    plain = tmp_path / "plain.xz"
    plain.write_bytes(b"Package: foo\n")
    for pair in ((packages, other), (other, texts), (plain, texts), (tmp_path / "none.xz", texts)):
        with pytest.raises(BenchError, match=r"Expected Packages.xz and Translation-en.xz"):
            read_packages(*pair)
