"""A program that runs on while others change what it began with: task files, and the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import HashEncoder
from title_writer import history, titles

from hydra_edge import Personalizer, Record, headreport
from hydra_edge.bundle import Bundle
from hydra_edge.config import Config, find_paths
from hydra_edge.errors import ConfigError
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store

DESKS = ("Printers", "Network", "Billing")
OTHER_BASE = "f" * 64
Begin = Callable[..., Personalizer]


@pytest.fixture
def begin(bundle: Bundle, scripted, monkeypatch) -> Iterator[Begin]:
    """Give what begins a program on the one history there is, with the base that is set then."""
    paths, begun = find_paths(), []
    paths.users.mkdir(parents=True)

    def program(
        base: str = bundle.base_id, answers: Callable[[Prompt, int], list[str]] = titles
    ) -> Personalizer:
        monkeypatch.setattr(
            "hydra_edge.resources.load_bundle", lambda _: replace(bundle, base_id=base)
        )
        person = Personalizer(
            Store.open(paths.user_file("me")), user="me", config=Config(), paths=paths,
            llm=scripted(answers), encoder=HashEncoder(base),
        )  # fmt: skip
        assert person.bundle.base_id == base
        begun.append(person)
        return person

    yield program
    for person in begun:
        person.close()


def tickets(n: int = 30) -> list[Record]:
    """Make records whose outputs are no labels, by themselves."""
    return [
        Record(f"ticket {i} on {DESKS[i % 3]}", f"{DESKS[i % 3]} {i}", "ticket", f"t{i}", float(i))
        for i in range(n)
    ]


def describe(text: str) -> Path:
    """Write a task file, as a person does by an editor."""
    folder = find_paths().tasks
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ticket.toml").write_text(text, encoding="utf-8")
    return folder / "ticket.toml"


# ---- task files


def test_task_file_written_while_a_program_runs_is_in_force_there_and_both_heads_serve(
    begin: Begin,
) -> None:
    old = begin()
    old.add(tickets())
    old.fit_head("ticket", use_llm=False)
    assert old.task("ticket").kind == "text"
    names = ", ".join(f'"{record.output}"' for record in tickets())
    describe(f'kind = "label"\nlabels = [{names}]\n')
    new = begin()
    new.fit_head("ticket", use_llm=False)

    assert old.task("ticket").kind == "label"
    serving = [p.rank("a ticket", task="ticket").head for p in (new, old)]
    assert [head.version for head in serving] == [2, 2]
    old.fit_head("ticket", use_llm=False)
    assert new.rank("a ticket", task="ticket").head.version == 3


def test_task_file_changed_broken_and_removed_is_seen_each_time(begin: Begin) -> None:
    p = begin()
    p.add(tickets())
    file = describe('instruction = "Name the desk."\n')
    assert p.task("ticket").instruction == "Name the desk."
    describe('instruction = "Say which."\n')
    assert p.task("ticket").instruction == "Say which."
    describe("kind =")
    with pytest.raises(ConfigError, match=r"ticket\.toml cannot be read"):
        p.task("ticket")
    file.unlink()
    assert "Say which" not in p.task("ticket").instruction


def test_task_files_that_stay_leave_what_was_read_in_memory(begin: Begin) -> None:
    p = begin()
    describe('instruction = "Name the desk."\n')
    engine = p.engine
    assert p.engine is engine
    describe('instruction = "Say which."\n')
    assert p.engine is not engine
    assert p.engine.encoder is engine.encoder, "one cache of vectors, one rule for what it keeps"
    assert engine.task("ticket").instruction == "Name the desk.", "who works with it goes on"


# ---- the base


@pytest.fixture
def programs(begin: Begin) -> tuple[Personalizer, Personalizer]:
    """Give a program that began before another base was set, and one that has fitted with that."""
    old = begin()
    old.add(history())
    old.fit_head(calls=30)
    new = begin(OTHER_BASE)
    new.fit_head(calls=30)
    return old, new


def test_head_fitted_with_another_base_since_tells_to_start_anew_and_to_fit_nothing(
    programs: tuple[Personalizer, Personalizer],
) -> None:
    old, new = programs
    note = "this program began before your own head was fitted with another base; start it anew"
    assert old.generate("about speech").notes == (note,)
    assert old.rank("speech").head.reason == note
    for task in (None, "chat"):
        with pytest.raises(ConfigError, match=r"since this one began.*Start this program anew"):
            old.fit_head(task, use_llm=False)
    assert new.generate("about speech").notes == ()
    assert new.rank("speech").head.version == 2
    report = new.fit_head(use_llm=False)
    assert report.texts_embedded == 0, "the vectors of the base in force are all there"


def test_choice_in_a_program_that_is_behind_is_kept_and_leaves_the_newer_head_in_use(
    programs: tuple[Personalizer, Personalizer],
) -> None:
    old, new = programs
    made = old.generate("about speech")
    done = old.choose(generation_id=made.id, pick=2)
    assert done.head_version is None
    assert new.store.choice(made.id) is not None
    assert new.generate("about speech").head.version == 2


def test_forget_in_a_program_that_is_behind_erases_and_says_what_to_do(
    programs: tuple[Personalizer, Personalizer],
) -> None:
    old, new = programs
    with pytest.raises(ConfigError, match=r"records are erased.*Start this program anew"):
        old.forget("r7")
    assert "r7" not in {record.id for record in new.store.records()}
    new.fit_head(calls=30)
    assert new.generate("about speech").notes == ()


def test_program_started_anew_with_the_earlier_base_may_fit_with_it(
    programs: tuple[Personalizer, Personalizer], begin: Begin
) -> None:
    again = begin()
    note = "your own head was fitted with another base and does not serve; run hydra-edge fit-head"
    assert again.generate("about speech").notes == (note,)
    again.fit_head(use_llm=False)
    assert again.generate("about speech").notes == ()
    assert programs[1].rank("speech").head.reason.startswith("this program began before")


def test_head_of_a_clock_that_was_ahead_stops_no_fit(begin: Begin, monkeypatch) -> None:
    ahead = begin(OTHER_BASE)
    ahead.add(history())
    with monkeypatch.context() as clock:
        clock.setattr("time.time", lambda: 4e9)
        ahead.fit_head(use_llm=False)
    p = begin()
    assert p.rank("speech").head.reason.endswith("run hydra-edge fit-head")
    p.fit_head(use_llm=False)
    assert p.rank("speech").head.version == 2


def test_choices_with_one_base_and_another_by_turns_lose_no_head_of_either(
    programs: tuple[Personalizer, Personalizer], begin: Begin
) -> None:
    for program in programs:
        program.close()
    fitted = {}
    for base, version in ((None, 1), (OTHER_BASE, 2)):
        with begin() if base is None else begin(base) as p:
            heads = {h.version: h for h in p.store.heads("paper_title") if h.role == "adapter"}
            fitted[base] = heads[version]
            made = p.generate("about speech")
            done = p.choose(generation_id=made.id, pick=2, keep=False)
            after = p.store.head("paper_title", "adapter")
        assert after is not None
        assert (after.version, after.base_id) == (done.head_version, fitted[base].base_id)
        assert after.n_queries == fitted[base].n_queries + 1
        assert headreport.step_of(after.report) == (made.id, version)


def test_fit_during_which_another_program_fitted_with_another_base_stores_no_head(
    begin: Begin, scripted
) -> None:
    others: list[Personalizer] = []

    def meanwhile(prompt: Prompt, n: int) -> list[str]:
        if not others:
            others.append(begin(OTHER_BASE))
            others[0].fit_head(use_llm=False)
        return titles(prompt, n)

    old = begin(answers=meanwhile)
    old.add(history())
    with pytest.raises(ConfigError, match="Start this program anew"):
        old.fit_head(calls=16)
    in_use = [old.store.head("paper_title", role) for role in ("reranker", "adapter")]
    assert {head.base_id for head in in_use if head is not None} == {OTHER_BASE}
    assert old.store.pools("paper_title"), "what was bought is kept"
