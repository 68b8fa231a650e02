"""Reading a source into a user's file, and saying what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import typer

from hydra_edge.cli import output
from hydra_edge.cli.interrupt import Interrupt
from hydra_edge.cli.session import open_user
from hydra_edge.cli.views import plural, record_json
from hydra_edge.errors import HydraError

if TYPE_CHECKING:
    from hydra_edge.importers import ImportLog
    from hydra_edge.types import AddResult, JsonDict, Progress, Record

SAMPLES = 3
BAD_SHOWN = 20
_EVERY = 50  # records between two looks at the progress bar


class Reading:
    """Records of one source on their way in; a source that breaks off has ended, with ``error``."""

    def __init__(
        self, records: Iterator[Record], log: ImportLog, bar: Progress | None, stop: Interrupt
    ) -> None:
        self.error: HydraError | None = None
        self._records, self._log, self._bar, self._stop = records, log, bar, stop

    def __iter__(self) -> Iterator[Record]:
        """Pass records on until the end, a fault, or Ctrl-C; move the progress bar."""
        try:
            for count, record in enumerate(self._records):
                if self._bar and count % _EVERY == 0:
                    self._bar(f"reading {self._log.unit}", self._log.done, self._log.total or 0)
                if self._stop.wanted:
                    return
                yield record
        except HydraError as err:
            self.error = err


def run(
    ctx: typer.Context,
    read: Callable[[ImportLog], Iterator[Record]],
    *,
    user: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Read a source to its end into a user's file and report; no file is made for nothing."""
    from hydra_edge.importers import ImportLog
    from hydra_edge.types import AddResult

    log, result, samples, name = ImportLog(), AddResult(), [], ""
    with Interrupt("Stopping after this record") as stop, output.progress(quiet=as_json) as bar:
        reading = Reading(read(log), log, bar, stop)
        records = iter(reading)
        first = next(records, None)
        if first is None and reading.error:
            raise reading.error
        if dry_run and first is not None:
            samples = [first, *islice(records, SAMPLES - 1)]
            deque(records, maxlen=0)  # read to the end, for the counts
        elif first is not None:
            with open_user(ctx, user, create=True) as me:
                name = me.user
                result = me.add(chain([first], records))
    report = Report(name, log, result, samples, dry_run, stop.wanted, reading.error)
    if as_json:
        output.write_json(report.json())
    else:
        report.write()
    if stop.wanted:
        raise typer.Exit(130)
    if reading.error or not log.read:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Report:
    """What came of an import."""

    user: str  # empty: nobody's file was opened
    log: ImportLog
    result: AddResult
    samples: list[Record]
    dry_run: bool
    stopped: bool
    error: HydraError | None

    def write(self) -> None:
        """Write bad items and samples, then one line that sums up."""
        log = self.log
        for bad in log.bad[:BAD_SHOWN]:
            output.note(f"{log.item} {bad.number}: {bad.reason}", style="yellow")
        if log.bad_total > BAD_SHOWN:
            output.note(f"... and {log.bad_total - BAD_SHOWN} more; --json lists the first 100.")
        for sample in self.samples:
            output.plain(f"[{sample.task}] {output.one_line(sample.input, 100)}")
            output.plain(f"    -> {output.one_line(sample.output, 100)}")
        if self.error:
            output.write_error(self.error.code, str(self.error), as_json=False)
        if self.stopped:
            output.note("Interrupted: what is counted here is kept, all else is not.")
        output.plain(self._summary())

    def _summary(self) -> str:
        log, result = self.log, self.result
        if self.dry_run:
            parts = [f"Would read {plural(log.read, 'record')}"]
        else:
            counts = f"{result.added} added, {result.updated} updated, {result.unchanged} unchanged"
            parts = [f"{self.user}: {counts}" if self.user else counts]
        if result.renamed:
            parts.append(f"{result.renamed} added under another id, theirs being taken")
        reasons = ", ".join(f"{count} {reason}" for reason, count in log.skipped.most_common())
        parts.append(f"{log.skipped.total()} skipped" + (f" ({reasons})" if reasons else ""))
        if log.bad_total:
            parts.append(f"{plural(log.bad_total, log.item)} unreadable")
        return "; ".join([*parts, "0 LLM calls"])

    def json(self) -> JsonDict:
        """Return all of it for programs."""
        error = self.error and {"code": self.error.code, "message": str(self.error)}
        return {
            "user": self.user or None,
            "read": self.log.read,
            **asdict(self.result),
            "skipped": dict(self.log.skipped),
            "bad": [asdict(bad) for bad in self.log.bad],
            "bad_total": self.log.bad_total,
            "bad_item": self.log.item,
            "dry_run": self.dry_run,
            "samples": [record_json(sample) for sample in self.samples],
            "interrupted": self.stopped,
            "llm_calls": 0,
            "error": error,
        }
