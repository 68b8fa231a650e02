"""Write the README's transcript and figures: `make readme` (figures only: --figures).

The transcript is what the commands print on this machine, nothing else; the figures, those of
docs/measured.md and some of docs/training.md and docs/performance-notes.md among them, come from
`bench/results/*.json` and the shipped base's manifest. Between the markers, nothing is written by
hand.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from _costs import scales, speeds
from _kept import picks, stopping, votes
from _quality import digest, quality
from _tables import ROOT
from _training import borrowed, classifiers, few, ladder

README = ROOT / "README.md"
MEASURED, TRAINING = ROOT / "docs" / "measured.md", ROOT / "docs" / "training.md"
NOTES = ROOT / "docs" / "performance-notes.md"
QUERY = (
    "Large language models answer questions about long stories poorly. We build a corpus of "
    "narratives with questions and show that retrieving the right passages helps."
)
COMMANDS = (
    "hydra-edge import jsonl examples/papers/author-a.jsonl --user me",
    "hydra-edge fit-head --user me --budget 90s",
    f'hydra-edge rank "{QUERY}" -k 2',
    f'hydra-edge "{QUERY}" --explain',
)


def transcript() -> str:
    """Run the commands in a fresh home and return what a terminal shows."""
    parts = []
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"HYDRA_EDGE_HOME": home, "COLUMNS": "100", "NO_COLOR": "1"}
        for command in COMMANDS:
            arguments = shlex.split(command)
            program = Path(sys.executable).parent / arguments[0]
            result = subprocess.run(
                [program, *arguments[1:]], env=env, cwd=ROOT, text=True, check=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            lines = [line.rstrip() for line in result.stdout.splitlines()]
            parts.append("\n".join([f"$ {command}", *lines]).strip())
    return "```\n" + "\n\n".join(parts) + "\n```\n"


def replace(text: str, name: str, content: str) -> str:
    """Put content between a section's markers."""
    pattern = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"there is no section {name} to write")
    return pattern.sub(lambda m: m[1] + content + m[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", action="store_true", help="leave the transcript as it is")
    parser.add_argument("--check", action="store_true", help="fail if the figures are stale")
    args = parser.parse_args()
    pages = {
        README: {"digest": digest(), "speed": speeds()},
        MEASURED: {"quality": quality(), "picks": picks(), "scale": scales()},
        TRAINING: {
            "ladder": ladder(),
            "classifiers": classifiers(),
            "few": few(),
            "borrowed": borrowed(),
        },
        NOTES: {"votes": votes(), "stopping": stopping()},
    }
    if not (args.check or args.figures):
        pages[README]["transcript"] = transcript()
    for page, sections in pages.items():
        old = new = page.read_text(encoding="utf-8")
        for name, content in sections.items():
            new = replace(new, name, content)
        if new == old:
            continue
        if args.check:
            sys.exit(f"{page.name}: figures are stale; run make readme")
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
