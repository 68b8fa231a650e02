"""The server's command line: ``python -m export <command>``."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer

from export.command import (
    ANSWERS,
    WORK,
    Answers,
    Data,
    MaxTokens,
    Out,
    Source,
    bars,
    files_of,
    run_app,
    say,
    table,
)
from export.published import AUTHORS_STEPS
from hydra_edge.encoder import Encoder
from hydra_edge.errors import ConfigError
from hydra_edge.types import JsonDict, Role

app = typer.Typer(
    help="Make the bases that devices run: convert, check, pack.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.command("encoder")
def encoder_command(
    out: Annotated[Path, typer.Option(help="Folder for encoder.onnx, tokenizer.json and card.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Histories to measure on: .jsonl, .jsonl.gz, or a folder of training files."
        ),
    ],
    source: Source = None,
    max_tokens: MaxTokens = 128,
) -> None:
    """Convert all-MiniLM-L6-v2 to int8 ONNX and check it against torch.

    Example: `python -m export encoder --out build/encoder --data commits.train.jsonl.gz`
    """
    files = files_of(data)
    from export.graph import make_encoder
    from export.parity import graph_encoder
    from hydra_edge.bundle.manifest import ENCODER_FILE, TOKENIZER_FILE

    with bars() as progress:
        card = make_encoder(files, out, source=source, max_tokens=max_tokens, progress=progress)
    with tempfile.TemporaryDirectory() as scratch:
        graph, tokenizer = out / ENCODER_FILE, out / TOKENIZER_FILE
        timings = _time(graph_encoder(Path(scratch) / "base", graph, tokenizer, card))
    table("Parity with torch float32", {k: v for k, v in card.parity.items() if k != "limits"})
    table("On this machine", timings)
    say(f"Wrote {out}. Next: python -m export pack --encoder {out} --out BUNDLE")


@app.command("build")
def build_command(
    data: Data,
    out: Out,
    work: Annotated[Path, typer.Option(help="What the stages leave; makes a rerun short.")] = WORK,
    llm: Annotated[
        list[str] | None, typer.Option(help="LLMs to ask; default: smollm2 and gemma3.")
    ] = None,
    pools: Annotated[
        list[str] | None,
        typer.Option(
            help="How much an LLM is asked: NAME=TEXT_USERS,LABEL_USERS,QUERIES. Two numbers more, "
            "RECORD_QUERIES,RECORDS, have it label single records as well, for your own use: no "
            "stage reads these labels. Without them none is asked for."
        ),
    ] = None,
    answers: Answers = ANSWERS,
    replay: Annotated[bool, typer.Option(help="Use kept answers only; no LLM is needed.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these of: onnx mine label train agree pack.")
    ] = None,
    source: Source = None,
    max_tokens: MaxTokens = 128,
    threads: Annotated[int, typer.Option(help="For the LLM; 0 lets the machine decide.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Draws the users, and what training draws.")] = 0,
) -> None:
    """Rebuild a base from data, in stages; one whose inputs are unchanged is skipped.

    Stopped, it goes on where it was: every answer of an LLM is kept at once.

    Example: `python -m export build --data DATA --out hydra_edge/bundles/default --replay`
    """
    files = files_of(data)
    from export.build import build
    from export.mine import KNOWN_PLANS, Plan, plan_for
    from export.pack import check_size
    from export.workshop import Settings
    from hydra_edge.bundle import load_bundle

    sizes = dict(_named_sizes(text) for text in pools or ())
    names = list(dict.fromkeys(llm or [plan.name for plan in KNOWN_PLANS]))
    if unknown := [name for name in sizes if name not in names]:
        raise ConfigError(
            f"--pools: got {', '.join(unknown)}; expected some of {', '.join(names)}. Name it "
            "with --llm too."
        )
    plan = Plan(seed=seed, llms=tuple(plan_for(name, sizes.get(name, "")) for name in names))
    settings = Settings(
        tuple(files), out, work, answers, plan,
        source=source, max_tokens=max_tokens, replay=replay, threads=threads,
    )  # fmt: skip
    with bars() as progress:
        build(settings, progress=progress, say=say, only=only or ())
    if not only or "pack" in only:
        check_size(load_bundle(out))


@app.command("ladder")
def ladder_command(
    data: Data,
    work: Annotated[Path, typer.Option(help="What the stages of a build have left.")] = WORK,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here; else show a table only.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of users.")] = 3,
    dims: Annotated[str, typer.Option(help="Numbers of learned features to try.")] = "4,8",
    tune: Annotated[
        bool, typer.Option(help="Also train the encoder's last layer, on the first fold.")
    ] = True,
    source: Source = None,
    max_tokens: Annotated[int, typer.Option(min=8, max=512, help="As the base was built.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Splits users, and what training draws.")] = 0,
) -> None:
    """Measure what each step of training pays, on training users left out in turn.

    Example: `python -m export ladder --data DATA --work build/base --json ladder.json`
    """
    files = files_of(data)
    from export.ladder.run import Size, run

    size = Size(folds=folds, dims=_numbers(dims), seed=seed)
    with bars() as progress:
        figures = run(
            files, work, size, progress,
            tune=tune, source=source, max_tokens=max_tokens,
        )  # fmt: skip
    from export.ladder.report import lines, write

    typer.echo("\n".join(lines(figures)))
    if json_file is not None:
        write(json_file, figures)
        say(f"Wrote {json_file}.")


@app.command("answers")
def answers_command(folder: Answers = ANSWERS) -> None:
    """Pack the answers that LLMs gave, to be kept with the code: `*.jsonl` into `*.jsonl.gz`.

    Example: `python -m export answers --folder export/answers`
    """
    from export.cache import pack_answers

    grown = sorted(folder.glob("*.jsonl"))
    for path in grown:
        say(f"{path.name}.gz: {pack_answers(path):,} answers")
    if not grown:
        say(f"{folder} holds no answers that are not packed.")


@app.command("published")
def published_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Where each task gets a folder with its encoders.")],
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    source: Source = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Answers of the LLM, kept so that nobody asks twice (.jsonl); default: in "
            "export/answers, by the LLM's name."
        ),
    ] = None,
    llm: Annotated[str, typer.Option(help="Local model, as for `hydra-edge -m`.")] = "smollm2",
    replay: Annotated[bool, typer.Option(help="Use kept answers only.")] = False,
    users: Annotated[int, typer.Option(min=1, help="Training users of each task.")] = 30,
    record_calls: Annotated[
        int, typer.Option(min=0, help="Answers to single records, for each user.")
    ] = 40,
    pools: Annotated[int, typer.Option(min=0, help="Pools of 8, for each user.")] = 5,
    least_steps: Annotated[
        int, typer.Option(min=0, help="More epochs where the paper's 2 are fewer steps.")
    ] = AUTHORS_STEPS,
    max_tokens: Annotated[int, typer.Option(min=8, max=512, help="Longer pairs are cut.")] = 128,
    threads: Annotated[int, typer.Option(help="For LLM and torch; 0 lets them decide.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Draws users, pseudo-queries and weights.")] = 0,
) -> None:
    """Train HYDRA as published, a baseline for `python -m bench.quality --published`.

    Example: `python -m export published --data DATA --out build/published --task movie_tag`
    """
    files = files_of(data)
    import torch

    from export.cache import answers_file, open_cached
    from export.encoder import source_folder
    from export.published.build import Plan, build
    from export.published.labels import Allowance
    from export.published.train import Recipe

    if threads:
        torch.set_num_threads(threads)
    cache = cache or answers_file(ANSWERS, llm)
    model = open_cached(llm, cache, replay=replay, threads=threads)
    plan = Plan(
        users, Allowance(record_calls, pools), Recipe(least_steps=least_steps), max_tokens, seed
    )
    with bars() as progress:
        cards = build(
            files, out, model, plan,
            source=source or source_folder(), only=task or (), progress=progress,
        )  # fmt: skip
    for card in cards:
        for role, figures in card.roles.items():
            table(f"{card.task}, {role}", figures)
    say(f"Wrote {out}. Next: python -m bench.quality --published {out}")


@app.command("pack")
def pack_command(
    encoder: Annotated[Path, typer.Option(help="Folder made by `python -m export encoder`.")],
    out: Out,
    maps: Annotated[
        Path | None, typer.Option(help="Scales, maps and priors (safetensors); default: neutral.")
    ] = None,
    closed_sets: Annotated[
        Path | None,
        typer.Option(help="Answers of the closed sets --maps has classifiers for (stage train's)."),
    ] = None,
    quality: Annotated[
        Path | None, typer.Option(help="Figures for the manifest (a JSON object).")
    ] = None,
) -> None:
    """Put an encoder and its maps into a bundle that devices verify and load.

    Example: `python -m export pack --encoder build/encoder --out hydra_edge/bundles/default`
    """
    import json

    from export.pack import CARD_FILE, Card, check_size, load_maps, neutral_maps, pack
    from hydra_edge.bundle.manifest import ENCODER_FILE, TOKENIZER_FILE
    from hydra_edge.features import feature_names

    arrays = load_maps(maps) if maps else {}
    features: dict[Role, tuple[str, ...]] = {}
    for role in get_args(Role):
        learned = arrays.get(f"{role}.map.query")
        features[role] = feature_names(role, 0 if learned is None else len(learned))
    stated: JsonDict = json.loads(quality.read_text(encoding="utf-8")) if quality else {}
    sets: JsonDict = json.loads(closed_sets.read_text(encoding="utf-8")) if closed_sets else {}
    bundle = pack(
        out,
        encoder=encoder / ENCODER_FILE,
        tokenizer=encoder / TOKENIZER_FILE,
        card=Card.load(encoder / CARD_FILE),
        maps=arrays or neutral_maps(features),
        features=features,
        closed_sets=sets,
        quality=stated,
    )
    size = sum(file.size for file in bundle.manifest.files.values())
    say(f"{out}: base {bundle.base_id[:12]}, {size / 1e6:.1f} MB")
    check_size(bundle)


@app.command("golden")
def golden_command(
    texts: Annotated[Path, typer.Option(help="One text a line.")],
    out: Annotated[Path, typer.Option(help="Where to write texts and vectors (.npz).")],
    max_tokens: Annotated[int, typer.Option(min=8, max=512)] = 128,
) -> None:
    """Write reference vectors of torch float32, for tests of the shipped encoder.

    Example: `python -m export golden --texts tests/golden/encoder.txt --out encoder.npz`
    """
    from export.encoder import source_folder
    from export.parity import TorchEncoder

    lines = texts.read_text(encoding="utf-8").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    vectors = TorchEncoder(source_folder(), max_tokens).encode(lines)
    np.savez_compressed(out, texts=np.array(lines), vectors=vectors)
    say(f"{out}: {len(lines)} texts")


def _named_sizes(text: str) -> tuple[str, str]:
    name, equals, sizes = text.rpartition("=")
    if not name or not equals:
        raise ConfigError(
            f"--pools: got {text!r}; expected NAME=TEXT_USERS,LABEL_USERS,QUERIES. Write for "
            "example --pools smollm2=80,40,4."
        )
    return name, sizes


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(
            f"--dims: got {text!r}; expected whole numbers above 0. Write for example --dims 4,8."
        )
    return tuple(sorted(set(map(int, parts))))


def _time(encoder: Encoder) -> JsonDict:
    """Time what a user waits for, in milliseconds: the best start, median runs."""
    starts = []
    for _ in range(5):
        fresh = Encoder(encoder.bundle)
        begin = time.perf_counter()
        fresh.encode([""])
        starts.append(time.perf_counter() - begin)
    figures: JsonDict = {
        "encoder_mb": round(encoder.bundle.encoder_path.stat().st_size / 1e6, 2),
        "load_ms": round(1e3 * min(starts), 1),
    }
    for n, tokens in ((1, 32), (16, 64)):
        # Words of one token each, all texts different: nothing is saved by equal texts.
        batch = [" ".join([f"{i}"] + ["word"] * (tokens - 3)) for i in range(n)]
        runs = []
        for _ in range(30):
            begin = time.perf_counter()
            encoder.encode(batch)
            runs.append(time.perf_counter() - begin)
        figures[f"encode_{n}x{tokens}_ms"] = round(1e3 * statistics.median(runs), 2)
    return figures


def main() -> None:
    """Run; what a user can put right is one line on stderr, exit code 1."""
    run_app(
        app, label="Error", extras="the export extra", install="export,local",
        again="What was done so far is kept: put it right and run the same again.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
