"""The hook's parts, on real repositories: the query, the message, what is learned, the scripts."""

import json
import os
import shlex
import stat
import subprocess
import threading

import cli_runner
import pytest
from git_repository import QUIET, GitRepository

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.errors import CancelledError, ConfigError, EgressDeniedError
from hydra_edge.githook import Repository, describe_staged, hooks
from hydra_edge.githook.description import describe
from hydra_edge.githook.limit import within
from hydra_edge.githook.message import is_empty, one_line, propose, spelled
from hydra_edge.githook.proposal import (
    PENDING,
    be_hook,
    learn_from_commit,
    propose_subject,
    wants_proposal,
)
from hydra_edge.importers import ImportLog, read_git
from hydra_edge.program import environment

HINTS = "\n# Please enter the commit message for your changes.\n#\n# On branch main\n"
PARSER = '''\
def read_header(data):
    """Read the header, which may be empty."""
    return data[:4]
'''


@pytest.fixture
def repo(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    made = GitRepository(tmp_path / "repo")
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture
def llm(scripted):
    return scripted(lambda _prompt, n: ["Read an empty header", "Guard the header"][:n])


@pytest.fixture
def person(hash_encoder, llm):
    records = [
        Record("the parser reads past the end", "Fix empty files", "commit_subject", "r1", 1.6e9),
        Record("the cache is dropped at start", "Drop the cache", "commit_subject", "r2", 1.61e9),
    ]
    with Personalizer.from_records(
        records, llm=llm, encoder=hash_encoder, config=Config(candidates=2)
    ) as person:
        yield person


class Kept:
    """Opens the same personalizer again and again, and leaves it open."""

    def __init__(self, person):
        self.person = person
        self.opened = 0

    def __call__(self):
        self.opened += 1
        return self

    def __enter__(self):
        return self.person

    def __exit__(self, *_):
        pass


def never():
    return False


# ---- what is staged, as a query


def test_describe_names_files_prose_and_definitions(repo):
    repo.write("src/parser.py", "def old():\n    pass\n")
    repo.write("gone.py", "x = 1\n")
    repo.write("old_name.py", "y = [\n" + "    1,\n" * 30 + "]\n")
    repo.git("commit", "-q", "-m", "start")
    repo.write("src/parser.py", "# The header of a file is read here.\n" + PARSER)
    repo.write("docs/new.md", "# Headers\n\nEvery file begins with a header of four bytes.\n")
    repo.git("rm", "-q", "gone.py")
    repo.git("mv", "old_name.py", "new_name.py")
    text = describe_staged(Repository(repo.path))

    assert text.startswith("Change parser.py. Add new.md. Delete gone.py. "
                           "Rename old_name.py to new_name.py.")  # fmt: skip
    assert "The header of a file is read here." in text
    assert "Read the header, which may be empty." in text
    assert "Every file begins with a header of four bytes." in text
    assert "Add read_header. Remove old." in text
    assert not set("@{}<>") & set(text)


def test_describe_nothing_staged_is_empty(repo):
    repo.write("a.py", "x = 1\n")
    repo.git("commit", "-q", "-m", "start")
    (repo.path / "a.py").write_text("x = 2\n")

    assert describe_staged(Repository(repo.path)) == ""


def test_description_line_of_blanks_is_read_once():
    blanks = 200_000 * " "
    lines = [f"+# Read{blanks}the header first", "+func (" * 40_000, f"+//{blanks}x{blanks}", "+"]
    raw, patch = ":0 0 0 0 A\0a.go\0", "\n".join(("+++ b/a.go", "@@ -0,0 +1 @@", *lines))

    assert describe(raw, patch) == "Add a.go. Read the header first."


@pytest.mark.parametrize(
    ("line", "prose"),
    [
        ("# Read the  header ", "Read the header"),
        ("  // Read the header", "Read the header"),
        ("/* Read the header */", "Read the header"),
        ("/** Read the header */ ", "Read the header"),
        (" * Read the header", "Read the header"),
        ("-- Read the header", "Read the header"),
        (";; Read the header", "Read the header"),
        ("<!-- Read the header -->", "Read the header"),
        ('    r"""Read the header."""', "Read the header."),
        ("'''Read the header'''", "Read the header"),
        ('"""', ""), ('""""""', ""), ("/**/", ""), ("#", ""), ("* ", ""),
        ("#include <the a b>", ""), ("#!/usr/bin/env the header", ""), ("*the header is", ""),
    ],
)  # fmt: skip
def test_description_comment_is_its_text_without_the_marks(line, prose):
    raw, patch = ":0 0 0 0 A\0a.c\0", f"+++ b/a.c\n@@ -0,0 +1 @@\n+{line}"

    assert describe(raw, patch) == " ".join(["Add a.c.", prose and prose.rstrip(".") + "."]).strip()


def test_describe_changed_function_is_named(repo):
    repo.write("a.py", "def first():\n    x = 1\n    y = 2\n    return x\n")
    repo.git("commit", "-q", "-m", "start")
    repo.write("a.py", "def first():\n    x = 1\n    y = 2\n    return y\n")

    assert describe_staged(Repository(repo.path)) == "Change a.py. Change first."


def test_describe_huge_and_binary_changes_stay_short(repo):
    for i in range(40):
        repo.write(f"f{i}.py", "".join(f"def f{i}_{j}():\n    pass\n" for j in range(400)))
    (repo.path / "b.bin").write_bytes(bytes(range(256)) * 64)
    repo.git("add", "b.bin")
    text = describe_staged(Repository(repo.path))

    assert 5 < len(text.split()) < 130
    assert "and 35 more" in text


@pytest.mark.parametrize("name", ["ä ö.py", 'quo"te.py', "tab\there.py", "-dash.py"])
def test_describe_unusual_names_are_read(repo, name):
    repo.write(name, PARSER)
    text = describe_staged(Repository(repo.path))

    assert text.startswith(f"Add {name}.")
    if name in {"ä ö.py", "-dash.py"}:  # git quotes the others in a patch
        assert "read_header" in text


def test_describe_settings_of_the_repository_do_not_matter(repo, tmp_path):
    trap = tmp_path / "ran"
    (repo.path / ".gitattributes").write_text("*.py diff=trap\n")
    for name in ("diff.external", "diff.trap.command", "diff.trap.textconv", "core.fsmonitor"):
        repo.git("config", name, f"touch {trap}; true")
    repo.git("config", "diff.noprefix", "true")
    repo.git("config", "color.ui", "always")
    repo.write("a.py", PARSER)
    trap.unlink(missing_ok=True)  # adding a file is where git itself starts the monitor

    assert "read_header" in describe_staged(Repository(repo.path))
    assert not trap.exists()


def test_repository_elsewhere_is_refused(tmp_path, repo):
    with pytest.raises(ConfigError, match="git repository"):
        Repository(tmp_path)
    with pytest.raises(ConfigError, match="no folder"):
        Repository(tmp_path / "missing")


# ---- the message


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


def test_be_hook_unknown_is_refused(repo, person):
    with pytest.raises(ConfigError, match="expected prepare-commit-msg"):
        be_hook("pre-push", [], task="t", open_person=Kept(person), should_stop=never)


# ---- a commit from proposal to lesson


def be_prepare(repo, person, source=""):
    opened = Kept(person)
    arguments = [".git/COMMIT_EDITMSG", *([source] if source else [])]
    be_hook(
        "prepare-commit-msg", arguments, task="commit_subject", open_person=opened,
        should_stop=never,
    )  # fmt: skip
    return (repo.path / ".git" / PENDING).exists() or None


def commit(repo, person, text=None, *options):
    """Propose, then commit as the author leaves the message."""
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)
    be_prepare(repo, person)
    proposed = message.read_text().split("\n")[0]
    final = text if text is not None else message.read_text()
    message.write_text(final)
    repo.git("commit", "-q", "--cleanup=strip", "-F", str(message), *options)
    return proposed


