"""History looked at, out and away, in a real file of a real user."""

import json
import os
import pty
import sqlite3
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest
from cli_runner import call, loaded, records
from filled_store import generation_of

from hydra_edge.cli import views
from hydra_edge.config import find_paths
from hydra_edge.errors import StoreError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Candidate, ForgetReceipt, Record


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Let these tests run in a folder of their own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def history():
    """Five records of two tasks and two sources."""
    new = [
        Record("first text", "First", "note_title", "r1", 1.0, False, "a"),
        Record("second text\x1b[2J", "Second [bold]", "note_title", "r2", 2.0, True, "a"),
        Record("third text", "Third", "chat", "r3", 3.0, False, "b"),
        Record("日本語のテキスト", "見出し 😀", "chat", "r4", 4.0, False, "b"),
        Record("שלום", "עולם\nשורה", "chat", "r5", None, False, "b"),
    ]
    with Personalizer.open(create=True) as me:
        me.add(new)
    return new


@pytest.mark.usefixtures("history")
def test_history_list_is_newest_first_and_filtered():
    listed = json.loads(call("history", "list", "--json", "-n", "2").stdout)
    titles = json.loads(call("history", "list", "--json", "-t", "Note-Title").stdout)

    assert [r["id"] for r in listed["records"]] == ["r5", "r4"]
    assert listed["total"] == 5
    assert [r["id"] for r in titles["records"]] == ["r2", "r1"]
    assert titles["total"] == 2


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("flags", "total"),
    [
        (("--source", "a"), 2),
        (("--source", "b", "-n", "1"), 3),
        (("--source", "b", "-t", "chat"), 3),
        (("--source", "a", "--offset", "9"), 2),
    ],
)
def test_history_list_of_a_source_counts_that_source(flags, total):
    assert json.loads(call("history", "list", *flags, "--json").stdout)["total"] == total
    assert f"shown of {total} records" in call("history", "list", *flags).stderr


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-t", "nonsense"), "No record of task 'nonsense'; tasks: chat, note_title."),
        (("--source", "c"), "No record comes from 'c'; sources: b, a."),
        (("-t", "chat", "--source", "a"), "No record of task 'chat' comes from 'a'."),
    ],
)
def test_history_list_of_what_is_not_there_is_an_error(flags, said):
    listed, exported = call("history", "list", *flags), call("history", "export", *flags)
    assert (listed.exit_code, listed.stdout) == (1, "")
    assert said in listed.stderr
    assert listed.stderr == exported.stderr


@pytest.mark.usefixtures("history")
def test_history_list_for_people_marks_private_ones():
    result = call("history", "list", "--source", "a")

    assert "note_title (private)" in result.stdout
    assert "Second [bold] <- second text" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.usefixtures("history")
def test_history_show_prints_texts_in_full():
    result = call("history", "show", "r5")

    assert result.exit_code == 0
    assert "עולם\nשורה" in result.stdout
    assert json.loads(call("history", "show", "r5", "--json").stdout)["time"] is None


@pytest.mark.usefixtures("history")
def test_history_show_unknown_id_is_exit_1():
    result = call("history", "show", "r9", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "record_not_found"


@pytest.mark.usefixtures("history")
def test_history_search_finds_words_of_outputs():
    found = json.loads(call("history", "search", "third", "--json").stdout)

    assert [r["id"] for r in found["records"]] == ["r3"]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "name", ["c" * 36 + ":" + "d" * 36, "e" * 40 + "~abcdef", "notes/" + "long name/" * 15 + "a.md"]
)
def test_history_list_ids_can_be_copied(name):
    with Personalizer.open() as me:
        me.add([Record("asked", "written", "asked", name)])
    listed = call("history", "list", "-n", "2").stdout.splitlines()[1:]

    assert listed[0].startswith(f"{name}  ")
    assert call("history", "show", name).stdout.startswith(f"{name}  asked")
    assert call("history", "search", "asked").stdout.splitlines()[1].startswith(f"{name}  ")


