"""API keys: where they are kept, who wins, and that none is ever shown."""

import json
import threading

import keyring
import keyring.backend
import pytest
from keyring.errors import KeyringLocked, PasswordDeleteError

from hydra_edge.config import find_paths
from hydra_edge.errors import ConfigError
from hydra_edge.llm import keys

SECRET = "sk-secret-0123456789"


@pytest.fixture
def paths():
    return find_paths()


class MemoryKeyring(keyring.backend.KeyringBackend):
    priority = 9

    def __init__(self):
        self.kept = {}
        self.released = threading.Event()

    def get_password(self, service, username):
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        if (service, username) not in self.kept:
            raise PasswordDeleteError("no such key")
        del self.kept[service, username]


class LockedKeyring(MemoryKeyring):
    def set_password(self, service, username, password):
        raise KeyringLocked("locked")

    get_password = delete_password = set_password


class ForgetfulKeyring(MemoryKeyring):
    def set_password(self, service, username, password):
        pass


class HangingKeyring(MemoryKeyring):
    def set_password(self, service, username, password):
        self.released.wait()


class StubbornKeyring(MemoryKeyring):
    def delete_password(self, service, username):
        raise PasswordDeleteError("denied")


class HangingDeletion(MemoryKeyring):
    def delete_password(self, service, username):
        self.released.wait()


@pytest.fixture
def use():
    before = keyring.get_keyring()

    def install(backend):
        keyring.set_keyring(backend)
        return backend

    yield install
    keyring.set_keyring(before)


@pytest.fixture(autouse=True)
def _locked(use):
    use(LockedKeyring())


def test_key_without_a_keyring_goes_to_a_file_of_its_owner(paths):
    assert keys.set_key("openai", f" {SECRET}\n", paths) == f"file {paths.keys_file}"
    assert keys.get_key("openai", paths) == SECRET
    assert paths.keys_file.stat().st_mode & 0o777 == 0o600
    assert keys.list_keys(paths) == {"openai": f"file {paths.keys_file}"}


def test_key_with_a_keyring_is_not_in_the_file(paths, use):
    backend = use(MemoryKeyring())
    assert keys.set_key("openai", SECRET, paths) == "keyring"
    assert SECRET not in paths.keys_file.read_text()
    assert backend.kept == {("hydra-edge", "openai"): SECRET}
    assert keys.get_key("openai", paths) == SECRET
    assert keys.list_keys(paths) == {"openai": "keyring"}
    assert keys.remove_key("openai", paths) == "keyring"
    assert backend.kept == {}
    assert keys.get_key("openai", paths) is None


def test_keyring_that_keeps_nothing_is_not_trusted(paths, use):
    use(ForgetfulKeyring())
    assert keys.set_key("openai", SECRET, paths).startswith("file")
    assert keys.get_key("openai", paths) == SECRET


def test_keyring_that_does_not_answer_is_left_behind(paths, use, monkeypatch):
    monkeypatch.setattr(keys, "_KEYRING_WAIT_S", 0.05)
    backend = use(HangingKeyring())
    assert keys.set_key("openai", SECRET, paths).startswith("file")
    backend.released.set()
    assert keys.get_key("openai", paths) == SECRET


def test_keyring_that_lost_the_key_is_reported(paths, use):
    use(MemoryKeyring())
    keys.set_key("openai", SECRET, paths)
    use(LockedKeyring())
    with pytest.raises(ConfigError, match="Unlock the keyring"):
        keys.get_key("openai", paths)


def test_environment_wins(paths, monkeypatch):
    keys.set_key("openai", "stored", paths)
    keys.set_key("my-own.example:8080", "stored", paths)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("HYDRA_EDGE_KEY_MY__OWN_EXAMPLE_8080", SECRET)
    assert keys.get_key("openai", paths) == keys.get_key("my-own.example:8080", paths) == SECRET
    assert keys.list_keys(paths) == {
        "my-own.example:8080": "environment HYDRA_EDGE_KEY_MY__OWN_EXAMPLE_8080",
        "openai": "environment OPENAI_API_KEY",
    }


def test_environment_for_no_host_is_not_listed(paths, monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_KEY_OPENAI", SECRET)
    monkeypatch.setenv("HYDRA_EDGE_KEY_MISTRAL", SECRET)
    monkeypatch.setenv("HYDRA_EDGE_KEY_API_EXAMPLE", SECRET)
    assert keys.list_keys(paths) == {"api_example": "environment HYDRA_EDGE_KEY_API_EXAMPLE"}
    assert keys.key_for("api.example", 443, paths) == SECRET
    assert keys.key_for("mistral.example", 443, paths) is None


def test_environment_alone_is_listed_but_cannot_be_removed(paths, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert keys.list_keys(paths) == {"openai": "environment OPENAI_API_KEY"}
    with pytest.raises(ConfigError, match="unset OPENAI_API_KEY") as caught:
        keys.remove_key("openai", paths)
    assert SECRET not in str(caught.value)


def test_no_key_is_none_and_writes_nothing(paths):
    assert keys.get_key("openai", paths) is None
    assert keys.list_keys(paths) == {}
    assert not paths.keys_file.exists()


def test_removed_key_is_gone_and_the_others_stay(paths):
    keys.set_key("one.example", SECRET, paths)
    keys.set_key("two.example", "other", paths)
    assert keys.remove_key("one.example", paths) == f"file {paths.keys_file}"
    assert SECRET not in paths.keys_file.read_text()
    assert keys.get_key("two.example", paths) == "other"
    with pytest.raises(ConfigError, match=r"Stored: two\.example"):
        keys.remove_key("one.example", paths)


def test_removed_key_may_have_a_name_no_key_can_be_stored_under(paths):
    keys.set_key("openai", "other", paths)
    paths.keys_file.write_text(json.dumps({"mistral": SECRET, "openai": "other"}))
    assert keys.unused_keys(paths) == ["mistral"]
    assert keys.remove_key("mistral", paths) == f"file {paths.keys_file}"
    assert keys.list_keys(paths) == {"openai": f"file {paths.keys_file}"}
    assert keys.unused_keys(paths) == []


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (LockedKeyring, "cannot be asked whether it still has it"),
        (StubbornKeyring, "still has it"),
        (HangingDeletion, "cannot be asked whether it still has it"),
    ],
)
def test_remove_key_the_keyring_keeps_is_an_error_and_stays_listed(
    paths, use, monkeypatch, backend, said
):
    kept = use(MemoryKeyring()).kept
    keys.set_key("openai", SECRET, paths)
    if backend is HangingDeletion:
        monkeypatch.setattr(keys, "_KEYRING_WAIT_S", 0.05)
    keyring_now = use(backend())
    keyring_now.kept = kept
    with pytest.raises(ConfigError, match=f"not removed: the system's keyring {said}"):
        keys.remove_key("openai", paths)
    assert keys.list_keys(paths) == {"openai": "keyring"}
    keyring_now.released.set()


