"""People who rated sentences of film reviews, -4 to 4, as a file of users: a task of another scale.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python -m bench.raters vaderSentiment-3.3.2.tar.gz --out raters.jsonl.gz

The source distribution (MIT licence) holds the ratings of Hutto and Gilbert (ICWSM 2014): blocks
of 30 sentences, each block rated by the same 15 to 20 people in the same columns. A user is one
column of one block. Nothing of it is in this repository.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.command import new_app, start
from bench.guard import BenchError

BLOCK = 30  # sentences rated by the same people
TASK = "sentence_feeling"
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_SENTENCES, _RATINGS = (
    "movieReviewSnippets_GroundTruth.txt",
    "movieReviewSnippets_anonDataRatings.txt",
)

app = new_app()


class Rated(NamedTuple):
    """A sentence and what each of its block's people gave it, in the order of their columns."""

    sentence: str
    ratings: tuple[int, ...]


def _lines(archive: tarfile.TarFile, name: str) -> list[list[str]]:
    found = [m for m in archive.getmembers() if m.name.endswith(name)]
    stream = archive.extractfile(found[0]) if found else None
    if stream is None:
        raise KeyError(name)
    text = stream.read().decode("utf-8-sig", errors="replace")
    return [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]


def read_rated(path: Path) -> list[Rated]:
    """Read the sentences of vaderSentiment's source distribution with their ratings.

    Raises
    ------
    BenchError
        If it is not that archive.
    """
    try:
        with tarfile.open(path) as outer:
            (inner,) = [m for m in outer.getmembers() if m.name.endswith(_INNER)]
            stream = outer.extractfile(inner)
            content = stream.read() if stream is not None else b""
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            sentences, ratings = _lines(archive, _SENTENCES), _lines(archive, _RATINGS)
        rows = zip(sentences, ratings, strict=True)
        return [Rated(said[2], tuple(map(int, ast.literal_eval(of[3])))) for said, of in rows]
    except (OSError, tarfile.TarError, ValueError, KeyError, IndexError, SyntaxError) as err:
        raise BenchError(
            f"{path.name} cannot be read: {err}. Expected the source distribution of "
            "vaderSentiment 3.3.2: pip download --no-deps --no-binary :all: vaderSentiment==3.3.2"
        ) from err


def users_of(rated: list[Rated], each: int) -> Iterator[dict[str, object]]:
    """Give the lines of a data file: the first ``each`` people of every block rated by the same."""
    for first in range(0, len(rated) - BLOCK + 1, BLOCK):
        block = rated[first : first + BLOCK]
        if len({len(row.ratings) for row in block}) > 1:
            continue
        for column in range(min(each, len(block[0].ratings))):
            for seq, row in enumerate(block):
                yield {
                    "user": f"{first // BLOCK}-{column}", "id": f"{first + seq}", "seq": seq,
                    "time": None, "task": TASK, "input": row.sentence,
                    "output": str(row.ratings[column]),
                }  # fmt: skip


@app.command()
def main(
    archive: Annotated[Path, typer.Argument(help="vaderSentiment-3.3.2.tar.gz")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("raters.jsonl.gz"),
    each: Annotated[int, typer.Option(min=1, help="People of every block.")] = 2,
) -> None:
    """Write the raters as a file that every bench reads."""
    rows = [json.dumps(row, ensure_ascii=False) for row in users_of(read_rated(archive), each)]
    with gzip.open(out, "wt", encoding="utf-8") as stream:
        stream.write("".join(f"{row}\n" for row in rows))
    typer.echo(f"{len(rows) // BLOCK:,} users of {BLOCK} records each written to {out}")


if __name__ == "__main__":
    start(app)
