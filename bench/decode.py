"""What best-of-8 costs beside one answer, beside eight, and beside llama.cpp alone.

    python -m bench.decode --models smollm2-q8,gemma3 --json decode.json

Every contest is between the same GGUF file on the same threads, for one prompt of about 400
tokens and answers of a fixed length; an answer that ends earlier is not measured but replaced.
All contestants run once in each round, one after the other, and a ratio is the median over the
rounds. Every run begins without anything of the prompt evaluated, unless its name says so.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.clock import LEAST_PAIRS, Sample, spent_ms, use_clock
from bench.command import Clock, Figures, given, head, new_app, start, write
from bench.goals import DECODING
from bench.guard import BenchError
from hydra_edge.errors import UnknownModelError
from hydra_edge.llm.llama_cpp import LlamaCpp
from hydra_edge.llm.models import gemma3_file, smollm2_file
from hydra_edge.llm.recode import recode_q8
from hydra_edge.llm.threads import Threads
from hydra_edge.paths import find_paths
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import JsonDict, Record

MODELS = ("smollm2", "smollm2-q8", "gemma3")
N = 8
LENGTHS = (16, 64)
QUICK_ROUNDS = 3
_PROMPT_TOKENS = 400
_CONTEXT = 2048
_TEMPERATURE = 0.8
_TRIES = 24
# Answers of free text, which nothing but the model's own end mark ends before their length.
_ESSAY = TaskSpec(
    "essay", instruction="Read the text, and go on writing where it ends.", multiline=True,
    input_label="Text given to the writer", output_label="Continuation",
)  # fmt: skip
PAPERS = Path(__file__).parents[1] / "examples" / "papers" / "author-a.jsonl"
# Ratio -> its contestants, the first over the second.
RATIOS = {
    "best8_over_greedy_16": ("best8_16", "greedy_16"),
    "best8_over_greedy_64": ("best8_64", "greedy_64"),
    "independent8_over_best8_16": ("independent8_16", "best8_16"),
    "sequential8_over_best8_16": ("sequential8_16", "best8_16"),
    "sequential8_over_best8_64": ("sequential8_64", "best8_64"),
    "label_best8_over_greedy": ("label_best8", "label_greedy"),
    "over_bare_loop": ("bare_64_after_prompt", "best8_64_after_prompt"),
    # What llama.cpp alone takes for the shape of best-of-8: no engine on it can be below.
    "bare8_over_greedy_16": ("bare8_16", "greedy_16"),
    "bare8_over_greedy_64": ("bare8_64", "greedy_64"),
}

app = new_app()


def model_file(name: str) -> Path:
    """Return the GGUF of a model: as shipped, or as the product runs it (``smollm2-q8``).

    Raises
    ------
    BenchError
        If there is no such model here.
    """
    paths = find_paths()
    shipped = smollm2_file()
    if name == "gemma3":
        return gemma3_file(paths)
    if name not in MODELS or shipped is None:
        raise BenchError(f"No model {name!r} here; expected one of {', '.join(MODELS)}, installed")
    return shipped if name == "smollm2" else recode_q8(shipped, paths.cache / "models")


def models_here(names: Sequence[str], note: Callable[[str], None]) -> list[str]:
    """Return which of some models are installed; ``note`` is told of every other."""
    found = []
    for name in names:
        try:
            model_file(name)
        except (BenchError, UnknownModelError) as err:
            note(f"decoding of {name} was not measured: {err}")
        else:
            found.append(name)
    return found


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant: ``prepare`` is not timed."""

    prepare: Callable[[], object]
    work: Callable[[], object]


@dataclass(slots=True)
class Timings:
    """Milliseconds by contestant, one value a round."""

    file: str
    prompt_tokens: int
    label_tokens: int
    times_ms: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        """Return the median over the rounds of one contestant's time over another's."""
        above, below = (self.times_ms[run] for run in RATIOS[name])
        return statistics.median(a / b for a, b in zip(above, below, strict=True))

    def ratios(self) -> dict[str, float]:
        """Return all ratios by name."""
        return {name: round(self.ratio(name), 3) for name in RATIOS}

    def detail(self) -> JsonDict:
        """Return what the ratios were made of."""
        return {
            "file": self.file,
            "prompt_tokens": self.prompt_tokens,
            "label_tokens": self.label_tokens,
            "runs": {name: Sample(tuple(t)).summary() for name, t in self.times_ms.items()},
        }


def _records() -> list[Record]:
    rows = [json.loads(line) for line in PAPERS.read_text(encoding="utf-8").splitlines()]
    return [Record(row["input"], row["output"]) for row in rows]


