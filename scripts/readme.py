"""Write the README's transcript and figures: `make readme` (figures only: --figures).

The transcript is what the commands print on this machine, nothing else; the figures come from
`bench/results/*.json`. Between the markers, nothing is written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
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
ROWS = (
    "zero_shot", "random", "rag_k1", "rag_k2", "rag_k4", "pag", "dense_k4", "consensus", "shared",
    "personal", "gated", "oracle",
)  # fmt: skip
ALWAYS = {"zero_shot", "rag_k4", "dense_k4", "consensus", "shared", "personal", "gated", "oracle"}


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


def figures() -> str:
    """Return the quality table of every stored result."""
    out = []
    for path in sorted((ROOT / "bench" / "results").glob("quality-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for name, task in result["tasks"].items():
            gain, room, best = task["gain"], task["headroom"], task["best_prompt_only"]
            any_of_all = task["best_any"]
            rows = [row for row in ROWS if row in ALWAYS | {best, any_of_all}]
            out.append(
                f"**{name}**, {result['llm']}, {task['users']} users the base has never seen, "
                f"{task['queries']} queries, {result['candidates']} candidates "
                f"(`{result['command']}`):\n"
            )
            out.append("| " + " | ".join(rows) + " |")
            out.append("|" + "---|" * len(rows))
            cells = [f"{task['rows'][row]['utility']:.3f}" for row in rows]
            out.append("| " + " | ".join(cells) + " |\n")
            out.append(
                f"Gated hydra-edge over the best of the paper's prompt-only answers ({best}): "
                f"{gain['mean']:+.3f}, 90 % interval [{gain['low']:+.3f}, {gain['high']:+.3f}], "
                f"relative {relative(task['relative_gain'])}; over the best of all prompt-only "
                f"answers ({any_of_all}) relative {relative(task['relative_gain_any'])}; users "
                f"harmed {task['users_harmed']:.0%}; "
                f"{'none' if room is None else format(room, '.0%')} of the oracle's "
                f"headroom. Personal over shared head: "
                f"{task['personal_minus_shared']['mean']:+.3f} "
                f"[{task['personal_minus_shared']['low']:+.3f}, "
                f"{task['personal_minus_shared']['high']:+.3f}].\n"
            )
    return "\n".join(out)


def relative(gain: float | None) -> str:
    """Write a relative gain, which does not exist over a baseline of zero."""
    return "undefined" if gain is None else f"{gain:+.1%}"


def replace(text: str, name: str, content: str) -> str:
    """Put content between a section's markers."""
    pattern = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md has no section {name}")
    return pattern.sub(lambda m: m[1] + content + m[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", action="store_true", help="leave the transcript as it is")
    parser.add_argument("--check", action="store_true", help="fail if the figures are stale")
    args = parser.parse_args()
    old = README.read_text(encoding="utf-8")
    new = replace(old, "figures", figures())
    if args.check:
        sys.exit(0 if new == old else "README.md: figures are stale; run make readme")
    if not args.figures:
        new = replace(new, "transcript", transcript())
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