def test_remove_key_the_keyring_lost_already_is_forgotten(paths, use):
    use(MemoryKeyring())
    keys.set_key("openai", SECRET, paths)
    use(MemoryKeyring())
    assert keys.remove_key("openai", paths) == "keyring"
    assert keys.list_keys(paths) == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_others_can_read_is_refused_with_the_command(paths, mode):
    keys.set_key("openai", SECRET, paths)
    paths.keys_file.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {paths.keys_file}"):
        keys.get_key("openai", paths)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"openai": 3}', f'{{"openai": "{SECRET}"', "\ud800"]
)
def test_damaged_file_is_reported_without_its_content(paths, content):
    keys.set_key("openai", SECRET, paths)
    paths.keys_file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match="damaged") as caught:
        keys.get_key("openai", paths)
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("value", ["", "  ", "two words", "line\nbreak", "schlüssel"])
def test_value_that_is_no_key_is_refused_without_repeating_it(paths, value):
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        keys.set_key("openai", value, paths)
    assert not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["", "mistral", "API.EXAMPLE", "a/b.example", "a.", ".a", "a.b:", "a.b:x", "a" * 64 + ".b",
     "ключ.example", "https://api.example", "openai\n"],
)  # fmt: skip
def test_name_of_no_host_is_refused_with_an_example(paths, name):
    for call in (lambda: keys.get_key(name, paths), lambda: keys.set_key(name, "v", paths)):
        with pytest.raises(ConfigError, match=r"expected openai, or the host .* api\.mistral\.ai"):
            call()


@pytest.mark.parametrize(
    "name", ["api.mistral.ai", "10.0.0.7:8000", "localhost", "localhost:1", "box:8000"]
)
def test_name_of_a_host_is_taken(paths, name):
    keys.set_key(name, SECRET, paths)
    host, _, port = name.partition(":")
    assert keys.key_for(host, int(port or 443), paths) == SECRET
    assert keys.unused_keys(paths) == []


def test_key_for_an_address_is_the_nearest_there_is(paths):
    def found(host, port=443):
        return keys.key_for(host, port, paths)

    assert found("a.example") is None
    keys.set_key("openai", "of-all", paths)
    keys.set_key("a.example", "of-host", paths)
    keys.set_key("a.example:81", "of-port", paths)
    assert found("a.example", 81) == "of-port"
    assert found("a.example", 82) == found("a.example") == "of-host"
    assert found("a.example.") == "of-host"
    keys.set_key("a.example:443", "of-its-scheme", paths)
    assert found("a.example") == "of-its-scheme"
    assert found("b.example") == found("xa.example", 81) == found("::1", 81) == "of-all"


def test_key_for_a_host_the_keyring_does_not_give_is_not_replaced_by_another(paths, use):
    use(MemoryKeyring())
    keys.set_key("a.example", SECRET, paths)
    use(LockedKeyring())
    keys.set_key("openai", "of-all", paths)
    with pytest.raises(ConfigError, match=r"'a\.example' is in the system's keyring"):
        keys.key_for("a.example", 443, paths)


def test_variable_of_a_host_is_no_other_hosts(paths, monkeypatch):
    monkeypatch.setenv(keys.key_variable("api-x.example"), SECRET)
    assert keys.key_for("api-x.example", 443, paths) == SECRET
    assert keys.key_for("api.x.example", 443, paths) is None


def test_remove_key_takes_the_one_the_keyring_kept_while_it_was_locked(paths, use):
    open_one = MemoryKeyring()
    use(open_one)
    keys.set_key("openai", "old", paths)
    use(LockedKeyring())
    assert keys.set_key("openai", "new", paths).startswith("file")
    use(open_one)
    keys.remove_key("openai", paths)
    assert open_one.get_password("hydra-edge", "openai") is None


def test_folder_that_cannot_be_made_is_named(paths):
    paths.config.parent.mkdir(parents=True, exist_ok=True)
    paths.config.write_text("a file stands here")
    with pytest.raises(ConfigError, match=f"{paths.config}"):
        keys.set_key("openai", SECRET, paths)


def test_file_is_plain_json(paths):
    keys.set_key("openai", SECRET, paths)
    assert json.loads(paths.keys_file.read_text()) == {"openai": SECRET}
