"""Renaming a task: what it refuses, what heads it leaves in service, and its task file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filled_store import put_choice
from learned_titles import records, titles

from hydra_edge.config import Config
from hydra_edge.errors import ConfigError, StoreError, UnknownTaskError
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import HeadState, Record, Role

ROLES: tuple[Role, ...] = ("reranker", "adapter")


def ratings(task: str, *outputs: str) -> list[Record]:
    return [Record(f"{task} text {i}", output, task) for i, output in enumerate(outputs)]


@pytest.fixture
def folder(home: Path) -> Path:
    path = home / "tasks"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def me() -> Iterator[Personalizer]:
    with Personalizer.open(create=True) as opened:
        yield opened


def learned(p: Personalizer, task: str) -> list[HeadState]:
    heads = [p.store.head(task, role) for role in ROLES]
    assert all(heads)
    return [head for head in heads if head is not None]


@pytest.fixture
def taught(hash_encoder, scripted) -> Iterator[Personalizer]:
    """Be somebody with heads that learned from records, choices and bought answers."""
    given = [replace(record, task="garden") for record in records(24)]
    with Personalizer.from_records(
        given, encoder=hash_encoder, llm=scripted(titles), config=Config(candidates=4, records=2)
    ) as p:
        for i in range(4):
            answer = p.generate(f"a long text about parsing number {50 + i}", task="garden")
            p.choose(generation_id=answer.id, pick=2, keep=i == 0)
        p.fit_head("garden", calls=48)
        yield p


def test_rename_heads_serve_on_and_a_fit_finds_the_same(taught: Personalizer) -> None:
    before = learned(taught, "garden")
    asked = taught.rank("about parsing", task="garden")

    receipt = taught.rename_task("Garden", "Plant-Title")

    assert (receipt.new, receipt.records, receipt.choices) == ("plant_title", 25, 4)
    assert receipt.pools >= 8
    assert not receipt.outdated
    again = taught.rank("about parsing", task="plant_title")
    assert again.head == replace(asked.head, task="plant_title")
    taught.fit_head("plant_title", use_llm=False)
    for one, other in zip(before, learned(taught, "plant_title"), strict=True):
        assert other.version == one.version + 1
        assert (other.n_queries, other.switch) == (one.n_queries, one.switch)
        assert (other.weight == one.weight).all()


def test_rename_to_a_name_the_base_knows_asks_for_a_fit_and_back_for_none(
    taught: Personalizer,
) -> None:
    assert taught.rename_task("garden", "paper_title").outdated
    head = taught.rank("about parsing", task="paper_title").head
    assert head.version is None
    assert "under another name of its task" in head.reason

    assert not taught.rename_task("paper_title", "garden").outdated
    assert taught.rank("about parsing", task="garden").head.version == 1

    taught.rename_task("garden", "paper_title")
    taught.fit_head("paper_title", use_llm=False)
    assert taught.rank("about parsing", task="paper_title").head.version == 2


def test_rename_to_a_task_with_records_needs_merge(me: Personalizer) -> None:
    me.add([Record("a", "b", "one"), Record("c", "d", "two")])
    with pytest.raises(ConfigError, match=r"two, which has 1 records already.*--merge"):
        me.rename_task("one", "two")
    assert me.store.tasks() == {"one": 1, "two": 1}
    assert me.rename_task("one", "two", merge=True, dry_run=True).records == 1
    assert me.store.tasks() == {"one": 1, "two": 1}
    me.rename_task("one", "two", merge=True)
    assert me.store.tasks() == {"two": 2}


def test_rename_what_is_not_there_or_to_no_name_is_refused(me: Personalizer) -> None:
    me.add(Record("a", "b", "one"))
    with pytest.raises(UnknownTaskError, match=r"'oen' to rename. Tasks with records: one"):
        me.rename_task("oen", "two")
    for name, match in ((" ", "is empty"), ("One", "called already"), ("x\x1b", "control char")):
        with pytest.raises(ConfigError, match=match):
            me.rename_task("one", name)


def test_rename_to_a_scale_the_answers_are_not_on_is_refused(me: Personalizer) -> None:
    me.add(ratings("stars", *map(str, [1, 2, 3, 8, 9, 10] * 3)))
    me.add(ratings("titles", "A title", "Another title", "A third"))
    me.add(ratings("grades", "1", "4.5", "5", "3"))
    for old in ("stars", "titles"):
        with pytest.raises(
            ConfigError, match=r"too few are one of 1, 2, 3, 4, 5, as those of film_"
        ):
            me.rename_task(old, "film_rating")
    with pytest.raises(ConfigError, match=r"too few are one of sci-fi"):
        me.rename_task("titles", "movie_tag")
    assert me.rename_task("grades", "film_rating").records == 4
    assert me.task("film_rating").labels == ("1", "2", "3", "4", "4.5", "5")


def test_rename_moves_the_task_file_and_the_task_is_described_at_once(
    me: Personalizer, folder: Path
) -> None:
    (folder / "desk-mail.toml").write_text(
        'name = "desk"  # mine\nkind = "label"\nlabels = ["a", "b"]\n'
    )
    me.add(Record("text", "a", "desk"))
    assert me.task("desk").kind == "label"

    receipt = me.rename_task("desk", "office")

    assert (receipt.task_file, receipt.kept_file) == (str(folder / "office.toml"), None)
    assert [path.name for path in folder.iterdir()] == ["office.toml"]
    assert "# mine" in (folder / "office.toml").read_text()
    assert (me.task("office").kind, me.task("office").labels) == ("label", ("a", "b"))


def test_rename_leaves_a_file_that_others_need_or_whose_name_is_taken(
    me: Personalizer, folder: Path
) -> None:
    (folder / "desk.toml").write_text('kind = "label"\n')
    with Personalizer.open("ada", create=True) as ada:
        ada.add(Record("text", "a", "desk"))
    me.add(Record("text", "a", "desk"))
    receipt = me.rename_task("desk", "office")
    assert (receipt.task_file, receipt.kept_file) == (
        str(folder / "office.toml"), str(folder / "desk.toml"),
    )  # fmt: skip
    assert (folder / "desk.toml").exists()

    (folder / "shop.toml").write_text('kind = "text"\n')
    receipt = me.rename_task("office", "shop")
    assert (receipt.task_file, receipt.kept_file) == (None, str(folder / "office.toml"))
    assert (folder / "shop.toml").read_text() == 'kind = "text"\n'


def test_rename_that_fails_leaves_no_file_behind(
    me: Personalizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "desk.toml").write_text('kind = "label"\n')
    me.add(Record("text", "a", "desk"))

    def full(*_: object) -> None:
        assert (folder / "office.toml").exists(), "the copy comes first"
        raise StoreError("disk full")

    monkeypatch.setattr("hydra_edge.store.renaming.mark_changed", lambda *_, **__: full())
    with pytest.raises(StoreError, match="disk full"):
        me.rename_task("desk", "office")
    assert [path.name for path in folder.iterdir()] == ["desk.toml"]
    assert me.store.tasks() == {"desk": 1}


def test_rename_to_what_the_task_file_is_called_already_rewrites_it_in_place(
    me: Personalizer, folder: Path
) -> None:
    (folder / "office.toml").write_text('name = "desk"  # mine\ninstruction = "My notes."\n')
    me.add(Record("text", "a", "desk"))

    receipt = me.rename_task("desk", "office")

    assert (receipt.task_file, receipt.kept_file) == (str(folder / "office.toml"), None)
    assert [path.name for path in folder.iterdir()] == ["office.toml"]
    assert (folder / "office.toml").read_text() == (
        'name = "office"  # mine\ninstruction = "My notes."\n'
    )
    assert me.task("office").instruction == "My notes."


def test_rename_in_place_that_fails_restores_the_file(
    me: Personalizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'name = "Desk"  # mine\nkind = "label"\n'
    (folder / "office.toml").write_text(text)
    me.add(Record("text", "a", "desk"))

    def full(*_: object, **__: object) -> None:
        assert 'name = "office"' in (folder / "office.toml").read_text()
        raise StoreError("disk full")

    monkeypatch.setattr("hydra_edge.store.renaming.mark_changed", full)
    with pytest.raises(StoreError, match="disk full"):
        me.rename_task("desk", "office")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"office.toml": text}
    assert me.store.tasks() == {"desk": 1}


def test_rename_in_place_of_a_file_that_others_need_is_refused(
    me: Personalizer, folder: Path
) -> None:
    (folder / "office.toml").write_text('name = "desk"\n')
    with Personalizer.open("ada", create=True) as ada:
        ada.add(Record("text", "a", "desk"))
    me.add(Record("text", "a", "desk"))
    with pytest.raises(ConfigError, match=r"office.toml, which others on this device need for d"):
        me.rename_task("desk", "office")
    assert (folder / "office.toml").read_text() == 'name = "desk"\n'
    assert me.store.tasks() == {"desk": 1}


@pytest.mark.parametrize("other", ["shop", "desk"])
def test_rename_never_overwrites_a_file_of_another_task_or_one_not_in_force(
    me: Personalizer, folder: Path, other: str
) -> None:
    texts = {"office.toml": f'name = "{other}"  # mine\n', "paper.toml": 'name = "desk"\n'}
    for name, text in texts.items():
        (folder / name).write_text(text)
    me.add(Record("text", "a", "desk"))
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"got .*office.toml, which describes another task"):
            me.rename_task("desk", "office", dry_run=dry_run)
    assert {path.name: path.read_text() for path in folder.iterdir()} == texts
    assert me.store.tasks() == {"desk": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize("said", ["", 'name = "desk"\n'])
def test_rename_to_what_a_link_to_the_task_file_is_called_loses_nothing(
    me: Personalizer, folder: Path, said: str
) -> None:
    (folder / "paper.toml").write_text(said + 'instruction = "My notes."\n')
    (folder / "desk.toml").symlink_to(folder / "paper.toml")
    (folder / "office.toml").symlink_to(folder / "desk.toml")
    me.add(Record("text", "a", "desk"))
    me.rename_task("desk", "office")
    assert me.task("office").instruction == "My notes."


def test_rename_of_a_file_alone_to_a_task_with_records_needs_merge_and_answers_that_fit(
    me: Personalizer, folder: Path
) -> None:
    (folder / "desk.toml").write_text('kind = "label"\nlabels = ["a", "b"]\n')
    me.add(ratings("titles", "A title", "Another title", "A third"))
    me.add(ratings("letters", "a", "b", "b"))
    for name in ("titles", "letters"):
        with pytest.raises(ConfigError, match=rf"{name}, which has 3 records already.*--merge"):
            me.rename_task("desk", name)
    with pytest.raises(ConfigError, match="answers of titles of which too few are one of a, b, as"):
        me.rename_task("desk", "titles", merge=True)
    assert [path.name for path in folder.iterdir()] == ["desk.toml"]

    me.rename_task("desk", "letters", merge=True)
    assert [path.name for path in folder.iterdir()] == ["letters.toml"]
    assert me.task("letters").labels == ("a", "b")


def test_rename_with_a_file_that_many_of_its_own_answers_are_not_of_is_possible(
    me: Personalizer, folder: Path
) -> None:
    (folder / "desk.toml").write_text('kind = "label"\nlabels = ["a", "b"]\n')
    me.add(ratings("desk", "a", "c", "d", "d"))
    assert me.rename_task("desk", "office").records == 4
    assert me.task("office").kind == "label"


def test_rename_that_was_interrupted_is_finished_by_another(me: Personalizer, folder: Path) -> None:
    for name in ("desk", "office"):  # killed before the file of the old name was removed
        (folder / f"{name}.toml").write_text('kind = "label"\n')
    me.add(Record("text", "a", "office"))
    receipt = me.rename_task("desk", "office")
    assert (receipt.records, receipt.task_file) == (0, str(folder / "office.toml"))
    assert [path.name for path in folder.iterdir()] == ["office.toml"]


def test_rename_with_a_broken_file_or_a_name_no_file_can_have_changes_nothing(
    me: Personalizer, folder: Path
) -> None:
    (folder / "desk.toml").write_text('kind = "label"\n')
    (folder / "broken.toml").write_text("not toml")
    me.add(Record("text", "a", "desk"))
    for new, match in (("../up", "cannot be called"), ("broken", "cannot be read")):
        with pytest.raises(ConfigError, match=match):
            me.rename_task("desk", new)
    assert me.store.tasks() == {"desk": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["broken.toml", "desk.toml"]


def test_rename_in_memory_leaves_the_files_alone(hash_encoder, folder: Path) -> None:
    (folder / "desk.toml").write_text('kind = "label"\n')
    given = [Record("text", "a", "desk")]
    with Personalizer.from_records(given, encoder=hash_encoder) as p:
        assert p.rename_task("desk", "office").task_file is None
        assert p.store.tasks() == {"office": 1}
    assert [path.name for path in folder.iterdir()] == ["desk.toml"]


def test_rename_of_a_task_with_choices_only_is_possible(tmp_path: Path) -> None:
    with Store.open(tmp_path / "me.db") as store:
        put_choice(store, "g", "old", candidates=[])
    with Personalizer.open(create=True) as me:
        put_choice(me.store, "g", "old", candidates=[])
        me.add(Record("a", "b", "new"))
        with pytest.raises(ConfigError, match="--merge"):
            me.rename_task("old", "new")
        assert me.rename_task("old", "new", merge=True).choices == 1
