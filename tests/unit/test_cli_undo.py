"""What is asked before records are erased, a choice taken back, and one answer unlogged."""

import json
from dataclasses import replace

import cli_runner
import pytest
from cli_runner import answer_twice, call, loaded, logged, records
from filled_store import generation_of, put_choice

from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Candidate, Completion, Record

_own_folder = cli_runner.own_folder
POOL = (Candidate("Title of one", 1, greedy=True), Candidate("Title of two"))


@pytest.fixture
def shown():
    """Two answers that were shown the same of six records, what was chosen of them, and a pool."""
    with Personalizer.open(create=True) as me:
        me.add(Record(f"text about {i} things", f"Title {i}", "note_title", f"r{i}", float(i),
                      source="markdown:/notes" if i < 2 else "add")
               for i in range(6))  # fmt: skip
        for name in ("a", "b"):
            me.store.log_generation(generation_of(name, f"asked {name}", "t", ("r1",)), "m")
            put_choice(
                me.store, name, "note_title", f"asked {name}", candidates=POOL, shown=("r1",),
                picked=1, text="t",
            )  # fmt: skip
        me.store.put_pool(
            "k", task="note_title", model="m", query_id="r5", record_ids=("r1",),
            completions=[Completion("Title of three")],
        )  # fmt: skip


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize(
    ("args", "question"),
    [
        (("r5",), "Erase 1 record of me for good, and with it 1 answer pool made with"),
        (("r3",), "Erase 1 record of me for good?"),
        (
            ("r1", "r5"),
            "Erase 2 records of me for good, and with them 2 choices, 1 answer pool and 2 log "
            "entries made with them?",
        ),
        (
            ("--source", "markdown:/notes"),
            "Erase all 2 records from markdown:/notes of me for good, and with them 2 choices, 1 "
            "answer pool and 2 log entries made with them?",
        ),
    ],
)
def test_forget_asks_with_what_would_go_along(args, question):
    result = call("forget", *args)

    assert result.exit_code == 1
    assert question in result.stderr
    assert len(records()) == 6


def test_forget_asks_with_the_answers_kept_that_copy_the_record():
    secret = "a secret of many letters"
    with Personalizer.open(create=True) as me:
        me.add([
            Record("text", secret, "note_title", "r1"),
            Record("asked", f"Now {secret}", "note_title", "choice-a", source="choices"),
        ])  # fmt: skip
        put_choice(
            me.store, "a", "note_title", "asked", candidates=(), shown=("r1",), text=secret,
            record_id="choice-a",
        )  # fmt: skip

    asked = call("forget", "r1").stderr
    assert "Erase 1 record of me for good, and with it 1 answer you kept and 1 choice made" in asked


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize("command", [("forget",), ("history", "delete")])
def test_forget_dry_run_tells_what_would_go_and_erases_nothing(command):
    told = call(*command, "r1", "--dry-run")

    assert told.exit_code == 0
    assert told.stdout.startswith(
        "Would be forgotten: 1 record, 0 vectors, 1 answer pool, 2 choices, 2 log entries."
    )
    assert "Nothing was erased" in told.stderr
    foreseen = loaded(*command, "r1", "--dry-run", "--json")
    assert foreseen.pop("dry_run") is True
    assert len(records()) == 6
    assert loaded(*command, "r1", "--yes", "--json") == foreseen
    assert len(records()) == 5


@pytest.mark.usefixtures("shown")
def test_forget_dry_run_foresees_the_vectors_and_the_heads():
    with Personalizer.open() as me:
        me.fit_head("note_title", use_llm=False)
    foreseen = loaded("forget", "r1", "--dry-run", "--json")
    assert foreseen["vectors"] > 2
    assert foreseen["tasks"] == ["note_title"]
    told = call("forget", "r1", "--dry-run").stdout.replace("\n", " ")
    assert "Heads that had learned from them, to be fitted again: note_title." in told
    del foreseen["dry_run"]
    assert loaded("forget", "r1", "--yes", "--json") == foreseen


@pytest.mark.usefixtures("shown")
def test_forget_dry_run_of_everything_or_of_nobody_is_refused():
    assert call("forget", "--all", "--dry-run").exit_code == 2
    assert call("forget", "r9", "--dry-run").exit_code == 1
    assert call("forget", "--source", "elsewhere", "--dry-run").exit_code == 1
    assert len(records()) == 6


