"""Imports of a folder or file that has another place or name now, and what they say of it."""

import json
import unicodedata

import cli_runner
import pytest
from cli_runner import call, loaded, records

_own_folder = cli_runner.own_folder


def write(folder, **notes):
    folder.mkdir(exist_ok=True)
    for name, text in notes.items():
        (folder / f"{name}.md").write_text(text)


@pytest.fixture
def vault(tmp_path):
    """Import five notes, then move their folder; return its new place."""
    write(tmp_path / "notes", **{f"n{i}": f"# Title {i}\n\nText {i}.\n" for i in range(5)})
    call("import", "markdown", "notes")
    return (tmp_path / "notes").rename(tmp_path / "vault")


def test_import_of_a_moved_folder_says_so_and_later_edits_replace(vault, tmp_path):
    told = call("import", "markdown", "vault")
    assert f"5 records taken over from markdown:{tmp_path / 'notes'}." in told.stderr
    assert "0 added, 0 updated, 5 unchanged" in told.stdout

    write(vault, n1="# Title 1\n\nText 1, edited.\n")
    told = call("import", "markdown", "vault")
    assert "taken over" not in told.output
    assert "0 added, 1 updated, 4 unchanged" in told.stdout
    assert {(r.source, r.id) for r in records()} == {
        (f"markdown:{vault}", f"n{i}.md") for i in range(5)
    }


def test_import_json_has_what_was_taken_over(vault, tmp_path):
    payload = loaded("import", "markdown", "vault", "--json")
    assert payload["taken_over"] == {f"markdown:{tmp_path / 'notes'}": 5}
    assert loaded("import", "markdown", "vault", "--json")["taken_over"] == {}


def test_dry_run_says_what_may_be_taken_over(vault, tmp_path):
    told = call("import", "markdown", "vault", "--dry-run")
    assert f"5 records may be taken over from markdown:{tmp_path / 'notes'}." in told.stderr
    assert {r.source for r in records()} == {f"markdown:{tmp_path / 'notes'}"}
    call("import", "markdown", "vault")
    assert "taken over" not in call("import", "markdown", "vault", "--dry-run").stderr


def test_dry_run_tells_of_no_taking_over_where_both_folders_are_there(vault, tmp_path):
    (tmp_path / "notes").mkdir()
    assert "taken over" not in call("import", "markdown", "vault", "--dry-run").stderr


def test_one_private_note_of_a_moved_public_folder_hides_no_later_note(vault):
    write(vault, diary="---\nprivate: true\n---\n# Diary\n\nSecret.\n")
    call("import", "markdown", "vault")
    write(vault, recipe="# Recipe\n\nFlour.\n")
    assert "Kept private" not in call("import", "markdown", "vault").stderr
    assert [r.output for r in records() if r.private] == ["Diary"]


def test_new_folder_in_the_place_of_a_private_one_that_moved_is_private(tmp_path):
    write(tmp_path / "diary", a="# First\n\nText.\n", b="# Second\n\nText.\n")
    call("import", "markdown", "diary", "--private")
    (tmp_path / "diary").rename(tmp_path / "diary-2024")
    call("import", "markdown", "diary-2024")
    write(tmp_path / "diary", january="# New year\n\nText.\n")
    assert "Kept private" in call("import", "markdown", "diary").stderr
    assert all(record.private for record in records())


def test_public_notes_moved_into_a_private_folder_leave_it_private(vault, tmp_path):
    write(tmp_path / "diary", a="# First\n\nText.\n")
    call("import", "markdown", "diary", "--private")
    for note in vault.iterdir():
        note.rename(tmp_path / "diary" / note.name)
    vault.rmdir()
    assert "taken over" not in call("import", "markdown", "diary").stderr
    write(tmp_path / "diary", b="# Second\n\nText.\n")
    assert "Kept private" in call("import", "markdown", "diary").stderr
    assert [r.output for r in records() if r.private] == ["First", "Second"]


def test_public_folder_moved_into_a_private_one_is_private_from_then_on(vault, tmp_path):
    write(tmp_path / "diary", a="# First\n\nText.\n")
    call("import", "markdown", "diary", "--private")
    vault = vault.rename(tmp_path / "diary" / "vault")
    for name in "bc":
        write(vault, **{name: f"# New {name}\n\nText.\n"})
        assert "Kept private" in call("import", "markdown", "diary/vault").stderr
    assert [r.output for r in records() if r.private] == ["First", "New b", "New c"]


