"""``import --prune``: erasing what is no longer in a source, once all of it was read."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import erasing, output, views
from hydra_edge.cli.session import ask
from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.forms import record_json

if TYPE_CHECKING:
    from hydra_edge.importers import ImportLog
    from hydra_edge.leftovers import Leftovers
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.types import ForgetReceipt, JsonDict, Record

SAMPLES = 3
_UNKEPT = "\ufffd"  # stands in a source's name for what is no text

Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Erase, as `forget` does, what you have of this source and task that is no longer in "
        "it. You are asked with the numbers first; nothing is erased where something could not be "
        "read. What another of your sources holds, too, goes with the one that brought it first; "
        "importing the other again brings it back. Give the same options as before.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --prune erases.")]
Most = Annotated[
    bool,
    typer.Option(
        "--most",
        help="With --prune --yes: erase even more than half of 20 records or more, which looks "
        "like a drive that is not mounted.",
    ),
]


def wanted(
    prune: bool,
    yes: bool,
    most: bool,
    *,
    dry_run: bool,
    as_json: bool,
    stream: bool = False,
    part: str = "",
) -> Pruning | None:
    """Return what the options of an import say; None if nothing is to be erased.

    ``stream``: a pipe is read; ``part``: the option by which not all is read.

    Raises
    ------
    ConfigError
        If it has to be asked first, and nobody is there or a program wants to know.
    """
    if not prune:
        if yes or most:
            raise typer.BadParameter("is for --prune.", param_hint="--yes" if yes else "--most")
        return None
    if stream or part:
        why = "what came through a pipe before is not known" if stream else f"{part} reads a part"
        raise typer.BadParameter(
            f"erases what is no longer in a source: {why}; expected a whole file or folder.",
            param_hint="--prune",
        )
    if not (yes or dry_run) and (as_json or not output.is_terminal(sys.stdin)):
        raise ConfigError(
            "--prune erases records, and asks with their number first: nobody is here to answer. "
            "Nothing was imported. Add --yes to go on, or --dry-run to see what would go."
        )
    return Pruning(yes=yes, most=most)


@dataclass(frozen=True)
class Outlook:
    """What would go, and some of it."""

    found: Leftovers
    receipt: ForgetReceipt | None  # None: nothing would
    samples: list[Record]
    remarks: list[str]

    def write(self) -> None:
        """Tell people."""
        if self.receipt is None:
            _tell_none(self.found)
            return
        output.plain(f"No longer in {output.one_line(self.found.source)}:")
        for sample in self.samples:
            output.plain(f"[{sample.task}] {output.one_line(sample.input, 100)}")
            output.plain(f"    -> {output.one_line(sample.output, 100)}")
        output.plain(views.receipt_line(self.receipt, dry_run=True))
        if self.found.are_most:
            output.note(f"{_most(self.found)} With --yes that needs --most.", style="yellow")
        for remark in self.remarks:
            output.note(remark)
        _tell_rest(self.found)
        output.note("Nothing was erased.")

    def json(self) -> JsonDict:
        """Return all of it for programs."""
        samples = [record_json(sample) for sample in self.samples]
        return _json(self.found, self.receipt) | {"samples": samples}


@dataclass(frozen=True)
class Pruned:
    """What came of erasing what was no longer there."""

    found: Leftovers
    done: erasing.Erasure | None  # None: there was nothing

    def write(self) -> None:
        """Tell people."""
        if self.done is None:
            _tell_none(self.found)
            return
        output.plain(self.done.line())
        _tell_rest(self.found)

    @property
    def error(self) -> JsonDict:
        """What programs are told if its bytes may remain, or heads are not fitted again."""
        return erasing.error_of(None if self.done is None else self.done.fault)

    def end(self, user: str | None) -> None:
        """Say what is still to be done, and end the command if something is."""
        if self.done is not None:
            self.done.end(user)

    def json(self) -> JsonDict:
        """Return all of it for programs."""
        if self.done is None:
            return _json(self.found, None)
        return _json(self.found, self.done.receipt) | self.done.json()


class Pruning:
    """One import after which what is no longer in its source is to be erased.

    Parameters
    ----------
    yes
        Whether nobody is asked.
    most
        Whether it may be most of what there was, too, though nobody is asked.
    """

    def __init__(self, *, yes: bool, most: bool) -> None:
        from hydra_edge.leftovers import SourceReading

        self.source = SourceReading()
        self._yes, self._most = yes, most

    def foresee(self, store: Store, log: ImportLog) -> Outlook:
        """Say what would go if this reading, of which nothing is stored, were stored."""
        found = self.source.leftovers(store, log, stored=False)
        receipt = store.would_forget(found.ids) if found.ids else None
        samples = [store.get(name) for name in found.ids[:SAMPLES]]
        return Outlook(found, receipt, samples, _shared(store, found))

    def check(self, log: ImportLog, *, is_whole: bool) -> None:
        """Refuse a reading that does not tell what is no longer there.

        Raises
        ------
        ImportFormatError
            With what was not read.
        """
        if not is_whole:
            raise ImportFormatError(
                "--prune erased nothing: the reading ended early; expected the whole source. "
                "Import it again."
            )
        if _UNKEPT in self.source.source:
            raise ImportFormatError(
                "--prune erased nothing: got a source whose name is no UTF-8 text, so that another "
                "one may be kept under the same; expected a name that can be kept as it is. Erase "
                "what is gone by its id instead: hydra-edge forget ID..."
            )
        if left := self.source.not_read(log):
            or_leave_out = " or leave it out by --exclude," if log.item == "note" else ""
            raise ImportFormatError(
                f"--prune erased nothing: got a source of which was not read: {left}; expected all "
                f"of it, as that may be what you have of it. Mend it,{or_leave_out} and import it "
                "again."
            )

    def carry_out(self, me: Personalizer, log: ImportLog, *, quiet: bool) -> Pruned:
        """Ask, and erase what is no longer there, once what was read is stored.

        Raises
        ------
        ConfigError
            If it is most of what there was, and nobody is asked nor said that this is right.
        """
        found = self.source.leftovers(me.store, log, stored=True)
        if not found.ids:
            return Pruned(found, None)
        if self._yes and found.are_most and not self._most:
            raise ConfigError(
                f"--prune erased nothing: {_most(found)} Expected fewer. Look whether all is in "
                "its place; if it is, add --most to --yes, or leave --yes out and be asked."
            )
        if not self._yes:
            with output.LateBar(quiet=quiet) as bar:
                receipt = me.store.would_forget(found.ids, progress=bar)
            remarks = [_most(found)] if found.are_most else []
            if found.private:
                remarks.append(f"Of these, {found.private} private: that is forgotten, too.")
            which = f" no longer in {output.one_line(found.source)}"
            remarks += _shared(me.store, found)
            ask(" ".join([*remarks, erasing.question(receipt, me.user, which=which)]), yes=False)
            # The answer may have taken hours, in which another program may have changed some.
            still = set(self.source.leftovers(me.store, log, stored=True).ids)
            found = replace(found, ids=tuple(name for name in found.ids if name in still))
            if not found.ids:
                return Pruned(found, None)
        return Pruned(found, erasing.erase(me, found.ids, quiet=quiet))


def _most(found: Leftovers) -> str:
    return (
        f"{len(found.ids)} of the {found.total} records from {output.one_line(found.source)} are "
        "no longer there, more than half, as where a drive is not mounted."
    )


def _shared(store: Store, found: Leftovers) -> list[str]:
    """Say what goes although other sources may have it, if there are any."""
    from hydra_edge.records import is_import

    if not any(is_import(source) for source in store.sources() if source != found.source):
        return []
    return [
        "What another of your sources holds, too, goes with the one that brought it first: import "
        "the other once more to have it back."
    ]


def _tell_none(found: Leftovers) -> None:
    output.plain(f"Nothing to erase: all you have of {output.one_line(found.source)} is in it.")
    _tell_rest(found)


def _tell_rest(found: Leftovers) -> None:
    """Say what is left alone."""
    if found.other_tasks:
        count = views.plural(found.other_tasks, "record")
        output.note(f"{count} from there of other tasks: left alone, as other options read them.")
    if found.later:
        output.note(
            f"{views.plural(found.later, 'record')} from there, added since the reading began: "
            "left alone. (Or this device's clock was ahead when they came.)"
        )


def _json(found: Leftovers, receipt: ForgetReceipt | None) -> JsonDict:
    from hydra_edge.types import ForgetReceipt

    counts = asdict(receipt or ForgetReceipt())
    return counts | {
        "source": found.source,
        "private": found.private,
        "total": found.total,
        "other_tasks": found.other_tasks,
        "later": found.later,
    }
