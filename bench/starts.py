"""What starting costs: help, our import, a first ranking in a new process, memory, size on disk.

Every process runs from compiled files, as an installed program does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import hydra_edge
from bench.clock import LEAST_PAIRS, Sample, by_turns, sample
from bench.guard import BenchError
from bench.pasts import open_person, past, put_random_vectors, queries
from hydra_edge.types import JsonDict

COLD_RECORDS = 1_000
RSS_RECORDS = 10_000
IMPORTED = 10_000
_NAME = re.compile(r"[A-Za-z0-9._-]+")

_EMPTY = """
import typer
app = typer.Typer(rich_markup_mode=None, add_completion=False)
@app.command()
def hello() -> None:
    "Say nothing."
app()
"""
_MAIN = "from hydra_edge.cli import main; main()"
_API = "from hydra_edge import Personalizer"
_SESSION = """
import json, os, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as the encoder does before it imports it
started = time.perf_counter()
import onnxruntime
imported = time.perf_counter()
from hydra_edge.bundle import load_bundle
from hydra_edge.encoder import Encoder
bundle = load_bundle()
verified = time.perf_counter()
encoder = Encoder(bundle)
encoder.encode(["one"])
print(json.dumps({
    "import_onnxruntime_ms": (imported - started) * 1e3,
    "verify_base_ms": (verified - imported) * 1e3,
    "load_and_first_text_ms": (time.perf_counter() - verified) * 1e3,
}))
"""
_RESIDENT = """
import json, os, sys
from pathlib import Path
import psutil
from bench.pasts import open_person
me = psutil.Process()
with open_person(Path(sys.argv[1])) as person:
    person.rank(sys.argv[2], k=4)
    person.rank(sys.argv[2] + " again", k=4)
    print(json.dumps({"rss_mb": me.memory_info().rss / 1e6}))
"""


def run_python(code: str, *arguments: str, home: Path | None = None) -> str:
    """Run code in a new process of this Python; return what it printed.

    Raises
    ------
    BenchError
        If it fails.
    """
    env = os.environ | ({} if home is None else {"HYDRA_EDGE_HOME": str(home)})
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"A process to be timed failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def prepare(home: Path, n: int, data: Sequence[Path]) -> None:
    """Make a person with ``n`` records whose vectors are there already."""
    with open_person(home) as person:
        records = past(n, data)
        person.add(records)
        put_random_vectors(person.store, person.bundle.base_id, records, seed=0)


def cold_rank(data: Sequence[Path], pairs: int) -> JsonDict:
    """Time ``hydra-edge rank`` in new processes, and name what loading the encoder takes of it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(home, COLD_RECORDS, data)
        asked = queries(pairs + 1, data)

        def run(i: int) -> None:
            run_python(_MAIN, "rank", asked[i], "--user", "bench", "--json", home=home)

        run(pairs)
        times = sample([partial(run, i) for i in range(pairs)])
    parts = [json.loads(run_python(_SESSION)) for _ in range(pairs)]
    named = {key: Sample(tuple(part[key] for part in parts)).summary() for key in parts[0]}
    return {
        "rank_cold_ms": round(times.p50, 3),
        "rank_cold": times.summary() | {"records": COLD_RECORDS, "of_which": named},
    }


def helps(pairs: int) -> JsonDict:
    """Time ``hydra-edge --help`` against the help of an app that can do nothing."""
    run_python(_MAIN, "--help")  # compiles what was changed
    versus = by_turns(
        lambda _: run_python(_EMPTY, "--help"), lambda _: run_python(_MAIN, "--help"), pairs
    )
    sides = {"ours_is": "an empty app", "theirs_is": "hydra-edge"}
    return {"help_over_typer": round(versus.ratio, 3), "help": versus.summary() | sides}


def imports(pairs: int) -> JsonDict:
    """Time ``from hydra_edge import Personalizer``, and numpy's part of it.

    ``import_ms`` is the median over pairs of what the interpreter alone does not take.
    """
    run_python(_API)
    versus = by_turns(lambda _: run_python("pass"), lambda _: run_python(_API), pairs)
    numpy = by_turns(lambda _: run_python("pass"), lambda _: run_python("import numpy"), pairs)
    return {
        "import_ms": round(versus.difference_ms, 3),
        "import": versus.summary()
        | {"ours_is": "Python alone", "theirs_is": "Python and hydra-edge"}
        | {"of_which_numpy_ms": round(numpy.difference_ms, 3)},
    }


def resident(data: Sequence[Path], n: int = RSS_RECORDS) -> JsonDict:
    """Read the memory of a process that has ranked, without an LLM."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), n, data)
        told = json.loads(run_python(_RESIDENT, folder, queries(1, data)[0]))
    return {"rss_mb_10k": round(told["rss_mb"], 1)}


def installed_mb() -> float:
    """Add up the files of hydra-edge and of all packages its core needs, and theirs."""
    wanted, seen, total = ["hydra-edge"], {"hydra-edge"}, 0
    while wanted:
        try:
            found = distribution(wanted.pop())
        except PackageNotFoundError:  # not for this system
            continue
        places = [Path(str(file.locate())) for file in found.files or []]
        total += sum(place.stat().st_size for place in places if place.is_file())
        needed = [line for line in found.requires or [] if "extra ==" not in line]
        names = {match[0].lower() for line in needed if (match := _NAME.match(line))}
        wanted += sorted(names - seen)
        seen |= names
    package = Path(hydra_edge.__file__).parent
    if not _is_installed_here(package):  # an editable install lists no file of its own
        total += sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    return total / 1e6


def _is_installed_here(package: Path) -> bool:
    files = distribution("hydra-edge").files or []
    return any(Path(str(file.locate())).resolve() == package / "__init__.py" for file in files)


def measure(data: Sequence[Path], *, quick: bool) -> JsonDict:
    """Measure starting and what stays in memory."""
    pairs = LEAST_PAIRS if quick else 2 * LEAST_PAIRS + 1
    return (
        helps(pairs)
        | imports(pairs)
        | cold_rank(data, pairs)
        | resident(data)
        | {"installed_mb": round(installed_mb(), 1)}
    )


def measure_import(data: Sequence[Path], *, quick: bool) -> JsonDict:
    """Time adding records to a new file; nothing is encoded."""
    records = past(IMPORTED, data)

    def run() -> None:
        with tempfile.TemporaryDirectory() as home, open_person(Path(home)) as person:
            person.add(records)

    times = sample([run] * (3 if quick else LEAST_PAIRS))
    return {
        "records_per_s": round(IMPORTED / times.p50 * 1000.0, 1),
        "records": IMPORTED,
        "times": times.summary(),
    }