def test_history_exported_and_read_elsewhere_is_its_notes_again(vault):
    call("import", "markdown", "vault")
    call("history", "export", "h.jsonl")
    call("import", "jsonl", "h.jsonl", "-u", "laptop")
    write(vault, n1="# Title 1\n\nText 1, edited.\n")
    told = call("import", "markdown", "vault", "-u", "laptop")
    assert "0 added, 1 updated, 4 unchanged" in told.stdout
    assert {r.source for r in records("laptop")} == {f"markdown:{vault}"}


def test_notes_are_the_same_on_a_system_that_spells_their_names_otherwise(tmp_path):
    for form in ("NFD", "NFC"):
        folder = tmp_path / form / unicodedata.normalize(form, "für mich")
        folder.mkdir(parents=True)
        name = unicodedata.normalize(form, "Über das Schreiben")
        (folder / f"{name}.md").write_text("Ein Text.\n")
    (tmp_path / "NFD").rename(tmp_path / "notes")
    call("import", "markdown", "notes")
    (tmp_path / "notes").rename(tmp_path / "away")
    (tmp_path / "NFC").rename(tmp_path / "notes")
    assert "0 added, 0 updated, 1 unchanged" in call("import", "markdown", "notes").stdout
    [record] = records()
    assert (record.id, record.output) == ("für mich/Über das Schreiben.md", "Über das Schreiben")


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_private_folder_is_known_however_its_name_is_spelled(tmp_path, forms):
    there, later = (unicodedata.normalize(form, "Tagebücher") for form in forms)
    write(tmp_path, open="# Open\n\nText.\n")
    call("import", "markdown", ".")
    write(tmp_path / there, a="# First\n\nText.\n")
    call("import", "markdown", there, "--private")
    (tmp_path / there).rename(tmp_path / later)
    write(tmp_path / later, b="# Second\n\nText.\n")
    assert "Kept private" in call("import", "markdown", ".").stderr
    assert {r.output: r.private for r in records()} == {
        "Open": False, "First": True, "Second": True,
    }  # fmt: skip


def test_dates_written_into_notes_later_arrive_and_copies_change_none(vault):
    call("import", "markdown", "vault")
    (vault / "n0.md").touch()
    assert "5 unchanged" in call("import", "markdown", "vault").stdout
    write(vault, n1="---\ndate: 1970-01-02\n---\n# Title 1\n\nText 1.\n")
    assert "1 updated, 4 unchanged" in call("import", "markdown", "vault").stdout
    assert {r.id: r.time for r in records()}["n1.md"] == 86400.0


def test_times_of_another_column_are_taken_and_so_is_one_given_by_hand(tmp_path):
    line = {"input": "a", "output": "b", "id": "x", "time": "2025-03-01", "created": "1970-01-02"}
    (tmp_path / "h.jsonl").write_text(json.dumps(line))
    call("import", "jsonl", "h.jsonl")
    assert "1 updated" in call("import", "jsonl", "h.jsonl", "--time", "created").stdout
    assert [r.time for r in records()] == [86400.0]

    call("add", "a cat", "calm", "-t", "mood")
    (made,) = [r.time for r in records() if r.task == "mood"]
    assert "was there already" in call("add", "a cat", "calm", "-t", "mood").stderr
    assert [r.time for r in records() if r.task == "mood"] == [made]
    again = call("add", "a cat", "calm", "-t", "mood", "--time", "1970-01-02")
    assert "updated" in again.stderr
    assert [r.time for r in records() if r.task == "mood"] == [86400.0]


def test_notes_that_went_before_their_folder_moved_are_named_with_what_erases_them(vault, tmp_path):
    (vault / "n3.md").unlink()
    place = f"markdown:{tmp_path / 'notes'}"
    told = call("import", "markdown", "vault", "--prune", "--yes")
    assert f"1 record left of {place}, which is gone" in told.stderr
    assert f"hydra-edge forget --source {place}" in told.stderr
    assert [r.id for r in records() if r.source == place] == ["n3.md"]
    assert loaded("import", "markdown", "vault", "--json")["left_behind"] == {}, "said once"


def test_nothing_is_named_as_left_where_all_of_a_folder_has_moved(vault):
    assert "which is gone" not in call("import", "markdown", "vault").output