def test_commit_as_proposed_is_a_pick(repo, person, llm):
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    assert learn_from_commit(Repository(), Kept(person))

    (choice,) = person.store.choices("commit_subject")
    assert repo.subject() == proposed == choice.text
    assert choice.candidates[choice.picked].text == proposed
    assert person.store.head("commit_subject", "adapter").version == 1
    record = person.store.get(repo.git("rev-parse", "HEAD"))
    assert record.output == proposed
    assert record.input == llm.prompts[0].query.replace("\n", " ")
    assert choice.record_id == record.id
    assert not (repo.path / ".git" / PENDING).exists()
    assert not learn_from_commit(Repository(), Kept(person))


def test_commit_of_a_proposal_chosen_before_teaches_once(repo, person):
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    made = person.store.last_generation()
    place = [candidate.text for candidate in made.candidates].index(proposed) + 1
    person.choose(generation_id=made.id, pick=place, keep=False)
    assert learn_from_commit(Repository(), Kept(person))
    assert person.store.head("commit_subject", "adapter").n_queries == 1
    (choice,) = person.store.choices("commit_subject")
    assert choice.record_id == repo.git("rev-parse", "HEAD")


def test_commit_edited_is_a_text_and_its_record_the_importers(repo, person):
    repo.write("parser.py", PARSER)
    commit(repo, person, "Accept empty headers\n\nThey are\nvalid.\n\nSigned-off-by: A <a@b>\n")
    assert learn_from_commit(Repository(), Kept(person))

    (choice,) = person.store.choices("commit_subject")
    assert choice.picked is None
    assert choice.text == "Accept empty headers"
    again = person.add(read_git(repo.path, ImportLog()))
    assert (again.added, again.updated, again.unchanged) == (0, 0, 1)


