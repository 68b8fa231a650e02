"""History in, looked at, out and away, against a real file of a real user."""

import json
import os
import signal
import stat

import pytest
from typer.testing import CliRunner

from hydra_edge.cli.app import app
from hydra_edge.config import find_paths, load_config
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record

GOOD = '{"input": "a text", "output": "a title", "id": "one", "task": "note_title", "time": 5}\n'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("HYDRA_EDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def call(*args, text=None, opener=None):
    return CliRunner().invoke(app, list(args), input=text, obj=opener, prog_name="hydra-edge")


def records(user="me"):
    with Store.open(find_paths().user_file(user), create=False) as store:
        return store.records()


# ---- import


def test_import_jsonl_good_lines_are_kept_and_bad_ones_told_by_number(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD + "not json\n" + '{"input": "", "output": "x"}\n')
    result = call("import", "jsonl", "h.jsonl", "-u", "ada")

    assert result.exit_code == 0
    assert "line 2: not JSON" in result.stderr
    assert result.stdout == (
        "ada: 1 added, 0 updated, 0 unchanged; 1 skipped (1 empty input); 1 line unreadable; "
        "0 LLM calls\n"
    )
    assert [r.id for r in records("ada")] == ["one"]


def test_import_again_changes_nothing(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD)
    call("import", "jsonl", "h.jsonl")

    assert "0 added, 0 updated, 1 unchanged" in call("import", "jsonl", "h.jsonl").stdout


def test_import_json_reports_all_of_it(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD + "[]\n" * 30)
    payload = json.loads(call("import", "jsonl", "h.jsonl", "--json").stdout)

    assert (payload["added"], payload["read"], payload["bad_total"]) == (1, 1, 30)
    assert len(payload["bad"]) == 30
    assert payload["bad"][0]["number"] == 2
    assert payload["bad"][0]["reason"].endswith("expected an object")
    assert payload["llm_calls"] == 0


def test_import_many_bad_lines_only_the_first_are_listed(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD + "[]\n" * 30)
    result = call("import", "jsonl", "h.jsonl")

    assert result.stderr.count("expected an object") == 20
    assert "and 10 more" in result.stderr


def test_import_dry_run_stores_nothing_and_shows_samples(tmp_path, home):
    lines = [{"input": f"text {i}", "output": f"title {i}"} for i in range(5)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = call("import", "jsonl", "h.jsonl", "--dry-run")

    assert "Would read 5 records" in result.stdout
    assert result.stdout.count("->") == 3
    assert not home.exists()


@pytest.mark.parametrize("text", ["", "not json\n", '{"input": "", "output": "x"}\n'])
def test_import_nothing_readable_is_exit_1_and_makes_no_file(tmp_path, home, text):
    (tmp_path / "h.jsonl").write_text(text)

    assert call("import", "jsonl", "h.jsonl").exit_code == 1
    assert not home.exists()


def test_import_missing_file_is_one_line_and_exit_1(home):
    result = call("import", "jsonl", "nowhere.jsonl")

    assert result.exit_code == 1
    assert "nowhere.jsonl cannot be read" in result.stderr
    assert not home.exists()


def test_import_columns_are_mapped_from_stdin():
    result = call(
        "import", "csv", "-", "--input", "abstract", "--output", "title", "--id", "doi",
        "--time", "date", "-t", "Paper-Title", "--private",
        text="doi;date;abstract;title\n10/x;2024-01-02;We study it.;A Study\n",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    [record] = records()
    assert (record.id, record.input, record.output) == ("10/x", "We study it.", "A Study")
    assert (record.task, record.time, record.private) == ("paper_title", 1704153600.0, True)


def test_import_markdown_and_git_and_lamp_reach_their_importers(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a-note.md").write_text("# My note\n\nIts text.\n")
    questions = [{"id": "1", "input": "q", "profile": [{"id": "p", "abstract": "a", "title": "t"}]}]
    (tmp_path / "lamp.json").write_text(json.dumps(questions))

    assert "1 added" in call("import", "markdown", "notes").stdout
    assert "1 added" in call("import", "lamp", "lamp.json", "--task", "paper_title").stdout
    assert "not" in call("import", "git", "notes").stderr
    assert {r.output for r in records()} == {"My note", "t"}


def test_import_mail_is_private_unless_said_otherwise(tmp_path):
    (tmp_path / "Sent").write_text(
        "From a@example.org Mon Jan  1 00:00:00 2024\nFrom: a@example.org\nSubject: Lunch\n"
        "Message-ID: <1@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n"
        "Shall we eat at one?\n\n"
    )
    assert "1 added" in call("import", "mbox", "Sent", "--me", "a@example.org").stdout
    assert [r.private for r in records()] == [True]
    call("import", "mbox", "Sent", "--me", "a@example.org", "--public", "-u", "ada")
    assert [r.private for r in records("ada")] == [False]


def test_import_interrupted_keeps_whole_records_and_says_how_many(tmp_path):
    lines = [json.dumps({"input": f"text {i}", "output": f"title {i}"}) for i in range(100)]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))

    class Interrupted(Personalizer):
        def add(self, new, *, progress=None):
            def stopping():
                for count, record in enumerate(new, start=1):
                    yield record
                    if count == 7:
                        signal.raise_signal(signal.SIGINT)

            return super().add(stopping(), progress=progress)

    before = signal.getsignal(signal.SIGINT)
    result = call("import", "jsonl", "h.jsonl", opener=Interrupted.open)

    assert result.exit_code == 130
    assert "7 added" in result.stdout
    assert "Interrupted" in result.stderr
    assert [r.output for r in records()] == [f"title {i}" for i in range(7)]
    assert signal.getsignal(signal.SIGINT) is before


def test_import_source_breaking_off_keeps_what_came_before(tmp_path, monkeypatch):
    from hydra_edge import importers
    from hydra_edge.errors import ImportFormatError

    def broken(path, log, **_):
        for number in range(3):
            log.read += 1
            yield Record(f"text {number}", "title")
        raise ImportFormatError("The disk went away.")

    monkeypatch.setattr(importers, "read_jsonl", broken)
    result = call("import", "jsonl", "h.jsonl")

    assert result.exit_code == 1
    assert "error: The disk went away." in result.stderr
    assert "3 added" in result.stdout
    assert len(records()) == 3


# ---- history


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


def test_history_export_is_read_back_losslessly(tmp_path, history):
    result = call("history", "export", "out.jsonl")

    assert result.exit_code == 0, result.output
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert call("import", "jsonl", "out.jsonl", "-u", "copy").exit_code == 0
    plain = [(r.id, r.input, r.output, r.task, r.time, r.private) for r in records("copy")]
    assert plain == [(r.id, r.input, r.output, r.task, r.time, r.private) for r in history]


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

    assert json.loads(result.stdout) == {"user": "me", "forgotten": True}
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


# ---- settings


def test_config_set_is_read_back(home):
    assert call("config", "set", "candidates", "4").exit_code == 0
    assert call("config", "get", "candidates").stdout == "4\n"
    assert json.loads(call("config", "list", "--json").stdout)["candidates"] == 4
    assert "candidates*" in call("config", "list").stdout
    assert call("config", "path").stdout == f"{home / 'config.toml'}\n"
    assert load_config(find_paths()).candidates == 4


@pytest.mark.parametrize("args", [("get", "nonsense"), ("set", "nonsense", "1"),
                                  ("set", "candidates", "many")])  # fmt: skip
def test_config_unusable_setting_is_exit_1(args):
    assert call("config", *args).exit_code == 1


@pytest.mark.usefixtures("history")
def test_users_lists_everyone_and_marks_damage(home):
    (home / "users" / "broken.db").write_bytes(b"not a database, but long enough to look" * 50)
    users = {u["user"]: u for u in json.loads(call("users", "--json").stdout)["users"]}

    assert users["me"]["records"] == 5
    assert users["me"]["default"] is True
    assert users["broken"]["records"] is None
    assert "damaged" in call("users").stdout


def test_tasks_without_any_user_are_listed():
    tasks = json.loads(call("tasks", "list", "--json").stdout)["tasks"]

    assert {"commit_subject", "general"} <= {t["task"] for t in tasks}
    assert all(t["records"] == 0 for t in tasks)


@pytest.mark.usefixtures("history")
def test_tasks_those_in_use_come_first():
    assert json.loads(call("tasks", "list", "--json").stdout)["tasks"][0]["task"] == "chat"


def test_tasks_show_own_task_file_wins(home):
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / "haiku.toml").write_text('instruction = "Write a haiku."\n')

    assert "Write a haiku." in call("tasks", "show", "haiku").stdout
    assert json.loads(call("tasks", "show", "haiku", "--json").stdout)["name"] == "haiku"
    assert call("tasks", "path").stdout == f"{home / 'tasks'}\n"
    assert "haiku" in call("tasks", "list").stdout


def test_tasks_show_unknown_task_is_exit_1():
    result = call("tasks", "show", "nonsense")

    assert result.exit_code == 1
    assert "Known tasks" in result.stderr
