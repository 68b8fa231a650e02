"""What an import that prunes leaves where it cannot know, or another program knows better."""

import json
import os
import sys

import cli_runner
import pytest
from cli_runner import call, records
from store_items import make_head
from test_importers_mbox import mail
from test_importers_mbox import write as write_mails

from hydra_edge.cli import erasing
from hydra_edge.cli.pruning import Pruning
from hydra_edge.errors import ConfigError
from hydra_edge.importers import mbox
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

_own_folder = cli_runner.own_folder


def ids():
    return sorted(record.id for record in records())


def outputs():
    return sorted(record.output for record in records())


def note(i, text=""):
    return f"# Title {i}\n\nA text about {i} things.{text}\n"


def notes(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.md").write_text(note(name))


def lines(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def item(text, **more):
    return {"input": text, "output": text.upper(), **more}


@pytest.fixture
def vault(tmp_path):
    """Import four notes, and give their folder."""
    notes(tmp_path / "notes", *range(4))
    call("import", "markdown", "notes")
    return tmp_path / "notes"


def prune(*args):
    return call("import", *args, "--prune", "--yes")


def meanwhile(monkeypatch, owner, name, work):
    """Have something done before a function is called for the first time."""
    whole = getattr(owner, name)

    def after_work(*given, **options):
        monkeypatch.setattr(owner, name, whole)
        work()
        return whole(*given, **options)

    monkeypatch.setattr(owner, name, after_work)


def test_note_that_another_import_has_updated_meanwhile_stays(vault, monkeypatch):
    (vault / "0.md").unlink()

    def edit():
        (vault / "1.md").write_text(note(1, " Edited."))
        call("import", "markdown", "notes")

    meanwhile(monkeypatch, Pruning, "check", edit)
    assert "Forgotten: 1 record" in prune("markdown", "notes").stdout
    assert ids() == ["1.md", "2.md", "3.md"]


def test_mail_that_another_import_has_added_since_the_box_was_listed_stays(tmp_path, monkeypatch):
    box = tmp_path / "box"
    first, later = mail(subject="A", Message_ID="<1@x>"), mail(subject="B", Message_ID="<2@x>")
    write_mails(box, first)
    call("import", "mbox", "box", "--me", "ada")

    def receive():
        write_mails(box, later)
        call("import", "mbox", "box", "--me", "ada")

    meanwhile(monkeypatch, mbox._Reader, "read", receive)
    told = prune("mbox", "box", "--me", "ada")
    assert "Nothing to erase" in told.stdout
    assert "1 record from there, added since the reading began: left alone" in told.stderr
    assert outputs() == ["A", "B"]


def test_records_that_came_by_a_clock_that_was_ahead_stay_with_a_word(vault, monkeypatch):
    (vault / "0.md").unlink()
    monkeypatch.setattr("hydra_edge.leftovers.time.time", lambda: 1.6e9)
    payload = json.loads(prune("markdown", "notes", "--json").stdout)["pruned"]
    assert (payload["records"], payload["later"]) == (0, 4)


def test_note_that_was_edited_while_the_question_stood_stays(vault, monkeypatch):
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    texts = {name: (vault / name).read_text() for name in ("0.md", "1.md")}
    for name in texts:
        (vault / name).unlink()

    def edit():
        (vault / "1.md").write_text(texts["1.md"] + "Edited.\n")
        with Personalizer.open() as me:
            me.add([
                Record("A text about 1 things.\nEdited.", "Title 1", "note_title", "1.md",
                       source=f"markdown:{vault}")
            ])  # fmt: skip

    meanwhile(monkeypatch, erasing, "question", edit)
    told = call("import", "markdown", "notes", "--prune", text="y\n")
    assert "Erase 2 records" in told.stderr
    assert "Forgotten: 1 record" in told.stdout
    assert ids() == ["1.md", "2.md", "3.md"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
@pytest.mark.parametrize("args", [("--yes",), ("--dry-run",)])
def test_folder_whose_name_is_kept_as_that_of_another_is_not_pruned(tmp_path, args):
    for name, numbers in ((b"caf\xe9", "01"), (b"caf\xe8", "23")):
        notes(tmp_path / os.fsdecode(name), *numbers)
        call("import", "markdown", os.fsdecode(name))
    told = call("import", "markdown", os.fsdecode(b"caf\xe8"), "--prune", *args)
    assert told.exit_code == 1
    assert "name is no UTF-8 text" in told.stderr
    assert len(ids()) == 4


@pytest.mark.parametrize("left", [None, ".stfolder"])
def test_folder_that_is_empty_now_is_not_taken_for_gone_with_its_notes(tmp_path, vault, left):
    notes(vault / "work", *"ab")
    call("import", "markdown", "notes")
    (vault / "work").rename(tmp_path / "drive")
    (vault / "work").mkdir()
    if left:
        (vault / "work" / left).mkdir()
    told = prune("markdown", "notes")
    assert told.exit_code == 1
    assert "records of the folder 'work/', which is empty now (2)" in told.stderr
    assert len(ids()) == 6
    assert prune("markdown", "notes", "--exclude", "work").exit_code == 0
    assert len(ids()) == 4


def test_folder_that_was_always_empty_or_holds_others_files_keeps_nothing(vault):
    notes(vault / "work", "a")
    call("import", "markdown", "notes")
    (vault / "work/a.md").rename(vault / "work/a.txt")
    (vault / "images").mkdir()
    assert "Forgotten: 1 record" in prune("markdown", "notes").stdout
    assert len(ids()) == 4


def test_note_that_is_not_on_this_device_stays(vault):
    notes(vault / "work", "a")
    call("import", "markdown", "notes")
    for name in ("1", "work/a"):
        path = vault / f"{name}.md"
        path.rename(path.with_name(f".{path.name}.icloud"))
    (vault / "0.md").unlink()
    told = prune("markdown", "notes")
    assert "2 not on this device" in told.stdout
    assert ids() == ["1.md", "2.md", "3.md", "work/a.md"]


def test_profile_items_without_ids_keep_those_of_another_person(tmp_path):
    people = [
        {"id": name, "input": "?",
         "profile": [{"title": f"T{name}{i}", "abstract": f"About {name}{i}"} for i in range(2)]}
        for name in "ab"
    ]  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps(people))
    args = ("lamp", "q.json", "-t", "paper_title", "--person")
    call("import", *args, "a")
    told = prune(*args, "b")
    assert told.exit_code == 1
    assert len(outputs()) == 4
    assert "profile item without an id, of another person (2)" in told.stderr


def test_profile_of_another_person_with_an_id_of_zero_stays(tmp_path):
    people = [
        {"id": name, "input": "?",
         "profile": [{"id": i, "title": f"T{i}", "abstract": f"About {i}"}]}
        for i, name in enumerate("ab")
    ]  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps(people))
    args = ("lamp", "q.json", "-t", "paper_title", "--person")
    call("import", *args, "a")
    assert prune(*args, "b").exit_code == 0
    assert outputs() == ["T0", "T1"]


@pytest.mark.parametrize("emptied", ["input", "output"])
def test_line_without_an_id_of_which_a_text_is_left_keeps_its_record(tmp_path, emptied):
    path = tmp_path / "a.jsonl"
    lines(path, item("a"), item("b"), item("c"))
    call("import", "jsonl", "a.jsonl")
    lines(path, item("a"), item("b") | {emptied: ""})
    assert "Forgotten: 1 record" in prune("jsonl", "a.jsonl").stdout
    assert outputs() == ["A", "B"]


def test_record_added_by_hand_too_stays_its_sources(tmp_path):
    path = tmp_path / "a.jsonl"
    lines(path, item("a"), item("b"))
    call("import", "jsonl", "a.jsonl")
    call("add", "a", "A", "--task", "general")
    (held,) = {record.source for record in records()}  # what hides or forgets the file reaches it
    assert held.startswith("jsonl:")


def changed(vault):
    """Have one note go and one come, with a head that learned from the first."""
    with Personalizer.open() as me:
        me.store.save_head(make_head("note_title"))
    (vault / "0.md").unlink()
    notes(vault, 9)


def test_prune_interrupted_before_it_erases_reports_what_was_imported(vault, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    changed(vault)
    monkeypatch.setattr("hydra_edge.store.forget.find", stop)
    told = prune("markdown", "notes", "--json")
    payload = json.loads(told.stdout)
    assert told.exit_code == 130
    assert (payload["added"], payload["interrupted"], payload["pruned"]) == (1, True, None)
    assert "Interrupted: --prune erased nothing." in told.stderr
    assert ids() == ["0.md", "1.md", "2.md", "3.md", "9.md"]


@pytest.fixture
def unfittable(monkeypatch):
    """Have no head be fitted again."""

    def fail(*_, **__):
        raise ConfigError("The base cannot be opened.")

    monkeypatch.setattr("hydra_edge.forgetting.fit_task", fail)


@pytest.mark.usefixtures("unfittable")
def test_prune_whose_heads_cannot_be_fitted_again_tells_what_is_gone(vault):
    changed(vault)
    told = prune("markdown", "notes", "--json")
    payload = json.loads(told.stdout)
    assert told.exit_code == 1
    assert (payload["added"], payload["pruned"]["records"]) == (1, 1)
    assert payload["pruned"]["not_fitted"] == ["note_title"]
    assert (payload["error"]["code"], payload["interrupted"]) == (ConfigError.code, False)
    assert "could not be fitted again: The base cannot be opened." in told.stderr


@pytest.mark.usefixtures("unfittable")
@pytest.mark.parametrize("command", ["forget", "import"])
def test_erasing_whose_heads_cannot_be_fitted_again_tells_people_what_is_gone(vault, command):
    changed(vault)
    told = prune("markdown", "notes") if command == "import" else call("forget", "0.md", "--yes")
    assert told.exit_code == 1
    assert "Forgotten: 1 record" in told.stdout
    assert "fitted again" not in told.stdout
    assert "Then run: hydra-edge fit-head --task note_title" in told.stderr