@pytest.fixture
def answered():
    """Records, and two answers that can be chosen from."""
    with Personalizer.open(create=True) as me:
        me.add(Record(f"text about {i} things", f"Title {i}", "t", f"r{i}") for i in range(3))
        for name in ("a", "b"):
            me.store.log_generation(
                generation_of(name, f"text {name}", "Title one", sampled=("Title two",)), "m"
            )


@pytest.mark.usefixtures("answered")
def test_choose_tells_the_query_it_is_about():
    assert "chosen for: text b\n" in call("choose", "2").stderr
    assert "chosen for: text a\n" in call("choose", "2", "--id", "a").stderr
    assert loaded("choose", "1", "--json")["query"] == "text b"


@pytest.mark.usefixtures("answered")
def test_choose_undo_takes_the_choice_its_record_and_its_step_back():
    call("choose", "2", "--id", "a")
    taken = call("choose", "--undo")

    assert taken.exit_code == 0
    assert taken.stdout == "t: Title two\n"
    assert "taken back; chosen for: text a\n" in taken.stderr
    assert (
        "you have no head of your own for answers now; record choice-a is erased; 0 LLM calls"
        in taken.stderr
    )
    assert "To choose another: hydra-edge choose N --id a\n" in taken.stderr
    assert len(records()) == 3
    refused = call("choose", "--undo")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "There is no choice to take back" in refused.stderr


@pytest.mark.usefixtures("answered")
def test_history_log_and_choose_show_what_was_taken():
    assert [(a["chosen"], a["picked"]) for a in loaded("history", "log", "--json")["answers"]] == [
        (False, None), (False, None),
    ]  # fmt: skip
    assert "You took" not in call("choose").stderr
    call("choose", "2", "--id", "b", "--no-keep")
    call("choose", "--text", "a secret", "--id", "a", "--no-keep")

    listed = call("history", "log")
    assert [line.split()[4] for line in listed.stdout.splitlines()[1:]] == ["2", "own"]
    assert "a secret" not in listed.output
    assert [(a["chosen"], a["picked"]) for a in loaded("history", "log", "--json")["answers"]] == [
        (True, 2), (True, None),
    ]  # fmt: skip
    assert (
        "You took: 2. To take that back: hydra-edge choose --id b --undo" in call("choose").stderr
    )
    assert loaded("choose", "--id", "b", "--json")["picked"] == 2


