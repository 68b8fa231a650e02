"""What an import that prunes takes for gone, source by source."""

import json
import signal

import cli_runner
import pytest
from cli_runner import call, records
from git_repository import GitRepository
from test_importers_chatgpt import conversation, message
from test_importers_mbox import mail
from test_importers_mbox import write as write_mails

_own_folder = cli_runner.own_folder


def ids():
    return sorted(record.id for record in records())


def outputs():
    return sorted(record.output for record in records())


def prune(*args):
    told = call("import", *args, "--prune", "--yes")
    assert told.exit_code == 0, told.output
    return told


def foreseen(*args):
    """Return how many records would go, which a dry run says."""
    payload = json.loads(call("import", *args, "--prune", "--dry-run", "--json").stdout)
    return payload["pruned"]["records"]


def lines(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def item(text, answer, **more):
    return {"input": text, "output": answer, **more}


A1, B1, C1 = (item(name.lower(), name, id="1") for name in "ABC")


@pytest.mark.parametrize(
    ("before", "now", "left", "gone"),
    [
        ([item("a", "A"), item("b", "B")], [item("a", "A")], "A", 1),
        ([item("a", "A"), item("b", "B")], [item("a", "A"), item("b", "C")], "AC", 1),
        ([A1, item("b", "B", id="2")], [C1], "C", 1),
        # Emptied, but still there.
        ([A1, item("b", "B")], [item("a", "", id="1"), item("b", "B")], "AB", 0),
        # Two items of one id.
        ([A1, B1], [B1], "B", 1),
        ([A1, B1], [C1], "C", 1),
        ([A1, B1], [C1, B1], "BC", 0),
        # One item for two tasks.
        (
            [A1 | {"task": "x"}, B1 | {"task": "y"}, item("c", "C")],
            [A1 | {"task": "x", "output": "D"}, B1 | {"task": "y"}, item("c", "C")],
            "BCD",
            0,
        ),
        # Another task and another answer: another item.
        (
            [A1 | {"task": "x"}, C1 | {"id": "2", "task": "x"}],
            [B1 | {"task": "y"}, C1 | {"id": "2", "task": "x"}],
            "BC",
            1,
        ),
        # Another task alone: moved.
        (
            [A1 | {"task": "x"}, C1 | {"id": "2", "task": "y"}],
            [A1 | {"task": "y"}, C1 | {"id": "2", "task": "y"}],
            "AC",
            0,
        ),
        (
            [A1 | {"task": "x"}, C1 | {"id": "2", "task": "x"}],
            [A1 | {"task": "y"}, C1 | {"id": "2", "task": "x"}],
            "AC",
            0,
        ),
    ],
)
def test_lines_that_are_gone_go_and_dry_run_counts_them(tmp_path, before, now, left, gone):
    path = tmp_path / "a.jsonl"
    lines(path, *before)
    call("import", "jsonl", "a.jsonl")
    lines(path, *now)
    assert foreseen("jsonl", "a.jsonl") == gone
    told = prune("jsonl", "a.jsonl")
    assert outputs() == list(left)
    assert (f"Forgotten: {gone} record" in told.stdout) == bool(gone)


def test_broken_line_keeps_everything(tmp_path):
    path = tmp_path / "a.jsonl"
    lines(path, item("a", "A"), item("b", "B"))
    call("import", "jsonl", "a.jsonl")
    path.write_text(json.dumps(item("a", "A")) + '\n{"input": "b", "out')
    told = call("import", "jsonl", "a.jsonl", "--prune", "--yes")
    assert (told.exit_code, outputs()) == (1, ["A", "B"])
    assert "unreadable line (1)" in told.stderr


def test_two_columns_of_one_table_are_two_tasks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,input,title,venue\n1,a,A,V\n2,b,B,W\n")
    call("import", "csv", "a.csv", "--output", "title", "-t", "title")
    call("import", "csv", "a.csv", "--output", "venue", "-t", "venue")
    path.write_text("id,input,title,venue\n1,a,A,V\n")
    assert foreseen("csv", "a.csv", "--output", "title", "-t", "title") == 1
    prune("csv", "a.csv", "--output", "title", "-t", "title")
    assert outputs() == ["A", "V", "W"]
    prune("csv", "a.csv", "--output", "venue", "-t", "venue")
    assert outputs() == ["A", "V"]


def test_interrupted_reading_erases_nothing(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    path = tmp_path / "a.jsonl"
    lines(path, *(item(f"text {i}", f"T{i}") for i in range(5)))
    call("import", "jsonl", "a.jsonl")

    from hydra_edge.importers import jsonl

    build = jsonl.build_record

    def and_stop(fields, *rest):
        if fields["input"] == "text 2":
            signal.raise_signal(signal.SIGINT)
        return build(fields, *rest)

    monkeypatch.setattr(jsonl, "build_record", and_stop)
    try:
        told = call("import", "jsonl", "a.jsonl", "--prune", "--yes")
    finally:
        signal.signal(signal.SIGINT, before)
    assert told.exit_code == 130
    assert "--prune erased nothing: the reading ended early" in told.stderr
    assert len(records()) == 5


@pytest.fixture
def repo(tmp_path):
    """A repository with three commits of Ada's and one of Bob's, imported."""
    repo = GitRepository(tmp_path / "repo")
    for name in ("One", "Two", "Three"):
        commit(repo, name)
    commit(repo, "Bob's", "--author", "Bob <bob@example.org>")
    call("import", "git", "repo")
    return repo


def commit(repo, subject, *args):
    repo.git("commit", "--allow-empty", "-q", "-m", subject, "-m", f"Why {subject} is.", *args)


def test_commits_rewritten_by_rebase_go_and_those_of_other_branches_stay(repo):
    repo.git("checkout", "-q", "-b", "topic")
    commit(repo, "Topic")
    call("import", "git", "repo")
    repo.git("checkout", "-q", "main")
    repo.git("reset", "-q", "--hard", "HEAD~2")
    commit(repo, "Three, amended")
    repo.git("branch", "-f", "topic", "HEAD~1")
    commit_at = repo.git("rev-parse", "topic")
    repo.git("checkout", "-q", "topic")
    commit(repo, "Topic, rebased")
    repo.git("checkout", "-q", "main")

    assert foreseen("git", "repo") == 2
    prune("git", "repo")
    assert outputs() == ["One", "Three, amended", "Two"]
    assert commit_at in ids()

    repo.git("checkout", "-q", "topic")
    call("import", "git", "repo")
    repo.git("checkout", "-q", "main")
    prune("git", "repo")
    assert "Topic, rebased" in outputs()  # its branch is still there


def test_commits_of_an_author_named_before_stay(repo):
    call("import", "git", "repo", "--author", "bob")
    assert len(records()) == 4
    assert "Nothing to erase" in prune("git", "repo").stdout
    assert len(records()) == 4


def test_shallow_clone_in_the_place_of_the_repository_erases_nothing(repo, tmp_path):
    repo.path.rename(tmp_path / "whole")
    GitRepository(tmp_path / "other").git(
        "clone", "-q", "--depth", "2", (tmp_path / "whole").as_uri(), str(tmp_path / "repo")
    )
    told = call("import", "git", "repo", "--author", "ada", "--prune", "--yes")
    assert told.exit_code == 1
    assert "shallow" in told.stderr
    assert len(records()) == 3


def test_mails_that_are_gone_go_and_those_of_another_address_or_mode_stay(tmp_path):
    path = tmp_path / "mail.mbox"
    bob = mail("From Bob.\n", sender="bob@example.org", subject="Bob's", Message_ID="<2@x>")
    reply = mail("Yes.\n\n> Coming?\n", subject="Re: x", In_Reply_To="<0@x>", Message_ID="<3@x>")
    write_mails(path, mail(subject="Ada's", Message_ID="<1@x>"), bob, reply,
                mail(subject="Old", Message_ID="<4@x>"))  # fmt: skip
    for args in (("--me", "ada"), ("--me", "bob"), ("--me", "ada", "--replies", "-t", "mail"),
                 ("--me", "ada", "-t", "mail")):  # fmt: skip
        call("import", "mbox", "mail.mbox", *args)
    assert outputs() == ["Ada's", "Bob's", "Old", "Yes."]
    path.unlink()
    write_mails(path, mail(subject="Ada's", Message_ID="<1@x>"), bob, reply)
    prune("mbox", "mail.mbox", "--me", "ada", "-t", "mail")
    assert outputs() == ["Ada's", "Bob's", "Yes."]


def test_mail_without_an_id_that_may_be_another_addresss_keeps_everything(tmp_path):
    path = tmp_path / "mail.mbox"
    write_mails(path, mail(subject="A"), mail(sender="bob@example.org", subject="B"))
    call("import", "mbox", "mail.mbox", "--me", "bob")
    told = call("import", "mbox", "mail.mbox", "--me", "ada", "--prune", "--yes")
    assert told.exit_code == 1
    assert "without a Message-ID" in told.stderr
    assert outputs() == ["A", "B"]


def test_chats_that_are_gone_go_and_those_that_went_on_otherwise_stay(tmp_path):
    path = tmp_path / "conversations.json"
    kept, gone = (
        conversation(message(f"q{name}", "user", f"Q{name}"),
                     message(f"a{name}", "assistant", f"A{name}"), name=name)
        for name in "kg"
    )  # fmt: skip
    path.write_text(json.dumps([kept, gone]))
    call("import", "chatgpt", "conversations.json")
    nodes = kept["mapping"]
    nodes |= {
        "q2": {"id": "q2", "message": message("q2", "user", "Q, edited"), "parent": "root"},
        "a2": {"id": "a2", "message": message("a2", "assistant", "A2"), "parent": "q2"},
    }
    path.write_text(json.dumps([kept | {"current_node": "a2"}]))
    prune("chatgpt", "conversations.json")
    assert ids() == ["k:q2", "k:qk"]


def test_profile_of_another_person_stays(tmp_path):
    papers = [{"id": str(i), "title": f"T{i}", "abstract": f"Abstract {i}"} for i in range(4)]
    people = [{"id": "a", "input": "?", "profile": papers[:2]},
              {"id": "b", "input": "?", "profile": papers[2:]}]  # fmt: skip
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(people))
    args = ("lamp", "questions.json", "-t", "paper_title", "--person")
    call("import", *args, "a")
    call("import", *args, "b")
    people[1]["profile"] = papers[3:]
    path.write_text(json.dumps(people))
    prune(*args, "b")
    assert outputs() == ["T0", "T1", "T3"]


def test_notes_left_out_count_as_gone(tmp_path):
    folder = tmp_path / "notes"
    (folder / "templates").mkdir(parents=True)
    for name in ("a.md", "b.draft.md", "templates/t.md"):
        (folder / name).write_text(f"# {name}\n\nText of {name}.\n")
    call("import", "markdown", "notes")
    prune("markdown", "notes", "--exclude", "templates/*", "--exclude", "*.draft.md")
    assert ids() == ["a.md"]
    call("import", "markdown", "notes")
    assert len(ids()) == 3
