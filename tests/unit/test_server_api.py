"""The routes: what is answered, and in what form."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from serving import CHAT, EchoLLM, ask, chat, history, people, serving

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    BundleHashError,
    ConfigError,
    ContextLengthError,
    StoreError,
    UnknownModelError,
)
from hydra_edge.server.routes import api_routes
from hydra_edge.server.tokens import add_app

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def person(hash_encoder):
    yield from people(hash_encoder)


def test_health_needs_no_token_and_says_nothing_personal(person):
    with serving(person()) as served, served.client() as client:
        del client.headers["Authorization"]
        response = client.get("/health")
    assert response.status_code == 200
    assert set(response.json()) == {"status", "version"}


def test_models_are_the_plain_one_and_one_for_each_task(person):
    records = [*history(3), *history(2, "note_title")]
    with serving(person(records=records)) as served, served.client() as client:
        listed = client.get("/v1/models").json()["data"]
        one = client.get("/v1/models/hydra-edge/note_title").json()
        missing = client.get("/v1/models/gpt-4o")

    assert [m["id"] for m in listed] == [
        "hydra-edge", "hydra-edge/paper_title", "hydra-edge/note_title",
    ]  # fmt: skip
    assert one in listed
    assert missing.json()["error"]["code"] == "model_not_found"


def test_chat_answers_with_the_winner_and_why(person):
    me = person()
    with serving(me) as served, served.client() as client:
        response = client.post(CHAT, json=chat("parsers 4711", n=2))
        answer = response.json()
        logged = me.store.generation(answer["id"].removeprefix("chatcmpl-"))

    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    assert all("4711" in c["message"]["content"] for c in answer["choices"])
    assert len(answer["choices"]) == 2
    assert answer["usage"]["completion_tokens"] == 8 * 4
    assert logged is not None
    assert logged.text == answer["choices"][0]["message"]["content"]
    assert len(answer["hydra_edge"]["candidates"]) == 8


def test_chat_passes_its_wishes_on(person):
    llm = EchoLLM()
    body = chat(
        "parsers 1", "hydra-edge/paper_title", temperature=0.1,
        hydra_edge={"candidates": 3, "records": 2},
    )  # fmt: skip
    body["messages"].insert(0, {"role": "system", "content": "Be brief."})
    with serving(person(llm)) as served, served.client() as client:
        answer = client.post(CHAT, json=body).json()

    (prompt,) = llm.asked
    assert prompt.system == "Be brief."
    assert (prompt.query, len(prompt.shots)) == ("parsers 1", 2)
    assert answer["hydra_edge"]["usage"]["requested"] == 3


def test_chat_asks_the_llm_as_the_request_says(person):
    how = []

    class Noting(EchoLLM):
        def complete(self, prompt, **options):
            how.append(options)
            return super().complete(prompt, **options)

    llm = Noting()
    told = chat("parsers", temperature=0.25, seed=11, max_tokens=7,
                hydra_edge={"records": 2, "candidates": 3})  # fmt: skip
    with serving(person(llm)) as served, served.client() as client:
        assert client.post(CHAT, json=told).status_code == 200

    assert {name: how[0][name] for name in ("temperature", "seed", "max_tokens", "n")} == {
        "temperature": 0.25, "seed": 11, "max_tokens": 7, "n": 3,
    }  # fmt: skip
    assert len(llm.asked[0].shots) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_chat_limit_an_llm_has_no_room_for_is_lowered_and_said_to_be(person, stream):
    limits = []

    class Small(EchoLLM):
        n_ctx = 512

        def complete(self, prompt, *, max_tokens=48, **options):
            limits.append(max_tokens)
            if max_tokens >= self.n_ctx:
                raise ContextLengthError("no room")
            return super().complete(prompt, max_tokens=max_tokens, **options)

    with serving(person(Small())) as served, served.client() as client:
        said = client.post(CHAT, json=chat("parsers 1", max_tokens=4096, stream=stream))
        client.post(CHAT, json=chat("parsers 1", max_tokens=256))
        client.post(CHAT, json=chat("parsers 1"))
    assert said.status_code == 200
    assert "lowered from 4096 to 256 tokens: half of the LLM's context" in said.text
    assert limits == [256, 256, 32]


def test_chat_streams_the_same_winner(person):
    with serving(person()) as served, served.client() as client:
        whole = client.post(CHAT, json=chat("parsers 1")).json()
        with client.stream("POST", CHAT, json=chat("parsers 1", stream=True)) as response:
            lines = [line for line in response.iter_lines() if line and line[0] != ":"]

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(c["delta"].get("content", "") for e in events for c in e["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert events[-1]["hydra_edge"]["generation_id"] == events[0]["id"].removeprefix("chatcmpl-")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BackendError("no"), 502, "backend"),
        (BackendRateLimitError("no"), 429, "backend_rate_limit"),
        (ContextLengthError("no"), 400, "context_length_exceeded"),
    ],
)
def test_chat_failure_of_the_llm_is_a_status(person, error, status, code):
    class Failing(EchoLLM):
        def answers(self, prompt, n):
            raise error

    with serving(person(Failing())) as served, served.client() as client:
        response = client.post(CHAT, json=chat("parsers"))
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("error", "code", "tries_again"),
    [
        (BackendError("no"), "backend", True),
        (BackendTimeoutError("no"), "backend_timeout", True),
        (BackendRateLimitError("no"), "backend_rate_limit", True),
        (StoreError("no"), "store", True),
        (BackendAuthError("no"), "backend_auth", False),
        (UnknownModelError("no"), "no_llm", False),
        (BundleHashError("no"), "bundle_hash", False),
        (ZeroDivisionError("no"), "internal", False),
    ],
)
def test_chat_failure_that_stays_tells_clients_not_to_ask_again(person, error, code, tries_again):
    class Failing(EchoLLM):
        def answers(self, prompt, n):
            raise error

    with serving(person(Failing())) as served:
        response = ask(served, "parsers")
    assert response.json()["error"]["code"] == code
    assert response.headers.get("x-should-retry") == (None if tries_again else "false")
    assert ("Retry-After" in response.headers) is (code == "backend_rate_limit")


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [(4.2, "5", None), (3600.0, "3600", "false"), (math.inf, None, "false")],
)
def test_chat_hands_on_how_long_the_remote_llm_wants_to_be_left_alone(person, asked, said, hint):
    class Busy(EchoLLM):
        def answers(self, prompt, n):
            raise BackendRateLimitError("too often", retry_after=asked)

    with serving(person(Busy())) as served:
        response = ask(served, "parsers")
    assert (response.status_code, response.headers.get("Retry-After")) == (429, said)
    assert response.headers.get("x-should-retry") == hint


def test_chat_unknown_task_is_not_found(person):
    with serving(person()) as served, served.client() as client:
        response = client.post(CHAT, json=chat("x", "hydra-edge/nonsense"))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_task"


def test_chat_remote_llm_sees_no_private_record_and_in_private_none(person):
    llm = EchoLLM()
    llm.is_remote = True
    records = [replace(r, private=i % 2 == 0) for i, r in enumerate(history())]
    with serving(person(llm, records)) as served, served.client() as client:
        client.post(CHAT, json=chat("parsers 1"))
        told = client.post(CHAT, json=chat("parsers 2", hydra_edge={"private": True})).json()

    first, second = (prompt.record_ids for prompt in llm.asked)
    assert first
    assert all(int(record_id[1:]) % 2 for record_id in first)
    assert second == ()
    assert "no history was put into the prompt" in " ".join(told["hydra_edge"]["notes"])


def test_chat_remote_llm_is_refused_where_offline(person):
    llm = EchoLLM()
    llm.is_remote = True
    with serving(person(llm, offline=True)) as served, served.client() as client:
        response = client.post(CHAT, json=chat("parsers 1"))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "egress_denied")
    assert llm.asked == []


def test_rank_is_that_of_the_facade(person):
    me = person()
    expected = me.rank("parsers number 3", task="paper_title", k=2)
    with serving(me) as served, served.client() as client:
        got = client.post("/v1/rank", json={"query": "parsers number 3", "k": 2}).json()

    assert [r["id"] for r in got["records"]] == [r.record.id for r in expected.records]
    assert got["records"][0]["contributions"] == pytest.approx(expected.records[0].contributions)
    assert (got["task"], got["head"]["switch"]) == ("paper_title", "shared")


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "query"), ({"query": 3}, "query"), ({"query": ""}, "query"), ({"query": " \n"}, "query"),
     ({"query": "x", "k": 0}, "k"),
     ({"query": "x", "K": 1}, "K"), ({"query": "x", "task": []}, "task")],
)  # fmt: skip
def test_rank_field_that_cannot_be_used_is_named(person, body, param):
    with serving(person()) as served, served.client() as client:
        error = client.post("/v1/rank", json=body).json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_feedback_teaches_the_head_and_keeps_the_record(person):
    me = person()
    with serving(me) as served, served.client() as client:
        asked = client.post(CHAT, json=chat("parsers 1")).json()
        picked = client.post("/v1/feedback", json={"id": asked["id"], "pick": 3}).json()
        edited = client.post(
            "/v1/feedback",
            json={"id": asked["hydra_edge"]["generation_id"], "text": "mine", "keep": False},
        ).json()
        assert picked["record_id"] == edited["record_id"]
        assert me.store.get(picked["record_id"]).output == "mine"  # kept once, it follows
        assert me.store.head("paper_title", "adapter").version == edited["head_version"]

    assert picked["text"] == asked["hydra_edge"]["candidates"][2]["text"]
    assert edited["head_version"] == picked["head_version"] + 1


@pytest.mark.parametrize(
    ("body", "param"),
    [({"pick": 99}, "pick"), ({}, "pick"), ({"pick": 1, "text": "x"}, "text"),
     ({"text": ""}, "text"), ({"text": " "}, "text")],
)  # fmt: skip
def test_feedback_that_cannot_be_understood_changes_nothing_and_is_named(person, body, param):
    me = person()
    with serving(me) as served, served.client() as client:
        asked = client.post(CHAT, json=chat("parsers 1")).json()
        response = client.post("/v1/feedback", json=body | {"id": asked["id"]})
        assert me.store.head("paper_title", "adapter") is None
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_records_are_added_all_or_none(person):
    me = person()
    good = {
        "input": "a text",
        "output": "a title",
        "task": "Note-Title",
        "time": 5,
        "private": True,
    }
    with serving(me) as served, served.client() as client:
        bad = client.post("/v1/records", json={"records": [good, {"input": "x"}]})
        assert me.store.count() == 12
        added = client.post("/v1/records", json={"records": [good]})
        (record,) = me.store.records(task="note_title")

    assert bad.json()["error"]["param"] == "records[1].output"
    assert (added.status_code, added.json()["added"]) == (201, 1)
    assert (record.input, record.time, record.private, record.source) == (
        "a text", 5.0, True, "api",
    )  # fmt: skip


def test_record_time_is_taken_as_an_import_takes_it(person):
    me = person(records=[])
    given = [{"input": t, "output": "a title", "time": t} for t in ("2024-01-02", "0", "yesterday")]
    with serving(me) as served, served.client() as client:
        refused = client.post("/v1/records", json={"records": given})
        assert client.post("/v1/records", json={"records": given[:2]}).status_code == 201
        times = {r.input: r.time for r in me.store.records()}
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "records[2].time")
    assert "ISO date" in refused.json()["error"]["message"]
    assert times == {"2024-01-02": 1704153600.0, "0": 0.0}


def test_record_without_a_task_is_of_the_setting(person):
    def tasks(me):
        return {r.input: r.task for r in me.store.records() if r.output == "a title"}

    def add(served, name, token=None):
        with served.client(token) as client:
            entry = {"input": name, "output": "a title"}
            assert client.post("/v1/records", json={"records": [entry]}).status_code == 201

    for config, served_task, expected in (
        ("note_title", None, "note_title"),
        ("Note-Title", "commit_subject", "commit_subject"),  # as `serve --task` says
        ("", None, "general"),
    ):
        me = person(task=config)
        with serving(me, task=served_task) as served:
            add(served, "owner's")
            add(served, "app's", add_app(served.files, f"all{expected}", user="memory"))
            some = ["paper_title"]
            add(served, "of its own", add_app(served.files, expected, user="memory", tasks=some))
            both = [*some, "note_title"]
            add(served, "of both", add_app(served.files, f"b{expected}", user="memory", tasks=both))
            assert tasks(me) == {
                "owner's": expected,
                "app's": expected,
                "of its own": "paper_title",
                "of both": expected if expected in both else "paper_title",
            }


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"id": "x" * 300}, "records[1200].id"),
        ({"id": "two\nlines"}, "records[1200].id"),
        ({"task": "t" * 300}, "records[1200].task"),
        ({"time": -9e10}, "records[1200].time"),
        ({"input": " "}, "records[1200]"),
    ],
)
def test_record_that_cannot_be_one_keeps_all_before_it_out(person, wrong, param):
    me = person(records=[])
    given = [{"input": f"text {i}", "output": "a title"} for i in range(1200)]
    with serving(me) as served, served.client() as client:
        body = {"records": [*given, {"input": "text", "output": "a title"} | wrong]}
        refused = client.post("/v1/records", json=body)
        assert me.store.count() == 0
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_record_the_history_refuses_for_any_reason_is_named(person, monkeypatch):
    def refuse(record):
        raise ConfigError("A record cannot be added: it is Tuesday.")

    monkeypatch.setattr("hydra_edge.server.routes.checked", refuse)
    with serving(person()) as served, served.client() as client:
        body = {"records": [{"input": "a", "output": "b"}]}
        refused = client.post("/v1/records", json=body).json()["error"]
    assert (refused["param"], "Tuesday" in refused["message"]) == ("records[0]", True)


def test_half_a_character_is_kept_in_no_record(person):
    me = person()
    with serving(me) as served, served.client() as client:
        entry = {"id": "a\ud83d", "input": "cut \ud83d", "output": "\ude00 cut", "source": "\ud83d"}
        given = json.dumps({"records": [entry]}).encode()
        added = client.post("/v1/records", content=given, headers=JSON)
        asked = client.post(CHAT, content=json.dumps(chat("parsers \ud83d")).encode(), headers=JSON)
        said = json.dumps({"id": asked.json()["id"], "text": "mine \ud83d"}).encode()
        picked = client.post("/v1/feedback", content=said, headers=JSON)
        kept = me.store.get(picked.json()["record_id"])
        record = me.store.get("a\ufffd")

    assert added.json()["added"] == 1
    assert (record.input, record.output, record.source) == ("cut \ufffd", "\ufffd cut", "\ufffd")
    assert (kept.input, kept.output) == ("parsers \ufffd", "mine \ufffd")


def test_path_and_method_unknown_are_said_in_openais_shape(person):
    with serving(person()) as served, served.client() as client:
        nothing, wrong = client.get("/v1/nothing"), client.get("/v1/rank")
    assert nothing.json()["error"]["code"] == "not_found"
    said = nothing.json()["error"]["message"]
    assert {route.path for route in api_routes() if "{" not in route.path} <= set(
        re.findall(r"/[\w/]+", said)
    )
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    assert wrong.json()["error"]["code"] == "method_not_allowed"
