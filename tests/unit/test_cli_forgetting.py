"""Records and the log of answers erased, by the commands and what they say of it."""

import json
import sqlite3
from contextlib import contextmanager

import cli_runner
import pytest
from cli_runner import answer_twice, call, logged, records
from filled_store import generation_of, put_choice

from hydra_edge.cli import views
from hydra_edge.config import find_paths
from hydra_edge.errors import StoreError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Candidate, Record

_own_folder, history = cli_runner.own_folder, cli_runner.history


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "args", [("forget", "r1"), ("history", "delete", "r1"), ("forget", "--all"),
             ("history", "clear-log")]
)  # fmt: skip
def test_forget_without_a_person_to_ask_needs_yes(args):
    result = call(*args)

    assert result.exit_code == 1
    assert "--yes" in result.stderr
    assert len(records()) == 5


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("args", [("forget", "r1", "r2"), ("history", "delete", "r1", "r2")])
def test_forget_records_prints_the_receipt(args):
    result = call(*args, "--yes")

    assert result.stdout.startswith("Forgotten: 2 records, ")
    assert [r.id for r in records()] == ["r3", "r4", "r5"]


def test_forget_says_that_an_import_brings_records_back():
    with Personalizer.open(create=True) as me:
        me.add([
            Record("text", "One", "note_title", "r1", source="markdown:/home/ada/notes"),
            Record("other", "Two", "note_title", "r2", source="add"),
            Record("more", "Three", "note_title", "r3", source="app:mail"),
            Record("piped", "Four", "note_title", "r4", source="jsonl:-"),
        ])  # fmt: skip
    told = call("forget", "r1", "--yes")
    assert "Importing markdown:/home/ada/notes again brings them back" in told.stderr
    assert "again" not in call("forget", "r2", "r3", "r4", "--yes").stderr


@pytest.mark.usefixtures("history")
def test_forget_task_takes_it_whole_and_leaves_its_file():
    file = find_paths().tasks / "note_title.toml"
    file.parent.mkdir(parents=True)
    file.write_text('kind = "text"\ndo = "Write a title."\nask = "Text"\nanswer = "Title"\n')
    told = call("forget", "--task", "Note-Title", "--dry-run")
    assert told.stdout.startswith("Would be forgotten: 2 records, ")
    assert len(records()) == 5

    told = call("forget", "--task", "note_title")
    assert (told.exit_code, len(records())) == (1, 5)
    assert "Erase all 2 records of task note_title of me for good" in told.stderr

    told = call("forget", "--task", "note_title", "--yes")
    assert told.stdout.startswith("Forgotten: 2 records, ")
    assert f"{file}, which describes the task, stays." in told.stderr
    assert [r.task for r in records()] == ["chat", "chat", "chat"]
    told = call("forget", "--task", "note_title", "--yes")
    assert (told.exit_code, "nothing of task 'note_title'" in told.stderr) == (1, True)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("args", [("r1",), ("--source", "a"), ("--all",)])
def test_forget_task_goes_with_nothing_else(args):
    assert call("forget", "--task", "chat", *args, "--yes").exit_code == 2
    assert len(records()) == 5


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture
def taught():
    """A user whose heads learned from six records."""
    with Personalizer.open(create=True) as me:
        me.add(Record(f"text about {i} things", f"Title {i}", "note_title", f"r{i}", float(i))
               for i in range(6))  # fmt: skip
        me.fit_head("note_title", use_llm=False)


@pytest.mark.usefixtures("taught")
def test_forget_interrupted_while_heads_are_fitted_again_prints_the_receipt(monkeypatch):
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", interrupt)
    result = call("forget", "r1", "--yes")

    assert result.exit_code == 130
    assert result.stdout.startswith("Forgotten: 1 record, ")
    assert "now fitted again" not in result.stdout
    assert "heads not fitted again: hydra-edge fit-head --task note_title" in result.stderr
    assert "r1" not in [r.id for r in records()]


@pytest.mark.usefixtures("taught")
def test_forget_task_takes_its_heads_along():
    told = call("forget", "--task", "note_title", "--yes", "--json")
    payload = json.loads(told.stdout)
    assert (told.exit_code, payload["records"], payload["tasks"]) == (0, 6, [])
    assert (payload["heads"], payload["task_file"]) == (1, None)
    assert heads_now() == set()


