"""Reading a source into a user's file, and saying what came of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING

import typer

from hydra_edge.cli import options, output
from hydra_edge.cli.importreport import SAMPLES, TASKS_SHOWN, Report
from hydra_edge.cli.interrupt import Interrupt
from hydra_edge.cli.pruning import Outlook, Pruned, Pruning
from hydra_edge.cli.session import known_tasks, missing_user_told, open_user
from hydra_edge.cli.taskwatch import add_watched, not_dated
from hydra_edge.cli.views import plural
from hydra_edge.errors import (
    CancelledError,
    HydraError,
    ImportFormatError,
)

if TYPE_CHECKING:
    from hydra_edge.importers import ImportLog
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.types import AddResult, Progress, Record

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
    ahead
        How many have a time that is in the future, and not taken.
    taken
        How many records other sources had that are this one's now, by those; in a dry run, how
        many may become it.
    left
        How many records are left of those of them that are no longer there.
    """

    def __init__(self, private: bool | None) -> None:
        self._said = private
        self.tasks, self.hidden = Counter[str](), Counter[str]()
        self.new_tasks: dict[str, str] = {}
        self.stay_private = self.ahead = 0
        self.taken: dict[str, int] = {}
        self.left: dict[str, int] = {}
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
        from hydra_edge.sourceprivacy import holder
        from hydra_edge.store.times import is_ahead
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
            self.ahead += is_ahead(record)
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
        from hydra_edge.records import from_stream
        from hydra_edge.store.moved import is_gone

        before = me.store.sources()
        # Whether they are private has been said, or was looked up already.
        counted = self.count(records, me.store, dry_run=False)
        result = me.add(counted, inherit_private=False)
        everyone, public = me.store.sources(), me.store.sources(public_only=True)
        self.hidden = Counter({s: everyone.get(s, 0) - public.get(s, 0) for s in self.hidden})
        lost = {s: n - everyone.get(s, 0) for s, n in before.items() if s not in self.hidden}
        self.taken = {s: n for s, n in lost.items() if n > 0}
        gone = (s for s in self.taken if is_gone(s) and not from_stream(s))
        self.left = {s: everyone[s] for s in gone if everyone.get(s)}
        return result

    def left_behind(self, user: str | None) -> list[str]:
        """Say what is still kept of sources that are this one now, in another place."""
        said = []
        for source, count in self.left.items():
            command = options.command("forget", source=source, user=user)
            said.append(
                f"{plural(count, 'record')} left of {output.one_line(source, 200)}, which is gone: "
                f"no longer in it, or of another task. To erase, after a question: {command}"
            )
        return said

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
    pruning: Pruning | None = None,
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
    pruning
        Erases what is no longer in the source; None leaves it.
    """
    from hydra_edge.importers import ImportLog
    from hydra_edge.sourceprivacy import as_their_source
    from hydra_edge.types import AddResult

    log, result, samples, name = ImportLog(held=set() if pruning else None), AddResult(), [], ""
    tally = Tally(private)
    outlook: Outlook | None = None

    def as_wanted(new: Iterable[Record], store: Store) -> Iterator[Record]:
        if pruning:
            pruning.source.look(store)
        if private is None:
            new = (as_before or as_their_source)(new, store)
        for record in new:
            if stop.wanted:  # many may have waited until the source's end
                return
            yield record

    with Interrupt("Stopping after this record") as stop, output.progress(quiet=as_json) as bar:
        reading = Reading(read(log), log, bar, stop)
        records = tally.read(pruning.source.noting(reading) if pruning else reading)
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
                if pruning and store and not stop.wanted:
                    outlook = pruning.foresee(store, log)
        elif first is not None:
            with open_user(ctx, user, create=True) as me:
                name = me.user
                records = as_wanted(chain([first], records), me.store)
                result = add_watched(tally.add, records, me, log.notes, user)
    if tally.as_earlier:
        those = "records of this repository" if as_before else "all records of this source"
        output.note(f"Kept private, as {those} are already; --public keeps new ones public.")
    for remark in log.notes + not_dated(tally.ahead) + tally.left_behind(user):
        output.note(remark, style="yellow")
    if task and tally.is_unused(task):
        output.note(f"--task {task} was used for no record: each names its own.", style="yellow")
    error = reading.error
    if error is None and not log.read and not stop.wanted:
        error = _nothing_read(log, f"hydra-edge import {ctx.info_name} --help")
    to_show = "" if private else "see --public" if dry_run else tally.to_show(user)
    report = Report(name, log, result, tally, to_show, samples, dry_run, stop.wanted, error)
    _finish(ctx, report, pruning, outlook, user=user, as_json=as_json)


def _finish(
    ctx: typer.Context,
    report: Report,
    pruning: Pruning | None,
    outlook: Outlook | None,
    *,
    user: str | None,
    as_json: bool,
) -> None:
    """Report, erase what is no longer in the source if that is wanted, and end the command."""
    if not as_json:
        report.write()
    pruned: Outlook | Pruned | None = None
    if pruning:
        try:
            pruning.check(report.log, is_whole=not (report.error or report.stopped))
            pruned = outlook
            if not report.dry_run:
                with open_user(ctx, user) as me:
                    pruned = pruning.carry_out(me, report.log, quiet=as_json)
        except KeyboardInterrupt:
            report = replace(report, stopped=True)
            if pruned is None:
                output.note("Interrupted: --prune erased nothing. Import it again.")
        except HydraError as err:
            report = replace(report, error=report.error or err)
            if not as_json:
                output.write_error(err.code, str(err), as_json=False)
    if as_json:
        told = report.json() | {"pruned": pruned and pruned.json()}
        if isinstance(pruned, Pruned):
            told |= pruned.error
        output.write_json(told)
    elif pruned:
        pruned.write()
    if isinstance(pruned, Pruned):
        pruned.end(user)
    if report.stopped or report.error:
        raise typer.Exit(130 if report.stopped else 1)


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
