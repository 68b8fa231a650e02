"""Which id a record asks for, and which it gets where others have that one."""

import pytest

from hydra_edge.records import beside, is_beside, stored_id, without_suffix
from hydra_edge.store import Store
from hydra_edge.types import Record

RECORD = Record("a text", "a title", "note_title")


def test_stored_id_without_one_is_made_of_the_texts():
    made = stored_id(RECORD)
    assert made == RECORD.content_hash[:16]
    assert stored_id(Record("a text", "a title", "note_title", "n1")) == "n1"
    with Store.in_memory() as store:
        store.add([RECORD])
        assert [record.id for record in store.records()] == [made]


def test_beside_as_often_as_needed_is_still_beside():
    once = beside("n1", RECORD)
    twice = beside(once, RECORD)
    assert once == f"n1~{RECORD.content_hash[:6]}"
    assert is_beside("n1", once)
    assert is_beside("n1", twice)
    assert is_beside(once, twice)
    assert without_suffix(twice) == without_suffix(once) == "n1"


@pytest.mark.parametrize(
    "other", ["n1", "n1~", "n1~abc", "n1~ABCDEF", "n2~abcdef", "n1~abcdef~012345", "n1~abcdef "]
)
def test_is_beside_nothing_the_store_would_not_have_given(other):
    assert not is_beside("n1", other)


@pytest.mark.parametrize("name", ["n1", "n1~abc", "~", "n1~abcdef and more", ""])
def test_without_suffix_leaves_what_is_none(name):
    assert without_suffix(name) == name


def test_find_gives_none_for_an_id_nobody_has():
    with Store.in_memory() as store:
        store.add([RECORD])
        assert store.find(stored_id(RECORD)).output == "a title"
        assert store.find("n1") is None
        assert store.find("\ud800") is None


def test_find_same_looks_beside_whoever_has_the_id():
    theirs = Record("another text", "another title", "note_title", "n1", source="app:a")
    ours = Record("a text", "a title", "note_title", "n1", source="add")
    with Store.in_memory() as store:
        assert store.find_same(ours) is None
        store.add([theirs])
        assert store.find_same(ours) is None
        store.add([ours])
        assert store.find_same(theirs).id == "n1"
        assert store.find_same(ours).id == beside("n1", ours)
