"""People who describe Debian packages, as files of users: a text and a label the base never met.

    for file in binary-amd64/Packages.xz i18n/Translation-en.xz; do
      curl -O http://deb.debian.org/debian/dists/bookworm/main/$file
    done
    python -m bench.packages Packages.xz Translation-en.xz --out packages

A user is one maintainer, a record one source package of theirs: its name and long description with
the summary they gave it (``package_summary``, text) and the section they put it in
(``package_section``, label). Teams are left out, as many people write for them. Packages have no
dates: a maintainer's stand in the order of their names' sha256. Nothing of it is in this
repository.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.command import new_app, start
from bench.guard import BenchError

FEWEST = 16  # packages a maintainer has at least
# Addresses and names under which more than one person writes.
_SHARED = re.compile(r"\b(teams?|groups?|maint\w*|developers|packagers|lists?|qa)\b", re.IGNORECASE)

app = new_app()


class Package(NamedTuple):
    """One source package: who maintains it, and what they wrote of it."""

    maintainer: str
    name: str
    section: str
    summary: str
    description: str


def _paragraphs(path: Path) -> Iterator[dict[str, str]]:
    """Give the paragraphs of a control file, each as its fields; lines of a field stay lines."""
    fields: dict[str, str] = {}
    name = ""
    with lzma.open(path, "rt", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line[0] in " \t":
                fields[name] += "\n" + line.strip()
            elif line.strip():
                name, _, value = line.partition(":")
                fields[name] = value.strip()
            elif fields:
                yield fields
                fields = {}
    if fields:
        yield fields


def read_packages(packages: Path, translations: Path) -> list[Package]:
    """Read one binary package of every source: the one named for it, else the first.

    Raises
    ------
    BenchError
        If these are not the two files of one Debian release.
    """
    try:
        texts = {
            (of["Package"], of["Description-md5"]): of["Description-en"]
            for of in _paragraphs(translations)
        }
        of_source: dict[str, dict[str, str]] = {}
        for of in _paragraphs(packages):
            source = of.get("Source", of["Package"]).split()[0]
            if source not in of_source or of["Package"] == source:
                of_source[source] = of
        found = []
        for of in of_source.values():
            text = texts.get((of["Package"], of.get("Description-md5", "")), "")
            summary, _, lines = text.partition("\n")
            body = re.sub(r"\s*\n\.\n\s*", "\n\n", lines)
            if body.strip() and of.get("Section"):
                written = (of["Section"].split("/")[-1], summary, body)
                found.append(Package(of["Maintainer"], of["Package"], *written))
    except (OSError, EOFError, lzma.LZMAError, KeyError) as err:
        name = packages.name if packages.is_file() else str(packages)
        raise BenchError(
            f"{name} and {translations.name} cannot be read: {type(err).__name__}: {err}. Expected "
            "Packages.xz and Translation-en.xz of one Debian release, as `python -m "
            "bench.packages --help` names them."
        ) from err
    return found


def users_of(found: list[Package], fewest: int) -> Iterator[list[dict[str, object]]]:
    """Give every maintainer's packages as the lines of a data file, without their task's fields."""
    by_user: defaultdict[str, list[Package]] = defaultdict(list)
    for package in found:
        if not _SHARED.search(package.maintainer.replace("-", " ").replace(".", " ")):
            by_user[package.maintainer].append(package)
    for maintainer, theirs in sorted(by_user.items()):
        if len(theirs) >= fewest:
            theirs.sort(key=lambda package: _digest(package.name))
            yield [
                {
                    "user": _digest(maintainer), "id": package.name, "seq": seq, "time": None,
                    "input": f"{package.name}\n\n{package.description}",
                    "package_summary": package.summary, "package_section": package.section,
                }
                for seq, package in enumerate(theirs)
            ]  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@app.command()
def main(
    packages: Annotated[Path, typer.Argument(help="Packages.xz of a Debian release.")],
    translations: Annotated[Path, typer.Argument(help="Translation-en.xz of the same.")],
    out: Annotated[Path, typer.Option(help="The folder for two files.")] = Path("packages"),
    fewest: Annotated[int, typer.Option(min=8, help="Packages of a maintainer.")] = FEWEST,
) -> None:
    """Write Debian's maintainers as two files that every bench reads.

    Both come from http://deb.debian.org/debian/dists/bookworm/main/: binary-amd64/Packages.xz and
    i18n/Translation-en.xz.
    """
    users = [*users_of(read_packages(packages, translations), fewest)]
    out.mkdir(parents=True, exist_ok=True)
    for task in ("package_summary", "package_section"):
        with gzip.open(out / f"{task}.jsonl.gz", "wt", encoding="utf-8") as stream:
            for row in (row for user in users for row in user):
                line = {k: v for k, v in row.items() if not k.startswith("package_")}
                line |= {"task": task, "output": row[task]}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    total = sum(len(user) for user in users)
    typer.echo(f"{len(users):,} users with {total:,} records written to {out}, a file a task")


if __name__ == "__main__":
    start(app)