def test_commit_of_a_history_imported_as_private_is_private(repo, person):
    repo.write("a.py", "x = 1\n")
    repo.git("commit", "-q", "-m", "Start", "-m", "A body.")
    person.add(read_git(repo.path, ImportLog(), private=True))
    repo.write("parser.py", PARSER)
    commit(repo, person)
    learn_from_commit(Repository(), Kept(person))

    assert person.store.get(repo.git("rev-parse", "HEAD")).private


def test_commit_given_up_teaches_nothing_of_the_next(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    assert be_prepare(repo, person)
    be_prepare(repo, person, "message")
    repo.git("commit", "-q", "-m", "Another one")

    assert not learn_from_commit(Repository(), Kept(person))
    assert not person.store.choices()


def test_commit_upon_another_head_teaches_nothing(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    assert be_prepare(repo, person)
    for i in range(2):
        repo.git("commit", "-q", "--allow-empty", "-m", f"Elsewhere {i}")

    assert not learn_from_commit(Repository(), Kept(person))


@pytest.mark.parametrize(
    ("text", "options"),
    [("fixup! Start\n", ()), ("Fix it\n", ("--author", "Bob <bob@example.org>"))],
)
def test_commit_that_is_not_the_authors_style_teaches_nothing(repo, person, text, options):
    repo.write("parser.py", PARSER)
    commit(repo, person, text, *options)

    assert not learn_from_commit(Repository(), Kept(person))
    assert not person.store.choices()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', ""])
def test_pending_file_damaged_is_dropped(repo, person, text):
    pending = repo.path / ".git" / PENDING
    pending.write_text(text)

    assert not learn_from_commit(Repository(), Kept(person))
    assert not pending.exists()


def test_pending_file_is_private_and_holds_no_text(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    be_prepare(repo, person)
    pending = repo.path / ".git" / PENDING

    assert stat.S_IMODE(pending.stat().st_mode) == 0o600
    assert set(json.loads(pending.read_text())) == {"generation_id", "head"}


def test_nothing_staged_opens_the_llm_for_nothing(repo, person, llm):
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)

    assert be_prepare(repo, person) is None
    assert not llm.prompts


# ---- the limit


def test_within_too_long_is_a_timeout():
    release = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.01, lambda _stop: release.wait(60))
    release.set()


def test_within_says_when_to_come_to_an_end():
    times = iter([100.0, 179.0, 180.0])

    told = within(100.0, lambda stop: [stop(), stop()], clock=lambda: next(times))

    assert told == [False, True]


def test_within_errors_are_raised_where_it_is_waited_for():
    def work(_stop):
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError, match="no such thing"):
        within(60.0, work)


# ---- the scripts


def test_install_is_idempotent_and_uninstall_leaves_nothing(repo):
    repository = Repository(repo.path)
    before = {p.name for p in (repo.path / ".git" / "hooks").iterdir()}
    states = hooks.install(repository, ["/opt/hydra-edge"], ["--user", "a b"], {"HOME_X": "it's"})
    texts = [state.path.read_text() for state in states]

    assert [state.name for state in states] == ["prepare-commit-msg", "post-commit"]
    assert all(state.installed and not state.chained for state in states)
    assert all(os.access(state.path, os.X_OK) for state in states)
    assert "--user 'a b'" in texts[0]
    hooks.install(repository, ["/opt/hydra-edge"], ["--user", "a b"], {"HOME_X": "it's"})
    assert [state.path.read_text() for state in states] == texts
    assert len(hooks.uninstall(repository)) == 2
    assert {p.name for p in (repo.path / ".git" / "hooks").iterdir()} == before
    assert not hooks.uninstall(repository)


