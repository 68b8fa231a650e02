"""An mbox file: the mails a person wrote, as body -> subject or as mail -> reply.

Reads with the standard library and never writes to the mailbox. Attachments are not looked
into. Mail is private unless the caller says otherwise.
"""

from __future__ import annotations

import mailbox
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers.base import (
    Origin,
    build_record,
    content_id,
    parse_time,
    readable,
)
from hydra_edge.importers.log import ImportLog
from hydra_edge.importers.mailtext import header_text, is_taken_over, plain_text, split_quotes
from hydra_edge.types import Record, text_hash

Mode: TypeAlias = Literal["subject", "reply"]
_TASKS: dict[Mode, str] = {"subject": "email_subject", "reply": "email_reply"}
_EXPECTED = "an mbox file (mails that each begin with a 'From ' line)"
_MAX_HEADER_BYTES = 2**20  # what comes later in a header says nothing
_ENCRYPTED = "-----BEGIN PGP MESSAGE-----"
# Each of them is read in one pass, whatever a header holds.
_PIECE = re.compile(r"\\.|[^\\\"()]+|.", re.DOTALL)
_ANGLED = re.compile(r"<([^<>]+)>")
_BETWEEN_WORDS = re.compile(r"[\s<>();:]+")


@dataclass(frozen=True, slots=True)
class _Skip:
    """Why a well-formed mail gives no record."""

    reason: str


def read_mbox(
    path: Path,
    log: ImportLog,
    *,
    mode: Mode = "subject",
    me: str | None = None,
    task: str | None = None,
    private: bool = True,
) -> Iterator[Record]:
    """Read the mails a person wrote from an mbox file.

    One mail at a time is in memory, besides where each one starts and, for replies, an index
    of all Message-IDs (together about 400 bytes a mail).

    Parameters
    ----------
    path
        The mbox file.
    log
        Filled while iterating; progress in mails.
    mode
        ``subject``: body -> subject of mails that began a conversation: the subject of a reply
        is that of the mail it answers, which somebody else may have written. ``reply``: the
        mail answered -> the answer; the mail answered is found in the same file by
        ``In-Reply-To``, else it is what the reply quotes. Quotes and signatures are dropped.
    me
        A part of the person's address, in any case; needed for replies. Without it, every
        mail's subject is read.
    task
        ``email_subject`` or ``email_reply`` unless given.
    private
        Marks every record private.

    Yields
    ------
    Record
        ``id`` is derived from the Message-ID and the mode.

    Raises
    ------
    ImportFormatError
        At the first step if the file cannot be opened or is not an mbox.
    ConfigError
        If ``mode`` is unknown, or replies are asked for without ``me``.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"Mail mode is {mode!r}; expected subject or reply. Choose one.")
    if mode == "reply" and not me:
        raise ConfigError(
            "Replies need your own address: got none; expected a part of it, such as "
            "ada@example.org. Say which mails are yours."
        )
    box = _open(path)
    try:
        with readable(path, _EXPECTED):
            keys = box.keys()  # finds where every mail starts
            parents = _index(box, log) if mode == "reply" else {}
        log.begin(item="mail", unit="mails", total=len(keys))
        origin = Origin.of("mbox", path, task or _TASKS[mode], private=private)
        reader = _Reader(box, mode, me.casefold() if me else None, parents, origin, log)
        for key in keys:
            log.step()
            record = reader.read(key)
            if record is not None:
                yield record
    finally:
        box.close()


def only_sender(path: Path, log: ImportLog, *, mode: Mode = "subject") -> str | None:
    """Return the address all mails of an mbox file are from, reading headers only.

    Parameters
    ----------
    path
        The mbox file.
    log
        Shows progress in mails.
    mode
        What is read afterwards; for replies it has to be said whose mail is meant.

    Returns
    -------
    str or None
        None if no mail says whom it is from.

    Raises
    ------
    ImportFormatError
        If the file cannot be opened or is not an mbox, or its mails are from several senders.
    """
    box = _open(path)
    senders: Counter[str] = Counter()
    try:
        with readable(path, _EXPECTED):
            keys = box.keys()
            log.begin(item="mail", unit="senders of mails", total=len(keys))
            for key in keys:
                log.step()
                header = _header(box, key)
                with suppress(Exception):  # reported when the mail itself is read
                    senders.update(_senders(message_from_bytes(header)))
    finally:
        box.close()
    if len(senders) > 1:
        listed = ", ".join(f"{repr(name)[1:-1]} ({n})" for name, n in senders.most_common(5))
        or_all = ", or --me '*' for all mail" if mode == "subject" else ""
        raise ImportFormatError(
            f"Whose mail in {path} is meant is unknown: got mail of {len(senders)} senders; "
            f"expected one, or to be told your address. The most frequent are {listed}. Say which "
            f"is yours: --me ADDRESS (a part of it will do){or_all}."
        )
    return next(iter(senders), None)


def _open(path: Path) -> mailbox.mbox:
    with readable(path, _EXPECTED):
        with path.open("rb") as handle:
            start = handle.read(4096).lstrip()
        if start and not start.startswith(b"From "):
            raise ImportFormatError(
                f"{path} is not a mailbox this can read. Expected {_EXPECTED}. "
                "Most mail programs can export a folder as mbox."
            )
        return mailbox.mbox(path, create=False)


@dataclass(frozen=True, slots=True)
class _Reader:
    box: mailbox.mbox
    mode: Mode
    me: str | None
    parents: dict[bytes, str]
    origin: Origin
    log: ImportLog

    def read(self, key: str) -> Record | None:
        """Read one mail; whatever is wrong with it stays its own affair."""
        try:
            mail = _parse(self.box, key)
            fields = self._fields(mail)
            if isinstance(fields, _Skip):
                self._hold(mail)
                self.log.skip(fields.reason)
                return None
            return build_record(fields, self.origin, self.log)
        except Exception as err:  # the standard parser raises almost anything on hostile mail
            reason = str(err) if isinstance(err, ValueError) else type(err).__name__
            self.log.reject(self.log.done, f"malformed mail: {repr(reason)[1:-1][:200]}")
            return None

    def _hold(self, mail: Message) -> None:
        """Say that a mail is there which gave no record: with another --me it may have."""
        if self.log.held is None:
            return
        if message_id := _message_id(mail):
            self.log.hold(*(_id(mode, message_id) for mode in get_args(Mode)))
        else:
            self.log.miss("mail without a Message-ID that gave no record")

    def _fields(self, mail: Message) -> dict[str, object] | _Skip:
        if unwanted := self._unwanted(mail):
            return unwanted
        text = plain_text(mail)
        if _ENCRYPTED in text:
            return _Skip("encrypted")
        parts = split_quotes(text)
        if not parts.own:
            return _Skip("no text of one's own")
        if self.mode == "subject":
            asked, written = parts.own, header_text(mail["Subject"])
            if not written:
                return _Skip("no subject")
        else:
            asked, written = self._parent(mail) or _own_or_all(parts.quoted), parts.own
            if not asked:
                return _Skip("not a reply to a mail that is known")
        message_id = _message_id(mail)
        return {
            "input": asked,
            "output": written,
            "id": _id(self.mode, message_id) if message_id else "",
            "time": _date(mail),
        }

    def _unwanted(self, mail: Message) -> _Skip | None:
        """Say why a mail is left out whatever its text."""
        if self.me is not None and not _is_from(mail, self.me):
            return _Skip("from somebody else")
        taken_over = _answers(mail) or is_taken_over(header_text(mail["Subject"]))
        if self.mode == "subject" and taken_over:
            return _Skip("with the subject of an earlier mail (reply or forward)")
        return None

    def _parent(self, mail: Message) -> str:
        key = self.parents.get(_digest(header_text(mail["In-Reply-To"])))
        if key is None:
            return ""
        text = plain_text(_parse(self.box, key))
        return "" if _ENCRYPTED in text else _own_or_all(text)


def _id(mode: Mode, message_id: str) -> str:
    return content_id(f"{mode}\x1f{message_id}")


def _own_or_all(text: str) -> str:
    """Return a text without what it quotes, or all of it if it is nothing but quotes."""
    return split_quotes(text).own or text.strip()


def _parse(box: mailbox.mbox, key: str) -> Message:
    return message_from_bytes(box.get_bytes(key))


def _index(box: mailbox.mbox, log: ImportLog) -> dict[bytes, str]:
    """Map the digest of every Message-ID to its mail, reading headers only."""
    keys = box.keys()
    log.begin(item="mail", unit="Message-IDs of mails", total=len(keys))
    index: dict[bytes, str] = {}
    for key in keys:
        log.step()
        header = _header(box, key)
        try:
            message_id = _message_id(message_from_bytes(header))
        except Exception:  # noqa: S112 - reported when the mail itself is read
            continue
        if message_id:
            index.setdefault(_digest(message_id), key)
    return index


def _header(box: mailbox.mbox, key: str) -> bytes:
    """Return what stands above a mail's body, which is not even read."""
    lines, room = [], _MAX_HEADER_BYTES
    with box.get_file(key) as handle:
        while room > 0 and (line := handle.readline(room)).strip():
            lines.append(line)
            room -= len(line)
    return b"".join(lines)


