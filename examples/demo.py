"""Personalize a local LLM on a real history, and look at the difference.

Holds back the newest records, imports the others, fits the heads, and then answers the held
back ones with and without personalization. `make demo` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hydra_edge import Personalizer, Record
from hydra_edge.errors import HydraError
from hydra_edge.importers import ImportLog, read_git, read_jsonl
from hydra_edge.privatefiles import write_private
from hydra_edge.types import DEFAULT_TASK

HERE = Path(__file__).parent
HELD_BACK = 4
MARKER = ".made-by-demo"  # in a home that may be deleted, since the demo made it


def read_history(history: Path | None, author: str | None = None) -> tuple[str, list[Record]]:
    """Return a description and the records, oldest first."""
    log = ImportLog()
    if history is None:
        path = HERE / "papers" / "author-a.jsonl"
        records = read_jsonl(path, log, task="paper_title")
        what = "abstracts and titles of one author (ACL Anthology, CC BY 4.0)"
    else:
        records = read_git(history, log, author=author)
        what = f"commits {f'by {author}' if author else 'of yours'} in {history}"
    return what, sorted(records, key=lambda r: r.time or 0.0)


def fresh_home(home: Path) -> None:
    """Make an empty home; what is deleted for it is a demo's own, never anything else."""
    if (home / MARKER).is_file():
        shutil.rmtree(home)
    elif home.exists() and (not home.is_dir() or any(home.iterdir())):
        sys.exit(
            f"--home {home} cannot be used: got something that no demo made; expected a demo's "
            "home, an empty folder, or nothing. Give another folder, or remove this one yourself."
        )
    home.mkdir(parents=True, exist_ok=True)
    (home / MARKER).write_text("The next demo here deletes this folder.\n", encoding="utf-8")


def run(command: list[str]) -> None:
    """Show a command and run it, as a reader would type it."""
    Console().print(f"\n[bold]$ {' '.join(command)}[/bold]", highlight=False)
    scripts = Path(sys.executable).parent
    subprocess.run([str(scripts / command[0]), *command[1:]], check=True)


def write_jsonl(records: list[Record], path: Path) -> None:
    """Write records as `hydra-edge import jsonl` reads them."""
    keys = ("id", "task", "time", "input", "output")
    lines = [json.dumps({k: getattr(r, k) for k in keys}, ensure_ascii=False) for r in records]
    write_private(path, "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=Path, help="a git repository; default: the sample")
    parser.add_argument(
        "--author",
        metavar="NAME",
        help="whose commits: part of a name or e-mail (make demo AUTHOR=NAME); default: yours",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(".demo"),
        help="where the demo keeps its files; deleted first if an earlier demo made it",
    )
    parser.add_argument("--budget", default="60s", help="time for asking the LLM while fitting")
    args = parser.parse_args()
    if args.author and not args.history:
        parser.error("--author needs --history: the sample is one author's")
    console = Console()

    what, records = read_history(args.history, args.author)
    if len(records) < HELD_BACK + 4:
        sys.exit(
            f"Only {len(records)} usable records in {args.history}; the demo needs at least "
            f"{HELD_BACK + 4}. Try a repository with more commits of yours that have a body."
        )
    past, queries = records[:-HELD_BACK], records[-HELD_BACK:]
    console.print(f"{len(records)} records: {what}. The newest {HELD_BACK} are held back.")

    fresh_home(args.home)
    os.environ["HYDRA_EDGE_HOME"] = str(args.home.absolute())
    file = args.home / "history.jsonl"
    write_jsonl(past, file)
    try:
        run(["hydra-edge", "import", "jsonl", str(file), "--user", "me"])
    finally:
        file.unlink()  # it may be your own history, which is in your file now
    run(["hydra-edge", "fit-head", "--user", "me", "--budget", args.budget])

    table = Table(title="Held back: never seen by the model or the heads", show_lines=True)
    for column in ("query", "unpersonalized", "personalized", "what was really written"):
        table.add_column(column, ratio=1)
    with Personalizer.open("me") as person, console.status("answering") as status:
        for i, record in enumerate(queries, start=1):
            status.update(f"answering {i} of {len(queries)}")
            plain = person.generate(record.input, task=record.task, n=1, k=0)
            mine = person.generate(record.input, task=record.task)
            query = " ".join(record.input.split()[:14]) + " ..."
            table.add_row(query, plain.text, mine.text, record.output)
    console.print(table)
    task = queries[0].task or DEFAULT_TASK
    console.print(
        f"Your turn:\n  export HYDRA_EDGE_HOME={os.environ['HYDRA_EDGE_HOME']}\n"
        f'  {Path(sys.executable).parent}/hydra-edge "some text" --task {task} --explain\n'
        "The next demo deletes that folder; what you want to keep belongs into another one."
    )


if __name__ == "__main__":
    try:
        main()
    except HydraError as err:
        sys.exit(f"error: {err}")
    except subprocess.CalledProcessError as err:  # the command has said why
        sys.exit(err.returncode)
