"""Records whose source has another place or name now: known, kept up to date, and kept private."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import store_items

from hydra_edge.forms import record_json
from hydra_edge.store import Store
from hydra_edge.types import AddResult, Record

store = store_items.store
From = Callable[[str], list[Record]]


@pytest.fixture
def notes(tmp_path: Path) -> From:
    """Return five notes as a folder of this name has them; it is there if it was made."""

    def of(folder: str) -> list[Record]:
        return [
            Record(f"text {i}", f"title {i}", "note_title", f"n{i}.md",
                   source=f"markdown:{tmp_path / folder}")
            for i in range(5)
        ]  # fmt: skip

    return of


def edited(records: list[Record], *places: int) -> list[Record]:
    return [replace(r, input=f"new {r.input}") if i in places else r for i, r in enumerate(records)]


def inputs(store: Store) -> list[str]:
    return sorted(record.input for record in store.records())


def texts(records: Iterable[Record]) -> list[str]:
    return sorted(record.input for record in records)


def test_edit_of_a_note_replaces_it_after_its_folder_moved(store: Store, notes: From) -> None:
    old, new = notes("old"), notes("new")
    store.add(old)
    before = store.revision()
    assert store.add(new) == AddResult(unchanged=5)
    assert store.sources() == {new[0].source: 5}
    assert store.revision().rewrites == before.rewrites + 1, "who holds them reads them anew"
    assert store.add(edited(new, 1)) == AddResult(unchanged=4, updated=1)
    assert inputs(store) == texts(edited(new, 1))
    assert store.check() == []


def test_note_edited_before_its_moved_folder_is_read_is_replaced(store: Store, notes: From) -> None:
    store.add(notes("old"))
    new = edited(notes("new"), 0, 3)
    assert store.add(new) == AddResult(unchanged=3, updated=2)
    assert inputs(store) == texts(new)
    assert store.sources() == {new[0].source: 5}


def test_notes_of_a_folder_that_is_gone_stay_where_most_of_another_differ(
    store: Store, notes: From
) -> None:
    """Both had a README each, and the same names for their days."""
    old, new = notes("old"), edited(notes("new"), 0, 1, 2)
    store.add(old)
    assert store.add(new) == AddResult(unchanged=2, renamed=3)
    assert inputs(store) == texts([*old, *new[:3]])


def test_folders_that_are_both_there_stay_apart(store: Store, notes: From, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old, new = notes("old"), notes("new")
    store.add(old)
    assert store.add(new) == AddResult(unchanged=5)
    assert store.add(edited(new, 1)) == AddResult(unchanged=4, renamed=1)
    assert store.sources() == {old[0].source: 5, new[0].source: 1}
    assert inputs(store) == texts([*old, edited(new, 1)[1]])


def test_edit_beside_a_stale_version_replaces_the_source_s_own(
    store: Store, notes: From, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    store.add(notes("old"))
    store.add(edited(notes("new"), 1))
    (tmp_path / "old").rmdir()
    twice = [replace(r, input="twice") if i == 1 else r for i, r in enumerate(notes("new"))]
    assert store.add(twice) == AddResult(unchanged=4, updated=1)
    assert inputs(store) == texts([notes("old")[1], *twice])


def test_all_records_of_a_large_source_are_taken_over_in_every_batch(
    store: Store, tmp_path: Path
) -> None:
    def rows(name: str) -> list[Record]:
        source = f"csv:{tmp_path / name}"
        return [Record(f"text {i}", "x", id=str(i), source=source) for i in range(1001)]

    store.add(rows("jan.csv"))
    feb = rows("feb.csv")
    feb[-1] = replace(feb[-1], input="alone in its batch, and edited")
    assert store.add(feb) == AddResult(unchanged=1000, updated=1)
    assert store.sources() == {feb[0].source: 1001}


def test_few_notes_of_a_folder_that_is_gone_make_no_other_one_of_it(
    store: Store, notes: From
) -> None:
    """Both began with the notes of one template."""
    old = notes("old")
    store.add(old)
    new = edited(notes("new")[:3], 2)
    assert store.add(new) == AddResult(unchanged=2, renamed=1)
    assert inputs(store) == texts([*old, new[2]])


def test_notes_of_a_drive_that_is_away_are_not_replaced(store: Store, notes: From) -> None:
    old = notes("drive/notes")
    store.add(old)
    new = edited(notes("new"), 1)
    assert store.add(new) == AddResult(unchanged=4, renamed=1)
    assert inputs(store) == texts([*old, new[1]])


def test_folder_that_left_a_link_in_its_place_has_moved(
    store: Store, notes: From, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    try:
        (tmp_path / "old").symlink_to(tmp_path / "new", target_is_directory=True)
    except OSError:
        pytest.skip("this user may make no links here")
    place = os.path.realpath(tmp_path / "new")
    new = [replace(r, source=f"markdown:{place}") for r in edited(notes("new"), 1)]
    store.add(notes("old"))
    assert store.add(new) == AddResult(unchanged=4, updated=1)
    assert store.sources() == {new[0].source: 5}


def answer(path: Path, kind: str, text: str, *, day: int) -> list[Record]:
    """Write a source of a day; return its one record."""
    path.write_text("")
    os.utime(path, (day, day))
    return [Record("a question", text, "chat", "c1:a", source=f"{kind}:{path}")]


def held(store: Store) -> list[tuple[str, str]]:
    return sorted((r.output, Path(r.source).name) for r in store.records())


@pytest.mark.parametrize("kind", ["chatgpt", "claude", "slack"])
def test_answer_that_changed_between_two_exports_is_one_record(
    store: Store, tmp_path: Path, kind: str
) -> None:
    for day, name in enumerate(("jan", "feb", "mar")):
        store.add(answer(tmp_path / name, kind, name, day=day))
    assert held(store) == [("mar", "mar")]


def test_older_export_replaces_no_answer_of_a_newer_one(store: Store, tmp_path: Path) -> None:
    jan, feb = (
        answer(tmp_path / name, "chatgpt", name, day=day) for day, name in enumerate(("jan", "feb"))
    )
    store.add(feb)
    for _ in range(2):
        store.add(jan)
        store.add(feb)
        assert held(store) == [("feb", "feb"), ("jan", "jan")]


@pytest.mark.parametrize("kind", ["mbox", "git"])
def test_mailboxes_and_clones_that_are_both_there_replace_nothing_of_each_other(
    store: Store, tmp_path: Path, kind: str
) -> None:
    both = [
        answer(tmp_path / name, kind, name, day=day) for day, name in enumerate(("all", "sent"))
    ]
    for records in both * 2:
        store.add(records)
    assert held(store) == [("all", "all"), ("sent", "sent")]
    assert {(r.id == "c1:a", r.output) for r in store.records()} == {(True, "all"), (False, "sent")}


def test_mailbox_that_moved_is_known_by_any_of_its_mail(store: Store, tmp_path: Path) -> None:
    store.add(answer(tmp_path / "old", "mbox", "as it was read", day=0))
    (tmp_path / "old").unlink()
    assert store.add(answer(tmp_path / "new", "mbox", "less quoted", day=0)).updated == 1
    assert held(store) == [("less quoted", "new")]


def test_private_answer_that_changed_in_another_export_stays_private(store: Store) -> None:
    store.add([Record("a", "b", id="c1:a", source="chatgpt:/jan", private=True)])
    store.add([Record("a", "c", id="c1:a", source="chatgpt:/feb")])
    assert [(r.output, r.private) for r in store.records()] == [("c", True)]


def export(path: Path, records: list[Record], day: int = 0) -> list[Record]:
    """Write an export of a day; return the records as they are read back from it."""
    path.write_text("".join(json.dumps(record_json(r)) + "\n" for r in records))
    os.utime(path, (day, day))
    return [replace(r, source=f"jsonl:{path}") for r in records]


@pytest.mark.parametrize("kind", ["markdown", "jsonl"])
def test_source_takes_over_what_came_by_an_export_of_it(
    store: Store, notes: From, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "new"
    if kind == "markdown":
        place.mkdir()
    else:
        place.write_text("")
    new = [replace(r, source=f"{kind}:{place}") for r in notes("new")]
    store.add(export(tmp_path / "export.jsonl", new))
    assert store.add(edited(new, 2)) == AddResult(unchanged=4, updated=1)
    assert store.sources() == {new[0].source: 5}
    assert inputs(store) == texts(edited(new, 2))


def test_notes_are_known_in_an_export_of_far_more_than_them(
    store: Store, notes: From, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    mail = [Record(f"mail {i}", "x", id=f"m{i}") for i in range(20)]
    store.add(export(tmp_path / "export.jsonl", [*mail, *notes("new")]))
    assert store.add(edited(notes("new"), 2)) == AddResult(unchanged=4, updated=1)
    assert store.sources()[notes("new")[0].source] == 5


def test_export_read_after_a_newer_one_takes_nothing_back(
    store: Store, notes: From, tmp_path: Path
) -> None:
    first = export(tmp_path / "first.jsonl", notes("notes"))
    second = export(tmp_path / "second.jsonl", edited(notes("notes"), 1), day=1)
    store.add(first)
    assert store.add(second) == AddResult(unchanged=4, updated=1)
    assert store.add(first) == AddResult(unchanged=4, renamed=1)
    assert store.get("n1.md").input == second[1].input
    assert store.sources() == {second[0].source: 5, first[0].source: 1}


def test_note_of_an_earlier_time_replaces_no_later_one(
    store: Store, notes: From, tmp_path: Path
) -> None:
    """The export was made of what is newer than the folder here."""
    (tmp_path / "new").mkdir()
    store.add(export(tmp_path / "export.jsonl", [replace(r, time=9.0) for r in notes("new")]))
    new = [replace(r, time=5.0) for r in edited(notes("new"), 2)]
    assert store.add(new).renamed == 1
    assert inputs(store) == texts([*notes("new"), new[2]])


def test_file_that_is_there_and_no_export_loses_nothing(
    store: Store, notes: From, tmp_path: Path
) -> None:
    rows = export(tmp_path / "h.jsonl", notes("new"))
    (tmp_path / "h.jsonl").write_text('{"input": "a", "output": "b"}\n')
    store.add(rows)
    assert store.add(edited(notes("new"), 2)) == AddResult(unchanged=4, renamed=1)
    assert store.count(source=rows[0].source) == 5


@pytest.mark.parametrize(
    ("earlier", "source"),
    [
        ("app:/mail", "markdown:/new"), ("choices", "markdown:/new"), ("add", "csv:/new"),
        ("markdown:/old", "app:/mail"), ("markdown:/old", "choices"), ("csv:/old", "csv:-"),
        ("csv:/old", "markdown:/new"), ("crm:/old", "crm:/new"), ("csv:old", "csv:/new"),
        ("csv:/old\ufffd", "csv:/new"),
    ],
)  # fmt: skip
def test_records_of_apps_pipes_and_other_kinds_stay_theirs(
    store: Store, earlier: str, source: str
) -> None:
    old = [Record(f"text {i}", "x", id=str(i), source=earlier) for i in range(5)]
    store.add(old)
    new = edited([replace(r, source=source) for r in old], 1)
    assert store.add(new) == AddResult(unchanged=4, renamed=1)
    assert store.sources() == {earlier: 5, source: 1}


def test_name_of_a_source_of_private_records_stays_known_though_it_moved(
    store: Store, notes: From
) -> None:
    """What begins anew in its place is private because of it."""
    old, new = notes("old"), notes("new")
    store.add([replace(r, private=True) for r in old])
    assert store.add(edited(new, 1)) == AddResult(unchanged=4, updated=1)
    assert store.sources() == {old[0].source: 5}
    assert store.sources(public_only=True) == {}
    assert inputs(store) == texts(edited(new, 1))


def test_private_record_of_a_source_with_public_ones_moves_and_stays_private(
    store: Store, notes: From
) -> None:
    first, *others = notes("old")
    store.add([replace(first, private=True), *others])
    store.add(notes("new"))
    assert store.sources() == {notes("new")[0].source: 5}
    assert [r.id for r in store.records() if r.private] == ["n0.md"]


def test_public_records_that_are_read_as_private_in_their_new_place_go_along(
    store: Store, notes: From
) -> None:
    store.add(notes("old"))
    new = [replace(r, private=True) for r in notes("new")]
    assert store.add(new[:1]) == AddResult(updated=1)
    assert store.add(new[1:]) == AddResult(updated=4)
    assert store.sources() == {new[0].source: 5}
    assert store.sources(public_only=True) == {}


def test_private_notes_moved_into_a_public_folder_leave_their_own_known(
    store: Store, notes: From
) -> None:
    """What begins anew in its place is private because of it."""
    first, *others = notes("old")
    store.add([replace(r, private=True) for r in others])
    store.add([replace(first, source=notes("new")[0].source)])
    store.add(notes("new"))
    assert store.sources() == {first.source: 4, notes("new")[0].source: 1}


# ---- names with accents, which systems spell in two ways


def test_note_whose_path_was_held_with_its_accents_apart_is_found(store: Store) -> None:
    apart = Record("text", "title", "note_title", "U\u0308ber.md", source="markdown:/notes")
    store.add([apart])
    one = replace(apart, id="\u00dcber.md")
    assert store.add([one]) == AddResult(unchanged=1)
    assert store.add([replace(one, input="edited")]) == AddResult(updated=1)
    assert [(r.id, r.input) for r in store.records()] == [(apart.id, "edited")]
    other = [replace(r, source="csv:/t", task="t") for r in (apart, one)]
    assert store.add(other) == AddResult(renamed=1, added=1), "only paths are names of files"