@pytest.mark.usefixtures("taught")
def test_forget_interrupted_json_is_the_receipt_with_what_is_missing(monkeypatch):
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", interrupt)
    result = call("forget", "r1", "--yes", "--json")
    payload = json.loads(result.stdout)

    assert result.exit_code == 130
    assert (payload["records"], payload["tasks"]) == (1, ["note_title"])
    assert (payload["interrupted"], payload["not_fitted"]) == (True, ["note_title"])


def reading_meanwhile(*args):
    """Run a command while another program reads the history, for which it hardly waits."""

    def opener(*given, **flags):
        me = Personalizer.open(*given, **flags)
        me.store._db.connection.execute("PRAGMA busy_timeout = 10")
        return me

    reader = sqlite3.connect(find_paths().user_file("me"))
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM records").fetchone()
    try:
        return call(*args, opener=opener)
    finally:
        reader.close()


def heads_now():
    with Personalizer.open() as me:
        return {(head.role, head.stale) for head in me.store.heads()}


@pytest.mark.usefixtures("taught")
def test_forget_whose_bytes_may_remain_prints_the_receipt_and_fits_again():
    result = reading_meanwhile("forget", "r1", "--yes")

    assert result.exit_code == 1
    assert result.stdout.startswith("Forgotten: 1 record, ")
    assert "now fitted again: note_title" in result.stdout
    assert "its bytes may remain in" in result.stderr
    assert {stale for _, stale in heads_now()} == {False}
    assert "r1" not in [r.id for r in records()]


@pytest.mark.usefixtures("taught")
def test_forget_whose_bytes_may_remain_and_whose_heads_cannot_be_fitted_says_both(monkeypatch):
    def fail(*_, **__):
        raise StoreError("no space is left on its disk.")

    monkeypatch.setattr("hydra_edge.forgetting.fit_task", fail)
    result = reading_meanwhile("forget", "r1", "--yes")

    assert (result.exit_code, "now fitted again" in result.stdout) == (1, False)
    assert "its bytes may remain in" in result.stderr
    assert "Besides, the heads of note_title could not be fitted again: no space" in result.stderr


@pytest.mark.usefixtures("taught")
def test_forget_whose_bytes_may_remain_json_is_the_receipt_with_the_error():
    result = reading_meanwhile("forget", "r1", "--yes", "--json")
    payload = json.loads(result.stdout)

    assert result.exit_code == 1
    assert (payload["records"], payload["tasks"]) == (1, ["note_title"])
    assert payload["error"]["code"] == "bytes_remain"


@pytest.mark.parametrize("choices", [(), ("--choices",)])
def test_clear_log_whose_bytes_may_remain_says_how_much_is_deleted(choices):
    with Personalizer.open(create=True) as me:
        me.add(Record(f"text about {i} things", f"Title {i}", "note_title", f"r{i}", float(i))
               for i in range(6))  # fmt: skip
        pool = (Candidate("one", count=1, greedy=True), Candidate("two"))
        put_choice(me.store, "g", "note_title", "a query", candidates=pool, picked=1, text="two")
        me.fit_head("note_title", use_llm=False)
    result = reading_meanwhile("history", "clear-log", "--yes", "--json", *choices)
    payload = json.loads(result.stdout)

    assert (result.exit_code, payload["error"]["code"]) == (1, "bytes_remain")
    assert payload["cleared"] == len(choices)
    assert True not in {stale for _, stale in heads_now()}


@pytest.mark.usefixtures("taught")
@pytest.mark.parametrize(("flags", "quiet"), [((), False), (("--json",), True)])
def test_forget_shows_people_how_far_it_is(monkeypatch, flags, quiet):
    shown = []

    @contextmanager
    def bar(*, quiet=False):
        yield lambda stage, *_: shown.append((stage, quiet))

    monkeypatch.setattr("hydra_edge.cli.output.progress", bar)
    monkeypatch.setattr("hydra_edge.store.traces._TOLD_EACH", 1)
    with Personalizer.open() as me:
        for i in range(3):
            me.store.log_generation(generation_of(str(i), "asked", "an answer"), "m")

    assert call("forget", "r1", "--yes", *flags).exit_code == 0
    assert ("answers", quiet) in shown


@pytest.mark.usefixtures("taught")
def test_forget_interrupted_before_anything_is_erased_writes_nothing(monkeypatch):
    monkeypatch.setattr("hydra_edge.store.Store.forget", interrupt)
    result = call("forget", "r1", "--yes")

    assert (result.exit_code, result.stdout) == (130, "")
    assert len(records()) == 6


