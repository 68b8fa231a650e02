"""Whether memory grows with the number of answers: 1,000 generations in one process.

    python -m bench.leak --model smollm2-q8 --generations 1000

Pools of free text and votes on a closed set by turns, every prompt another one, every tenth
told to stop. Resident memory after the first 50, when all buffers have their size, is what the
rest is compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.command import Figures, given, head, new_app, start, write
from bench.decode import model_file
from bench.guard import BenchError
from bench.report import need
from hydra_edge.llm.llama_cpp import LlamaCpp
from hydra_edge.prompt import Prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import JsonDict

WARM = 50
LIMIT = 1.03

app = new_app()


def generate(llm: LlamaCpp, number: int) -> None:
    """Answer one prompt of its own."""
    task = BUILTIN["commit_subject" if number % 2 else "news_category"]
    prompt = Prompt(task, f"Change number {number} of a thousand.")
    choices = task.labels or None
    if number % 10 == 0:
        asked = iter(range(3))
        llm.complete(
            prompt, n=4, max_tokens=4, choices=choices, seed=number,
            should_stop=lambda: next(asked, None) is None,
        )  # fmt: skip
    else:
        llm.complete(prompt, n=4, max_tokens=4, choices=choices, seed=number)


def measure(path: Path, generations: int, threads: int = 0) -> JsonDict:
    """Return resident memory in bytes by number of generations, and the last over the warm one.

    Raises
    ------
    BenchError
        If there are too few generations to tell.
    """
    if generations <= WARM:
        raise BenchError(f"{generations} generations tell nothing; expected over {WARM}.")
    import psutil

    process, sizes = psutil.Process(), {}
    llm = LlamaCpp(path, threads=threads)
    try:
        for number in range(1, generations + 1):
            generate(llm, number)
            if number % WARM == 0 or number == generations:
                sizes[number] = process.memory_info().rss
    finally:
        llm.close()
    return {"rss_bytes": sizes, "last_over_warm": round(sizes[generations] / sizes[WARM], 4)}


@app.command()
def main(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="As bench.decode names them.")] = "smollm2-q8",
    generations: Annotated[int, typer.Option(help=f"Over {WARM}.")] = 1000,
    threads: Annotated[int, typer.Option(min=0, help="0: one a core that is free.")] = 0,
    json_path: Figures = None,
) -> None:
    """Measure; exit with 1 if memory grew by over 3 %."""
    need("psutil")
    console = Console()
    made = head("leak", given(context))
    found = measure(model_file(model), generations, threads)
    for number, size in found["rss_bytes"].items():
        console.print(f"{number:>6} generations: {size / 1e6:.1f} MB", highlight=False)
    console.print(f"last over {WARM}: {found['last_over_warm']:.4f} (at most {LIMIT})")
    write(made | {"model": model, "leak": found}, json_path, "leak", console)
    raise typer.Exit(int(found["last_over_warm"] > LIMIT))


if __name__ == "__main__":
    start(app)