@pytest.mark.usefixtures("answered")
def test_choose_undo_of_an_earlier_choice_json_says_what_became_of_it():
    call("choose", "2", "--id", "a", "--no-keep")
    call("choose", "2", "--id", "b")
    assert loaded("choose", "--undo", "--id", "a", "--json") == {
        "generation_id": "a", "task": "t", "query": "text a", "text": "Title two",
        "record_id": None, "record_erased": False, "head_version": 3, "fitted_again": True,
        "record_is_own": False,
    }  # fmt: skip
    assert logged() == (["a", "b"], ["b"])
    refused = call("choose", "--undo", "--id", "a", "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "config"


def test_choose_undo_says_why_a_record_stays():
    commit = Record("a diff", "Title two", "t", "3f2a" * 10, 1.0, source="git:/src/project")
    kept = Record("text b", "Title two", "t", "choice-b", 2.0, source="choices")
    with Personalizer.open(create=True) as me:
        me.add([commit, kept])
        for name, record in (("a", commit), ("b", kept)):
            put_choice(
                me.store, name, query=f"text {name}", candidates=POOL, text="Title two",
                record_id=record.id,
            )  # fmt: skip
        me.add(replace(kept, output="Written anew"))

    undone = loaded("choose", "--undo", "--id", "a", "--json")
    assert (undone["record_erased"], undone["record_is_own"]) == (False, False)
    assert "record choice-b was changed since and stays" in call("choose", "--undo").stderr
    with Personalizer.open() as me:
        put_choice(
            me.store, "a", query="text a", candidates=POOL, text="Title two", record_id=commit.id
        )
    told = call("choose", "--undo").stderr
    assert f"record {commit.id} is not the choice's own and stays" in told.replace("\n", " ")
    assert {record.id for record in records()} == {commit.id, kept.id}


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_choose_undo_interrupted_while_heads_are_fitted_names_them(monkeypatch, flags):
    call("choose", "2", "--id", "a")
    call("choose", "2", "--id", "b")
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", interrupt)
    result = call("choose", "--undo", "--id", "a", *flags)

    assert result.exit_code == 130
    said = result.stderr.replace("\n", " ")
    assert "The choice is taken back, but heads not fitted again: hydra-edge fit-head --t" in said
    assert logged() == (["a", "b"], ["b"])
    if flags:
        assert json.loads(result.stdout)["error"]["code"] == "cancelled"


@pytest.mark.usefixtures("answered")
def test_choose_undo_interrupted_before_it_began_says_nothing(monkeypatch):
    call("choose", "2", "--id", "a")
    monkeypatch.setattr("hydra_edge.forgetting.withdraw", interrupt)
    result = call("choose", "--undo")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "taken back" not in result.stderr
    assert logged() == (["a", "b"], ["a"])


@pytest.fixture
def chosen_from_many(monkeypatch):
    """A head that learned from a choice no record was kept of, and a log cleared in portions."""
    monkeypatch.setattr("hydra_edge.store.forget._PORTION", 2)
    with Personalizer.open(create=True) as me:
        me.add(Record("a text", "A title", "t", "r0"))
        for i in range(6):
            me.store.log_generation(
                generation_of(f"g{i}", f"text {i}", "Title one", sampled=("Title two",)), "m"
            )
        for i in (0, 5):  # the other one is kept, and teaches alone once this one is gone
            me.choose(generation_id=f"g{i}", pick=2, keep=i == 5)


def stale():
    with Personalizer.open() as me:
        return [head.version for head in me.store.heads() if head.stale]


@pytest.mark.usefixtures("chosen_from_many")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_clear_log_interrupted_says_what_is_deleted_and_which_heads_to_fit(monkeypatch, flags):
    with monkeypatch.context() as patch:
        patch.setattr("hydra_edge.cli.output.LateBar.__call__", interrupt)
        result = call("history", "clear-log", "--choices", "--yes", *flags)

    assert result.exit_code == 130
    said = result.stderr.replace("\n", " ")
    assert "heads not fitted again: hydra-edge fit-head --task t" in said
    assert "what is left goes when you run this again" in said
    if flags:
        assert json.loads(result.stdout) == {
            "cleared": 3, "heads_dropped": [], "interrupted": True, "not_fitted": ["t"],
        }  # fmt: skip
    else:
        assert result.stdout == "3 entries deleted\n"
    assert stale()
    assert loaded("history", "clear-log", "--choices", "--yes", "--json")["cleared"] == 4
    assert not stale()


@pytest.mark.usefixtures("chosen_from_many")
def test_clear_log_interrupted_while_heads_are_fitted_has_erased_all(monkeypatch):
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", interrupt)
    result = call("history", "clear-log", "--choices", "--yes")

    assert (result.exit_code, result.stdout) == (130, "7 entries erased\n")
    assert "heads not fitted again: hydra-edge fit-head --task t" in result.stderr
    assert "run this again" not in result.stderr


@pytest.mark.usefixtures("chosen_from_many")
def test_clear_log_interrupted_before_anything_is_erased_writes_nothing(monkeypatch):
    monkeypatch.setattr("hydra_edge.store.Store.clear_log", interrupt)
    result = call("history", "clear-log", "--yes")
    assert (result.exit_code, result.stdout) == (130, "")


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("args", [("2", "--undo"), ("--undo", "--text", "mine")])
def test_choose_undo_with_a_choice_is_a_usage_error(args):
    assert call("choose", *args).exit_code == 2
    assert logged() == (["a", "b"], [])


def test_clear_log_of_one_answer_asks_with_its_query_and_leaves_the_other(monkeypatch):
    answer_twice(monkeypatch)
    asked = call("history", "clear-log", "--id", "a")
    assert "Erase the answer a to 'asked' of me?" in asked.stderr
    assert loaded("history", "clear-log", "--id", "a", "--yes", "--json") == {
        "cleared": 1, "id": "a"
    }  # fmt: skip
    assert logged() == (["b"], ["a", "b"])
    assert call("history", "clear-log", "--id", "a", "--yes").exit_code == 1
    told = loaded("history", "clear-log", "--id", "a", "--choices", "--yes", "--json")
    assert told["cleared"] == 1
    assert logged() == (["b"], ["b"])


def test_clear_log_of_an_answer_before_a_date_is_a_usage_error(monkeypatch):
    answer_twice(monkeypatch)
    args = ("history", "clear-log", "--id", "a", "--before", "2027-01-01", "--yes")
    assert call(*args).exit_code == 2
    assert logged() == (["a", "b"], ["a", "b"])
