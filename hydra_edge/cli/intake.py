"""Reading a source into a user's file, and saying what came of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING

import typer

from hydra_edge.cli import options, output
from hydra_edge.cli.alike import as_their_source, holder
from hydra_edge.cli.interrupt import Interrupt
from hydra_edge.cli.session import known_tasks, missing_user_told, open_user
from hydra_edge.cli.taskwatch import add_watched
from hydra_edge.cli.views import plural
from hydra_edge.errors import (
    CancelledError,
    HydraError,
    ImportFormatError,
)
from hydra_edge.forms import record_json

if TYPE_CHECKING:
    from hydra_edge.importers import ImportLog
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.types import AddResult, JsonDict, Progress, Record

SAMPLES = 3
BAD_SHOWN = 20
TASKS_SHOWN = 8
_EVERY = 50  # records or items between two looks at the progress bar


class Reading:
    """Records of one source on their way in; a source that breaks off has ended, with ``error``."""

    def __init__(
        self, records: Iterator[Record], log: ImportLog, bar: Progress | None, stop: Interrupt
    ) -> None:
        self.error: HydraError | None = None
        self._records, self._log, self._bar, self._stop = records, log, bar, stop
        log.watch = self._step

    def __iter__(self) -> Iterator[Record]:
        """Pass records on until the end, a fault, or Ctrl-C; move the progress bar."""
        try:
            for count, record in enumerate(self._records):
                if count % _EVERY == 0:
                    self._show()
                if self._stop.wanted:
                    return
                yield record
        except CancelledError:
            return
        except HydraError as err:
            self.error = err

    def _step(self) -> None:
        """Look up between two items: it may be long until one of them becomes a record."""
        if self._stop.wanted:
            raise CancelledError("Reading was interrupted.")
        if self._log.done % _EVERY == 0:
            self._show()

    def _show(self) -> None:
        if self._bar:
            self._bar(f"reading {self._log.unit}", self._log.done, self._log.total or 0)


class Tally:
    """Counts the records of an import on their way into a user's file.

    Parameters
    ----------
    private
        What the user said of them: private, public, or nothing.

    Attributes
    ----------
    tasks
        How many are of each task.
    new_tasks
        Those of them that are not built in, described or used; with the known name near it, or "".
    hidden
        How many records of each source are private, those there before included.
    stay_private
        How many were said to be public now, but are there already as private.
    taken
        How many records other sources had that are this one's now, by those; in a dry run, how
        many may become it.
    """

    def __init__(self, private: bool | None) -> None:
        self._said = private
        self.tasks, self.hidden = Counter[str](), Counter[str]()
        self.new_tasks: dict[str, str] = {}
        self.stay_private = 0
        self.taken: dict[str, int] = {}
        self._read_private = self._private = 0

    def read(self, records: Iterable[Record]) -> Iterator[Record]:
        """Pass records on as their source has them."""
        for record in records:
            self._read_private += record.private
            yield record

    def count(
        self, records: Iterable[Record], store: Store | None, *, dry_run: bool
    ) -> Iterator[Record]:
        """Pass records on as they go in; ``store`` is None if it is not there yet."""
        from hydra_edge.tasks import near_task

        known = known_tasks(store)
        moving = _Moving(store) if dry_run and store is not None else None
        looks = self._said is False or (dry_run and self._said is None)
        for record in records:
            if record.task not in self.tasks and record.task not in known:
                # Each is compared with all that are known: of thousands nobody reads the names.
                named = len(self.new_tasks) < TASKS_SHOWN
                self.new_tasks[record.task] = near_task(record.task, known) if named else ""
            there = holder(store, record) if store is not None and (looks or dry_run) else None
            # What has a record's id and is private keeps it private.
            stays = looks and there is not None and there.private
            self.tasks[record.task] += 1
            self._private += record.private
            self.hidden[record.source] += record.private or stays
            self.stay_private += self._said is False and stays
            if moving is not None and there is not None and moving.takes(there, record):
                self.taken[there.source] = self.taken.get(there.source, 0) + 1
            yield record

    def add(self, records: Iterable[Record], me: Personalizer) -> AddResult:
        """Add records, and count the private ones as they were stored.

        Texts that are private already are so under any id.
        """
        before = me.store.sources()
        result = me.add(self.count(records, me.store, dry_run=False))
        everyone, public = me.store.sources(), me.store.sources(public_only=True)
        self.hidden = Counter({s: everyone.get(s, 0) - public.get(s, 0) for s in self.hidden})
        lost = {s: n - everyone.get(s, 0) for s, n in before.items() if s not in self.hidden}
        self.taken = {s: n for s, n in lost.items() if n > 0}
        return result

    @property
    def as_earlier(self) -> bool:
        """Tell whether some became private because earlier ones of their source are."""
        return self._private > self._read_private

    def is_unused(self, task: str) -> bool:
        """Tell whether there are records, but none of a task."""
        from hydra_edge.tasks import canonical_name

        return bool(self.tasks) and canonical_name(task) not in self.tasks

    def to_show(self, user: str | None) -> str:
        """Say what lets remote LLMs see the private ones."""
        source = next(iter(+self.hidden), None)
        command = options.command("history", "private", "--off", source=source, user=user)
        return f"`{command}` lets them"


def run(
    ctx: typer.Context,
    read: Callable[[ImportLog], Iterator[Record]],
    *,
    user: str | None,
    private: bool | None,
    dry_run: bool,
    as_json: bool,
    task: str | None = None,
    as_before: Callable[[Iterable[Record], Store], Iterator[Record]] | None = None,
) -> None:
    """Read a source to its end into a user's file and report; no file is made for nothing.

    Parameters
    ----------
    private
        What the user said of these records: private, public, or nothing.
    task
        What the user said the task is of records that name none.
    as_before
        Marks records private that are to be so like earlier ones, where nothing was said. Without
        it, new records are private where all earlier ones of their source are.
    """
    from hydra_edge.importers import ImportLog
    from hydra_edge.types import AddResult

    log, result, samples, name = ImportLog(), AddResult(), [], ""
    tally = Tally(private)

    def as_wanted(new: Iterable[Record], store: Store) -> Iterator[Record]:
        if private is None:
            new = (as_before or as_their_source)(new, store)
        for record in new:
            if stop.wanted:  # many may have waited until the source's end
                return
            yield record

    with Interrupt("Stopping after this record") as stop, output.progress(quiet=as_json) as bar:
        reading = Reading(read(log), log, bar, stop)
        records = tally.read(reading)
        first = next(records, None)
        if first is None and reading.error:
            raise reading.error
        if dry_run and first is not None:
            records = chain([first], records)
            with ExitStack() as opened:
                store = None
                with missing_user_told(user):  # nobody is there yet whose records matter
                    store = opened.enter_context(open_user(ctx, user)).store
                    records = as_wanted(records, store)
                records = tally.count(records, store, dry_run=True)
                samples = list(islice(records, SAMPLES))
                deque(records, maxlen=0)  # read to the end, for the counts
        elif first is not None:
            with open_user(ctx, user, create=True) as me:
                name = me.user
                records = as_wanted(chain([first], records), me.store)
                result = add_watched(tally.add, records, me, log.notes, user)
    if tally.as_earlier:
        those = "records of this repository" if as_before else "all records of this source"
        output.note(f"Kept private, as {those} are already; --public keeps new ones public.")
    for remark in log.notes:
        output.note(remark, style="yellow")
    if task and tally.is_unused(task):
        output.note(f"--task {task} was used for no record: each names its own.", style="yellow")
    error = reading.error
    if error is None and not log.read and not stop.wanted:
        error = _nothing_read(log, f"hydra-edge import {ctx.info_name} --help")
    to_show = "" if private else "see --public" if dry_run else tally.to_show(user)
    report = Report(name, log, result, tally, to_show, samples, dry_run, stop.wanted, error)
    if as_json:
        output.write_json(report.json())
    else:
        report.write()
    if stop.wanted:
        raise typer.Exit(130)
    if error:
        raise typer.Exit(1)


def _nothing_read(log: ImportLog, usage: str) -> ImportFormatError:
    seen = log.skipped.total() + log.bad_total
    reasons = ", ".join(f"{count} {reason}" for reason, count in log.skipped.most_common())
    unreadable = f"{log.bad_total} unreadable" if log.bad_total else ""
    why = "; ".join(filter(None, (reasons, unreadable)))
    return ImportFormatError(
        f"Nothing was imported: got no record in {plural(seen, log.item)}"
        f"{f' ({why})' if why else ''}; expected at least one. What is read, and by which options: "
        f"{usage}"
    )


class _Moving:
    """Which records that are there an import may take over, as far as a dry run sees."""

    def __init__(self, store: Store) -> None:
        from hydra_edge.store.moved import may_take

        self._public = store.sources(public_only=True)  # what is all private keeps its name
        self._may_take = cache(may_take)  # looks at the disk

    def takes(self, there: Record, record: Record) -> bool:
        """Tell whether a record that is there may go to the source of one with its id."""
        earlier, source = there.source, record.source
        return earlier != source and earlier in self._public and self._may_take(earlier, source)


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
