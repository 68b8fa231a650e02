"""Whose a mail is: the same on every Python, however strictly its own parser reads addresses."""

from email import message_from_bytes

import pytest

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import ImportLog, mbox, read_mbox


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("ann@x.org", {"ann@x.org"}),
        ("Ann <ann@x.org>", {"ann@x.org"}),
        ("ann@x.org (Ann Lee)", {"ann@x.org"}),
        ("ann@x.org <ann@x.org>", {"ann@x.org"}),
        ("'ann@x.org' <ann@x.org>", {"ann@x.org"}),
        ("bob@y.org <ann@x.org>", {"ann@x.org"}),
        ("Ann Lee (Sales, EU) <ann@x.org>", {"ann@x.org"}),
        ("Lee, Ann <ann@x.org>", {"ann@x.org"}),
        ("Ann [dev] <ann@x.org>", {"ann@x.org"}),
        ("Ann Lee <ann@x.org> (by way of Bob <bob@y.org>)", {"ann@x.org"}),
        ('"bob@y.org, \\" <bob@y.org>" <ann@x.org>', {"ann@x.org"}),
        ('Ann "the boss <ann@x.org>', {"ann@x.org"}),
        ("Ann (the boss <ann@x.org>", {"ann@x.org"}),
        ("Ann <ann@x.org", {"ann@x.org"}),
        ("Ann <mailto:ann@x.org>", {"ann@x.org"}),
        ('Ann <"..ann"@x.org>', {'"..ann"@x.org'}),
        ("ann@x.org, Bob <bob@y.org>", {"ann@x.org", "bob@y.org"}),
        ("us: ann@x.org, Bob <bob@y.org>;", {"ann@x.org", "bob@y.org"}),
        ("root", {"root"}),
        ("root (Cron Daemon)", {"root"}),
        ("Cron Daemon <root>", {"root"}),
        ("Ann Lee", {"ann lee"}),
        ('"Ann"', {'"ann"'}),
        ("<>", {"<>"}),
        (" ", set()),
    ],
)
def test_senders_are_the_addresses_whatever_form_they_have(said, found):
    message = message_from_bytes(f"From: {said}\n\nHi.\n".encode())
    assert mbox._senders(message) == found


@pytest.mark.parametrize("stranger", ["Bob <bob@y.org>", "bob@y.org <bob@y.org>", "Bob (Y)"])
def test_mail_of_a_stranger_is_never_taken_for_the_only_senders(tmp_path, stranger):
    path = tmp_path / "mail.mbox"
    mine = ["ann@x.org <ann@x.org>", "Ann (Sales, EU) <ann@x.org>", "Ann [dev] <ann@x.org>"]
    blocks = [f"From x\nFrom: {one}\nSubject: s\n\nbody\n\n" for one in [*mine, stranger]]
    path.write_text("".join(blocks))
    with pytest.raises(ImportFormatError, match=r"2 senders; .* ann@x\.org \(3\), bob"):
        mbox.only_sender(path, ImportLog())
    log = ImportLog()
    assert len(list(read_mbox(path, log, me="ann@x.org"))) == 3
    assert log.skipped == {"from somebody else": 1}


@pytest.mark.parametrize("piece", ["(", '"\\', "<", "a", "a@", "a "])
def test_senders_of_a_header_without_measure_are_sought_once(piece):
    """What is quadratic here takes minutes, and runs into the suite's timeout."""
    message = message_from_bytes(b"From: " + piece.encode() * (2**20 // len(piece)) + b"\n\n")
    assert mbox._senders(message)
