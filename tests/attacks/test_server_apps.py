"""Apps with a token of their own: what one may see, use and change, and of whom."""

from __future__ import annotations

from dataclasses import replace

import attacked
import pytest
from attacked import code
from serving import chat

from hydra_edge.types import Record

person, served, app_token = attacked.person, attacked.served, attacked.app_token


def test_app_of_another_user_is_refused(served, app_token):
    with served.client(app_token(user="ada")) as client:
        response = client.get("/v1/models")
    assert response.status_code == 403
    assert code(response) == "wrong_user"


def test_app_sees_and_uses_only_its_tasks(served, app_token, person):
    with served.client(app_token(tasks=["note_title"])) as client:
        models = [m["id"] for m in client.get("/v1/models").json()["data"]]
        assert models == ["hydra-edge", "hydra-edge/note_title"]
        assert client.get("/v1/models/hydra-edge/paper_title").status_code == 404

        assert client.post("/v1/rank", json={"query": "parsers"}).json()["task"] == "note_title"
        asked = client.post("/v1/chat/completions", json=chat("parsers")).json()
        assert asked["hydra_edge"]["task"] == "note_title"
        record = {"input": "in", "output": "out"}
        added = client.post("/v1/records", json={"records": [record]})
        assert added.json()["added"] == 1
        assert person.store.records(task="note_title", source="app:editor")

        for path, body in (
            ("/v1/rank", {"query": "parsers", "task": "Paper-Title"}),
            ("/v1/chat/completions", chat("parsers", "hydra-edge/paper_title")),
            ("/v1/records", {"records": [record | {"task": "paper_title"}]}),
        ):
            response = client.post(path, json=body)
            assert response.status_code == 403
            assert code(response) == "task_not_allowed"


def test_app_cannot_give_feedback_on_what_it_may_not_see(served, app_token):
    with served.client() as owner:
        asked = owner.post("/v1/chat/completions", json=chat("x", "hydra-edge/paper_title")).json()
    with served.client(app_token(tasks=["note_title"])) as client:
        response = client.post("/v1/feedback", json={"id": asked["id"], "pick": 1})
        unknown = client.post("/v1/feedback", json={"id": "chatcmpl-0", "pick": 1})

    assert (response.status_code, code(response)) == (404, "unknown_generation")
    assert unknown.status_code == 404


def test_app_that_may_only_read_changes_nothing(served, app_token, person):
    before = person.store.count()
    with served.client(app_token(read_only=True)) as client:
        asked = client.post("/v1/chat/completions", json=chat("parsers"))
        assert asked.status_code == 200
        for path, body in (
            ("/v1/feedback", {"id": asked.json()["id"], "pick": 1}),
            ("/v1/records", {"records": [{"input": "in", "output": "out"}]}),
        ):
            response = client.post(path, json=body)
            assert (response.status_code, code(response)) == (403, "read_only")
    assert person.store.count() == before
    assert person.store.choices("paper_title") == []


def test_app_removed_is_out_at_once(served, app_token):
    from hydra_edge.server.tokens import remove_app

    token = app_token()
    with served.client(token) as client:
        assert client.get("/v1/models").status_code == 200
        remove_app(served.files, "editor")
        assert client.get("/v1/models").status_code == 401


def test_apps_file_damaged_lets_nobody_in_and_shows_nothing(served, app_token):
    token = app_token()
    served.files.apps.write_text("{")
    with served.client(token) as client:
        response = client.get("/v1/models")
    assert response.status_code == 500
    assert token not in response.text


# ---- what an app adds and keeps


def test_app_cannot_change_a_record_of_another_source(served, app_token, person):
    entry = {"id": "r1", "input": "hostile", "output": "hostile", "task": "paper_title"}
    with served.client(app_token()) as client:
        client.post("/v1/records", json={"records": [entry | {"source": ""}]})

    assert person.store.get("r1").output == "Parser: study 1"
    assert {r.source for r in person.store.records() if r.input == "hostile"} == {"app:editor"}


@pytest.mark.parametrize("name", ["r1", ""], ids=["id", "content"])
def test_app_cannot_hide_a_record_of_another_source(served, app_token, person, name):
    own = person.store.get("r1")
    person.add([replace(own, id="")])  # the same once more, named by its content
    entry = {"input": own.input, "output": own.output, "task": own.task, "private": True}
    with served.client(app_token()) as client:
        added = client.post("/v1/records", json={"records": [entry | {"id": name}]}).json()
        mine = {"id": name, "input": "of the app", "output": "x", "private": True}
        client.post("/v1/records", json={"records": [mine]})

    assert (added["added"], added["unchanged"]) == (0, 1)
    assert not any(r.private for r in person.store.records() if r.input == own.input)
    assert all(r.private for r in person.store.records() if r.input == "of the app")


