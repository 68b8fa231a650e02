"""Tokens: made once, kept where only their owner reads, and taken back at once."""

import json
import stat
import threading

import pytest

from hydra_edge.config import find_paths
from hydra_edge.errors import ConfigError
from hydra_edge.server.tokens import (
    Doorkeeper,
    Scope,
    TokenFiles,
    add_app,
    owner_token,
    read_apps,
    remove_app,
)


@pytest.fixture
def files():
    return TokenFiles.of(find_paths())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_owner_token_is_made_once_and_kept_private(files):
    token = owner_token(files)

    assert owner_token(files) == token
    assert len(token) > 40
    assert mode(files.owner) == 0o600
    assert mode(files.owner.parent) == 0o700


def test_owner_token_renewed_makes_the_old_one_worthless(files):
    old = owner_token(files)
    new = owner_token(files, renew=True)

    assert new != old
    doorkeeper = Doorkeeper(files)
    assert doorkeeper.scope(old) is None
    assert doorkeeper.scope(new) == Scope()


def test_owner_token_renewed_is_known_to_a_running_doorkeeper_at_once(files):
    old = owner_token(files)
    doorkeeper = Doorkeeper(files, ["the page's own token"])
    assert doorkeeper.scope(old) == Scope()

    new = owner_token(files, renew=True)

    assert doorkeeper.scope(old) is None
    assert doorkeeper.scope(new) == doorkeeper.scope("the page's own token") == Scope()


def test_owner_token_whose_file_is_gone_is_good_until_there_is_another(files):
    old = owner_token(files)
    doorkeeper = Doorkeeper(files)
    files.owner.unlink()
    assert doorkeeper.scope(old) == Scope()

    new = owner_token(files)

    assert doorkeeper.scope(old) is None
    assert doorkeeper.scope(new) == Scope()


def test_owner_token_file_emptied_lets_nobody_in_until_it_holds_one(files):
    old = owner_token(files)
    doorkeeper = Doorkeeper(files)
    files.owner.write_text("")

    for _ in range(2):
        with pytest.raises(ConfigError, match="holds no token"):
            doorkeeper.scope(old)
    files.owner.write_text(f"{old}\n")
    assert doorkeeper.scope(old) == Scope()


def test_owner_token_readable_by_others_is_refused(files):
    owner_token(files)
    files.owner.chmod(0o644)

    with pytest.raises(ConfigError, match=r"its mode is 0644; expected 0600.*remove it"):
        owner_token(files)
    owner_token(files, renew=True)
    assert mode(files.owner) == 0o600


@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize(("place", "kind"), [("", "a folder"), ("/dev/null", "a device")])
def test_owner_token_place_that_is_no_file_is_refused_in_words(tmp_path, place, kind, renew):
    files = TokenFiles.of(find_paths(), tmp_path / place)
    with pytest.raises(ConfigError, match=f"is {kind}.*; expected a file") as refused:
        owner_token(files, renew=renew)
    assert "remove" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "short", "two words of sufficient length", "\x00" * 40])
def test_owner_token_file_that_holds_none_is_refused(files, text):
    owner_token(files)
    files.owner.write_text(text)

    with pytest.raises(ConfigError, match="holds no token"):
        owner_token(files)


def test_app_token_is_kept_as_a_digest_only(files):
    token = add_app(files, "editor", user="me", tasks=["Commit-Subject"], read_only=True)

    assert token not in files.apps.read_text()
    assert mode(files.apps) == 0o600
    assert list(read_apps(files).values()) == [Scope("editor", "me", ("commit_subject",), True)]


def test_app_named_twice_is_refused_and_the_first_stays(files):
    token = add_app(files, "editor", user="me")

    with pytest.raises(ConfigError, match="has a token already"):
        add_app(files, "editor", user="me")
    assert Doorkeeper(files, []).scope(token) == Scope("editor", "me")


@pytest.mark.parametrize("name", ["", "Editor", "a b", "../x", "x" * 33, "-x"])
def test_app_name_that_is_none_is_refused(files, name):
    with pytest.raises(ConfigError, match="cannot be used"):
        add_app(files, name, user="me")
    assert not files.apps.exists()


def test_app_removed_is_unknown_to_a_running_doorkeeper(files):
    doorkeeper = Doorkeeper(files, [])
    token = add_app(files, "editor", user="me")
    other = add_app(files, "viewer", user="me")
    assert doorkeeper.scope(token) is not None

    remove_app(files, "editor")

    assert doorkeeper.scope(token) is None
    assert doorkeeper.scope(other) is not None
    with pytest.raises(ConfigError, match="Apps: viewer"):
        remove_app(files, "editor")


def test_apps_file_removed_lets_no_app_in_any_more(files):
    token = add_app(files, "editor", user="me")
    doorkeeper = Doorkeeper(files, [])
    assert doorkeeper.scope(token) is not None
    files.apps.unlink()
    assert doorkeeper.scope(token) is None


def test_apps_added_at_the_same_time_are_all_kept(files):
    threads = [
        threading.Thread(target=add_app, args=(files, f"app{i}"), kwargs={"user": "me"})
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {scope.app for scope in read_apps(files).values()} == {f"app{i}" for i in range(8)}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"apps": 3}', '{"apps": [{}]}', "[" * 100_000,
     json.dumps({"apps": [{"sha256": "x", "tasks": [], "admin": True}]})],
)  # fmt: skip
def test_apps_file_damaged_opens_nothing_and_says_so(files, content):
    token = add_app(files, "editor", user="me")
    files.apps.write_text(content)

    with pytest.raises(ConfigError, match="is damaged"):
        Doorkeeper(files, []).scope(token)


def test_apps_file_readable_by_others_opens_nothing(files):
    token = add_app(files, "editor", user="me")
    files.apps.chmod(0o640)

    with pytest.raises(ConfigError, match="its mode is 0640"):
        Doorkeeper(files, []).scope(token)


@pytest.mark.parametrize("token", ["", " ", "he-", "\udc80", "None"])
def test_doorkeeper_knows_nobody_by_an_empty_or_odd_token(files, token):
    owner_token(files)
    assert Doorkeeper(files).scope(token) is None


def test_scope_without_tasks_allows_all_and_with_tasks_only_those():
    assert Scope().allows("anything")
    assert Scope("app", "me", ("a",)).allows("a")
    assert not Scope("app", "me", ("a",)).allows("b")