def test_history_list_ids_of_a_chat_export_can_be_copied(tmp_path):
    def node(name, role, parent):
        said = {"content_type": "text", "parts": [f"said by {role}"]}
        message = {"id": name, "author": {"role": role}, "content": said, "create_time": 5.5}
        return {"id": name, "message": message, "parent": parent, "children": []}

    chat, question, answer = (f"{i}b0c3d4e-0000-4000-8000-123456789abc" for i in (1, 2, 3))
    nodes = {question: node(question, "user", None), answer: node(answer, "assistant", question)}
    nodes[question]["children"] = [answer]
    whole = [{"id": chat, "create_time": 9, "current_node": answer, "mapping": nodes}]
    (tmp_path / "conversations.json").write_text(json.dumps(whole))
    assert call("import", "chatgpt", "conversations.json").exit_code == 0

    copied = [line.split("  ")[0] for line in call("history", "list").stdout.splitlines()[1:]]
    assert [len(name) for name in copied] == [73]
    for command in (("history", "show"), ("history", "private"), ("forget", "--yes")):
        assert call(*command, *copied).exit_code == 0


def test_history_export_is_read_back_losslessly(tmp_path, history):
    result = call("history", "export", "out.jsonl")

    assert result.exit_code == 0, result.output
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert call("import", "jsonl", "out.jsonl", "-u", "copy").exit_code == 0
    plain = [(r.id, r.input, r.output, r.task, r.time, r.private) for r in records("copy")]
    assert plain == [(r.id, r.input, r.output, r.task, r.time, r.private) for r in history]


def test_history_export_of_long_and_spaced_ids_is_read_back_losslessly():
    name = "n" * 200
    new = [
        Record("one", "x", "chat", name, 1.0, False, "jan"),
        Record("two", "y", "chat", name, 2.0, True, "feb"),
        Record("three", "z", "chat", " a b ", 3.0),
    ]
    beside = f"{name}~{new[1].content_hash[:6]}"
    with Personalizer.open(create=True) as me:
        me.add(new)
        assert [r.id for r in me.store.records()] == [name, beside, "a b"]
        me.add([Record("third", "z", "chat", beside, 4.0, source="mar")])
    call("history", "export", "out.jsonl")
    told = call("import", "jsonl", "out.jsonl", "-u", "copy", "--json")

    assert json.loads(told.stdout)["bad"] == []
    kept = [[(r.id, r.input, r.private) for r in records(user)] for user in ("me", "copy")]
    assert len(kept[0]) == 4
    assert kept[0] == kept[1]
    assert "unchanged" in call("import", "jsonl", "out.jsonl", "-u", "copy").stdout
    assert len(records("copy")) == 4


# ---- backups


def test_history_backup_restored_is_the_whole_history(tmp_path, home, history):
    with Personalizer.open() as me:
        me.store.put_choice("g", "chat", "asked", [Candidate("x")], (), 0, "x", None)
        told = call("history", "backup", "kept.db", "--json")
    kept = tmp_path / "kept.db"
    assert json.loads(told.stdout) == {
        "user": "me", "file": "kept.db", "records": 5, "bytes": kept.stat().st_size,
    }  # fmt: skip
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    for part in (home / "users").iterdir():
        part.unlink()
    (home / "users" / "me.db").write_bytes(kept.read_bytes())
    assert records() == history
    with Personalizer.open() as me:
        assert len(me.store.choices()) == 1
        assert me.store.check() == []


@pytest.mark.usefixtures("history")
def test_history_backup_replaces_a_file_only_if_told_to(tmp_path):
    (tmp_path / "kept.db").write_text("the one before")
    refused = call("history", "backup", "kept.db")

    assert refused.exit_code == 1
    assert "a file of that name is there; expected none" in refused.stderr
    assert (tmp_path / "kept.db").read_text() == "the one before"
    done = call("history", "backup", "kept.db", "--force")
    assert done.stdout.startswith("me: 5 records and all made of them, 0.1 MB, written to kept.db")
    assert len(call("history", "backup", "kept.db", "--force").stderr) == 0


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("-",), 2, "is stdout; expected a file"),
        (("none/kept.db",), 1, "No such file or directory"),
        (("kept.db", "-u", "nobody"), 1, "Known users: me"),
    ],
)
def test_history_backup_to_nowhere_says_so(tmp_path, args, code, said):
    result = call("history", "backup", *args)

    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.usefixtures("history")
