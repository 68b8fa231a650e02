"""Records under an id that another one has: kept apart, kept up to date, and kept private."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_runner import call, records
from filled_store import cached_vectors, head_of

from hydra_edge.store import Store
from hydra_edge.types import AddResult, Completion, Record, text_hash

JAN = Record("written in January", "x", id="42", source="jan")
FEB = Record("written in February", "y", id="42", source="feb")
MAR = Record("written in March", "z", id="42", source="mar")


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.in_memory() as opened:
        yield opened


def name(record: Record) -> str:
    """Return the id that a record gets where its own is taken."""
    return f"{record.id}~{record.content_hash[:6]}"


def edited(record: Record, text: str = "edited") -> Record:
    return replace(record, input=f"{record.input}, {text}")


def public(store: Store) -> set[str]:
    return {record.input for record in store.records() if not record.private}


def test_record_beside_a_private_one_of_its_id_is_private(store: Store) -> None:
    store.add([JAN])
    store.set_private(["42"], True)
    assert store.add([FEB]) == AddResult(renamed=1)
    assert store.get(name(FEB)).private
    assert store.add([replace(edited(FEB), id="43")]).added == 1
    assert not store.get("43").private


def test_edited_record_beside_another_is_updated_and_stays_private(store: Store) -> None:
    store.add([JAN])
    store.add([replace(FEB, time=5.0)])
    store.set_private([name(FEB)], True)
    assert store.add([edited(FEB)]) == AddResult(updated=1)
    assert store.add([edited(FEB)]) == AddResult(unchanged=1)
    assert store.records() == [
        replace(edited(FEB), id=name(FEB), time=5.0, private=True),
        JAN,
    ]
    assert store.search("edited") == store.records()[:1]
    assert store.check() == []


def test_edited_record_made_public_by_its_user_stays_public(store: Store) -> None:
    store.add([JAN, FEB])
    store.set_private([name(FEB)], True)
    store.set_private([name(FEB)], False)
    assert store.add([edited(FEB)]) == AddResult(updated=1)
    assert public(store) == {JAN.input, edited(FEB).input}


def test_edited_record_beside_another_loses_what_was_made_of_its_text(store: Store) -> None:
    store.add([JAN, FEB])
    before = store.revision()
    store.put_vectors("base", {text_hash(r.input): np.ones(4) for r in (JAN, FEB)})
    for key, query_id in (("jan", "42"), ("feb", name(FEB))):
        answers = [Completion(key)]
        store.put_pool(
            key, task="t", model="m", query_id=query_id, record_ids=(), completions=answers
        )
    store.add([edited(FEB)])
    hashes = [text_hash(JAN.input), text_hash(FEB.input)]
    assert cached_vectors(store, hashes, "base").keys() == set(hashes[:1])
    assert [pool.key for pool in store.pools()] == ["jan"]
    assert store.revision().rewrites == before.rewrites + 1


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_two_items_of_one_source_under_a_taken_id_never_overwrite_each_other(
    store: Store, order: int, batches: bool
) -> None:
    filler = [Record(f"filler {i}", "x") for i in range(600 * batches)]
    other = replace(FEB, input="another item")
    first, again = [FEB, *filler, other], [edited(FEB), *filler, edited(other)]
    store.add([JAN])
    assert store.add(first).renamed == 2
    assert store.add(first[::order]).unchanged == len(first)
    store.set_private([name(other)], True)
    assert store.add(again[::order]).renamed == 2, "either may be either"
    assert public(store) >= {JAN.input, FEB.input}
    assert not public(store) & {edited(FEB).input, other.input, edited(other).input}
    assert store.add(again[::order]).unchanged == len(again)


@pytest.mark.parametrize("order", [1, -1])
def test_new_item_beside_the_only_one_of_its_source_keeps_both(store: Store, order: int) -> None:
    new = replace(FEB, input="new")
    store.add([JAN, FEB])
    store.set_private([name(FEB)], True)
    store.add([new, FEB][::order])
    assert {r.input for r in store.records()} == {JAN.input, FEB.input, new.input}
    assert public(store) == {JAN.input}
    assert store.add([new, FEB][::order]) == AddResult(unchanged=2)


def test_id_twice_in_a_source_that_has_it_keeps_both_and_privacy(store: Store) -> None:
    second = replace(JAN, input="the second of the id")
    store.add([JAN, second])
    store.set_private([name(second)], True)
    assert store.add([JAN, edited(second)]) == AddResult(unchanged=1, renamed=1)
    assert public(store) == {JAN.input}


def test_edited_record_of_a_text_that_two_sources_shared_is_private(store: Store) -> None:
    """February's file held March's words: the user marked the one record there was."""
    store.add([JAN, MAR])
    shared = replace(MAR, source="feb")
    assert store.add([shared]) == AddResult(unchanged=1)
    store.set_private([name(MAR)], True)
    assert store.add([edited(shared)]) == AddResult(renamed=1)
    assert public(store) == {JAN.input}


def test_source_with_a_public_record_there_is_not_hidden_by_another_source(store: Store) -> None:
    store.add([JAN, FEB, MAR])
    store.set_private([name(MAR)], True)
    store.add([edited(FEB)])
    assert public(store) == {JAN.input, edited(FEB).input}


def test_text_edited_to_what_another_source_says_too_is_kept_once(store: Store) -> None:
    store.add([JAN, FEB])
    store.add([edited(FEB)])
    assert store.add([replace(edited(FEB), source="mar")]) == AddResult(unchanged=1)
    assert store.count() == 2


@pytest.mark.parametrize("again", [FEB, edited(FEB), JAN, MAR])
def test_record_that_takes_a_forgotten_ones_id_is_as_private_as_those_beside_it(
    store: Store, again: Record
) -> None:
    store.add([JAN, FEB])
    store.set_private([name(FEB)], True)
    store.forget(["42"])
    added = store.add([again])
    assert public(store) == set()
    assert added == (AddResult(unchanged=1) if again == FEB else AddResult(added=1))
    assert {r.input for r in store.records()} == {FEB.input, again.input}
    assert store.add([again]) == AddResult(unchanged=1)


def test_record_that_takes_a_forgotten_ones_id_is_public_beside_public_ones(store: Store) -> None:
    store.add([JAN, FEB])
    store.forget(["42"])
    assert store.add([FEB]) == AddResult(unchanged=1)
    assert store.add([MAR]) == AddResult(added=1)
    assert public(store) == {FEB.input, MAR.input}


@pytest.mark.parametrize("other", ["42~draft", "42~abcdef~123456", "420~abcdef"])
def test_id_that_only_looks_alike_is_no_earlier_version(store: Store, other: str) -> None:
    store.add([JAN, Record("mine as well", "x", id=other, source="feb")])
    before = store.count()
    assert store.add([edited(FEB)]) == AddResult(renamed=1)
    assert store.count() == before + 1


def test_mark_made_by_another_program_between_batches_counts(tmp_path: Path) -> None:
    with Store.open(tmp_path / "me.db") as ours, Store.open(tmp_path / "me.db") as theirs:
        ours.add([JAN, FEB, replace(FEB, input="a second item")])

        def mark(_stage: str, done: int, _total: int) -> None:
            if done == 500:
                theirs.set_private([name(FEB)], True)

        new = [edited(FEB, "once"), *(Record(f"filler {i}", "x") for i in range(499))]
        ours.add([*new, edited(FEB, "twice")], progress=mark)
        assert {new[0].input, edited(FEB, "twice").input} & public(ours) == {new[0].input}


def test_id_with_letters_that_sqlite_cannot_keep_as_text_is_treated_alike(store: Store) -> None:
    odd = [replace(record, id="\ud800") for record in (JAN, FEB)]
    store.add(odd)
    store.set_private([name(odd[1])], True)
    assert store.add([edited(odd[1])]) == AddResult(updated=1)
    assert public(store) == {JAN.input}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_imported_no_item_is_lost_and_none_of_a_private_family_is_public(
    seed: int,
) -> None:
    """Sources that edit, drop and repeat items of three ids; whole ids are marked private."""
    rng = random.Random(seed)
    with Store.in_memory() as store:
        hidden: set[str] = set()
        for step in range(12):
            source = rng.choice("abc")
            given = [
                Record(f"{rng.randrange(9)} of {i}", "x", id=i, source=source)
                for i in rng.choices("123", k=rng.randint(1, 5))
            ]
            store.add(given)
            stored = store.records()
            assert {r.input for r in given} <= {r.input for r in stored}
            assert store.add(given).renamed == 0
            assert {r.input for r in given} <= {r.input for r in store.records()}
            if step % 4 == 3:
                hidden.add(rng.choice(stored).id[0])
                family = [r.id for r in store.records() if r.id.split("~")[0] in hidden]
                store.set_private(family, True)
            assert not {r.id for r in store.records() if not r.private and r.id[0] in hidden}
        assert store.check() == []


# ---- other columns of a file that is there


def column(task: str, *outputs: str) -> list[Record]:
    return [
        Record(f"abstract {i}", output, task, id=str(i), source="csv:/papers.csv")
        for i, output in enumerate(outputs)
    ]


def held(store: Store, task: str) -> list[str]:
    return [record.output for record in store.records(task=task)]


def test_other_column_of_the_same_file_under_another_task_keeps_both(store: Store) -> None:
    titles, labels = column("title", "A", "B", "C"), column("label", "x", "y", "z")
    assert store.add(titles) == AddResult(added=3)
    assert store.add(labels) == AddResult(renamed=3)
    for again in (titles, labels, titles):
        assert store.add(again) == AddResult(unchanged=3)
    assert store.add(column("title", "A", "edited", "C")) == AddResult(unchanged=2, updated=1)
    assert store.add(column("label", "x", "y", "edited")) == AddResult(unchanged=2, updated=1)
    assert held(store, "title") == ["A", "edited", "C"]
    assert held(store, "label") == ["x", "y", "edited"]


def test_notes_moved_to_another_task_move_though_one_was_edited(store: Store) -> None:
    notes = [
        Record(f"text {i}", f"title {i}", "note_title", str(i), source="markdown:notes")
        for i in range(1200)
    ]
    store.add(notes)
    moved = [replace(note, task="blog_title") for note in notes]
    moved[600] = replace(moved[600], input="text 600, edited")
    assert store.add(moved) == AddResult(updated=1199, renamed=1)


def test_other_column_that_says_the_same_of_some_items_keeps_both(store: Store) -> None:
    plot, music = column("plot", "4", "5", "3"), column("music", "4", "5", "1")
    store.add(plot)
    assert store.add(music) == AddResult(renamed=3)
    for again in (plot, music):
        assert store.add(again) == AddResult(unchanged=3)
    assert store.add(music[:2] + column("music", "4", "5", "3")[2:]).updated == 1
    assert (held(store, "plot"), held(store, "music")) == (["4", "5", "3"], ["4", "5", "3"])


def test_other_column_edited_alone_to_what_the_first_says_keeps_both(store: Store) -> None:
    store.add(column("plot", "4"))
    store.add(column("music", "1"))
    assert store.add(column("music", "4")) == AddResult(updated=1)
    assert store.add(column("plot", "4")) == AddResult(unchanged=1)
    assert store.count() == 2


def test_other_column_of_a_private_item_is_private(store: Store) -> None:
    store.add(column("title", "A", "B"))
    store.set_private(["1"], True)
    store.add(column("label", "x", "y"))
    assert [record.output for record in store.records() if record.private] == ["B", "y"]


def test_file_imported_for_the_wrong_task_moves_to_the_right_one(store: Store) -> None:
    store.add(column("wrong", "A", "B"))
    assert store.add(column("right", "A", "B", "C")) == AddResult(updated=2, added=1)
    assert store.tasks() == {"right": 3}


def test_import_of_two_columns_keeps_both(tmp_path: Path) -> None:
    table = tmp_path / "papers.csv"
    table.write_text("id,abstract,title,category\n1,We parse.,Parsing,cs\n2,We sing.,Song,art\n")
    flags = ("import", "csv", str(table), "--input", "abstract", "--output")
    call(*flags, "title", "-t", "paper_title")
    assert "2 added under another id" in call(*flags, "category", "-t", "paper_category").output
    assert {(r.task, r.output) for r in records()} == {
        ("paper_title", "Parsing"), ("paper_title", "Song"),
        ("paper_category", "cs"), ("paper_category", "art"),
    }  # fmt: skip


def test_import_edited_file_of_a_taken_id_stays_private(tmp_path: Path) -> None:
    line = '{{"id": "42", "task": "t", "input": "{}", "output": "b"}}\n'
    jan, feb = tmp_path / "jan.jsonl", tmp_path / "feb.jsonl"
    jan.write_text(line.format("one"))
    feb.write_text(line.format("onf"))
    assert call("import", "jsonl", str(jan)).exit_code == 0
    assert call("history", "private", "42").exit_code == 0
    assert "under another id" in call("import", "jsonl", str(feb)).output
    assert [record.private for record in records()] == [True, True]


def test_import_edited_note_of_a_taken_name_stays_private(tmp_path: Path) -> None:
    notes = [tmp_path / folder / "README.md" for folder in ("one", "two")]
    for note in notes:
        note.parent.mkdir()
        note.write_text(f"# Title of {note.parent.name}\n\nThe text of {note.parent.name}.\n")
        assert call("import", "markdown", str(note.parent)).exit_code == 0
    (beside,) = (record.id for record in records() if "~" in record.id)
    assert call("history", "private", beside).exit_code == 0
    notes[1].write_text("# Title of two\n\nA new text of two.\n")
    assert call("import", "markdown", str(notes[1].parent)).exit_code == 0
    assert {(record.id, record.private) for record in records()} == {
        ("README.md", False),
        (beside, True),
    }


def test_records_that_stand_in_one_order_come_back_as_they_were(store: Store) -> None:
    """One that was renamed is read long before the one that had its id."""
    beside = Record("a secret", "x", id=name(FEB), private=True)
    many = [Record(f"text {i}", "y", id=f"f{i}") for i in range(600)]
    whole = [beside, *many, replace(JAN, private=False)]
    assert store.add(whole).added == len(whole)
    assert store.get("42").private is False
    assert store.get(name(FEB)).private
    twins = [replace(JAN, id=name(JAN)), *many, JAN]
    with Store.in_memory() as other:
        assert other.add(twins).added == len(twins)


def test_records_of_two_pipes_stand_beside_each_other(store: Store) -> None:
    films = [Record(f"film {i}", "4", "film", id=str(i), source="jsonl:-") for i in range(3)]
    store.add(films)
    tools = [Record(f"tool {i}", "2", "tool", id=str(i), source="jsonl:-") for i in range(3)]
    assert store.add(tools) == AddResult(renamed=3)
    assert store.add(tools) == AddResult(unchanged=3)
    assert store.count("film") == store.count("tool") == 3


def test_record_added_again_with_its_time_gets_it_and_keeps_it(store: Store) -> None:
    store.add([JAN, FEB])
    assert store.add([replace(JAN, time=9.0)]) == AddResult(updated=1)
    assert store.add([replace(JAN, time=7.0)]) == AddResult(unchanged=1)
    assert store.get("42").time == 9.0


def test_record_moved_to_another_task_marks_the_heads_it_leaves(store: Store) -> None:
    store.add([replace(JAN, task="wrong")])
    for task in ("wrong", "right"):
        store.save_head(head_of(task))
    store.add([replace(JAN, task="right")])
    assert {head.task: head.stale for head in store.heads()} == {"wrong": True, "right": False}
