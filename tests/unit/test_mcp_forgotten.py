"""What is forgotten, or made private, while an MCP session runs: by another program, as a rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from filled_store import cached_vectors

from hydra_edge import answering
from hydra_edge.adapter import choose, merge
from hydra_edge.config import Config, find_paths
from hydra_edge.egress import Question
from hydra_edge.errors import CancelledError, ConfigError
from hydra_edge.mcp.desk import Desk
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.types import Completion, Record, text_hash

TASK = "note"
QUERY = "the code of the vault"
SECRET = "zebra 4711 opens the vault of grandmother"
RECORDS = [
    Record("what opens the vault", SECRET, TASK, "r1", 1.7e9),
    Record("what opens the shed", "The green key opens the shed", TASK, "r2", 1.71e9),
]
Make = Callable[..., Personalizer]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users" / "me.db"


def repeating(_prompt: Prompt, n: int) -> list[str]:
    """Answer with what was shown, as an LLM may."""
    return [f"{SECRET}!" * (i + 1) for i in range(n)]


@pytest.fixture
def make(path: Path, hash_encoder, scripted) -> Iterator[Make]:
    """Open the one person's file, whose LLM answers by a function of the prompt."""
    made: list[Personalizer] = []

    def one(answer=repeating, **settings: object) -> Personalizer:
        store, config = Store.open(path), Config(candidates=2, **settings)
        store.add(RECORDS)
        person = Personalizer(
            store, user="me", config=config, paths=find_paths(), llm=scripted(answer),
            encoder=hash_encoder,
        )  # fmt: skip
        made.append(person)
        return person

    yield one
    for person in made:
        person.close()


@pytest.fixture
def person(make: Make) -> Personalizer:
    return make()


def forget(path: Path, *ids: str) -> None:
    """Forget as another program does."""
    with Store.open(path) as store:
        store.forget(ids)


def set_private(path: Path, ids: Sequence[str], private: bool = True) -> None:
    """Mark records as another program does."""
    with Store.open(path) as store:
        store.set_private(ids, private)


def left_of(text: str, path: Path) -> list[str]:
    """Return the words of a text that are found in the bytes on disk."""
    raw = b"".join(file.read_bytes() for file in path.parent.iterdir()).lower()
    return [word for word in text.lower().split() if word.encode() in raw]


def moods() -> list[Record]:
    """Make records of a closed set, one of whose answers one record has that is seldom shown."""
    return [
        Record("a visit to the clinic", "expecting", "mood", "label", 1.0),
        *(
            Record(f"a note on gardens {i}", ("fine", "tired")[i % 2], "mood", f"m{i}", 1e9 + i)
            for i in range(12)
        ),
    ]


def generate(desk: Desk, query: str = QUERY) -> str:
    """Have a query answered; return the generation's id."""
    return desk.generate(query, task=TASK, candidates=None).generation_id


# ---- while the LLM writes


def test_generate_record_forgotten_while_the_llm_writes_throws_the_answer_away(
    make: Make, path: Path
) -> None:
    def forgetting(prompt: Prompt, n: int) -> list[str]:
        assert "r1" in prompt.record_ids
        forget(path, "r1")
        return repeating(prompt, n)

    person = make(forgetting)
    desk = Desk(person)
    with pytest.raises(CancelledError, match=r"'r1', which was forgotten meanwhile") as refusal:
        generate(desk)

    assert SECRET not in str(refusal.value)
    assert person.store.last_generation() is None
    assert not cached_vectors(person.store, [text_hash(SECRET)], person.bundle.base_id)
    with pytest.raises(ConfigError, match="Nothing was generated"):
        desk.explain(None)
    person.close()
    assert left_of("zebra 4711 grandmother", path) == []


@pytest.mark.parametrize("log", [True, False])
def test_generate_record_forgotten_while_the_answer_is_chosen_throws_it_away(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, log: bool
) -> None:
    def forgetting(*given):
        forget(path, "r1")
        return choose(*given)

    person = make(log=log)
    monkeypatch.setattr(answering, "choose", forgetting)
    with pytest.raises(CancelledError, match=r"'r1', which was forgotten meanwhile"):
        person.generate(QUERY, task=TASK)

    assert person.store.last_generation() is None
    person.close()
    assert left_of("zebra 4711 grandmother", path) == []