def _digest(message_id: str) -> bytes:
    return bytes.fromhex(text_hash(message_id)[:32])


def _message_id(mail: Message) -> str:
    return header_text(mail["Message-ID"])


def _answers(mail: Message) -> bool:
    """Whether a mail says that it belongs to an earlier one."""
    return any(header_text(mail[name]) for name in ("In-Reply-To", "References"))


def _senders(mail: Message) -> set[str]:
    """Return the addresses a mail says it is from; where it names none, what it says instead.

    Not by ``email.utils``: how it takes a name that holds a comma, brackets or an address
    depends on the patch level of Python, and whose mail this is must not.
    """
    said = " ".join(str(mail["From"] or "").split()).casefold()
    plain = _without_asides(said).strip()
    found = _addresses(plain) or _addresses(said) or _ANGLED.findall(plain) or [plain or said]
    return set(found) - {""}


def _addresses(text: str) -> list[str]:
    """Find addresses in a list of them: those in ``<>`` where there are any, else bare ones."""
    found: list[str] = []
    for part in text.split(","):
        angled = ["".join(each.split()).rpartition(":")[2] for each in _ANGLED.findall(part)]
        found += [a for a in angled if _is_address(a)] or [
            word for word in _BETWEEN_WORDS.split(part) if _is_address(word)
        ]
    return found


def _is_address(word: str) -> bool:
    return "@" in word.strip("@")


def _without_asides(text: str) -> str:
    """Leave out quoted names and comments: an address in them is nobody's."""
    kept: list[str] = []
    depth, quoted = 0, False
    for piece in _PIECE.findall(text):
        if piece == '"' and not depth:
            quoted = not quoted
        elif piece == "(" and not quoted:
            depth += 1
        elif piece == ")" and depth:
            depth -= 1
        elif not quoted and not depth:
            kept.append(piece)
    return "".join(kept)


def _is_from(mail: Message, me: str) -> bool:
    return any(me in address for address in _senders(mail))


def _date(mail: Message) -> float | None:
    """Return when a mail was sent, or None if its date cannot be read."""
    try:
        return parse_time(parsedate_to_datetime(header_text(mail["Date"])).isoformat())
    except (ValueError, TypeError, OverflowError):
        return None
