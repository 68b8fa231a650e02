"""Erasing records as every command does it: asked with the numbers, done, and told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.errors import HydraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hydra_edge.personalizer import Personalizer
    from hydra_edge.types import ForgetReceipt, JsonDict


@dataclass(frozen=True)
class Erasure:
    """What was erased, and what is still to be done."""

    receipt: ForgetReceipt
    fault: HydraError | None  # bytes may remain, or heads could not be fitted again
    interrupted: bool
    not_fitted: list[str]  # tasks whose heads are to be fitted again
    bytes_remain: bool = False  # as it was interrupted before

    def json(self) -> JsonDict:
        """Return all of it for programs."""
        missing: JsonDict = {}
        if self.interrupted or self.fault:
            missing = {"not_fitted": self.not_fitted}
        if self.interrupted:
            missing |= {"interrupted": True, "bytes_remain": self.bytes_remain}
        return asdict(self.receipt) | missing | error_of(self.fault)

    def line(self) -> str:
        """Say what was erased, and which heads were fitted again."""
        fitted = tuple(task for task in self.receipt.tasks if task not in self.not_fitted)
        return views.receipt_line(replace(self.receipt, tasks=fitted))

    def end(self, user: str | None) -> None:
        """Say what is still to be done, and end the command if something is."""
        if self.bytes_remain:
            output.note(
                "Interrupted: deleted, but bytes of it may remain in the file. `hydra-edge doctor` "
                "erases them, as does whatever opens the file next."
            )
        if self.interrupted and self.not_fitted:
            output.note(f"Interrupted: {not_fitted_line(self.not_fitted, user)}")
        fail(self.fault)
        if self.interrupted:
            raise typer.Exit(130)


def erase(
    me: Personalizer,
    record_ids: Sequence[str] = (),
    *,
    source: str | None = None,
    task: str | None = None,
    quiet: bool,
) -> Erasure:
    """Erase records with all that was made of them, and fit again; see ``Personalizer.forget``.

    What ends it once they are gone is part of what is returned; before, it is raised.
    """
    erased: list[ForgetReceipt] = []
    not_fitted: list[str] = []
    interrupted = bytes_remain = False
    fault: HydraError | None = None
    try:
        with output.LateBar(quiet=quiet) as bar:
            me.forget(
                tuple(record_ids), source=source, task=task, on_erased=erased.append, progress=bar
            )
    except HydraError as err:
        if not erased:
            raise
        fault = err
    except KeyboardInterrupt:
        if not erased:
            raise
        interrupted, bytes_remain = True, not me.store.is_erased()
    if fault or interrupted:
        not_fitted = [task for task in unfitted(me) if task in erased[0].tasks]
    return Erasure(erased[0], fault, interrupted, not_fitted, bytes_remain)


def question(found: ForgetReceipt, user: str, *, which: str = "", whole: bool = False) -> str:
    """Ask whether records are to go, with all that would go along.

    ``which`` says what they have in common, ``whole`` that these are all.
    """
    records = found.records - found.repeats
    what = f"{'all ' if whole else ''}{views.plural(records, 'record')}{which}"
    it = "it" if records == 1 else "them"
    made = [
        views.plural(count, *names)
        for count, names in (
            (found.repeats, ("answer you kept", "answers you kept")),
            (found.choices, ("choice",)),
            (found.pools, ("answer pool",)),
            (found.log_entries, ("log entry", "log entries")),
            (found.heads, ("head",)),
        )
        if count
    ]
    listed = " and ".join(filter(None, (", ".join(made[:-1]), *made[-1:])))
    along = f", and with {it} {listed} made with {it}" if made else ""
    return f"Erase {what} of {user} for good{along}?"


def tell_found(found: ForgetReceipt, *, as_json: bool) -> None:
    """Say what would go, and that nothing did."""
    if as_json:
        output.write_json(asdict(found) | {"dry_run": True})
        return
    output.plain(views.receipt_line(found, dry_run=True))
    output.note("Nothing was erased.")


def tell(done: Erasure, sources: Iterable[str]) -> None:
    """Say to people what was erased, and which imports would bring it back."""
    from hydra_edge.records import is_import

    output.plain(done.line())
    if again := sorted(name for name in sources if is_import(name)):
        names = ", ".join(output.one_line(name) for name in again)
        output.note(
            f"Importing {names} again brings them back: take them out there first, or import them "
            "and mark them private instead."
        )


def unfitted(me: Personalizer) -> list[str]:
    """Return the tasks with heads that are to be fitted again, and can be."""
    from hydra_edge.forgetting import can_fit

    stale = {head.task for head in me.store.heads() if head.stale}
    return sorted(task for task in stale if can_fit(me.store, me.task, task))


def not_fitted_line(tasks: Iterable[str], user: str | None) -> str:
    """Name the commands that fit the heads of these tasks again."""
    fits = "; ".join(options.command("fit-head", task=task, user=user) for task in tasks)
    return f"heads not fitted again: {fits}"


def error_of(fault: HydraError | None) -> JsonDict:
    """Return what programs are told, beside what was deleted, of what could not be done."""
    return {} if fault is None else output.error_json(fault.code, str(fault))


def fail(fault: HydraError | None) -> None:
    """End with the error, once what was deleted is told, if something could not be done."""
    if fault is not None:
        output.write_error(fault.code, str(fault), as_json=False)
        raise typer.Exit(1)
