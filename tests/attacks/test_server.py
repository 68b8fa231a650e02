"""The server against hostile pages, names, programs and bodies; most get nothing but a status."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from serving import LONG_S, EchoLLM, GatedLLM, chat, history, serving
from starlette.routing import Route

from hydra_edge.config import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.server import guard, run
from hydra_edge.server.tokens import TokenFiles, add_app, owner_token
from hydra_edge.types import Completion, Record

SECRET = "a secret of mine"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def person(hash_encoder):
    records = [
        *history(),
        *history(6, "note_title"),
        Record("a text about parsers of mine", SECRET, "paper_title", "p1", 99.0, private=True),
    ]
    with Personalizer.from_records(records, llm=EchoLLM(), encoder=hash_encoder) as me:
        yield me


@pytest.fixture
def served(person):
    with serving(person) as it:
        yield it


def raw(served, request: bytes) -> bytes:
    """Send bytes as they are and return all that comes back."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as sock:
        sock.sendall(request)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts)


def get(served, path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *headers, "Connection: close", "", ""]
    return raw(served, "\r\n".join(lines).encode("latin-1"))


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def code(response) -> str:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/rank", "/v1/nothing", "/health/", "/staticx"])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic TOKEN", "TOKEN"]
)
def test_request_without_a_valid_token_gets_nothing(served, path, authorization):
    with served.client() as client:
        del client.headers["Authorization"]
        headers = JSON if authorization is None else JSON | {
            "Authorization": authorization.replace("TOKEN", served.token)
        }  # fmt: skip
        response = client.post(path, json={"query": "x"}, headers=headers)

    assert response.status_code == 401
    assert code(response) == "invalid_api_key"
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_token_in_the_address_opens_nothing(served):
    with served.client() as client:
        del client.headers["Authorization"]
        assert client.get(f"/v1/models?token={served.token}").status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:PORT", "127.0.0.1.evil.example:PORT",
     "127.0.0.2:PORT", "0.0.0.0:PORT", "localhost:PORT@evil.example", "", "user@127.0.0.1:PORT"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/health", "/", "/v1/models"])
def test_host_that_is_not_ours_is_misdirected(served, host, path):
    answer = get(
        served, path, f"Host: {host.replace('PORT', str(served.port))}",
        f"Authorization: Bearer {served.token}",
    )  # fmt: skip
    assert status(answer) == 421
    assert b"wrong_host" in answer


@pytest.mark.parametrize(
    "host", ["127.0.0.1:PORT", "localhost:PORT", "LOCALHOST:PORT", "[::1]:PORT"]
)
def test_host_that_is_ours_is_served(served, host):
    answer = get(served, "/health", f"Host: {host.replace('PORT', str(served.port))}")
    assert status(answer) == 200


def test_host_given_twice_or_not_at_all_is_refused(served):
    ours = f"Host: 127.0.0.1:{served.port}"
    assert status(get(served, "/health", ours, "Host: evil.example")) in (400, 421)
    assert status(get(served, "/health")) in (400, 421)
    assert status(get(served, "http://evil.example/v1/models", ours)) != 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:PORT", "http://localhost:PORT",
     "http://127.0.0.1", "http://127.0.0.1:PORT.evil.example", "file://", "", "http://["],
)  # fmt: skip
def test_origin_that_is_another_is_refused_even_with_the_token(served, origin):
    origin = origin.replace("PORT", str(served.port))
    with served.client(Origin=origin) as client:
        for response in (
            client.get("/v1/models"), client.post("/v1/rank", json={"query": "parsers"}),
            client.get("/health"),
        ):  # fmt: skip
            assert response.status_code == 403
            assert code(response) == "wrong_origin"


def test_origin_that_is_ours_is_served(served):
    with served.client(Origin=served.url) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_browser_that_says_another_site_asks_is_refused(served, site):
    with served.client(**{"Sec-Fetch-Site": site}) as client:
        assert code(client.get("/v1/models")) == "wrong_site"
    with served.client(**{"Sec-Fetch-Site": "same-origin"}) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "", "application/jsonp", "text/plain; application/json"],
)  # fmt: skip
def test_body_a_page_could_send_unasked_is_refused(served, kind, person):
    before = person.store.count()
    body = json.dumps({"records": [{"input": "a", "output": "b"}]})
    with served.client() as client:
        response = client.post("/v1/records", content=body, headers={"Content-Type": kind})

    assert response.status_code == 415
    assert code(response) == "wrong_content_type"
    assert person.store.count() == before


