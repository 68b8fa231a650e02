"""History looked at, and taken elsewhere, in a real file of a real user."""

import json
import os
import pty
import stat
import subprocess
import sys

import cli_runner
import pytest
from cli_runner import call, records
from filled_store import put_choice

from hydra_edge.cli import views
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import ForgetReceipt, Record

_own_folder, history = cli_runner.own_folder, cli_runner.history


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
        put_choice(me.store, "g", "chat", "asked", picked=0)
        told = call("history", "backup", "kept.db", "--json")
    kept = tmp_path / "kept.db"
    assert json.loads(told.stdout) == {
        "user": "me", "file": "kept.db", "records": 5, "bytes": kept.stat().st_size,
        "task_files": [],
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
