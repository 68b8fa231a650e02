"""Settings on the command line: set, read back, refused where no command could use them."""

import json
import shutil

import pytest
from cli_runner import call, loaded

from hydra_edge.config import find_paths, load_config


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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", "-1", "temperature = -1.0 cannot be used; expected 0.0 or more"),
        ("temperature", "-0.5", "temperature = -0.5 cannot be used; expected 0.0 or more"),
        ("threads", "-1", "threads = -1 cannot be used; expected 0 or more"),
        ("threads", "-x", "threads = '-x' cannot be used; expected a whole number"),
    ],
)
def test_config_set_number_below_zero_is_told_the_range(home, name, value, said):
    result = call("config", "set", name, value)

    assert result.exit_code == 1
    assert said in result.stderr
    assert not (home / "config.toml").exists()


def test_config_set_task_nobody_knows_is_refused(home):
    call("add", "a text", "a title", "-t", "recipes")
    result = call("config", "set", "task", "nonsense")

    assert result.exit_code == 1
    assert "No task 'nonsense'. Known tasks:" in result.stderr
    assert not (home / "config.toml").exists()
    for task in ("recipes", "commit-subject", ""):
        assert call("config", "set", "task", task).exit_code == 0
        assert call("rank", "a text").exit_code == 0


def test_config_set_replaces_a_user_that_stops_every_command(home):
    home.mkdir()
    (home / "config.toml").write_text("user = '../x'\n")
    assert call("users").exit_code == 1
    assert call("config", "set", "user", "a/b").exit_code == 1
    assert call("config", "set", "user", "ada").exit_code == 0
    assert load_config(find_paths()).user == "ada"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("bundle", "/nope", "Cannot load the base /nope"),
        ("base_url", "ftp://x", "'ftp://x' cannot be used; expected http(s)://host"),
        ("base_url", "", "'' cannot be used; expected http(s)://host"),
        ("model", "nonsense", "No model 'nonsense'. Known: smollm2"),
        ("model", "openai:", "expected openai:MODEL"),
        ("model", "/nope.gguf", "No model file /nope.gguf"),
        ("model", "chat:/nope.gguf", "No model file /nope.gguf"),
    ],
)
def test_config_set_value_no_command_can_use_is_refused(home, name, value, said):
    result = call("config", "set", name, value)

    assert result.exit_code == 1
    assert said in result.stderr
    assert not (home / "config.toml").exists()


def test_config_set_model_opens_none_and_takes_all_that_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", None)  # called, it would raise
    file = tmp_path / "mine.gguf"
    file.touch()
    names = ("openai:gpt", "gemma3", "SmolLM2", str(file), f"chat:{file}", "")
    for name in names:
        assert call("config", "set", "model", name).exit_code == 0
        assert load_config(find_paths()).model == name


@pytest.mark.parametrize("chat", ["", "chat:"])
def test_config_set_model_is_a_file_wherever_it_is_read_from(tmp_path, monkeypatch, chat):
    (tmp_path / "mine.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert call("config", "set", "model", f"{chat}./mine.gguf").exit_code == 0
    assert load_config(find_paths()).model == f"{chat}{tmp_path / 'mine.gguf'}"


@pytest.mark.parametrize("value", ["default", ""])
def test_config_set_bundle_means_what_bundle_use_means(value):
    shipped = loaded("bundle", "show", "--json")["path"]
    assert call("config", "set", "bundle", value).exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == shipped


def test_config_set_bundle_is_a_folder_wherever_it_is_read_from(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    shutil.copytree(loaded("bundle", "show", "--json")["path"], mine)
    monkeypatch.chdir(tmp_path)
    assert call("config", "set", "bundle", "mine").exit_code == 0
    assert loaded("config", "get", "bundle", "--json") == {"bundle": str(mine)}


def test_setting_under_its_variable_is_not_told_to_be_in_force(monkeypatch, tmp_path):
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(tmp_path))
    used = call("bundle", "use", "default")
    assert used.exit_code == 0
    assert "in use" not in used.stderr
    assert "HYDRA_EDGE_BUNDLE wins over it: unset that" in " ".join(used.stderr.split())
    monkeypatch.setenv("HYDRA_EDGE_CANDIDATES", "3")
    told = " ".join(call("config", "set", "candidates", "4").stderr.split())
    assert "HYDRA_EDGE_CANDIDATES wins over it: unset that" in told


def test_config_unset_brings_the_default_back_and_says_what_holds(home, monkeypatch):
    file = home / "config.toml"
    assert "is not in" in call("config", "unset", "candidates").stderr
    assert not home.exists()
    call("config", "set", "candidates", "4")
    file.write_text(f"# mine\n{file.read_text()}records = 2\n")
    told = " ".join(call("config", "unset", "candidates").stderr.split())
    assert f"candidates removed from {file} In force: 8, the default" in told
    assert file.read_text() == "# mine\nrecords = 2\n"
    monkeypatch.setenv("HYDRA_EDGE_RECORDS", "3")
    assert loaded("config", "unset", "records", "--json") == {"records": 3}
    told = " ".join(call("config", "unset", "records").stderr.split())
    assert "records is not in" in told
    assert "In force: 3, HYDRA_EDGE_RECORDS" in told
    assert load_config(find_paths()).candidates == 8


def test_config_unset_takes_out_what_stops_every_command(home):
    home.mkdir()
    (home / "config.toml").write_text("colour = 'red'\nuser = '../x'\ntaste = 1\n")
    result = call("config", "unset", "user")
    assert result.exit_code == 1  # the others are in the way yet
    assert "user removed from" in result.stderr
    assert call("config", "unset", "colour").exit_code == 1
    assert call("config", "unset", "taste").exit_code == 0
    assert call("config", "list").exit_code == 0
    refused = call("config", "unset", "colour")
    assert refused.exit_code == 1
    assert "Unknown setting 'colour'. Known: user, task" in " ".join(refused.stderr.split())
    (home / "config.toml").write_text("user = \n")
    assert "at line 1, column 8" in " ".join(call("config", "unset", "user").stderr.split())