def test_install_hook_of_another_is_chained_and_comes_back(repo):
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.write_text("#!/bin/sh\necho other >> ran\n")
    hook.chmod(0o755)
    repository = Repository(repo.path)
    states = hooks.install(repository, ["/nowhere/hydra-edge"], [], {})
    assert states[0].chained

    repo.write("a.py", PARSER)
    done = repo.run("commit", "-q", GIT_EDITOR="echo Start >")
    assert done.returncode == 0
    assert (repo.path / "ran").read_text() == "other\n"
    assert "is gone" in done.stderr
    hooks.uninstall(repository)
    assert hook.read_text() == "#!/bin/sh\necho other >> ran\n"
    assert os.access(hook, os.X_OK)


def test_install_chained_hook_that_refuses_still_refuses(repo):
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    hooks.install(Repository(repo.path), ["/bin/true"], [], {})
    repo.write("a.py", PARSER)

    assert repo.run("commit", "-q", "-m", "Start").returncode != 0


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/hydra-edge"])
def test_script_whatever_happens_to_us_the_commit_is_made(repo, program):
    hooks.install(Repository(repo.path), [program], [], {})
    repo.write("a.py", PARSER)
    done = repo.run("commit", "-q", GIT_EDITOR="echo Start >")

    assert done.returncode == 0
    assert repo.subject() == "Start"


def test_script_message_that_is_given_starts_nothing_and_ends_a_proposal(repo, tmp_path):
    program = tmp_path / "hydra-edge"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    hooks.install(Repository(repo.path), [str(program)], [], {})
    pending = repo.path / ".git" / PENDING
    pending.write_text("{}")
    repo.write("a.py", PARSER)
    repo.git("commit", "-q", "-m", "Start")

    assert not pending.exists()
    assert not (tmp_path / "started").exists()
    repo.git("commit", "-q", "--allow-empty", GIT_EDITOR="echo Next >")
    assert (tmp_path / "started").exists()


def test_script_finds_the_folders_of_its_installation(repo, tmp_path, monkeypatch):
    monkeypatch.delenv("HYDRA_EDGE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "da ta"))
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "1")
    program = tmp_path / "hydra-edge"
    program.write_text(f'#!/bin/sh\necho "$XDG_DATA_HOME $HYDRA_EDGE_OFFLINE" > {tmp_path}/told\n')
    program.chmod(0o755)
    hooks.install(Repository(repo.path), [str(program)], [], environment())
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HYDRA_EDGE_OFFLINE")
    repo.write("a.py", PARSER)
    repo.git("commit", "-q", GIT_EDITOR="echo Start >")

    assert (tmp_path / "told").read_text() == f"{tmp_path}/da ta 1\n"


def test_script_is_one_any_posix_shell_reads(repo):
    states = hooks.install(Repository(repo.path), ["/a b/it's"], ["-m", "$(x)"], {"H": "`y`"})
    for state in states:
        assert subprocess.run(["sh", "-n", state.path], check=False).returncode == 0


def test_install_hooks_path_is_respected(repo):
    repo.git("config", "core.hooksPath", ".githooks")
    repository = Repository(repo.path)
    states = hooks.install(repository, ["/bin/true"], [], {})

    assert states[0].path == repo.path / ".githooks" / "prepare-commit-msg"
    assert not (repo.path / ".git" / "hooks" / "prepare-commit-msg").exists()
    assert "do not commit them" in hooks.remarks(repository)[0]


def test_install_two_hooks_of_others_are_refused(repo):
    folder = repo.path / ".git" / "hooks"
    for name in ("post-commit", "post-commit.before-hydra-edge"):
        (folder / name).write_text("#!/bin/sh\n")

    with pytest.raises(ConfigError, match="Two hooks want one name"):
        hooks.install(Repository(repo.path), ["/bin/true"], [], {})
    assert not (folder / "prepare-commit-msg").exists()


