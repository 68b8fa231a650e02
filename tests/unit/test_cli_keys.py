"""Keys of APIs and names of models on the command line."""

import stat
import sys

from cli_runner import call, loaded

from hydra_edge.config import find_paths
from hydra_edge.llm.keys import get_key


def test_keys_set_from_stdin_is_never_shown(home):
    result = call("keys", "set", "openai", text="sk-secret\n")

    assert result.exit_code == 0
    assert get_key("openai", find_paths()) == "sk-secret"
    assert "secret" not in result.output
    assert "secret" not in call("keys", "list").output
    assert loaded("keys", "list", "--json") == {"keys": {"openai": f"file {home / 'keys.json'}"}}
    assert stat.S_IMODE((home / "keys.json").stat().st_mode) == 0o600


def test_keys_value_cannot_be_an_argument():
    assert call("keys", "set", "openai", "sk-secret").exit_code == 2


def test_keys_remove_forgets_it():
    call("keys", "set", "openai", text="sk-secret\n")

    assert call("keys", "remove", "openai").exit_code == 0
    assert get_key("openai", find_paths()) is None
    assert call("keys", "remove", "openai").exit_code == 1


def test_keys_set_name_of_no_host_is_refused_before_the_key_is_read(home):
    result = call("keys", "set", "mistral", text="sk-secret\n")

    assert result.exit_code == 1
    assert "expected openai, or the host of an API's address" in result.stderr
    assert not (home / "keys.json").exists()


def test_keys_set_without_the_keyring_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    result = call("keys", "set", "api.mistral.ai", text="sk-secret\n")

    assert "keys.json" in result.stderr
    assert "mode 0600" in result.stderr
    assert "pip install keyring" in result.stderr
    assert "extra `keyring`" in result.stderr


def test_keys_set_with_the_keyring_package_advises_nothing():
    assert "pip install" not in call("keys", "set", "openai", text="sk-secret\n").stderr


def test_keys_stored_under_the_name_of_no_host_are_told_and_can_be_removed(home):
    call("keys", "set", "openai", text="sk-secret\n")
    (home / "keys.json").write_text('{"mistral": "sk-old", "openai": "sk-secret"}')

    assert "Key mistral is sent nowhere" in call("keys", "list").stderr
    assert call("keys", "remove", "mistral").exit_code == 0
    assert "sent nowhere" not in call("keys", "list").stderr


def test_keys_remove_of_a_key_the_keyring_keeps_is_exit_1(home):
    call("keys", "set", "openai", text="sk-secret\n")
    (home / "keys.json").write_text('{"openai": ""}')
    result = call("keys", "remove", "openai")

    assert result.exit_code == 1
    assert "not removed" in result.stderr
    assert "openai" in call("keys", "list").stdout


# ---- models


def test_models_are_listed_with_how_to_get_them():
    models = loaded("models", "--json")["models"]

    assert {"smollm2", "openai:MODEL"} <= {m["name"] for m in models}
    assert "openai:MODEL" in call("models").stdout


def test_base_url_without_a_remote_model_is_a_usage_error():
    result = call("generate", "q", "--base-url", "http://localhost:9931/v1")

    assert result.exit_code == 2
    assert "needs -m openai:MODEL" in result.stderr


def test_base_url_of_a_remote_model_with_blanks_around_its_name_is_taken():
    flags = ("-m", " openai:m ", "--base-url", "http://localhost:9931/v1", "--dry-run")
    assert call("generate", "q", *flags).exit_code == 0