def test_app_cannot_date_a_record_of_another_source(served, app_token, person):
    person.add([Record("when was it", "then", "note_title", "n", source="diary")])
    entry = {"id": "n", "input": "when was it", "output": "then", "task": "note_title", "time": 1}
    with served.client(app_token()) as client:
        added = client.post("/v1/records", json={"records": [entry]}).json()

    assert added["unchanged"] == 1
    assert person.store.get("n").time is None


def test_app_adding_the_same_again_doubles_nothing(served, app_token, person):
    entries = [
        {"id": name, "input": f"a text {i}", "output": "a title"}
        for i, name in enumerate(["", "n1", "n1", "r1", "x" * 200])
    ]
    with served.client(app_token()) as client, served.client(app_token("other")) as another:
        added = [client.post("/v1/records", json={"records": entries}).json() for _ in range(3)]
        kept = {r.id for r in person.store.records(source="app:editor")}
        edited = {"records": [entries[3] | {"output": "another title"}]}
        assert client.post("/v1/records", json=edited).json()["updated"] == 1
        body = {"query": "a text", "task": "general", "k": 100}
        seen = [c.post("/v1/rank", json=body).json()["records"] for c in (client, another)]

    assert [(a["added"], a["unchanged"], a["renamed"]) for a in added] == [(5, 0, 0)] + [
        (0, 5, 0)
    ] * 2
    assert {r.id for r in person.store.records(source="app:editor")} == kept
    assert len(kept) == 5
    for records in seen:
        assert {"n1", "r1"} <= {r["id"] for r in records}, "as the app named them"
        assert "editor" not in "".join(r["id"] for r in records)


def test_app_adding_under_an_id_that_an_import_took_is_told_the_same(served, app_token, person):
    """What an app added, exported and imported again, is another source's: private, maybe."""
    person.add(
        Record("a mail", "positive", "paper_title", "app:editor:m1", private=True, source="jsonl:x")
    )
    with served.client(app_token()) as client:
        told = []
        for output in ("positive", "negative"):
            entry = {"id": "m1", "input": "a mail", "output": output, "task": "paper_title"}
            told.append(client.post("/v1/records", json={"records": [entry]}).json())
        body = {"query": "a mail", "task": "paper_title", "k": 100}
        seen = client.post("/v1/rank", json=body).json()["records"]

    assert [(t["added"], t["updated"], t["unchanged"]) for t in told] == [(1, 0, 0), (0, 1, 0)]
    assert [r["output"] for r in seen if r["id"] == "m1"] == ["negative"]
    assert person.store.get("app:editor:m1").output == "positive"


def test_app_record_that_stood_beside_anothers_before_is_still_updated(served, app_token, person):
    person.add([Record("a text", "title", "paper_title", "n9", source="api")])
    mine = Record("a text", "mine", "paper_title", "n9", source="app:editor")
    assert person.add([mine]).renamed == 1
    with served.client(app_token()) as client:
        entry = {"id": "n9", "input": "a text", "output": "edited", "task": "paper_title"}
        assert client.post("/v1/records", json={"records": [entry]}).json()["updated"] == 1

    assert [r.output for r in person.store.records(source="app:editor")] == ["edited"]


def test_app_adding_under_the_id_of_an_answer_it_kept_updates_that(served, app_token, person):
    with served.client(app_token()) as client:
        asked = client.post("/v1/chat/completions", json=chat("x", "hydra-edge/paper_title")).json()
        kept = client.post("/v1/feedback", json={"id": asked["id"], "pick": 1}).json()["record_id"]
        entry = {"id": kept, "input": "x", "output": "mine", "task": "paper_title"}
        assert client.post("/v1/records", json={"records": [entry]}).json()["updated"] == 1

    assert person.store.get(kept).output == "mine"


def test_app_teaches_under_its_own_name(served, app_token, person):
    ask = chat("parsers 1", "hydra-edge/paper_title")
    with served.client(app_token()) as client, served.client() as owner:
        asked = client.post("/v1/chat/completions", json=ask).json()
        given = {"id": asked["id"], "pick": 1}
        kept = client.post("/v1/feedback", json=given).json()["record_id"]
        again = owner.post("/v1/feedback", json=given).json()["record_id"]
        edited = owner.post("/v1/feedback", json={"id": asked["id"], "text": "mine"}).json()

    assert kept == again
    assert person.store.get(kept).source == "app:editor"
    mine = person.store.get(edited["record_id"])
    assert (mine.source, mine.output) == ("choices", "mine")
    assert person.store.choices("paper_title")[-1].record_id == mine.id
    person.forget(source="app:editor")
    assert mine.id in {r.id for r in person.store.records()}
    assert "app:editor" not in person.store.sources()