@pytest.mark.usefixtures("history")
def test_forget_source_is_erased_as_a_whole():
    receipt = json.loads(call("forget", "--source", "b", "--yes", "--json").stdout)

    assert receipt["records"] == 3
    assert {r.source for r in records()} == {"a"}


@pytest.mark.usefixtures("history")
def test_forget_unknown_id_among_others_erases_nothing():
    assert call("forget", "r1", "r9", "--yes").exit_code == 1
    assert len(records()) == 5


@pytest.mark.usefixtures("history")
def test_forget_all_removes_the_file_even_a_damaged_one(home):
    path = home / "users" / "me.db"
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * 4096)
    result = call("forget", "--all", "--yes", "--json")

    assert json.loads(result.stdout) == {"user": "me", "forgotten": True, "apps_removed": []}
    assert list((home / "users").iterdir()) == []


def test_forget_all_takes_the_tokens_of_the_users_apps_along():
    for user, app in (("ada", "mail"), ("ada", "editor"), ("bob", "viewer")):
        call("add", "a text", "a title", "--user", user)
        call("serve", "token", "add", app, "--user", user)
    result = call("forget", "--all", "--user", "ada", "--yes")

    assert result.stdout.replace("\n", " ").strip() == (
        "Forgotten: everything about ada. The tokens of these apps open nothing any more: editor, "
        "mail."
    )
    listed = json.loads(call("serve", "token", "list", "--json").stdout)
    assert [app["app"] for app in listed["apps"]] == ["viewer"]
    told = json.loads(call("forget", "--all", "--user", "bob", "--yes", "--json").stdout)
    assert told == {"user": "bob", "forgotten": True, "apps_removed": ["viewer"]}


@pytest.mark.usefixtures("history")
def test_forget_all_forgets_though_the_tokens_cannot_be_read_and_says_so(home):
    call("serve", "token", "add", "mail")
    (file,) = home.rglob("apps.json")
    file.write_text("no tokens")
    result = call("forget", "--all", "--yes")

    assert result.exit_code == 1
    assert "Forgotten: everything about me." in result.stdout
    assert "is damaged" in result.stderr
    assert list((home / "users").iterdir()) == []


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "args", [(), ("r1", "--all"), ("r1", "--source", "a"), ("--all", "--source", "a")]
)
def test_forget_unclear_orders_are_a_usage_error(args):
    assert call("forget", *args, "--yes").exit_code == 2
    assert len(records()) == 5


@pytest.mark.usefixtures("history")
def test_clear_log_nothing_logged_says_so():
    assert json.loads(call("history", "clear-log", "--yes", "--json").stdout) == {"cleared": 0}


@pytest.mark.usefixtures("history")
def test_clear_log_with_choices_erases_those_nothing_was_kept_of():
    with Personalizer.open() as me:
        put_choice(me.store, "g", "chat", "asked", text="taken")
    assert json.loads(call("history", "clear-log", "--yes", "--json").stdout) == {"cleared": 0}
    told = call("history", "clear-log", "--choices", "--yes", "--json")
    assert json.loads(told.stdout) == {"cleared": 1, "heads_dropped": []}


@pytest.fixture
def answered(monkeypatch):
    answer_twice(monkeypatch)


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize(
    "moment", ["2026-01-31", "20260131", "2026-01-31T01:00+01:00", "1769817600"]
)
def test_clear_log_before_a_date_leaves_later_answers_and_choices(moment):
    told = call("history", "clear-log", "--before", moment, "--yes", "--json")
    assert json.loads(told.stdout) == {"cleared": 1, "before": 1769817600.0}
    assert logged() == (["b"], ["a", "b"])
    told = call("history", "clear-log", "--choices", "--before", moment, "--yes", "--json")
    assert json.loads(told.stdout)["cleared"] == 1
    assert logged() == (["b"], ["b"])


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("moment", ["", " ", "2026", "yesterday", "1769817600000"])
def test_clear_log_before_what_is_no_moment_is_a_usage_error_and_erases_nothing(moment):
    result = call("history", "clear-log", "--before", moment, "--yes")
    assert result.exit_code == 2
    assert "expected unix seconds" in result.stderr.replace("\n", " ")
    assert logged() == (["a", "b"], ["a", "b"])


@pytest.mark.usefixtures("answered")
def test_clear_log_before_a_date_asks_with_the_moment_that_it_understood():
    result = call("history", "clear-log", "--before", "2026-01-31")
    assert result.exit_code == 1
    assert f"from before {views.when(1769817600.0)}?" in result.stderr
    assert logged() == (["a", "b"], ["a", "b"])
