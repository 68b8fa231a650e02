"""What came of an import, as people and programs are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hydra_edge.cli import output
from hydra_edge.cli.views import plural
from hydra_edge.forms import record_json

if TYPE_CHECKING:
    from hydra_edge.cli.intake import Tally
    from hydra_edge.errors import HydraError
    from hydra_edge.importers import ImportLog
    from hydra_edge.types import AddResult, JsonDict, Record

SAMPLES = 3
BAD_SHOWN = 20
TASKS_SHOWN = 8


@dataclass(frozen=True)
class Report:
    """What came of an import."""

    user: str  # empty: nobody's file was opened
    log: ImportLog
    result: AddResult
    tally: Tally
    to_show: str  # what lets remote LLMs see the private ones, where nobody said they are
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
        for source, count in self.tally.taken.items():
            shown = output.one_line(source, 200)
            may = "may be " if self.dry_run else ""
            output.note(f"{plural(count, 'record')} {may}taken over from {shown}.")
        if self.tally.tasks:
            slips = any(self.tally.new_tasks.values())
            output.note(f"Tasks: {self._tasks()}", style="yellow" if slips else "dim")
        output.plain(self._summary())

    def _tasks(self) -> str:
        """Name the tasks, new ones first: their names may be slips."""
        tasks, new = self.tally.tasks, self.tally.new_tasks
        names = sorted(tasks, key=lambda name: (name not in new, -tasks[name]))
        parts = []
        for name in names[:TASKS_SHOWN]:
            near = f"; near it: {new[name]}" if new.get(name) else ""
            parts.append(f"{tasks[name]} {name}" + (f" (a new task{near})" if name in new else ""))
        if len(names) > TASKS_SHOWN:
            parts.append(f"and {plural(len(names) - TASKS_SHOWN, 'other task')}")
        return ", ".join(parts)

    def _summary(self) -> str:
        log, result, stay = self.log, self.result, self.tally.stay_private
        if self.dry_run:
            parts = [f"Would read {plural(log.read, 'record')}"]
        else:
            counts = f"{result.added} added, {result.updated} updated, {result.unchanged} unchanged"
            parts = [f"{self.user}: {counts}" if self.user else counts]
        if result.renamed:
            parts.append(f"{result.renamed} added under another id, theirs being taken")
        if kept := self.tally.hidden.total() - stay:
            how = f"; {self.to_show}" if self.to_show else ""
            parts.append(f"{kept} private (no remote LLM sees them{how})")
        if stay:
            parts.append(
                f"{stay} there already as private stay so (`hydra-edge history "
                "private --off ID...` changes that)"
            )
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
            "tasks": dict(self.tally.tasks),
            "new_tasks": {name: near or None for name, near in self.tally.new_tasks.items()},
            "private": self.tally.hidden.total(),
            "stay_private": self.tally.stay_private,
            "taken_over": self.tally.taken,
            "left_behind": self.tally.left,
            "not_dated": self.tally.ahead,
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
