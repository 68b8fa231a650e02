"""``import --prune``: erasing what is no longer in a source, once all of it was read."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import erasing, output, views
from hydra_edge.cli.session import ask
from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.forms import record_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_edge.importers import ImportLog
    from hydra_edge.leftovers import Leftovers
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.types import ForgetReceipt, JsonDict, Record

SAMPLES = 3
_NAMED = 3  # sources
_UNKEPT = "\ufffd"  # stands in a source's name for what is no text

Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Erase, as `forget` does, what you have of this source and task that is no longer in "
        "it. You are asked with the numbers first; nothing is erased where something could not be "
        "read. What another file or folder you imported holds, too, stays, as that one's. Give the "
        "same options as before.",
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
            _tell_none(self.found, self.found.heirs)
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
        _tell_rest(self.found, self.found.heirs)
        output.note("Nothing was erased.")

    def json(self) -> JsonDict:
        """Return all of it for programs."""
        samples = [record_json(sample) for sample in self.samples]
        return _json(self.found, self.receipt, self.found.heirs) | {"samples": samples}


@dataclass(frozen=True)
class Pruned:
    """What came of erasing what was no longer there."""

    found: Leftovers
    done: erasing.Erasure | None  # None: there was nothing
    heirs: Mapping[str, str]  # the sources that got what they hold, too, by id

    def write(self) -> None:
        """Tell people."""
        if self.done is None:
            _tell_none(self.found, self.heirs)
            return
        output.plain(self.done.line())
        _tell_rest(self.found, self.heirs)

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
            return _json(self.found, None, self.heirs)
        return _json(self.found, self.done.receipt, self.heirs) | self.done.json()


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
        return Outlook(found, receipt, samples, [*_unwatched(store, found), *_earlier(found)])

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
        if found.unheld:
            me.store.drop_holder(found.source, found.unheld)
        if self._yes and found.ids and found.are_most and not self._most:
            raise ConfigError(
                f"--prune erased nothing: {_most(found)} Expected fewer. Look whether all is in "
                "its place; if it is, add --most to --yes, or leave --yes out and be asked."
            )
        named = [*found.ids, *found.heirs]
        if found.ids and not self._yes:
            self._ask(me, found, quiet=quiet)
            # The answer may have taken hours, in which another program may have changed some.
            now = self.source.leftovers(me.store, log, stored=True)
            still = {*now.ids, *now.heirs}
            named = [name for name in named if name in still]
        heirs = me.store.hand_over(named, without=found.no_heirs) if named else {}
        gone = [name for name in named if name not in heirs]
        done = erasing.erase(me, gone, quiet=quiet) if gone else None
        return Pruned(replace(found, ids=tuple(gone)), done, heirs)

    def _ask(self, me: Personalizer, found: Leftovers, *, quiet: bool) -> None:
        with output.LateBar(quiet=quiet) as bar:
            receipt = me.store.would_forget(found.ids, progress=bar)
        remarks = [_most(found)] if found.are_most else []
        if found.private:
            remarks.append(f"Of these, {found.private} private: that is forgotten, too.")
        remarks += [*_unwatched(me.store, found), *_earlier(found), *_staying(found.heirs)]
        which = f" no longer in {output.one_line(found.source)}"
        ask(" ".join([*remarks, erasing.question(receipt, me.user, which=which)]), yes=False)


def _most(found: Leftovers) -> str:
    return (
        f"{found.gone} of the {found.total} records from {output.one_line(found.source)} are "
        "no longer there, more than half, as where a drive is not mounted."
    )


def _unwatched(store: Store, found: Leftovers) -> list[str]:
    """Say what goes of which nobody knows whether other sources have it, if anything is."""
    if not (count := store.unwatched(found.ids)):
        return []
    return [
        f"{views.plural(count, 'record')} of these came by an earlier release: whether another of "
        "your sources holds them, too, is known once that was imported again."
    ]


def _earlier(found: Leftovers) -> list[str]:
    """Say what goes of earlier exports."""
    return [
        f"Of these, {count} from {output.one_line(source)}, an earlier export of the same account."
        for source, count in found.earlier.items()
    ]


def _staying(heirs: Mapping[str, str]) -> list[str]:
    """Say what stays, as other sources hold it, too."""
    if not heirs:
        return []
    named = [output.one_line(source) for source in dict.fromkeys(heirs.values())]
    names = ", ".join(named[:_NAMED]) + (" ..." if named[_NAMED:] else "")
    are, stay = ("is", "it stays") if len(heirs) == 1 else ("are", "they stay")
    under = "that name" if len(named) == 1 else "those names"
    count = views.plural(len(heirs), "record")
    return [f"{count} no longer there {are} in {names}, too: {stay}, under {under}."]


def _tell_none(found: Leftovers, heirs: Mapping[str, str]) -> None:
    source = output.one_line(found.source)
    where = "it or in others of your sources" if heirs else "it"
    output.plain(f"Nothing to erase: all you have of {source} is in {where}.")
    _tell_rest(found, heirs)


def _tell_rest(found: Leftovers, heirs: Mapping[str, str]) -> None:
    """Say what is left alone."""
    for line in _staying(heirs):
        output.note(line)
    if found.other_tasks:
        count = views.plural(found.other_tasks, "record")
        output.note(f"{count} from there of other tasks: left alone, as other options read them.")
    if found.later:
        output.note(
            f"{views.plural(found.later, 'record')} from there, added since the reading began: "
            "left alone. (Or this device's clock was ahead when they came.)"
        )


def _json(found: Leftovers, receipt: ForgetReceipt | None, heirs: Mapping[str, str]) -> JsonDict:
    from hydra_edge.types import ForgetReceipt

    counts = asdict(receipt or ForgetReceipt())
    return counts | {
        "source": found.source,
        "private": found.private,
        "total": found.total,
        "other_tasks": found.other_tasks,
        "later": found.later,
        "in_other_sources": dict(Counter(heirs.values())),
        "earlier_exports": dict(found.earlier),
    }