def test_history_export_to_stdout_equals_the_file(tmp_path):
    call("history", "export", "out.jsonl", "-t", "chat")

    assert call("history", "export", "-t", "chat").stdout == (tmp_path / "out.jsonl").read_text()


@pytest.mark.usefixtures("history")
def test_history_export_unwritable_place_is_one_line():
    result = call("history", "export", "missing/out.jsonl")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: Cannot write missing/out.jsonl")


@pytest.mark.usefixtures("history")
def test_history_private_is_set_and_taken_back():
    assert json.loads(call("history", "private", "r1", "r2", "--json").stdout) == {"changed": 1}
    assert [r.private for r in records()][:2] == [True, True]
    call("history", "private", "r1", "--off")
    assert records()[0].private is False


@pytest.mark.usefixtures("history")
def test_history_sources_are_counted():
    assert json.loads(call("history", "sources", "--json").stdout) == {"sources": {"b": 3, "a": 2}}


def test_history_unknown_user_lists_those_that_exist(history):
    result = call("history", "list", "-u", "nobody")

    assert history
    assert result.exit_code == 1
    assert "Known users: me" in result.stderr


@pytest.mark.usefixtures("history")
def test_history_private_takes_a_whole_source():
    told = call("history", "private", "--source", "b", "--json")
    assert json.loads(told.stdout) == {"changed": 3}
    assert [r.id for r in records() if r.private] == ["r2", "r3", "r4", "r5"]
    call("history", "private", "--source", "b", "--off")
    assert [r.id for r in records() if r.private] == ["r2"]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "expected ids of records, or --source"),
        (("r1", "--source", "a"), 2, "expected ids of records, or --source"),
        (("--source", "c"), 1, "No record comes from 'c'; sources: b, a."),
    ],
)
def test_history_private_unclear_orders_change_nothing(args, code, said):
    result = call("history", "private", *args)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert [r.id for r in records() if r.private] == ["r2"]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("lost", ["id > 10", "id = 10", "id = 1"])
def test_history_reindex_mends_what_is_damaged(lost):
    with Personalizer.open() as me:
        me.store._db.connection.execute(f"DELETE FROM records_fts_data WHERE {lost}")
        me.store._db.connection.commit()
    assert call("history", "reindex").stdout == "5 records indexed\n"
    with Personalizer.open() as me:
        assert me.store.check() == []
    found = json.loads(call("history", "search", "third", "--json").stdout)
    assert [r["id"] for r in found["records"]] == ["r3"]


# ---- forget


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
        me.store.put_choice("g", "note_title", "a query", pool, (), 1, "two", None)
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
        me.store.put_choice("g", "chat", "asked", [Candidate("x")], (), None, "taken", None)
    assert json.loads(call("history", "clear-log", "--yes", "--json").stdout) == {"cleared": 0}
    told = call("history", "clear-log", "--choices", "--yes", "--json")
    assert json.loads(told.stdout) == {"cleared": 1, "heads_dropped": []}


@pytest.fixture
def answered(monkeypatch):
    """Answers of the 30th and the 31st of January, and an own choice of each."""
    for id_, moment in (("a", 1769731200.0), ("b", 1769817600.0)):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        with Personalizer.open(create=True) as me:
            me.store.log_generation(generation_of(id_, "asked", "x"), "m")
            me.store.put_choice(id_, "chat", "asked", [Candidate("x")], (), None, "taken", None)


def logged():
    with Personalizer.open() as me:
        kept = [id_ for id_ in "ab" if me.store.generation(id_) is not None]
        return kept, [choice.generation_id for choice in me.store.choices()]


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


# ---- the log looked at


@pytest.mark.usefixtures("answered")
def test_history_log_lists_answers_newest_first():
    told = loaded("history", "log", "--json")
    assert [entry["id"] for entry in told["answers"]] == ["b", "a"]
    assert (told["total"], told["left_out"]) == (2, 0)
    assert set(told["answers"][0]) == {
        "id", "text", "task", "query", "model", "time", "candidates",
    }  # fmt: skip
    assert told["answers"][0]["time"] == 1769817600.0

    shown = call("history", "log", "--limit", "1")
    assert shown.stdout.splitlines()[1].split() == [
        "b", *views.when(1769817600.0).split(), "t", "asked", "->", "x",
    ]  # fmt: skip
    assert "1 shown of 2 answers" in shown.stderr
    assert loaded("history", "log", "-t", "chat", "--json")["answers"] == []