class Contest:
    """One GGUF opened by the product, by llama-cpp-python, and by a bare loop."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        from bench.bare import BareLoop

        self._file = path.name
        self._llm = LlamaCpp(path, n_ctx=_CONTEXT, threads=threads)
        self._llama: Any = llama_cpp.Llama(  # has no types
            str(path), n_ctx=_CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self._bare = BareLoop(path, branches=N, threads=threads)
        section = BUILTIN["news_category"]
        self.prompt = self._sized(_ESSAY, _records())
        self._text = self.prompt.completion_text()
        self._tokens = self._llama.tokenize(self._text.encode(), special=True)
        sections = [replace(r, output=section.labels[i % 7]) for i, r in enumerate(_records())]
        self._label = self._sized(section, sections)
        self._seed = self._seed_of_long_answers()
        self._seeds = self._seeds_of_long_samples()
        self._label_tokens = self._vote()

    def close(self) -> None:
        """Free all three."""
        self._llm.close()
        self._llama.close()
        self._bare.close()

    def runs(self) -> dict[str, Run]:
        """Return the contestants in the order they run in a round."""
        runs: dict[str, Run] = {}
        fresh, clear = self._forget, self._llama.reset
        for size in LENGTHS:
            runs[f"greedy_{size}"] = Run(clear, partial(self._complete, size))
            runs[f"best8_{size}"] = Run(fresh, partial(self._best, size))
            runs[f"bare8_{size}"] = Run(_nothing, partial(self._bare_whole, size))
            runs[f"sequential8_{size}"] = Run(clear, partial(self._eight, size, reuse=True))
        runs["independent8_16"] = Run(clear, partial(self._eight, 16, reuse=False))
        runs["label_greedy"] = Run(clear, self._complete_label)
        runs["label_best8"] = Run(fresh, self._vote)
        runs["bare_64_after_prompt"] = Run(
            partial(self._bare.prompt, self._tokens), partial(self._bare_steps, 64)
        )
        runs["best8_64_after_prompt"] = Run(partial(self._best, 1), partial(self._best, 64))
        return runs

    def timings(self, rounds: int, tell: Callable[[str], None]) -> Timings:
        """Run all contestants once in each round."""
        out = Timings(self._file, len(self._tokens), self._label_tokens)
        for turn in range(1, rounds + 1):
            for name, run in self.runs().items():
                tell(f"round {turn} of {rounds}: {name}")
                run.prepare()
                out.times_ms.setdefault(name, []).append(spent_ms(run.work))
        return out

    # ---- what is asked

    def _sized(self, task: TaskSpec, records: Sequence[Record]) -> Prompt:
        """Build a prompt of at most 400 tokens, as near as words allow."""
        most = 4 if task.kind == "label" else 0
        if not most:  # texts alone, which the model goes on with
            texts = [task.instruction, records[0].input, records[3].input]
            task = replace(task, instruction="\n\n".join(texts))
        words = records[4].input.split()
        for shown, size in product(range(most, -1, -1), range(len(words), 9, -1)):
            prompt = build_prompt(task, " ".join(words[:size]), records[:shown])
            text = prompt.completion_text().encode()
            if len(self._llama.tokenize(text, special=True)) <= _PROMPT_TOKENS:
                return prompt
        raise BenchError(f"The records alone take over {_PROMPT_TOKENS} tokens; expected fewer")

    def _seed_of_long_answers(self) -> int:
        """Find a seed whose eight answers all reach the greatest length."""
        for seed in range(0, _TRIES * N, N):
            out = self._llm.complete(
                self.prompt, n=N, temperature=_TEMPERATURE, max_tokens=max(LENGTHS), seed=seed
            )
            if len(out) == N and all(c.tokens == max(LENGTHS) for c in out):
                return seed
        raise BenchError(f"No {N} answers of {max(LENGTHS)} tokens in {_TRIES} tries")

    def _seeds_of_long_samples(self) -> list[int]:
        """Find eight seeds with which llama-cpp-python's samples reach the greatest length."""
        seeds: list[int] = []
        for seed in range(_TRIES * N):
            reply = self._create(max(LENGTHS), temperature=_TEMPERATURE, seed=seed)
            if _written(reply) == max(LENGTHS):
                seeds.append(seed)
            if len(seeds) == N:
                return seeds
        raise BenchError(f"Too few samples of {max(LENGTHS)} tokens in {_TRIES * N} tries")

    # ---- contestants

    def _forget(self) -> None:
        """Let another prompt take the place of what is evaluated."""
        self._llm.complete(
            Prompt(TaskSpec("other", "text", instruction="Say."), "Why"), max_tokens=1
        )

    def _best(self, size: int) -> None:
        out = self._llm.complete(
            self.prompt, n=N, temperature=_TEMPERATURE, max_tokens=size, seed=self._seed
        )
        _check("best-of-8", [c.tokens for c in out], [size] * N)

    def _vote(self) -> int:
        """Vote on the label; return the tokens of the greedy vote."""
        labels = self._label.task.labels
        out = self._llm.complete(self._label, n=N, temperature=_TEMPERATURE, choices=labels)
        return out[0].tokens

    def _create(self, size: int, **options: Any) -> Any:
        return self._llama.create_completion(self._text, max_tokens=size, **options)

    def _complete(self, size: int) -> None:
        _check("one greedy answer", [_written(self._create(size, temperature=0.0))], [size])

    def _complete_label(self) -> None:
        text = self._label.completion_text()
        self._llama.create_completion(
            text, max_tokens=self._label_tokens, temperature=0.0, stop=["\n"]
        )

    def _eight(self, size: int, *, reuse: bool) -> None:
        written = []
        for seed in self._seeds:
            if not reuse:
                self._llama.reset()
            written.append(_written(self._create(size, temperature=_TEMPERATURE, seed=seed)))
        _check("eight samples", written, [size] * N)

    def _bare_whole(self, size: int) -> None:
        self._bare.prompt(self._tokens)
        self._bare_steps(size)

    def _bare_steps(self, size: int) -> None:
        # The first token comes of the prompt's own logits; the last is never evaluated.
        self._bare.steps(size - 1, self._tokens[-1])