def test_body_compressed_is_refused(served):
    with served.client() as client:
        response = client.post(
            "/v1/rank", content=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"}
        )
    assert code(response) == "wrong_content_encoding"


def test_no_response_ever_allows_another_origin(served):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    with served.client() as client:
        responses = [
            client.options("/v1/rank", headers=asked), client.options("/v1/rank"),
            client.get("/health"), client.get("/v1/models"), client.get("/v1/none"),
            client.put("/v1/rank", json={}), client.post("/v1/rank", json={"query": "parsers"}),
        ]  # fmt: skip
    assert [r.status_code for r in responses] == [403, 415, 200, 200, 404, 405, 200]
    for response in responses:
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in response.headers


def test_no_response_can_be_framed_embedded_or_sent_on(served):
    with served.client() as client:
        responses = [client.get("/"), client.get("/health"), client.get("/v1/none")]
    for response in responses:
        policy = dict(
            part.strip().split(" ", 1)
            for part in response.headers["Content-Security-Policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
            "img-src": "'self' data:", "connect-src": "'self'", "base-uri": "'none'",
            "form-action": "'none'", "frame-ancestors": "'none'",
        }  # fmt: skip
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_body_of_the_largest_size_is_served_and_one_byte_more_is_not(served):
    start, end = b'{"query": "', b'"}'
    fill = b"x" * (guard.MAX_BODY_BYTES - len(start) - len(end))

    def parts():
        yield start
        yield fill
        yield b"x" + end

    with served.client() as client:
        assert client.post("/v1/rank", content=start + fill + end, headers=JSON).status_code == 200
        for body in (start + fill + b"x" + end, parts()):
            response = client.post("/v1/rank", content=body, headers=JSON)
            assert response.status_code == 413
            assert code(response) == "body_too_large"


def test_body_of_an_unauthorized_sender_is_not_read(served):
    """A program without a token cannot make us hold its bytes: it is answered before it sends."""
    request = (
        f"POST /v1/rank HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    assert status(raw(served, request.encode())) == 401


def test_body_that_does_not_come_is_timed_out(served, monkeypatch):
    monkeypatch.setattr(guard, "BODY_WAIT_S", 0.05)
    request = (
        f"POST /v1/rank HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        f"Authorization: Bearer {served.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
    )
    answer = raw(served, request.encode())
    assert status(answer) == 408
    assert b"slow_body" in answer


@pytest.mark.parametrize("start", [b"", b"GET /health HTTP/1.1\r\nHost: 127"])
def test_headers_that_do_not_come_are_hung_up_on(person, monkeypatch, start):
    monkeypatch.setattr(run, "HEADER_WAIT_S", 0.05)
    with serving(person) as served:
        assert raw(served, start) == b""


def test_headers_trickling_on_a_kept_connection_are_hung_up_on(person, monkeypatch):
    monkeypatch.setattr(run, "HEADER_WAIT_S", 0.2)
    with serving(person) as served:
        whole = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as sock:
            sock.sendall(whole)
            answer = b""
            while not answer.endswith(b"}"):  # head and body may come apart
                part = sock.recv(65536)
                assert part, "hung up before the answer was whole"
                answer += part
            assert status(answer) == 200
            sock.sendall(b"GET /he")
            assert sock.recv(65536) == b""


def test_headers_without_end_are_refused(served):
    """They are cut off, with a status or, where the rest is still on its way, without."""
    try:
        answer = raw(served, b"GET /health HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
    except ConnectionError:
        return
    assert status(answer) in (400, 431)


def test_upgrade_to_a_websocket_opens_nothing(served):
    answer = get(
        served, "/v1/models", f"Host: 127.0.0.1:{served.port}", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    assert status(answer) == 401


@pytest.mark.parametrize(
    "path",
    ["/static/../v1/models", "/static/%2e%2e/v1/models", "//v1/models", "/static//v1/models"],
)
def test_path_that_pretends_to_be_open_reaches_nothing(served, path):
    assert status(get(served, path, f"Host: 127.0.0.1:{served.port}")) in (401, 404)


def test_fault_of_our_own_repeats_no_text(person, capfd, monkeypatch):
    def fail(*_args, **_options):
        raise ValueError(SECRET)

    monkeypatch.setattr(person, "rank", fail)
    with serving(person) as served, served.client() as client:
        response = client.post("/v1/rank", json={"query": SECRET})

    assert response.status_code == 500
    assert code(response) == "internal"
    said = capfd.readouterr()
    assert SECRET not in response.text + said.out + said.err
    assert "ValueError" in said.err


def test_nothing_of_a_request_is_written_anywhere_by_the_server(served, capfd):
    with served.client() as client:
        client.get(f"/v1/models?q={SECRET}")
        client.post("/v1/rank", json={"query": SECRET})
        client.post("/v1/rank", content=SECRET.encode(), headers=JSON)
        client.post("/v1/nothing", json={"query": SECRET})
    raw(served, f"GARBAGE {SECRET}\r\n\r\n".encode())

    said = capfd.readouterr()
    assert said.out + said.err == ""


# Apps: what one may see, use and change.


@pytest.fixture
def app_token(served):
    def make(name="editor", user="memory", **options):
        return add_app(served.files, name, user=user, **options)

    return make


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


def test_app_is_never_shown_a_private_record(served, app_token, person):
    body = {"query": "a text about parsers of mine", "k": 100, "task": "paper_title"}
    with served.client() as owner:
        assert SECRET in owner.post("/v1/rank", json=body).text
    with served.client(app_token()) as client:
        response = client.post("/v1/rank", json=body)
        asked = {
            "model": "hydra-edge/paper_title",
            "messages": [{"role": "user", "content": body["query"]}],
        }
        answered = client.post("/v1/chat/completions", json=asked)

    assert response.status_code == answered.status_code == 200
    assert SECRET not in response.text + answered.text
    shown = {shot.output for prompt in person.llm.inner.asked for shot in prompt.shots}
    assert shown
    assert SECRET not in "".join(shown)


def test_app_answer_is_thrown_away_once_its_record_is_private(hash_encoder):
    shown = Record("a text about parsers of mine", SECRET, "paper_title", "p1", 99.0)
    llm = GatedLLM()
    body = chat(shown.input, "hydra-edge/paper_title", hydra_edge={"candidates": 2})
    with (
        Personalizer.from_records([*history(), shown], llm=llm, encoder=hash_encoder) as person,
        serving(person) as served,
        served.client(add_app(served.files, "editor", user="memory")) as client,
        ThreadPoolExecutor() as threads,
    ):
        waiting = threads.submit(client.post, "/v1/chat/completions", json=body)
        assert llm.started.acquire(timeout=LONG_S)
        person.store.set_private([shown.id], True)
        broken_off = llm.stopped.acquire(timeout=LONG_S)
        llm.gate.set()
        response = waiting.result(timeout=LONG_S)

        assert broken_off
        assert response.status_code == 503
        assert "private meanwhile" in response.text
        assert SECRET not in response.text
        assert person.store.last_generation() is None
        again = client.post("/v1/chat/completions", json=body)
        assert again.status_code == 200
        assert shown.id not in [record["id"] for record in again.json()["hydra_edge"]["records"]]


def test_app_learns_no_name_of_a_task_whose_records_are_all_private(served, app_token, person):
    person.add(
        Record(f"a text {i}", f"an answer {i}", "illness_diary", private=True) for i in range(120)
    )
    assert next(iter(person.store.tasks())) == "illness_diary", "what a query is taken for"
    ask, path = chat("parsers"), "/v1/chat/completions"
    with served.client(app_token()) as client, served.client() as owner:
        assert "illness_diary" in owner.get("/v1/models").text
        assert owner.post(path, json=ask).json()["hydra_edge"]["task"] == "illness_diary"
        answers = [
            client.get("/v1/models"),
            client.post("/v1/rank", json={"query": "parsers"}),
            client.post(path, json=ask),
            client.post(path, json=ask | {"stream": True}),
        ]
        one = client.get("/v1/models/hydra-edge/illness_diary")
        person.store.set_private([person.store.records(task="illness_diary")[0].id], False)
        assert "illness_diary" in client.get("/v1/models").text, "one it may see is enough"

    assert [answer.status_code for answer in answers] == [200] * 4
    assert "illness_diary" not in "".join(answer.text for answer in answers)
    assert [m["id"] for m in answers[0].json()["data"]] == [
        "hydra-edge", "hydra-edge/paper_title", "hydra-edge/note_title",
    ]  # fmt: skip
    assert answers[1].json()["task"] == "paper_title"
    assert one.status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rank", lambda task: {"query": "parsers", "task": task}),
        ("/v1/chat/completions", lambda task: chat("parsers", f"hydra-edge/{task}")),
        (
            "/v1/chat/completions",
            lambda task: chat("parsers", f"hydra-edge/{task}", stream=True),
        ),
    ],
    ids=["rank", "chat", "stream"],
)
def test_app_task_of_private_records_is_refused_as_an_unknown_one_is(
    served, app_token, person, path, body
):
    person.add([Record("a text", "an answer", "illness_diary", private=True)])
    with served.client(app_token()) as client, served.client() as owner:
        private = client.post(path, json=body("Illness-Diary"))
        unknown = client.post(path, json=body("no_such_task"))
        built_in = client.post(path, json=body("email_reply"))
        seen = client.post(path, json=body("Note-Title"))
        assert owner.post(path, json=body("illness_diary")).status_code == 200
    with served.client(app_token("gone", tasks=["no_such_task"])) as client:
        named_but_gone = client.post(path, json=body("no_such_task"))
    with served.client(app_token("diary", tasks=["illness_diary"])) as client:
        named = client.post(path, json=body("illness_diary"))

    assert (private.status_code, code(private)) == (404, "unknown_task")
    assert private.text == unknown.text == named_but_gone.text
    for task in ("diary", "no_such_task", "paper_title", "commit_subject"):
        assert task not in private.text
    assert (built_in.status_code, seen.status_code, named.status_code) == (200, 200, 200)


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


MAILS = [
    Record("The mail of a doctor", "positive", "diagnosis", private=True, source="mbox:mail"),
    Record("The mail of a nurse", "positive", "diagnosis", "m2", private=True, source="mbox:mail"),
]


def as_answered(answer):
    """Return all an app is told of an answer that could depend on what it may not see."""
    ours = answer["hydra_edge"]
    return (
        answer["choices"][0]["message"]["content"],
        [(c["text"], c["score"]) for c in ours["candidates"]],
        [(r["id"], r["score"]) for r in ours["records"]],
    )


class ListLLM(EchoLLM):
    """An LLM that gives each of these answers in turn."""

    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def answers(self, prompt, n):
        texts = self.texts
        return [Completion(texts[i % len(texts)], greedy=i == 0, tokens=1) for i in range(n)]


BIOPSY = "Diagnosis of the biopsy taken on the third of March"
GUESSES = {
    "label": ["positive", "negative"],
    "rating": ["1", "2", "3"],
    "text": ["I am fine and will come", "I have cancer and cannot come", "No time, sorry"],
}


@pytest.mark.parametrize("kind", GUESSES)
def test_app_is_answered_as_if_no_private_record_were_there(hash_encoder, kind):
    """Neither what is chosen, nor any score or order, tells what a private record says."""
    guesses, words = GUESSES[kind], ["gardens", "trains", "rivers", "soup", "ladders", "paint"]
    public = [
        Record(
            f"a public note number {i} about {words[i % 6]}",
            f"The {words[i % 6]} look {words[i % 5]}" if kind == "text" else guesses[i % 2],
            "diagnosis", f"p{i}", 1000.0 + i,
        )
        for i in range(12)
    ]  # fmt: skip
    told = []
    for truth in (None, *guesses):
        held = [Record(BIOPSY, truth, "diagnosis", "s", 500.0, private=True)] if truth else []
        me = Personalizer.from_records([*public, *held], llm=ListLLM(guesses), encoder=hash_encoder)
        with me, serving(me) as served:
            assert me.task("diagnosis").kind == kind
            token = add_app(served.files, f"{kind}{len(told)}", user="memory", tasks=["diagnosis"])
            with served.client(token) as spy:
                asked = spy.post("/v1/chat/completions", json=chat(BIOPSY, "hydra-edge/diagnosis"))
                guessed = [
                    {"id": f"g{i}", "input": BIOPSY, "output": guess, "task": "diagnosis"}
                    for i, guess in enumerate(guesses[:2])
                ]
                spy.post("/v1/records", json={"records": guessed})
                body = {"query": BIOPSY, "task": "diagnosis", "k": 100}
                ranked = spy.post("/v1/rank", json=body).json()["records"]
            told.append((as_answered(asked.json()), [(r["id"], r["score"]) for r in ranked]))

    assert len(told[0][1]) == 14
    assert all(one == told[0] for one in told)


@pytest.mark.parametrize("keep", [True, False])
def test_app_guessing_a_label_cannot_tell_whether_private_records_have_it(hash_encoder, keep):
    public = [Record(f"a note {i}", ("well", "tired")[i % 2], "diagnosis", f"p{i}", 1000.0 + i)
              for i in range(12)]  # fmt: skip
    told = []
    for held in ([], [Record(BIOPSY, "positive", "diagnosis", "s", 500.0, private=True)]):
        me = Personalizer.from_records(
            [*public, *held], llm=ListLLM(["well"]), encoder=hash_encoder
        )
        with me, serving(me) as served:
            token = add_app(served.files, f"guess{len(told)}", user="memory", tasks=["diagnosis"])
            with served.client(token) as spy:
                asked = spy.post("/v1/chat/completions", json=chat(BIOPSY, "hydra-edge/diagnosis"))
                guess = {"id": asked.json()["id"], "text": "positive", "keep": keep}
                chosen = spy.post("/v1/feedback", json=guess).json()
                body = {"query": BIOPSY, "task": "diagnosis", "k": 100}
                ranked = spy.post("/v1/rank", json=body).json()["records"]
            told.append((chosen["head_version"], [r["output"] for r in ranked]))

    assert told[0] == told[1]
    assert ("positive" in told[0][1]) is keep


@pytest.mark.parametrize("name", ["", "m2", "m2" * 100], ids=["unnamed", "named", "long"])
@pytest.mark.parametrize("text", [mail.input for mail in MAILS])
def test_app_adding_cannot_tell_what_is_private(hash_encoder, name, text):
    """All it is told and shown is the same whether or not private records hold what it adds."""
    told = []
    for held in ([], MAILS):
        records = [Record("a mail", "seen by all", "diagnosis", "m0"), *held]
        me = Personalizer.from_records(records, llm=EchoLLM(), encoder=hash_encoder)
        with me, serving(me) as served:
            token = add_app(served.files, f"spy{len(told)}", user="memory")
            before = me.store.records(source="mbox:mail")
            counts = []
            with served.client(token) as spy:
                for guess in ("negative", "positive", "positive"):
                    entry = {"id": name, "input": text, "output": guess, "task": "diagnosis"}
                    added = spy.post("/v1/records", json={"records": [entry]})
                    counts.append((added.status_code, added.json()))
                body = {"query": text, "task": "diagnosis", "k": 100}
                ranked = spy.post("/v1/rank", json=body).json()["records"]
                asked = spy.post(
                    "/v1/chat/completions", json=chat(text, "hydra-edge/diagnosis")
                ).json()
            told.append(
                (
                    counts,
                    [(r["id"], r["output"], r["score"]) for r in ranked],
                    as_answered(asked),
                )
            )
            assert me.store.records(source="mbox:mail") == before

    assert told[0] == told[1]
    first, second, again = (count for _, count in told[0][0])
    assert (first["added"], again["unchanged"]) == (1, 1)
    assert (second["updated"] if name else second["added"]) == 1
    assert len(told[0][1]) == (2 if name else 3)


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


def test_half_a_character_in_a_fields_name_is_named(served):
    with served.client() as client:
        for path in ("/v1/chat/completions", "/v1/rank"):
            response = client.post(path, content=b'{"cut \\ud83d": 1}', headers=JSON)
            assert (response.status_code, code(response)) == (400, "unknown_parameter")


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


def test_owner_token_made_anew_shuts_the_old_one_out_of_a_running_server(served):
    with served.client() as client:
        assert client.get("/v1/models").status_code == 200
        new = owner_token(served.files, renew=True)
        assert client.get("/v1/models").status_code == 401
    with served.client(new) as client:
        assert client.get("/v1/models").status_code == 200
        served.files.owner.write_text("")
        response = client.get("/v1/models")
    assert response.status_code == 500
    message = response.json()["error"]["message"]
    assert "owner's" in message
    assert "start the server again" not in message, "that would end with the same fault"


def test_server_listens_on_loopback_only(served):
    with served.client() as client:
        assert client.get("/health").status_code == 200  # only now is it surely listening
    assert served.server.servers[0].sockets[0].getsockname()[0] == "127.0.0.1"


def test_further_route_stands_behind_the_same_guard(person):
    """A route added to the app is refused without a token, unless it is one of the open paths."""
    from starlette.responses import PlainTextResponse

    from hydra_edge.aio import AsyncPersonalizer
    from hydra_edge.server.app import create_app
    from hydra_edge.server.service import Settings
    from hydra_edge.server.tokens import Doorkeeper

    async def page(_request):
        return PlainTextResponse("page")

    files = TokenFiles.of(find_paths())
    settings = Settings(port=80, doorkeeper=Doorkeeper(files, ["x" * 40]))
    more = [Route("/", page), Route("/static/a.js", page), Route("/v1/more", page)]
    app = create_app(AsyncPersonalizer(person), settings, more)

    for path, expected in (("/", 200), ("/static/a.js", 200), ("/v1/more", 401)):
        assert call(app, path) == expected


def call(app, path):
    """Ask an ASGI app once, without a server."""
    import asyncio

    seen = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        seen.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"host", b"localhost")], "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return seen[0]["status"]
