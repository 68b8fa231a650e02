"""What imports make private: as it was said, or as earlier records of the source are."""

import json
import signal

import cli_runner
import pytest
from cli_runner import call, records
from git_repository import GitRepository

from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

_own_folder = cli_runner.own_folder


@pytest.fixture
def repo(tmp_path):
    made = GitRepository(tmp_path / "repo")
    begin(made, "Start")
    return made


def begin(repo, subject):
    repo.git("commit", "-q", "--allow-empty", "-m", subject, "-m", f"Why we {subject}.")


def private_of(user="me"):
    return {record.output: record.private for record in records(user)}


def test_import_git_again_keeps_new_commits_as_private_as_before_and_says_so(repo):
    call("import", "git", "repo", "--private")
    begin(repo, "Next")
    result = call("import", "git", "repo")

    assert "1 added, 0 updated, 1 unchanged" in result.stdout
    assert "Kept private, as records of this repository are already; --public" in result.stderr
    assert private_of() == {"Start": True, "Next": True}
    assert "Kept private" not in call("import", "git", "repo").stderr


def test_import_git_public_said_wins_over_what_was_before(repo):
    call("import", "git", "repo", "--private")
    begin(repo, "Next")
    result = call("import", "git", "repo", "--public")

    assert "Kept private" not in result.stderr
    assert private_of() == {"Start": True, "Next": False}
    begin(repo, "Last")
    call("import", "git", "repo/.git")
    assert private_of() == {"Start": True, "Next": False, "Last": True}


def test_import_git_dry_run_shows_what_would_be_private(repo, home):
    first = json.loads(call("import", "git", "repo", "--dry-run", "--json").stdout)
    assert [sample["private"] for sample in first["samples"]] == [False]
    assert not home.exists()

    call("import", "git", "repo", "--private")
    begin(repo, "Next")
    again = call("import", "git", "repo", "--dry-run", "--json")
    shown = {sample["output"]: sample["private"] for sample in json.loads(again.stdout)["samples"]}
    assert shown["Next"] is True
    assert "Kept private" in again.stderr
    assert private_of() == {"Start": True}


def test_import_public_of_records_already_private_says_that_they_stay_so_and_how_to_change_it(repo):
    call("import", "git", "repo", "--private")
    begin(repo, "Next")
    result = call("import", "git", "repo", "--public")
    (stays,) = [record.id for record in records() if record.private]

    assert result.stdout.startswith(
        "me: 1 added, 0 updated, 1 unchanged; 1 there already as private stay so "
        "(`hydra-edge history private --off ID...` changes that); "
    )
    call("history", "private", "--off", stays)
    again = json.loads(call("import", "git", "repo", "--public", "--json").stdout)
    assert (again["unchanged"], again["stay_private"]) == (2, 0)


def test_import_dry_run_tells_all_records_that_would_stay_private_and_stores_nothing(tmp_path):
    lines = [{"input": f"text {i}", "output": f"title {i}"} for i in range(7)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[2:]))
    call("import", "jsonl", "old.jsonl", "--private")
    planned = call("import", "jsonl", "h.jsonl", "--public", "--dry-run")

    assert planned.stdout.count("->") == 3
    assert "Would read 7 records; 5 there already as private stay so" in planned.stdout
    assert len(records()) == 5
    done = json.loads(call("import", "jsonl", "h.jsonl", "--public", "--json").stdout)
    assert done["stay_private"] == 5


def test_import_public_without_ids_is_told_of_private_records_too(tmp_path):
    (tmp_path / "h.jsonl").write_text('{"input": "a text", "output": "a title"}\n')
    call("import", "jsonl", "h.jsonl", "--private")
    again = json.loads(call("import", "jsonl", "h.jsonl", "--public", "--json").stdout)

    assert (again["unchanged"], again["stay_private"]) == (1, 1)


def test_new_note_of_a_private_folder_is_private(tmp_path):
    notes = tmp_path / "diary"
    notes.mkdir()
    (notes / "a.md").write_text("# First\n\nA text.\n")
    call("import", "markdown", "diary", "--private")
    (notes / "b.md").write_text("# Second\n\nAnother.\n")

    planned = call("import", "markdown", "diary", "--dry-run", "--json")
    assert [sample["private"] for sample in json.loads(planned.stdout)["samples"]] == [False, True]
    told = "Kept private, as all records of this source are already; --public keeps new ones public"
    assert told in planned.stderr.replace("\n", " ")
    assert told in call("import", "markdown", "diary").stderr.replace("\n", " ")
    assert private_of() == {"First": True, "Second": True}
    assert "Kept private" not in call("import", "markdown", "diary").stderr

    (notes / "c.md").write_text("# Third\n\nOne more.\n")
    assert "Kept private" not in call("import", "markdown", "diary", "--public").stderr
    (notes / "d.md").write_text("# Fourth\n\nWith a public one beside it.\n")
    assert "Kept private" not in call("import", "markdown", "diary").stderr
    assert private_of() == {"First": True, "Second": True, "Third": False, "Fourth": False}


def write_notes(folder, *titles):
    folder.mkdir(parents=True, exist_ok=True)
    for title in titles:
        (folder / f"{title}.md").write_text(f"# {title}\n\nOn {title}.\n")


def test_new_note_of_a_private_folder_that_was_moved_stays_private(tmp_path):
    write_notes(tmp_path / "diary", "First", "Third")
    call("import", "markdown", "diary", "--private")
    (tmp_path / "diary").rename(tmp_path / "archive")
    write_notes(tmp_path / "archive", "A new one", "Second")  # before and between those there

    assert "Kept private" in call("import", "markdown", "archive", "--dry-run").stderr
    assert "Kept private" in call("import", "markdown", "archive").stderr
    assert private_of() == {"First": True, "Third": True, "A new one": True, "Second": True}
    write_notes(tmp_path / "archive", "Last")
    assert "Kept private" not in call("import", "markdown", "archive", "--public").stderr
    assert private_of()["Last"] is False