def _nothing() -> None:
    """Prepare nothing."""


def _written(reply: Any) -> int:
    return int(reply["usage"]["completion_tokens"])


def _check(what: str, got: Sequence[int], expected: Sequence[int]) -> None:
    if list(got) != list(expected):
        raise BenchError(f"{what}: got {list(got)} tokens; expected {list(expected)}")


def free_threads() -> int:
    """Return how many cores nobody uses, by what is used in the next second.

    The load average, by which a process begins, still holds what ran a minute ago.
    """
    threads = Threads()
    threads.now()
    time.sleep(1.0)
    return threads.now()


def measure_in_full(
    models: Sequence[str],
    *,
    pairs: int = LEAST_PAIRS,
    threads: int,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Timings]:
    """Time all contestants of every model."""
    files = {name: model_file(name) for name in models}  # one that is missing is told of now
    out: dict[str, Timings] = {}
    for name, file in files.items():
        tell(f"{name}: finding answers of full length")

        def told(what: str, name: str = name) -> None:
            tell(f"{name}: {what}")

        contest = Contest(file, threads)
        try:
            out[name] = contest.timings(pairs, told)
        finally:
            contest.close()
    return out


def about_llama_cpp() -> JsonDict:
    """Return which llama.cpp is measured, and what it was built for."""
    import llama_cpp

    return {
        "llama_cpp_python": llama_cpp.__version__,
        "llama_cpp": llama_cpp.llama_print_system_info().decode().strip(),
    }


def show(console: Console, timed: dict[str, Timings]) -> None:
    """Print ratios beside their goals, and the times they are made of."""
    ratios = Table("ratio", "goal", *timed, title="decoding: ratios, median of rounds")
    for name in RATIOS:
        values = [f"{found.ratio(name):.2f}" for found in timed.values()]
        ratios.add_row(name, DECODING.get(name, ""), *values)
    times = Table("ms, p50 (p95)", *timed, title="decoding: times")
    details = [t.detail()["runs"] for t in timed.values()]
    for name in details[0]:
        times.add_row(
            name, *(f"{d[name]['p50_ms']:.0f} ({d[name]['p95_ms']:.0f})" for d in details)
        )
    console.print(ratios, times)


@app.command()
def main(
    context: typer.Context,
    models: Annotated[
        str, typer.Option(help=f"Some of {','.join(MODELS)}; default: those installed.")
    ] = "",
    pairs: Annotated[int, typer.Option(min=1, help="Rounds; a ratio is their median.")] = 7,
    threads: Annotated[int, typer.Option(min=0, help="0: one a core that is free.")] = 0,
    clock: Clock = "wall",
    json_path: Figures = None,
) -> None:
    """Measure decoding against one answer, eight answers, and llama.cpp alone."""
    console, status = Console(width=120), Console(stderr=True)
    threads = threads or free_threads()

    def tell(text: str) -> None:
        status.print(text, markup=False, highlight=False)

    about = about_llama_cpp()  # without the package nothing is looked for
    use_clock(clock)
    wanted = [name.strip() for name in models.split(",") if name.strip()]
    wanted = wanted or models_here(MODELS, tell)
    if not wanted:
        raise BenchError(
            f"Nothing was measured: found none of {', '.join(MODELS)}; expected one. Run pip "
            "install '.[local]' first."
        )
    made = head("decode", given(context))
    made["machine"] |= about | {"threads": threads}
    timed = measure_in_full(wanted, pairs=pairs, threads=threads, tell=tell)
    show(console, timed)
    result = made | {
        "decode": {name: found.ratios() for name, found in timed.items()},
        "detail": {name: found.detail() for name, found in timed.items()},
    }
    write(result, json_path, "decode", console)


if __name__ == "__main__":
    start(app)