def test_uninstall_hook_that_is_not_ours_is_left(repo):
    hook = repo.path / ".git" / "hooks" / "post-commit"
    hook.write_text("#!/bin/sh\n")

    assert not hooks.uninstall(Repository(repo.path))
    assert hook.exists()


# ---- the commands


def test_command_install_status_uninstall(repo, home):
    place = ("--repo", str(repo.path))
    installed = cli_runner.call("git-hook", "install", *place, "--limit", "5s", "--json")
    status = cli_runner.call("git-hook", "status", *place)
    script = (repo.path / ".git" / "hooks" / "prepare-commit-msg").read_text()
    removed = cli_runner.call("git-hook", "uninstall", *place)

    assert installed.exit_code == 0, installed.output
    assert all(hook["installed"] for hook in json.loads(installed.stdout)["hooks"])
    assert status.stdout.count("installed") == 2
    assert "--limit 5s -- prepare-commit-msg" in script
    assert f"export HYDRA_EDGE_HOME={home}" in script
    assert removed.stdout.count("removed") == 2
    again = cli_runner.call("git-hook", "status", *place)
    assert again.stdout.count("not installed") == 2


def test_command_install_user_nobody_knows_is_refused(repo):
    result = cli_runner.call("git-hook", "install", "--repo", str(repo.path), "--user", "nobody")

    assert result.exit_code == 1
    assert "nobody" in result.stderr
    assert not (repo.path / ".git" / "hooks" / "post-commit").exists()


def test_command_run_anything_wrong_is_one_line_and_exit_0(repo):
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    repo.write("a.py", PARSER)
    for words in (["pre-push"], ["prepare-commit-msg", ".git/COMMIT_EDITMSG"]):
        result = cli_runner.call("git-hook", "run", "--user", "nobody", "--", *words)

        assert result.exit_code == 0
        assert result.stdout == ""
        assert result.stderr.startswith("hydra-edge: nothing proposed: ")
        assert len(result.stderr.splitlines()) == 1
    assert (repo.path / ".git" / "COMMIT_EDITMSG").read_text() == HINTS


@pytest.mark.parametrize("late", [CancelledError("stopped"), TimeoutError()])
def test_command_run_out_of_time_while_a_history_is_embedded_says_how_to_end_that(
    repo, monkeypatch, late
):
    def begun(*_, progress, **__):
        progress("embed", 32, 1900)
        raise late

    monkeypatch.setattr("hydra_edge.githook.proposal.be_hook", begun)
    monkeypatch.setattr("os._exit", lambda _: None)
    result = cli_runner.call("git-hook", "run", "-u", "ada", "--", "prepare-commit-msg", "x")

    assert result.exit_code == 0
    assert result.stderr == (
        "hydra-edge: nothing proposed within 15s: 32 of 1,900 texts of your history are embedded, "
        "which is done once. To do the rest now: hydra-edge fit-head --user ada --task "
        "commit_subject.\n"
    )


@pytest.mark.parametrize("offline", [False, True])
def test_command_run_remote_llm_is_refused_with_the_command_that_allows_it(
    repo, monkeypatch, offline
):
    if offline:
        monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "1")
    refusing = cli_runner.FakePersonalizer(error=EgressDeniedError("It is remote."))
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    Personalizer.open("ada", create=True).close()
    result = cli_runner.call(
        "git-hook", "run", "--user", "ada", "-m", "openai:x y", "--limit", "5m", "--",
        "prepare-commit-msg", ".git/COMMIT_EDITMSG", opener=refusing.open,
    )  # fmt: skip

    said, _, command = result.stderr.strip().rpartition(": ")
    assert len(result.stderr.splitlines()) == 1
    assert ("offline is on" in said) is offline
    assert ("unset HYDRA_EDGE_OFFLINE, then run" in said) is offline
    monkeypatch.delenv("HYDRA_EDGE_OFFLINE", raising=False)
    words = shlex.split(command)
    assert words[0] == "hydra-edge"
    assert cli_runner.call(*words[1:]).exit_code == 0
    script = (repo.path / ".git" / "hooks" / "post-commit").read_text()
    assert (
        "git-hook run --allow-remote --user ada --model 'openai:x y' --task commit_subject "
        "--limit 5m -- post-commit"
    ) in script
    assert "OFFLINE" not in script
