"""Private records: their marks, their texts wherever they stand, and what was made of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import call, records
from filled_store import put_choice

from hydra_edge.errors import RecordNotFoundError
from hydra_edge.store import Store, schema
from hydra_edge.types import AddResult, Record

JAN = Record("written in January", "x", id="42", source="jan")
MAR = Record("written in March", "z", id="43", source="mar")


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.in_memory() as opened:
        yield opened


def public(store: Store) -> set[str]:
    return {record.input for record in store.records() if not record.private}


def hidden(store: Store) -> set[str]:
    return {record.id for record in store.records() if record.private}


def test_set_private_counts_what_changed_and_refuses_unknown_ids(store: Store) -> None:
    store.add([Record("1", "x", id="a"), Record("2", "x", id="b", private=True)])
    assert store.set_private(["a", "b", "a"], True) == 1
    assert store.set_private(["a", "b"], False) == 2
    assert store.set_private([], True) == 0
    with pytest.raises(RecordNotFoundError, match="'zz'"):
        store.set_private(["a", "zz"], True)
    assert not store.get("a").private


def test_public_tasks_leave_out_what_is_private() -> None:
    with Store.in_memory() as store:
        store.add([
            Record("a", "1", "open", "r1"), Record("b", "2", "open", "r2", private=True),
            Record("c", "3", "shut", "r3", private=True), Record("d", "4", "wide", "r4"),
            Record("e", "5", "wide", "r5"),
        ])  # fmt: skip
        assert store.public_tasks() == {"wide": 2, "open": 1}
        store.set_private(["r3"], False)
        assert store.public_tasks() == {"wide": 2, "open": 1, "shut": 1}


# ---- texts that come again under another id


@pytest.mark.parametrize("source", ["feb", "jsonl:-", ""])
def test_private_text_under_another_id_stays_private(store: Store, source: str) -> None:
    store.add([JAN, MAR])
    store.set_private(["42"], True)
    moved = replace(JAN, id="moved", source=source)
    texts = (moved, replace(moved, id="elsewhere", task="another"))
    assert store.add(texts) == AddResult(added=2)
    assert public(store) == {MAR.input}
    assert store.set_private(["moved"], False) == 1
    assert store.add(texts) == AddResult(unchanged=2)
    assert not store.get("moved").private, "its user has said so"


def test_text_made_public_by_its_user_stays_so_under_another_task(store: Store) -> None:
    store.add([replace(JAN, private=True)])
    store.add([replace(JAN, id="moved")])
    store.set_private(["moved"], False)
    assert store.add([replace(JAN, id="moved", task="corrected")]) == AddResult(updated=1)
    assert public(store) == {JAN.input}


@pytest.mark.parametrize("record", [replace(JAN, input="another"), replace(JAN, output="another")])
def test_text_that_is_private_in_part_only_is_public_under_another_id(
    store: Store, record: Record
) -> None:
    store.add([replace(JAN, private=True), replace(record, id="other")])
    assert public(store) == {record.input}


def test_record_with_the_input_of_a_private_one_alone_is_not_private(store: Store) -> None:
    store.add([Record("a film", "good", "t", id="1", private=True)])
    store.add([Record("a film", "poor", "t", id="2"), Record("a film", "good", "t", id="3")])
    assert [store.get(name).private for name in "123"] == [True, False, True]


def test_record_edited_to_a_private_text_is_private(store: Store) -> None:
    """One file was moved over another."""
    store.add([replace(JAN, private=True), replace(MAR, id="b")])
    assert store.add([replace(JAN, id="b", source="mar")]) == AddResult(updated=1)
    assert public(store) == set()


def test_private_text_from_an_app_is_as_the_app_says(store: Store) -> None:
    """Whether it finds again what it added must not tell it what is private."""
    store.add([replace(JAN, private=True)])
    store.add([replace(JAN, id=source, source=source) for source in ("app:mail", "choices")])
    assert [record.private for record in store.records()] == [True, False, False]


def test_private_text_and_a_public_twin_come_back_as_they_were(store: Store) -> None:
    twins = [replace(JAN, private=True), *(Record(f"t {i}", "y") for i in range(600))]
    twins.append(replace(JAN, id="twin"))
    store.add(twins)
    assert not store.get("twin").private
    assert store.add(twins) == AddResult(unchanged=len(twins))


@pytest.mark.parametrize("text", ["a", "\ud800", "nul\x00inside", "日本語", "x" * 9000])
def test_private_text_of_any_letters_is_known_again(store: Store, text: str) -> None:
    hidden = Record(text, text, id="1", private=True)
    store.add([hidden, Record(text, f"{text}!", id="2"), Record(f"{text}!", text, id="3")])
    store.add([replace(hidden, id="4", private=False)])
    assert [record.id for record in store.records() if record.private] == ["1", "4"]
    store.forget(["1", "4"])
    assert store.check() == []


def test_file_before_private_texts_were_indexed_gets_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", whole[:2])
    with Store.open(tmp_path / "me.db") as store:
        store.add([replace(JAN, private=True), replace(MAR, id="43")])
    monkeypatch.setattr(schema, "MIGRATIONS", whole)
    with Store.open(tmp_path / "me.db") as store:
        assert store.check() == []
        store.add([replace(JAN, id="moved")])
        assert public(store) == {MAR.input}


def test_private_text_is_sought_by_its_index(store: Store) -> None:
    statements: list[str] = []
    store.add([replace(JAN, id="hidden", output="another", private=True)])
    store._db.connection.set_trace_callback(statements.append)
    store.add([JAN])
    store._db.connection.set_trace_callback(None)
    (sought,) = (statement for statement in statements if "WHERE private AND" in statement)
    (plan,) = store._db.connection.execute(f"EXPLAIN QUERY PLAN {sought}").fetchall()
    assert "SEARCH records USING INDEX records_private" in plan[-1]


def test_import_private_note_that_was_renamed_stays_private(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "inner").mkdir(parents=True)
    for place in ("a.md", "inner/b.md"):
        (notes / place).write_text(f"# Title\n\nThe text of {place}.\n")
    call("import", "markdown", str(notes))
    assert call("history", "private", "a.md", "inner/b.md").exit_code == 0
    (notes / "a.md").rename(notes / "c.md")
    assert call("import", "markdown", str(notes)).exit_code == 0
    assert call("import", "markdown", str(notes / "inner")).exit_code == 0
    assert {record.id: record.private for record in records()} == dict.fromkeys(
        ("a.md", "c.md", "inner/b.md", "b.md"), True
    )
    assert call("history", "private", "c.md", "--off").exit_code == 0
    assert call("import", "markdown", str(notes)).exit_code == 0
    assert [record.id for record in records() if not record.private] == ["c.md"]


# ---- texts that were there before one of them is marked


def twin(record: Record, **other: object) -> Record:
    """Return a record of the very same texts, of a source of its own."""
    return replace(record, **{"id": "twin", "source": "notes", **other})


def marked_by_hand(store: Store) -> None:
    store.add([JAN])
    assert store.set_private(["42"], True) == 2


def imported_as_private(store: Store) -> None:
    assert store.add([replace(JAN, private=True)]) == AddResult(added=1)


def imported_again_as_private(store: Store) -> None:
    store.add([JAN])
    assert store.add([replace(JAN, private=True)]) == AddResult(updated=1)


def edited_as_private(store: Store) -> None:
    store.add([replace(JAN, input="a draft")])
    assert store.add([replace(JAN, private=True)]) == AddResult(updated=1)


MARKS = [marked_by_hand, imported_as_private, imported_again_as_private, edited_as_private]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("other", [{}, {"task": "another"}, {"source": "jsonl:-"}, {"source": ""}])
def test_text_marked_private_takes_earlier_records_of_it_along(
    store: Store, mark: object, other: dict[str, str]
) -> None:
    store.add([twin(JAN, **other), MAR])
    before = store.revision()
    mark(store)
    assert hidden(store) == {"42", "twin"}
    assert store.revision().rewrites > before.rewrites, "what is in memory of them is read again"
    assert store.set_private(["twin"], False) == 1
    store.add([replace(JAN, private=True), twin(JAN, **other)])
    assert hidden(store) == {"42"}, "its user has said so"


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("source", ["app:mail", "choices"])
def test_text_marked_private_leaves_what_an_app_may_have_written(
    store: Store, mark: object, source: str
) -> None:
    """That its record is gone would tell an app what is private."""
    store.add([twin(JAN), twin(JAN, id="theirs", source=source)])
    mark(store)
    assert hidden(store) == {"42", "twin"}


@pytest.mark.parametrize("source", ["app:mail", "choices"])
def test_text_an_app_adds_as_private_hides_no_record_of_others(store: Store, source: str) -> None:
    store.add([twin(JAN), JAN])
    store.add([replace(JAN, id="theirs", source=source, private=True)])
    assert hidden(store) == {"theirs"}
    assert store.set_private(["theirs"], True) == 2, "but its user says so of the text"
    assert public(store) == set()


@pytest.mark.parametrize("other", [{"input": "another"}, {"output": "another"}])
def test_text_marked_private_leaves_what_is_the_same_in_part(
    store: Store, other: dict[str, str]
) -> None:
    store.add([JAN, twin(JAN, **other)])
    assert store.set_private(["42"], True) == 1
    assert store.add([replace(JAN, id="44", private=True)]) == AddResult(added=1)
    assert hidden(store) == {"42", "44"}


def test_text_that_is_private_already_is_marked_again_to_take_others_along(store: Store) -> None:
    store.add([replace(JAN, private=True)])
    store.add([twin(JAN)])
    store.set_private(["twin"], False)
    assert store.set_private(["42"], True) == 1
    assert hidden(store) == {"42", "twin"}


def test_text_that_is_private_for_another_reason_takes_nothing_along(store: Store) -> None:
    """Its user has made one public, and says nothing when a third comes."""
    store.add([replace(JAN, private=True)])
    store.add([twin(JAN)])
    store.set_private(["twin"], False)
    store.add([twin(JAN, id="third")])
    assert hidden(store) == {"42", "third"}


def test_text_marked_private_takes_answers_made_from_its_twins_along(store: Store) -> None:
    store.add([JAN, twin(JAN)])
    answer = keep(store, "answer", "twin")
    assert store.set_private(["42"], True) == 3
    assert hidden(store) == {"42", "twin", answer}


@pytest.mark.parametrize("order", [1, -1])
def test_twin_edited_in_the_call_that_marks_its_text_is_private_once_it_says_it_again(
    store: Store, order: int
) -> None:
    store.add([twin(JAN)])
    store.add([replace(JAN, private=True), twin(JAN, input="edited")][::order])
    assert JAN.input not in public(store)
    store.add([twin(JAN)])
    assert public(store) == set()


def test_twin_edited_after_it_was_read_is_as_its_new_text(store: Store) -> None:
    store.add([twin(JAN)])
    filler = [Record(f"filler {i}", "x") for i in range(1200)]
    first = Record("as many words", "x", id="first", private=True)
    edited = twin(JAN, input="edited since then")
    store.add([first, *filler[:600], edited, *filler[600:], replace(JAN, private=True)])
    assert hidden(store) == {"first", "42"}


def test_record_beside_a_twin_that_went_along_is_private(store: Store) -> None:
    """Also later in the same import, which has looked at those beside it before."""
    jan, *ours = (replace(JAN, id="7", input=text) for text in (JAN.input, "t", "u", "v"))
    store.add([replace(MAR, id="7"), jan, ours[0]])
    filler = [Record(f"filler {i}", "x") for i in range(600)]
    store.add([ours[1], twin(JAN, private=True), *filler, ours[2]])
    assert public(store) == {MAR.input, "t", "u", *(record.input for record in filler)}


@pytest.mark.parametrize("text", ["a", "...", "\ud800", "nul\x00inside", "日本語", "x" * 9000])
def test_twin_of_any_letters_is_found(store: Store, text: str) -> None:
    store.add([Record(text, text, id="1"), Record(text, f"{text}!", id="2")])
    store.add([Record(f"{text}!", text, id="3"), Record(text, text, id="4", private=True)])
    assert hidden(store) == {"1", "4"}
    assert store.check() == []


def test_twins_are_found_in_every_batch_among_those_of_before_only(store: Store) -> None:
    rng = random.Random(4)
    texts = [" ".join(rng.choices("abcdef", k=rng.randrange(30))) for _ in range(1500)]
    store.add(Record(text, "x", id=f"old{i}") for i, text in enumerate(texts))
    new = [Record(text, "x", id=f"new{i}", private=True) for i, text in enumerate(texts[::2])]
    ours = [Record("of this file", "x", id="open"), Record("of this file", "x", id="shut")]
    store.add([*ours[:1], *new, replace(ours[1], private=True)])
    marked = set(texts[::2])
    expected = {f"old{i}" for i, text in enumerate(texts) if text in marked}
    assert hidden(store) == expected | {record.id for record in new} | {"shut"}


def test_twins_are_sought_among_inputs_of_one_length(store: Store) -> None:
    statements: list[str] = []
    store.add([twin(JAN), *(Record("x " * i, "y", id=str(i)) for i in range(9))])
    store._db.connection.set_trace_callback(statements.append)
    store.add([MAR])
    assert not [s for s in statements if "WHERE NOT private AND" in s], "nothing is marked"
    store.add([replace(JAN, private=True)])
    store._db.connection.set_trace_callback(None)
    (sought,) = (s for s in statements if "WHERE NOT private AND" in s)
    plan = str(store._db.connection.execute(f"EXPLAIN QUERY PLAN {sought}").fetchall())
    assert "records USING INTEGER PRIMARY KEY" in plan
    assert "records USING COVERING INDEX records_by_task" in plan
    of_three_words = [seq for seq, _, _ in store._db.connection.execute(sought)]
    assert of_three_words == [5, 11], "nothing else is read"


def test_twin_is_found_though_words_were_counted_otherwise_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([twin(JAN)])
    store._db.connection.execute("UPDATE records SET words = 99")
    monkeypatch.setattr(schema, "words_mark", lambda: "another release")
    schema.prepare(store._db.connection, "x")
    store.add([replace(JAN, private=True)])
    assert public(store) == set()
    assert store.check() == []


def test_history_private_says_how_many_records_went_along(tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text('{"id": "1", "input": "a", "output": "b"}\n')
    call("import", "jsonl", str(file))
    file.write_text('{"id": "2", "task": "t", "input": "a", "output": "b"}\n')
    call("import", "jsonl", str(file))
    assert "2 records now private" in call("history", "private", "1").output
    assert "1 record now public" in call("history", "private", "--off", "2").output
    assert [record.id for record in records() if not record.private] == ["2"]


# ---- answers that were kept, and were shown a record


def keep(store: Store, key: str, *shown: str) -> str:
    store.add([Record(f"query {key}", f"answer {key}", id=f"choice-{key}")])
    put_choice(store, key, "chat", key, shown=shown, picked=0, record_id=f"choice-{key}")
    return f"choice-{key}"


@pytest.mark.parametrize("again", [False, True])
def test_record_made_private_takes_along_what_was_made_from_it(store: Store, again: bool) -> None:
    store.add([JAN, MAR])
    first = keep(store, "first", "42")
    second = keep(store, "second", first)
    keep(store, "other", "43")
    if again:
        assert store.add([replace(JAN, private=True)]) == AddResult(updated=1)
    else:
        assert store.set_private(["42"], True) == 3
    hidden = {record.id for record in store.records() if record.private}
    assert hidden == {"42", first, second}
    assert store.set_private(["42"], False) == 1
    assert store.get(first).private, "it may have been marked for another reason"


def test_record_made_private_reaches_answers_whatever_was_chosen_again_last(store: Store) -> None:
    store.add([JAN])
    second = keep(store, "second", "choice-first")
    first = keep(store, "first", "42")
    assert store.set_private(["42"], True) == 3
    assert store.get(first).private
    assert store.get(second).private