@pytest.mark.usefixtures("history")
def test_history_log_leaves_out_what_is_private_or_forgotten():
    with Personalizer.open() as me:
        kept = Record("its own query", "kept as a private answer", "t", "choice-kept", private=True)
        me.add(kept)
        for entry in (
            generation_of("plain", "asked", "x", ("r1",)),
            generation_of("names", "asked", "x", ("r1", "r2")),
            generation_of("holds", "asked", "was it kept as a  private answer?", ("r1",)),
            generation_of("kept", "its own query", "y"),
            generation_of("gone", "asked", "x", ("r3",)),
            generation_of("last", "third", "y", ("r4",)),
        ):
            me.store.log_generation(entry, "m")
    assert call("forget", "r3", "--yes").exit_code == 0

    told = loaded("history", "log", "--json")
    assert ([entry["id"] for entry in told["answers"]], told["left_out"]) == (["last", "plain"], 3)
    assert loaded("history", "log", "-n", "2", "--json") == told
    shown = call("history", "log")
    assert "2 shown of 5 answers; 3 of private records left out" in shown.stderr
    assert "answer?" not in shown.output
    every = loaded("history", "log", "--with-private", "--json")["answers"]
    assert [entry["id"] for entry in every] == ["last", "kept", "holds", "names", "plain"]
    assert call("history", "private", "r2", "choice-kept", "--off").exit_code == 0
    assert loaded("history", "log", "--json")["left_out"] == 0


@pytest.mark.usefixtures("answered")
def test_choose_with_nothing_lists_the_candidates_and_teaches_nothing():
    with Personalizer.open() as me:
        me.store.log_generation(generation_of("c", "asked", "x", sampled=("y", "z")), "m")
    choices = logged()[1]
    shown = call("choose")
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["t:", "#", "1*", "2", "3"]
    assert "Take one: hydra-edge choose N --id c" in shown.stderr
    assert "Another answer: --id ID, of hydra-edge history log" in shown.stderr
    assert [c["text"] for c in loaded("choose", "--json")["candidates"]] == ["x", "y", "z"]
    assert loaded("feedback", "--id", "a", "--json")["id"] == "a"
    assert logged()[1] == choices

    refused = call("choose", "9")
    assert refused.exit_code == 1
    assert "No candidate 9; expected 1 to 3. `hydra-edge choose` lists them." in refused.stderr
    assert "`hydra-edge choose --id a` lists them." in call("choose", "9", "--id", "a").stderr


@pytest.mark.usefixtures("history")
def test_choose_with_nothing_before_any_answer_says_so():
    result = call("choose")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Generate one first" in result.stderr


# ---- with a real terminal, and a real pipe


def at_terminal(keys, *args):
    """Run a command at a terminal of its own, answering its question; return what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "hydra_edge", *args])
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side is gone
            break
        if not piece:
            break
        shown += piece
        if keys and shown.endswith(b"[y/N]: "):
            os.write(terminal, keys)
            keys = b""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(("keys", "code", "left"), [(b"n\n", 1, 5), (b"y\n", 0, 4)])
def test_forget_at_a_terminal_asks_first(keys, code, left):
    exit_code, shown = at_terminal(keys, "forget", "r1")

    assert "Erase 1 record of me for good?" in shown
    assert exit_code == code
    assert len(records()) == left


@pytest.mark.usefixtures("history")
def test_history_show_at_a_terminal_cannot_move_the_cursor():
    code, shown = at_terminal(b"", "history", "show", "r2")

    assert code == 0
    assert "second text␛[2J" in shown
    assert "\x1b[2J" not in shown


def test_output_reader_that_goes_away_is_met_with_silence(tmp_path):
    with Personalizer.open(create=True) as me:
        me.add([Record(f"text {i} " * 20, f"title {i}") for i in range(2000)])
    command = [sys.executable, "-m", "hydra_edge", "history", "export"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_forgetting_says_that_kept_answers_went_too():
    assert "kept" not in views.receipt_line(ForgetReceipt(records=2))
    told = views.receipt_line(ForgetReceipt(records=3, repeats=2))
    assert told.endswith("Among the records: 2 answers you had kept, copied from the others.")
