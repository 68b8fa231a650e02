"""``serve`` and its tokens as they are called: what is refused before anybody is served."""

import json

import pytest
from cli_runner import call

from hydra_edge.config import find_paths
from hydra_edge.server.tokens import TokenFiles


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--user", "nobody"), "There is no user 'nobody'"),
        (("-t", "nonsense"), "No task 'nonsense'. Known tasks:"),
        (("-t", "note_title", "-t", "nonsense"), "No task 'nonsense'. Known tasks:"),
    ],
)
def test_token_for_whom_or_what_nobody_knows_is_refused(flags, said):
    result = call("serve", "token", "add", "editor", *flags)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not TokenFiles.of(find_paths()).apps.exists()


def test_token_for_tasks_and_a_user_that_are_there_is_made():
    call("add", "a text", "a title", "-u", "ada", "-t", "recipes")
    made = call("serve", "token", "add", "editor", "-u", "ada", "-t", "Recipes", "-t", "chat")
    assert made.exit_code == 0, made.stderr
    (app,) = json.loads(call("serve", "token", "list", "--json").stdout)["apps"]
    assert (app["user"], app["tasks"]) == ("ada", ["recipes", "chat"])


@pytest.mark.parametrize("timeout", ["0", "0s", "0.5ms"])
def test_serve_timeout_that_leaves_no_time_is_a_usage_error(timeout, monkeypatch):
    monkeypatch.setattr("hydra_edge.cli.serve._serve", lambda *_, **__: None)
    refused = call("serve", "--timeout", timeout)
    assert refused.exit_code == 2
    assert f"'{timeout}' leaves no time for any request; expected 1ms or more" in refused.stderr
    assert call("serve", "--timeout", "1ms").exit_code == 0
