"""A user's heads on the command line: listed, shown, taken back, exported, imported."""

import json
import stat
from dataclasses import replace

import numpy as np
import pytest
from cli_runner import call, loaded, states

from hydra_edge.config import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import HeadState, Record


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


@pytest.mark.usefixtures("_other_base")
def test_doctor_without_a_base_says_nothing_of_heads(home, monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(home))
    found = states(json.loads(call("doctor", "--json").stdout)["findings"])

    assert (found["base"], found["user me"]) == ("broken", "ok")


@pytest.mark.usefixtures("fitted")
def test_bundle_use_says_that_the_shared_heads_serve_only_where_they_do():
    assert "the shared ones serve" not in call("bundle", "use", "default").stderr
    with Store.open(find_paths().user_file("me")) as store:
        state = store.head("commit_subject", "reranker")
        store.save_head(replace(state, base_id="0" * 64))
    assert "the shared ones serve" in call("bundle", "use", "default").stderr
    call("heads", "rollback", "-r", "reranker")  # to one of this base
    assert "the shared ones serve" not in call("bundle", "use", "default").stderr


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
def test_heads_show_names_the_llm_whose_answers_an_adapter_was_fitted_on():
    with Personalizer.open() as me:
        names = me.bundle.features("adapter")
        state = HeadState(
            "commit_subject", "adapter", me.bundle.base_id, names, np.zeros(len(names), np.float32),
            np.eye(len(names), dtype=np.float32), "shared", 12, 1.0,
            {"model": "openai:m@host", "pools_of_model": 3},
        )  # fmt: skip
        me.store.save_head(state)
    assert " on 12 queries, answers of openai:m@host, base" in call("heads", "show").stdout


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
