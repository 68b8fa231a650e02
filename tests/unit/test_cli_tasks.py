"""The list of tasks, and what one of them is."""

import json
import signal

from cli_runner import call, loaded
from git_repository import worked_in
from store_items import make_head

from hydra_edge.personalizer import Personalizer


def test_tasks_without_any_user_are_listed():
    tasks = json.loads(call("tasks", "list", "--json").stdout)["tasks"]

    assert {"commit_subject", "general"} <= {t["task"] for t in tasks}
    assert all(t["records"] == 0 for t in tasks)


def test_tasks_those_in_use_come_first():
    call("add", "a text", "a title", "-t", "note_title")
    assert loaded("tasks", "list", "--json")["tasks"][0]["task"] == "note_title"


def test_tasks_list_tells_an_inferred_kind_as_tasks_show_does(home):
    for i in range(9):
        call("add", f"ticket {i}", ("network", "access")[i % 2], "-t", "my_teams")
    call("add", "a text", "a title", "-t", "my_titles")
    call("add", "a text", "a title", "-t", "my_broken")
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / "my_broken.toml").write_text("not toml at all\n")

    kinds = {t["task"]: t["kind"] for t in loaded("tasks", "list", "--json")["tasks"]}
    assert kinds["my_teams"] == loaded("tasks", "show", "my_teams", "--json")["kind"] == "label"
    assert kinds["my_titles"] == loaded("tasks", "show", "my_titles", "--json")["kind"] == "text"
    assert kinds["my_broken"] is None


def test_unknown_task_error_lists_the_names_that_only_records_have():
    call("add", "a ticket", "network", "-t", "my_teams")
    for words in (("tasks", "show", "my_taems"), ("rank", "a ticket", "-t", "my_taems")):
        result = call(*words)
        assert result.exit_code == 1
        assert "my_teams" in result.stderr


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


def test_tasks_rename_counts_asks_and_says_where_the_old_name_still_stands(tmp_path, monkeypatch):
    repository = worked_in(tmp_path / "repo", monkeypatch)
    repository.git("commit", "--allow-empty", "-m", "Add a file", "-m", "It holds nothing yet.")
    assert call("import", "git", ".", "-t", "garden").exit_code == 0
    call("config", "set", "task", "garden")
    call("serve", "token", "add", "editor", "--task", "garden")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    call("mcp", "install", "--client", "cursor", "--task", "garden", "--write")
    call("git-hook", "install", "--repo", str(repository.path), "-t", "garden")

    asked = call("tasks", "rename", "Garden", "plant")
    assert asked.exit_code == 1
    assert "Rename garden of me to plant: 1 record, 0 choices" in asked.stderr
    assert "--yes" in asked.stderr

    done = loaded("tasks", "rename", "garden", "plant", "--yes", "--json")
    assert (done["old"], done["new"], done["records"], done["task_file"]) == (
        "garden", "plant", 1, None,
    )  # fmt: skip
    places = {place["where"]: place["change"] for place in done["still_named"]}
    assert places["the setting task"] == "hydra-edge config set task plant"
    assert "token remove editor" in places["the token of the app editor"]
    hooks = places[f"the hooks of {repository.path}"]
    assert hooks.startswith(f"hydra-edge git-hook install --repo {repository.path} --task plant")
    cursor = places[str(tmp_path / ".cursor" / "mcp.json")]
    assert cursor.startswith("hydra-edge mcp install --write --client cursor --task plant")
    assert "with --task plant" in places[f"imports of git:{repository.path}"]

    called = call("tasks", "rename", "plant", "leaf", "--yes")
    assert "plant is leaf now: 1 record, 0 choices" in called.stdout
    assert "plant is still named by imports of" in called.stderr
    assert "setting" not in called.stderr


def test_tasks_rename_says_which_apps_may_use_the_records_under_the_new_name():
    for user in ("me", "ada"):
        call("add", "a text", "a title", "-t", "plant", "--user", user)
    call("serve", "token", "add", "editor", "--task", "plant")
    call("serve", "token", "add", "notes")  # whatever they are called
    call("serve", "token", "add", "theirs", "--task", "plant", "--user", "ada")
    call("add", "another", "a title", "-t", "garden")
    rename = ("tasks", "rename", "garden", "plant", "--merge")

    assert "; editor may use them then, by their tokens?" in call(*rename).stderr
    assert "these apps may use it now: editor\n" in call(*rename, "--yes").stderr
    call("add", "a third", "a title", "-t", "garden")
    assert loaded(*rename, "--yes", "--json")["apps_let_in"] == ["editor"]


def test_tasks_rename_of_several_into_one_says_to_fit_again(home):
    call("add", "a text", "a title", "-t", "one")
    call("add", "another", "a title", "-t", "two")
    with Personalizer.open() as me:
        me.store.save_head(make_head("one"))

    refused = call("tasks", "rename", "one", "two", "--yes")
    assert refused.exit_code == 1
    assert "--merge" in refused.stderr
    merged = call("tasks", "rename", "one", "two", "--yes", "--merge")
    assert "Two became one. Next: hydra-edge fit-head --task two" in merged.stderr

    (home / "tasks").mkdir()
    (home / "tasks" / "two.toml").write_text('kind = "text"\n')
    known = call("tasks", "rename", "two", "note_title", "--yes")
    assert "do not serve under that name. Next: hydra-edge fit-head --task note_title" in (
        known.stderr
    )
    assert f"Described in {home / 'tasks' / 'note_title.toml'}" in known.stderr


def test_tasks_rename_interrupted_renames_it_and_says_so(monkeypatch):
    call("add", "a text", "a title", "-t", "one")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background
    monkeypatch.setattr(  # is born deaf to it
        "hydra_edge.store.renaming.mark_changed",
        lambda *_, **__: signal.raise_signal(signal.SIGINT),
    )
    try:
        stopped = call("tasks", "rename", "one", "two", "--yes")
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.exit_code == 130
    assert "Stopping once the task is renamed" in stopped.stderr
    assert "one is two now: 1 record" in stopped.stdout
