"""`history backup` and `history restore`, with what lies outside a person's file."""

import json
import shutil

import cli_runner
import pytest
from cli_runner import call, loaded, records

from hydra_edge.paths import find_paths
from hydra_edge.store import Store, restore
from hydra_edge.types import Record

_own_folder, history = cli_runner.own_folder, cli_runner.history
TASK = 'kind = "label"\nlabels = ["a", "b"]\n'


@pytest.fixture
def backup(history, tmp_path):
    """Back five records up, with a task of one's own, and add one."""
    write_task("note_title", TASK)
    write_task("somebody_elses", TASK)
    call("config", "set", "candidates", "4")
    told = call("history", "backup", "kept.db")
    assert ", 1 task file, " in told.stdout
    assert "Settings are not in it: cp " in told.stderr
    assert call("add", "said since", "new", "-t", "chat").exit_code == 0
    return tmp_path / "kept.db"


def write_task(name, text):
    folder = find_paths().tasks
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)


def beside():
    return sorted(part.name for part in find_paths().users.iterdir())


def test_history_restore_brings_the_backup_back_and_says_where_the_rest_is(backup, history):
    assert len(records()) == 6
    done = call("history", "restore", "kept.db", "--yes")
    assert done.exit_code == 0, done.output
    assert "there now" in done.stdout
    assert done.stdout.splitlines()[-1] == "me: 5 records, 0 choices, 0 heads restored from kept.db"
    (kept,) = restore.kept_copies(find_paths().user_file("me"))
    assert f"What was there is kept as {kept}." in done.stderr
    assert "Settings" not in done.stderr
    assert records() == history
    assert call("history", "restore", str(kept), "--yes").exit_code == 0
    assert len(records()) == 6


def test_history_restore_dry_run_only_tells(backup):
    before = beside()
    told = loaded("history", "restore", "kept.db", "--dry-run", "--json")
    assert told["dry_run"]
    assert (told["before"]["records"], told["backup"]["records"], told["kept"]) == (6, 5, None)
    assert told["task_files"] == {"written": [], "differs": [], "unusable": []}
    assert call("history", "restore", "kept.db", "--dry-run").stderr == "Nothing was changed.\n"
    assert (beside(), len(records())) == (before, 6)


def test_history_restore_asks_with_what_both_hold(backup):
    asked = call("history", "restore", "kept.db")
    assert asked.exit_code == 1
    assert (
        "Replace the 6 records, 0 choices, 0 heads of me by the 5 records, 0 choices, 0 heads of "
        "kept.db? Nobody is here to answer. Add --yes to go on."
    ) in asked.stderr
    assert len(records()) == 6


def test_history_restore_on_a_new_device_brings_task_files_along(backup, history, home):
    shutil.rmtree(home)
    done = call("history", "restore", "kept.db", "--user", "ada", "--yes")
    assert done.exit_code == 0, done.output
    assert records("ada") == history
    assert beside() == ["ada.db"]
    assert "Task files written: note_title" in done.stderr
    assert f"copy the other device's to {find_paths().config_file}" in done.stderr
    assert [file.name for file in find_paths().tasks.iterdir()] == ["note_title.toml"]
    assert (find_paths().tasks / "note_title.toml").read_text() == TASK


def test_history_restore_never_overwrites_a_task_file(backup):
    write_task("note_title", 'kind = "text"\n')
    done = call("history", "restore", "kept.db", "--yes")
    assert "Tasks whose file here says otherwise than the backup's, and stays: note_" in done.stderr
    assert (find_paths().tasks / "note_title.toml").read_text() == 'kind = "text"\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("../evil", TASK),
        ("evil", "kind = ["),
        ("evil", 'name = "other"'),
        ("evil", "name = 3"),
        ("taken", TASK),
    ],
)
def test_history_restore_writes_no_task_file_that_is_none(tmp_path, name, text):
    write_task("taken", 'name = "another"\n')
    with Store.open(tmp_path / "other" / "me.db") as store:
        store.add([Record("a", "b")])
        store.back_up(tmp_path / "kept.db", task_files={name: text})
    told = loaded("history", "restore", "kept.db", "--yes", "--json")
    assert told["task_files"] == {"written": [], "differs": [], "unusable": [name]}
    assert [file.name for file in find_paths().tasks.iterdir()] == ["taken.toml"]
    assert not list(tmp_path.rglob("evil.toml"))


def test_history_restore_while_the_history_is_in_use_says_what_to_end(backup, monkeypatch):
    monkeypatch.setattr(restore, "_WAIT_S", 0.0)
    with Store.open(find_paths().user_file("me")) as other:
        other.count()
        refused = call("history", "restore", "kept.db", "--yes", "--json")
    assert refused.exit_code == 1
    assert "another program has it open" in json.loads(refused.stdout)["error"]["message"]
    assert len(records()) == 6


def test_history_restore_of_a_damaged_history_is_what_its_error_says(backup, history):
    find_paths().user_file("me").write_bytes(b"dear diary " * 500)
    assert "`hydra-edge history restore BACKUP`" in call("history", "list").stderr
    done = call("history", "restore", "kept.db", "--yes")
    assert done.exit_code == 0
    assert "What is there cannot be read: " in done.stderr
    assert records() == history


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("-",), 2, "is stdin; expected a file"),
        (("nothing.db",), 1, "got nothing of that name"),
        (("kept.db", "-u", "../evil"), 1, "cannot be used"),
    ],
)
def test_history_restore_of_nothing_says_so(args, code, said):
    result = call("history", "restore", *args, "--yes")
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())


def test_doctor_names_what_a_restore_kept(backup):
    call("history", "restore", "kept.db", "--yes")
    (kept,) = restore.kept_copies(find_paths().user_file("me"))
    found = json.loads(call("doctor", "--json").stdout)["findings"]
    (detail,) = (finding["detail"] for finding in found if finding["name"] == "user me")
    assert f"kept from before a restore: {kept}" in detail


def test_history_restore_interrupted_says_how_to_see_which_is_there(backup, monkeypatch):
    def stop(*_given, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "restore", stop)
    stopped = call("history", "restore", "kept.db", "--yes", "-u", "me")
    assert stopped.exit_code == 130
    assert (
        "Interrupted: one of both is there, whole. Which one, hydra-edge history restore kept.db "
        "--dry-run --user me shows."
    ) in stopped.stderr


def test_forget_all_takes_what_a_restore_kept(backup):
    call("history", "restore", "kept.db", "--yes")
    assert len(beside()) == 2
    assert call("forget", "--all", "--yes").exit_code == 0
    assert beside() == []
