"""The list of tasks, and what one of them is."""

import json

from cli_runner import call, loaded


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