def test_generate_waits_for_who_is_writing_before_it_looks_what_was_hidden(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, came = threading.Event(), threading.Event()

    def hiding() -> None:
        with Store.open(path) as store, store.together():
            store.set_private(["r1"], True)
            begun.set()
            came.wait(60.0)

    def choosing(*given):
        other.start()
        assert begun.wait(60.0)
        return choose(*given)

    def coming():
        came.set()
        return together()

    person, other = make(), threading.Thread(target=hiding)
    together = person.store.together
    monkeypatch.setattr(answering, "choose", choosing)
    monkeypatch.setattr(person.store, "together", coming)
    with pytest.raises(CancelledError, match=r"'r1', which was made private meanwhile"):
        person.generate(QUERY, task=TASK, hide_private=True)

    other.join()
    assert person.store.last_generation() is None


@pytest.mark.parametrize("hide_private", [False, True])
def test_generate_label_made_private_meanwhile_is_told_to_nobody_who_may_not_see_it(
    make: Make, path: Path, hide_private: bool
) -> None:
    def hiding(_prompt: Prompt, n: int) -> list[str]:
        set_private(path, ["label"])
        return ["fine"] * n

    person = make(hiding)
    person.add(moods())
    ask = {"task": "mood", "hide_private": hide_private}
    if hide_private:
        with pytest.raises(CancelledError, match="known from private records only by now"):
            person.generate("a note on gardens", **ask)
        assert person.store.last_generation() is None
    made = person.generate("a note on gardens", **ask)
    assert "label" not in [ranked.record.id for ranked in made.records]
    assert ("expecting" in [c.text for c in made.candidates]) is not hide_private


@pytest.mark.parametrize("keep", [False, True])
def test_pool_record_shown_that_is_not_in_the_history_leaves_no_vector(
    person: Personalizer, keep: bool
) -> None:
    engine, base_id = person.engine, person.bundle.base_id
    question = Question.of(engine, person.task(TASK), QUERY)
    gone = Record("what opens the cellar", "The rusty key opens the cellar", TASK, "r0")
    candidates = merge([Completion("an answer")], question.history.task)
    pool = engine.pool(
        QUERY, question.vector, candidates, [gone, *RECORDS], question.history,
        engine.lexical(question.history), keep=keep,
    )  # fmt: skip

    assert len(pool.shown_vectors) == 3
    of_shown = [text_hash(record.output) for record in (gone, *RECORDS)]
    assert set(cached_vectors(person.store, of_shown, base_id)) == set(of_shown[1:])
    assert bool(cached_vectors(person.store, [text_hash("an answer")], base_id)) is keep


# ---- between two calls


@pytest.mark.parametrize("log", [True, False])
def test_explain_record_forgotten_since_is_refused_without_its_text(
    make: Make, path: Path, log: bool
) -> None:
    desk = Desk(make(log=log))
    earlier, last = generate(desk), generate(desk, "the code of the vault again")
    assert [r.id for r in desk.explain(earlier).records] == ["r1", "r2"]
    forget(path, "r1")

    for named in (None, earlier, last, None):  # the last one does not come to mean another
        with pytest.raises(ConfigError, match=f"{named or last} was thrown away") as refusal:
            desk.explain(named)
        assert "zebra" not in str(refusal.value)
    with pytest.raises(ConfigError, match=f"{last} was thrown away"):
        desk.record_choice(None, pick=1, text=None, keep=True)
    assert desk.person.store.count() == 1


@pytest.mark.parametrize("log", [True, False])
def test_explain_generation_thrown_away_is_not_there_again_with_its_record(
    make: Make, path: Path, log: bool
) -> None:
    person = make(log=log)
    desk = Desk(person)
    made = generate(desk)
    forget(path, "r1")
    with pytest.raises(ConfigError, match="was thrown away"):
        desk.explain(made)
    person.add([Record("what opens the vault", "no longer said", TASK, "r1", 1.7e9)])

    with pytest.raises(ConfigError, match="was thrown away"):
        desk.explain(made)
    again = generate(desk)
    assert "no longer said" in [record.output for record in desk.explain(again).records]


def test_explain_record_forgotten_that_was_not_shown_changes_nothing(
    make: Make, path: Path
) -> None:
    person = make(lambda _prompt, n: ["an answer"] * n)
    person.add([Record("a bill of May", "Paid in cash", TASK, "other", 1.6e9, private=True)])
    desk = Desk(person)
    made = generate(desk)
    before = desk.explain(made)
    forget(path, "other")

    assert desk.explain(made) == before
    assert before.text == "an answer"
    assert before.notes == []


def test_explain_answer_forgotten_or_cleared_from_the_log_is_refused(
    make: Make, path: Path
) -> None:
    person = make(lambda prompt, n: [f"answer {i} to {prompt.query}" for i in range(n)])
    desk = Desk(person)
    first, second = generate(desk), generate(desk, "another query")
    kept = desk.record_choice(first, pick=1, text=None, keep=True).record_id
    forget(path, kept or "")
    with pytest.raises(ConfigError, match=f"{first} was thrown away"):
        desk.explain(first)

    assert desk.explain(second).text
    with Store.open(path) as store:
        store.clear_log()
    with pytest.raises(ConfigError, match=f"{second} was thrown away"):
        desk.explain(second)


def test_explain_record_private_by_now_is_left_out_with_what_was_written_from_it(
    person: Personalizer, path: Path
) -> None:
    desk = Desk(person)
    made = generate(desk)
    assert desk.explain(made).candidates
    set_private(path, ["r1"])

    said = desk.explain(made)
    assert [record.id for record in said.records] == ["r2"]
    assert (said.text, said.candidates) == ("", [])
    assert "private by now" in said.notes[0]
    assert "zebra" not in said.model_dump_json()
    set_private(path, ["r1"], private=False)
    assert SECRET in desk.explain(made).text


@pytest.mark.parametrize("allow_private", [False, True])
def test_explain_label_private_by_now_is_left_out(
    make: Make, path: Path, allow_private: bool
) -> None:
    person = make(lambda _prompt, n: ["fine"] * n)
    person.add(moods())
    desk = Desk(person, allow_private=allow_private)
    made = desk.generate("a note on gardens", task="mood", candidates=None)
    place = [c.text for c in made.candidates].index("expecting") + 1
    before = desk.explain(made.generation_id)
    assert "label" not in [record.id for record in before.records]
    set_private(path, ["label"])

    said = desk.explain(made.generation_id)
    chosen = desk.record_choice(made.generation_id, pick=place, text=None, keep=True)
    assert said.records == before.records
    if allow_private:
        assert said == before
        assert chosen.text == "expecting"
    else:
        assert (said.text, said.candidates) == ("", [])
        assert "private by now" in said.notes[0]
        assert "expecting" not in said.model_dump_json() + chosen.model_dump_json()
    assert person.store.get(chosen.record_id or "").private


def test_explain_record_private_by_now_is_told_where_the_host_may_see_it(
    person: Personalizer, path: Path
) -> None:
    desk = Desk(person, allow_private=True)
    made = generate(desk)
    set_private(path, ["r1"])

    said = desk.explain(made)
    assert [record.output for record in said.records] == [r.output for r in RECORDS]
    assert SECRET in said.text
    assert said.notes == []


def test_record_choice_record_private_by_now_is_learned_from_and_not_told(
    person: Personalizer, path: Path
) -> None:
    desk = Desk(person)
    made = generate(desk)
    set_private(path, ["r1"])

    chosen = desk.record_choice(made, pick=1, text=None, keep=True)
    assert "zebra" not in chosen.model_dump_json()
    kept = person.store.get(chosen.record_id or "")
    assert SECRET in kept.output
    assert kept.private
    assert chosen.head_version == 1


@pytest.mark.parametrize(
    ("meanwhile", "private"),
    [
        (lambda _path: None, False),
        (lambda path: forget(path, "r1"), True),
        (lambda path: set_private(path, ["r1"]), True),
        (lambda path: (set_private(path, ["r1"]), set_private(path, ["r1"], private=False)), False),
        (lambda path: (set_private(path, ["r2"]), forget(path, "r1")), True),
    ],
    ids=["nothing", "forgotten", "private", "private and public again", "one of each"],
)
def test_record_choice_own_answer_is_as_private_as_what_it_was_shown_is_now(
    person: Personalizer, path: Path, meanwhile: Callable[[Path], object], private: bool
) -> None:
    desk = Desk(person)
    shown = desk.personalize(QUERY, task=TASK, records=2)
    assert [record.id for record in shown.records] == ["r1", "r2"]
    meanwhile(path)

    chosen = desk.record_choice(shown.generation_id, pick=None, text="zebra, I say", keep=True)
    kept = person.store.get(chosen.record_id or "")
    assert (kept.input, kept.output, kept.task) == (QUERY, "zebra, I say", TASK)
    assert kept.private is private


def test_record_choice_own_answer_to_a_prompt_without_records_is_not_private(
    person: Personalizer, path: Path
) -> None:
    desk = Desk(person)
    shown = desk.personalize(QUERY, task=TASK, records=0)
    forget(path, "r1")

    chosen = desk.record_choice(shown.generation_id, pick=None, text="I do not know", keep=True)
    assert not person.store.get(chosen.record_id or "").private