def test_new_row_of_a_private_file_that_was_renamed_stays_private(tmp_path):
    (tmp_path / "old.csv").write_text("input,output\na,one\n")
    call("import", "csv", "old.csv", "--private", "-t", "a_title")
    (tmp_path / "new.csv").write_text("input,output\nb,two\na,one\n")

    assert "Kept private" in call("import", "csv", "new.csv", "-t", "other_title").stderr
    assert set(private_of().values()) == {True}


def test_new_row_stays_private_where_the_history_came_through_a_pipe(tmp_path):
    call("import", "jsonl", "-", "--private", text='{"input": "a", "output": "one"}\n')
    (tmp_path / "h.csv").write_text("input,output\na,one\nb,two\n")

    assert "Kept private" in call("import", "csv", "h.csv").stderr
    assert private_of() == {"one": True, "two": True}


def test_new_row_is_public_beside_one_that_is_there_as_public(tmp_path):
    (tmp_path / "old.csv").write_text("input,output\na,one\n")
    call("import", "csv", "old.csv", "--private")
    (tmp_path / "open.csv").write_text("input,output\nb,two\n")
    call("import", "csv", "open.csv")
    (tmp_path / "both.csv").write_text("input,output\nc,three\na,one\nb,two\nd,four\n")

    assert "Kept private" not in call("import", "csv", "both.csv").stderr
    assert private_of() == {"one": True, "two": False, "three": False, "four": False}


def test_record_an_app_added_as_private_hides_no_new_file(tmp_path):
    with Personalizer.open("me", create=True) as me:
        me.add([Record("a", "one", source="app:mail", private=True)])
    (tmp_path / "h.csv").write_text("input,output\na,one\nb,two\n")

    assert "Kept private" not in call("import", "csv", "h.csv").stderr
    assert private_of()["two"] is False


def test_new_note_of_a_private_folder_imported_from_above_stays_private(tmp_path):
    write_notes(tmp_path / "notes" / "diary", "First", "Second")
    call("import", "markdown", "notes/diary", "--private")
    write_notes(tmp_path / "notes", "Shopping")
    write_notes(tmp_path / "notes" / "diary", "Third", "w" * 201)  # a path too long for an id
    write_notes(tmp_path / "notes" / "diary" / "deep" / "er", "Fourth")
    write_notes(tmp_path / "notes" / "diary2", "Fifth")
    (tmp_path / "notes" / "diary" / "First.md").write_text("# First\n\nEdited.\n")

    assert "Kept private" in call("import", "markdown", "notes").stderr
    assert {title for title, private in private_of().items() if not private} == {
        "Shopping", "Fifth",
    }  # fmt: skip
    assert [r.private for r in records() if r.input == "Edited."] == [True]
    write_notes(tmp_path / "notes" / "diary", "Sixth")
    call("import", "markdown", "notes", "--public")
    assert private_of()["Sixth"] is False


def test_new_note_of_a_public_folder_within_a_private_one_is_public(tmp_path):
    write_notes(tmp_path / "diary", "First")
    call("import", "markdown", "diary", "--private")
    write_notes(tmp_path / "diary" / "open", "Second")
    assert "Kept private" in call("import", "markdown", "diary/open", "--dry-run").stderr
    call("import", "markdown", "diary/open", "--public")
    write_notes(tmp_path / "diary" / "open", "Third")

    assert "Kept private" not in call("import", "markdown", "diary/open").stderr
    assert private_of() == {"First": True, "Second": False, "Third": False}


def test_interrupt_while_a_file_shows_whether_it_is_private_keeps_none_of_it(tmp_path, monkeypatch):
    (tmp_path / "old.csv").write_text("input,output\na,one\n")
    call("import", "csv", "old.csv", "--private")

    def read(*_args, **_kwargs):
        yield Record("b", "two", source="csv:/new")
        signal.raise_signal(signal.SIGINT)
        yield Record("a", "one", source="csv:/new")

    monkeypatch.setattr("hydra_edge.importers.read_csv", read)
    assert call("import", "csv", "new.csv").exit_code == 130
    assert private_of() == {"one": True}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_edited_line_without_an_id_of_a_private_file_is_private(tmp_path, kind):
    def write(*outputs):
        lines = ["input,output", *(f"a text,{each}" for each in outputs)]
        if kind == "jsonl":
            lines = [json.dumps({"input": "a text", "output": each}) for each in outputs]
        (tmp_path / "h").write_text("\n".join(lines) + "\n")

    write("one", "two")
    call("import", kind, "h")
    (source,) = {record.source for record in records()}
    call("history", "private", "--source", source)
    write("one", "two - edited")
    assert "Kept private" in call("import", kind, "h").stderr
    assert private_of() == {"one": True, "two": True, "two - edited": True}


def test_import_of_a_private_file_leaves_what_another_source_has_public(tmp_path):
    line = '{"input": "shared", "output": "by both"}\n'
    (tmp_path / "mine.jsonl").write_text('{"input": "a", "output": "b"}\n')
    call("import", "jsonl", "mine.jsonl", "--private")
    (tmp_path / "other.jsonl").write_text(line)
    call("import", "jsonl", "other.jsonl")
    (tmp_path / "mine.jsonl").write_text('{"input": "a", "output": "b"}\n' + line)
    assert "Kept private" not in call("import", "jsonl", "mine.jsonl").stderr
    assert private_of() == {"b": True, "by both": False}
