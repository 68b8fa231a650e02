"""Imports that erase what is no longer in their source, and what keeps them from it."""

import json

import cli_runner
import pytest
from cli_runner import call, loaded, records
from filled_store import put_choice
from test_cli_forgetting import heads_now, interrupt, reading_meanwhile

from hydra_edge.config import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record

_own_folder = cli_runner.own_folder


def note(i, text=""):
    return f"# Title {i}\n\nA text about {i} things.{text}\n"


def imported(tmp_path, n):
    """Import so many notes, and return their folder."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for i in range(n):
        (folder / f"n{i}.md").write_text(note(i))
    call("import", "markdown", "notes")
    return folder


@pytest.fixture
def vault(tmp_path):
    """Import five notes, and give their folder."""
    return imported(tmp_path, 5)


def ids():
    return sorted(record.id for record in records())


def prune(*args):
    return call("import", "markdown", "notes", "--prune", *args)


def test_prune_erases_what_is_gone_and_keeps_edits_and_new_notes(vault):
    (vault / "n0.md").unlink()
    (vault / "n1.md").rename(vault / "renamed.md")
    (vault / "n2.md").write_text(note(2, " Edited."))
    told = prune("--yes")

    assert told.exit_code == 0, told.output
    assert "Forgotten: 2 records" in told.stdout
    assert ids() == ["n2.md", "n3.md", "n4.md", "renamed.md"]
    assert b"0 things" not in find_paths().user_file("me").read_bytes()
    told = prune("--yes")
    assert "Nothing to erase: all you have of markdown:" in told.stdout


def test_without_prune_what_is_gone_stays(vault):
    (vault / "n0.md").unlink()
    call("import", "markdown", "notes")
    assert len(ids()) == 5


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_prune_without_a_person_to_ask_refuses_before_anything_is_stored(vault, args):
    (vault / "n0.md").unlink()
    (vault / "new.md").write_text(note(9))
    told = prune(*args)

    assert told.exit_code == 1
    assert "Nothing was imported. Add --yes" in told.stderr
    assert ids() == [f"n{i}.md" for i in range(5)]


def test_prune_json_is_refused_at_a_terminal_too(vault, monkeypatch):
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    (vault / "n0.md").rename(vault / "new.md")
    told = prune("--json")
    assert (told.exit_code, json.loads(told.stdout)["error"]["code"]) == (1, "config")
    assert "new.md" not in ids()


@pytest.mark.parametrize(("answer", "left"), [("y\n", 4), ("n\n", 5)])
def test_prune_asks_with_the_numbers(vault, monkeypatch, answer, left):
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    monkeypatch.setenv("NO_COLOR", "1")
    with Personalizer.open() as me:
        put_choice(me.store, "g1", "note_title", "asked", candidates=[], shown=("n0.md",))
    (vault / "n0.md").unlink()
    told = call("import", "markdown", "notes", "--prune", text=answer)

    asked = f"Erase 1 record no longer in markdown:{vault} of me for good, and with it 1 choice"
    assert asked in told.stderr
    assert len(ids()) == left


def test_prune_dry_run_counts_shows_samples_and_erases_nothing(vault):
    for i in range(4):
        (vault / f"n{i}.md").unlink()
    (vault / "new.md").write_text(note(9))
    (vault / "n4.md").write_text(note(4, " Edited."))
    told = prune("--dry-run")

    assert told.exit_code == 0
    assert "Would be forgotten: 4 records" in told.stdout
    assert told.stdout.count("[note_title] A text about") == 2 + 3  # what is read, what would go
    assert "Nothing was erased." in told.stderr
    assert len(ids()) == 5
    payload = json.loads(prune("--dry-run", "--json").stdout)["pruned"]
    assert (payload["records"], payload["total"], len(payload["samples"])) == (4, 5, 3)
    assert len(ids()) == 5


def test_prune_json_has_the_receipt(vault):
    (vault / "n0.md").unlink()
    payload = loaded("import", "markdown", "notes", "--prune", "--yes", "--json")
    assert (payload["unchanged"], payload["error"]) == (4, None)
    assert (payload["pruned"]["records"], payload["pruned"]["source"]) == (1, f"markdown:{vault}")
    payload = loaded("import", "markdown", "notes", "--prune", "--yes", "--json")
    assert payload["pruned"]["records"] == 0
    assert loaded("import", "markdown", "notes", "--json")["pruned"] is None


def bad_encoding(vault):
    (vault / "n1.md").write_bytes(b"# T\n\n\xff\xfe\n")


def too_large(vault):
    with (vault / "n1.md").open("ab") as file:
        file.truncate(65 * 2**20)  # a hole: it takes no room


def linked_folder(vault):
    (vault / "sub").symlink_to(vault.parent)


def broken_link(vault):
    (vault / "n1.md").unlink()
    (vault / "n1.md").symlink_to(vault / "gone.md")


@pytest.mark.parametrize("spoil", [bad_encoding, too_large, linked_folder, broken_link])
@pytest.mark.parametrize("args", [("--yes",), ("--dry-run",)])
def test_prune_of_a_source_that_was_not_read_whole_erases_nothing(vault, spoil, args):
    spoil(vault)
    (vault / "n0.md").unlink()
    (vault / "new.md").write_text(note(9))
    told = prune(*args)

    assert told.exit_code == 1
    assert "--prune erased nothing: got a source of which was not read: " in told.stderr
    assert "Forgotten" not in told.output
    assert "Would be forgotten" not in told.output
    assert set(ids()) >= {f"n{i}.md" for i in range(5)}
    assert "new.md" in ids() or args == ("--dry-run",)  # what could be read is imported


def test_prune_json_of_a_source_that_was_not_read_whole_is_an_error(vault):
    bad_encoding(vault)
    (vault / "n0.md").unlink()
    told = prune("--yes", "--json")
    payload = json.loads(told.stdout)
    assert (told.exit_code, payload["pruned"], payload["unchanged"]) == (1, None, 3)
    assert "unreadable note (1)" in payload["error"]["message"]


@pytest.mark.parametrize("text", ["", "---\n---\n", "Text, but no title.\n"])
def test_prune_leaves_the_record_of_a_note_that_gives_none_now(vault, text):
    (vault / "n0.md").write_text(text)
    (vault / "n1.md").unlink()
    assert prune("--yes").exit_code == 0
    assert ids() == ["n0.md", "n2.md", "n3.md", "n4.md"]


def test_prune_of_an_empty_or_missing_source_erases_nothing(vault):
    for path in vault.iterdir():
        path.unlink()
    assert "Nothing was imported" in prune("--yes", "--most").stderr
    vault.rmdir()
    assert "is not a folder" in prune("--yes", "--most").stderr
    assert len(ids()) == 5


def test_prune_leaves_other_sources_and_other_tasks_alone(vault):
    with Personalizer.open() as me:
        me.add(Record("by hand", "Hand", "note_title", "h", source="add"))
        me.add(Record("kept", "Kept", "note_title", "choice-g1", source="choices"))
        me.add(Record("an app's", "App", "note_title", "a", source="app:mail"))
        me.add(Record("other", "Other", "note_topic", "n9.md", source=f"markdown:{vault}"))
    (vault / "n0.md").unlink()
    told = prune("--yes")

    assert "Forgotten: 1 record," in told.stdout
    assert "1 record from there of other tasks: left alone" in told.stderr
    assert ids() == ["a", "choice-g1", "h", *(f"n{i}.md" for i in (1, 2, 3, 4, 9))]


def test_prune_with_another_task_erases_nothing_of_the_first(vault):
    call("import", "markdown", "notes", "--task", "topic")
    (vault / "n0.md").unlink()
    assert prune("--task", "label", "--yes").exit_code == 0
    assert "n0.md" in ids()


def test_prune_after_a_move_erases_what_is_in_neither_place(vault):
    moved = vault.rename(vault.parent / "vault")
    call("import", "markdown", "vault")
    (moved / "n0.md").unlink()
    call("import", "markdown", "vault", "--prune", "--yes")
    assert ids() == [f"n{i}.md" for i in range(1, 5)]
    assert {record.source for record in records()} == {f"markdown:{moved}"}


def test_prune_says_that_private_records_go(vault, monkeypatch):
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    call("history", "private", "n0.md")
    (vault / "n0.md").unlink()
    told = call("import", "markdown", "notes", "--prune", text="n\n")
    assert "Of these, 1 private" in told.stderr
    assert len(ids()) == 5


@pytest.fixture
def large(tmp_path):
    """Import 20 notes, and give their folder, of which 11 are no longer there."""
    folder = imported(tmp_path, 20)
    for i in range(11):
        (folder / f"n{i}.md").unlink()
    return folder


@pytest.mark.usefixtures("large")
def test_prune_of_most_needs_a_second_word_where_nobody_is_asked():
    told = prune("--yes")
    assert told.exit_code == 1
    assert "11 of the 20 records" in told.stderr
    assert "--most" in told.stderr
    assert len(ids()) == 20
    assert prune("--yes", "--most").exit_code == 0
    assert len(ids()) == 9


def test_prune_of_half_needs_none(large):
    (large / "n10.md").write_text(note(10))
    assert prune("--yes").exit_code == 0
    assert len(ids()) == 10


@pytest.mark.usefixtures("large")
def test_prune_of_most_says_so_where_it_asks(monkeypatch):
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    told = call("import", "markdown", "notes", "--prune", text="n\n")
    assert "11 of the 20 records" in told.stderr
    assert len(ids()) == 20


def test_prune_counts_most_of_what_was_there_before(large):
    for i in range(100, 140):
        (large / f"n{i}.md").write_text(note(i))
    assert "11 of the 20 records" in prune("--yes").stderr


@pytest.mark.parametrize(
    "args",
    [("jsonl", "-", "--prune", "--yes"), ("csv", "-", "--prune", "--yes"),
     ("git", ".", "--prune", "--yes", "--limit", "3"), ("markdown", ".", "--yes"),
     ("markdown", ".", "--most")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_usage_errors(args):
    told = call("import", *args, text="")
    assert told.exit_code == 2
    assert "--prune" in told.stderr


def test_prune_leaves_what_another_program_adds_meanwhile(vault, monkeypatch):
    (vault / "n0.md").unlink()
    add = Store.add

    def and_another(self, new, **given):
        result = add(self, new, **given)
        add(self, [Record("meanwhile", "M", "note_title", "m.md", source=f"markdown:{vault}")])
        return result

    monkeypatch.setattr(Store, "add", and_another)
    prune("--yes")
    assert ids() == ["m.md", *(f"n{i}.md" for i in range(1, 5))]


def test_prune_fits_the_heads_that_learned_again(vault):
    with Personalizer.open() as me:
        me.fit_head("note_title", use_llm=False)
    (vault / "n0.md").unlink()
    assert "now fitted again: note_title" in prune("--yes").stdout
    assert {stale for _, stale in heads_now()} == {False}


def test_prune_interrupted_while_heads_are_fitted_again_names_them(vault, monkeypatch):
    with Personalizer.open() as me:
        me.fit_head("note_title", use_llm=False)
    (vault / "n0.md").unlink()
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", interrupt)
    told = prune("--yes")
    assert told.exit_code == 130
    assert "heads not fitted again: hydra-edge fit-head --task note_title" in told.stderr
    assert "n0.md" not in ids()


def test_prune_whose_bytes_may_remain_says_so(vault):
    (vault / "n0.md").unlink()
    told = reading_meanwhile("import", "markdown", "notes", "--prune", "--yes", "--json")
    payload = json.loads(told.stdout)
    assert (told.exit_code, payload["error"]["code"]) == (1, "bytes_remain")
    assert (payload["pruned"]["records"], payload["unchanged"]) == (1, 4)
    assert "its bytes may remain" in told.stderr
