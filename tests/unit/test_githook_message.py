"""What the hook writes into a commit message, in which letters, and when it writes nothing."""

import hook_runner
import pytest
from hook_runner import HINTS, PARSER, Kept, be_prepare, commit, never

from hydra_edge.githook import Repository
from hydra_edge.githook.message import is_empty, one_line, propose, spelled
from hydra_edge.githook.proposal import learn_from_commit, propose_subject, wants_proposal

repo, llm, person = hook_runner.repo, hook_runner.llm, hook_runner.person


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        (HINTS, True),
        ("", True),
        ("  \n\n", True),
        ("Fix\n" + HINTS, False),
        ("# ---- >8 ----\ndiff --git a b\n", True),
        ("; mine\n", False),
    ],
)
def test_is_empty(text, empty):
    assert is_empty(text, "#") is empty


def test_propose_comments_stand_with_those_of_git():
    text = propose(HINTS, "Fix it", ["Mend it"], "#", comments=True)

    assert text.startswith("Fix it\n\n# The subject is a proposal")
    assert "#   Mend it\n" in text
    assert text.endswith(HINTS.lstrip("\n"))


def test_propose_in_scissors_mode_stays_below_the_line():
    hints = "\n# ---- >8 ----\n# Do not modify.\n# All below goes.\n# On branch main\n"
    kept = propose(hints, "Fix it", ["Mend it"], "#", comments=True).partition("# ---- >8")[0]

    assert kept == "Fix it\n\n"


@pytest.mark.parametrize("text", ["", "Ticket: \n", "\n"])
def test_propose_without_comments_of_git_adds_none(text):
    made = propose(text, "Fix it", ["Mend it"], "#", comments=True)

    assert made.split("\n")[0] == "Fix it"
    assert "#" not in made
    assert made.endswith(text)


@pytest.mark.parametrize("source", ["message", "merge", "squash", "commit"])
def test_wants_proposal_only_for_a_message_still_to_begin(repo, source):
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)

    assert wants_proposal(Repository(), message, "")
    assert not wants_proposal(Repository(), message, source)
    message.write_text("Written by another hook\n" + HINTS)
    assert not wants_proposal(Repository(), message, "")
    assert wants_proposal(Repository(), message, "template")


def test_wants_proposal_not_where_no_editor_will_show_it(repo, monkeypatch):
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)
    monkeypatch.setenv("GIT_EDITOR", ":")

    assert not wants_proposal(Repository(), message, "")


def test_propose_subject_template_is_kept_below(repo, person):
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_bytes(b"Ticket: \xff\r\n# help\n")
    repo.write("a.py", PARSER)
    propose_subject(
        Repository(), person, message, "template", task="commit_subject", should_stop=never
    )

    first, _, rest = message.read_bytes().partition(b"\n")
    assert first.decode() in {"Read an empty header", "Guard the header"}
    assert rest.strip(b"\n") == b"Ticket: \xff\r\n# help"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" Fix\n the  parser ", "Fix the parser"),
        ("Fix\0 it", "Fix it"),
        ("\x1b[31mFix\x1b[0m \x07 it\x7f", "[31mFix[0m it"),
        ("Fix \u202eti\u202c", "Fix ti"),
        ("Fix \ud800 it", "Fix it"),
        ("\0", ""),
        ("\u200d \u200c", ""),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
    ],
)
def test_one_line_keeps_what_can_be_printed(text, line):
    assert one_line(text) == line


def test_propose_subject_control_characters_are_left_out_and_the_commit_is_made(repo, person, llm):
    llm.answer = lambda _prompt, n: ["Fix\0 the\x1b[31m parser"] * n
    repo.write("a.py", PARSER)

    assert commit(repo, person) == "Fix the[31m parser" == repo.subject()
    assert learn_from_commit(Repository(), Kept(person))
    (choice,) = person.store.choices("commit_subject")
    assert choice.picked == 0  # what was proposed, though not letter by letter


def test_propose_subject_answers_that_hold_nothing_to_print_are_skipped(repo, person, llm):
    llm.answer = lambda _prompt, n: ["\0", "Guard the header"][:n]
    repo.write("a.py", PARSER)
    assert commit(repo, person) == "Guard the header"

    llm.answer = lambda _prompt, n: ["\0", "\x1b"][:n]
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)
    repo.write("b.py", PARSER)
    assert be_prepare(repo, person) is None
    assert message.read_text() == HINTS


# ---- a message that is not UTF-8


@pytest.mark.parametrize(
    ("text", "encoding", "data"),
    [
        ("Größe", "utf-8", "Größe".encode()),
        ("Größe", "ISO-8859-1", b"Gr\xf6\xdfe"),
        ("Größe", "windows-1252", b"Gr\xf6\xdfe"),
        ("Préfère €", "ISO-8859-1", None),
        ("Fix", "utf-16", None),
        ("Fix", "no such thing", None),
        ("Fix", "rot13", None),
    ],
)
def test_spelled_is_the_bytes_git_reads(text, encoding, data):
    line = spelled(text, encoding)

    assert (None if line is None else line.encode("utf-8", "surrogateescape")) == data


def test_commit_encoding_of_the_repository_is_spoken_and_read_back(repo, person, llm):
    llm.answer = lambda _prompt, n: ["Größe prüfen", "Größe in € prüfen"][:n]
    repo.git("config", "i18n.commitEncoding", "ISO-8859-1")
    repo.write("a.py", PARSER)
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_bytes(b"\n# Auf Zweig f\xfcr\n")
    be_prepare(repo, person)

    proposed = message.read_bytes()
    assert proposed.startswith(b"Gr\xf6\xdfe pr\xfcfen\n")
    assert proposed.endswith(b"# Auf Zweig f\xfcr\n")
    assert b"#   " not in proposed, "the other answer has no such letters"
    repo.git("commit", "-q", "--cleanup=strip", "-F", str(message))
    assert repo.git("log", "-1", "--encoding=UTF-8", "--format=%B") == "Größe prüfen"
    assert learn_from_commit(Repository(), Kept(person))
    assert person.store.get(repo.git("rev-parse", "HEAD")).output == "Größe prüfen"
    (choice,) = person.store.choices("commit_subject")
    assert choice.picked is not None


def test_propose_subject_that_the_encoding_cannot_spell_is_not_proposed(repo, person, llm):
    llm.answer = lambda _prompt, n: ["Preis in €"] * n
    repo.git("config", "i18n.commitEncoding", "ISO-8859-1")
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)
    repo.write("a.py", PARSER)

    assert be_prepare(repo, person) is None
    assert message.read_text() == HINTS


def test_propose_subject_like_a_comment_is_not_proposed(repo, person, llm):
    llm.answer = lambda _prompt, n: ["#12 fixed"] * n
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)
    repo.write("a.py", PARSER)

    assert be_prepare(repo, person) is None
    assert message.read_text() == HINTS
