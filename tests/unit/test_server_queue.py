"""Many clients and one LLM: who waits, who is told to come back, hanging up, time and the end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import pytest
from serving import CHAT, LONG_S, GatedLLM, ask, chat, history, people, serving

from hydra_edge.server.tokens import add_app


@pytest.fixture
def person(hash_encoder):
    yield from people(hash_encoder)


def send(served, query):
    """Send a chat request and return the socket, to be hung up."""
    return send_to(served, CHAT, chat(query))


def send_to(served, path, fields):
    """Send a request and return the socket, to be hung up."""
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        f"Authorization: Bearer {served.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", served.port), timeout=LONG_S)
    sock.sendall(head.encode() + body)
    return sock


def wait_until(condition):
    """Wait for something another thread brings about; fail rather than hang."""
    tick = threading.Event()
    for _ in range(int(LONG_S / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    pytest.fail("it did not happen")


def test_queue_full_sends_away_and_loses_nobody_who_waits(person):
    llm = GatedLLM()
    with serving(person(llm), queue=2) as served, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, served, "parsers 0")]
        assert llm.started.acquire(timeout=LONG_S)
        answers += [pool.submit(ask, served, f"parsers {i}") for i in (1, 2)]
        lane = served.app.service.llm
        wait_until(lambda: lane.waiting == 2)

        refused = ask(served, "parsers 3")
        with served.client() as client:
            ranked = client.post("/v1/rank", json={"query": "parsers"})
        llm.gate.set()
        texts = [a.result(LONG_S).json()["choices"][0]["message"]["content"] for a in answers]

    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in refused.headers
    assert ranked.status_code == 200, "what is quick does not wait for the LLM"
    assert [text.rpartition(" ")[2] for text in texts] == ["0", "1", "2"]


def test_queue_of_none_still_ranks(person, monkeypatch):
    me, begun, gate = person(), threading.Semaphore(0), threading.Event()
    rank = me.rank

    def slowly(*args, **options):
        begun.release()
        assert gate.wait(LONG_S)
        return rank(*args, **options)

    def ask_rank(served):
        with served.client() as client:
            return client.post("/v1/rank", json={"query": "parsers"}).status_code

    monkeypatch.setattr(me, "rank", slowly)
    with serving(me, queue=0) as served, ThreadPoolExecutor(3) as pool:
        ranked = [pool.submit(ask_rank, served) for _ in range(3)]
        assert begun.acquire(timeout=LONG_S)
        wait_until(lambda: served.app.service.engine.waiting == 2 or any(r.done() for r in ranked))
        gate.set()
        assert [r.result(LONG_S) for r in ranked] == [200] * 3


def test_client_that_hangs_up_frees_its_candidates(person):
    llm = GatedLLM()
    with serving(person(llm)) as served:
        with send(served, "parsers 1"):
            assert llm.started.acquire(timeout=LONG_S)
        assert llm.stopped.acquire(timeout=LONG_S)

        llm.gate.set()
        assert ask(served, "parsers 2").json()["choices"][0]["message"]["content"].endswith("2")


def test_client_that_hangs_up_while_it_waits_leaves_the_queue(person):
    llm = GatedLLM()
    with serving(person(llm), queue=1) as served, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, served, "parsers 1")
        assert llm.started.acquire(timeout=LONG_S)
        lane = served.app.service.llm
        with send(served, "parsers gone"):
            wait_until(lambda: lane.waiting == 1)
        wait_until(lambda: lane.waiting == 0)

        second = pool.submit(ask, served, "parsers 2")
        wait_until(lambda: lane.waiting == 1)
        llm.gate.set()
        assert first.result(LONG_S).status_code == second.result(LONG_S).status_code == 200

    assert [prompt.query for prompt in llm.asked] == ["parsers 1", "parsers 2"]


def test_time_over_gives_what_is_finished_and_says_so(person):
    llm = GatedLLM(first=2)
    me = person(llm)
    me.rank("parsers")  # all is loaded: the time is spent on the LLM
    with serving(me, timeout_s=0.5) as served:
        answer = ask(served, "parsers 1").json()

    assert answer["hydra_edge"]["usage"]["received"] == 2
    assert "2 of 8 candidates arrived" in " ".join(answer["hydra_edge"]["notes"])


def test_time_over_with_nothing_finished_is_a_timeout(person):
    with serving(person(GatedLLM()), timeout_s=0.05) as served:
        response = ask(served, "parsers 1")
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    assert response.headers["x-should-retry"] == "false"


@contextmanager
def held(me):
    """Hold the engine, as a fit does."""
    taken, let_go = threading.Event(), threading.Event()

    def hold():
        with me.working():
            taken.set()
            assert let_go.wait(LONG_S)

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        try:
            assert taken.wait(LONG_S)
            yield
        finally:
            let_go.set()
            holder.result(LONG_S)


@pytest.mark.parametrize("path", [CHAT, "/v1/rank"])
def test_time_over_holds_for_an_app_that_waits_for_the_engine(person, monkeypatch, path):
    monkeypatch.setattr("hydra_edge.server.service._GRACE_S", 0.1)
    me = person()
    with serving(me, timeout_s=0.05) as served, held(me):
        app = add_app(served.files, "editor", user="memory")
        body = chat("parsers 1") if path == CHAT else {"query": "parsers 1"}
        with served.client(app) as client:
            client.timeout = LONG_S / 6
            response = client.post(path, json=body)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"


@pytest.fixture
def slow(hash_encoder, monkeypatch):
    """Return what lets an encoder take an hour for each call, by the server's clock."""
    encode, hours = hash_encoder.encode, []
    clock = SimpleNamespace(time=time.time, monotonic=lambda: 3600.0 * len(hours))
    monkeypatch.setattr("hydra_edge.server.service.time", clock)

    def slowly(texts, **options):
        hours.append(texts)
        return encode(texts, **options)

    return lambda: monkeypatch.setattr(hash_encoder, "encode", slowly)


def test_time_over_while_rank_embeds_is_a_timeout(person, slow):
    records = [replace(r, input=f"{r.input} {'word ' * 1000}") for r in history(40)]
    me = person(records=records)
    with serving(me) as served, served.client() as client:
        slow()
        response = client.post("/v1/rank", json={"query": "parsers"})
        embedded = me.engine.encoder.embedded
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    assert 0 < embedded < 2 * len(records)


def unread(n=80):
    """Make records of which each is a portion of its own to encode."""
    return [
        replace(r, id=f"new{i}", input=f"{r.input} {'word ' * 5000} {i}")
        for i, r in enumerate(history(n))
    ]


@pytest.mark.parametrize("path", ["/v1/feedback", "/api/choose"])
def test_choice_that_embeds_holds_up_no_reading_and_is_kept_when_left(
    person, hash_encoder, monkeypatch, path
):
    me, encode = person(), hash_encoder.encode
    called, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def gated(texts, **options):
        called.release()
        assert go_on.acquire(timeout=LONG_S)
        return encode(texts, **options)

    with serving(me) as served, served.client() as client:
        made = ask(served, "parsers 1").json()["id"].removeprefix("chatcmpl-")
        me.add(unread())
        monkeypatch.setattr(hash_encoder, "encode", gated)
        before = me.engine.encoder.embedded

        def ends_once_it_is_left():
            client.get("/health")  # a server that answers hears who hangs up, too
            go_on.release()
            return served.app.running == 0

        with send_to(served, path, {"id": made, "pick": 2}):
            assert called.acquire(timeout=LONG_S)
            for asked in ("/api/records", "/v1/records"):
                body = {"records": [{"input": "a", "output": "b"}]} if asked[1] == "v" else {}
                assert client.post(asked, json=body).status_code < 300
            wait_until(lambda: served.app.running == 1)  # which embeds still
        wait_until(ends_once_it_is_left)
        assert me.engine.encoder.embedded - before < 80
        assert me.store.choice(made).picked == 1
        assert me.store.head("paper_title", "adapter") is None


@pytest.mark.parametrize("path", ["/v1/feedback", "/api/choose"])
def test_choice_that_is_not_learned_in_time_is_kept_and_says_so(person, slow, path):
    me = person()
    made = me.generate("parsers 1", task="paper_title").id
    me.add(unread())
    slow()
    with serving(me) as served, served.client() as client:
        response = client.post(path, json={"id": made, "pick": 2})
        assert me.store.choice(made).picked == 1
    assert response.status_code == 504
    assert "The choice is kept" in response.json()["error"]["message"]


def test_choice_of_a_client_that_hangs_up_while_it_waits_is_kept(person, monkeypatch):
    me, begun, gate = person(), threading.Semaphore(0), threading.Event()
    made, rank = me.generate("parsers 1", task="paper_title").id, me.rank

    def slowly(*args, **options):
        begun.release()
        assert gate.wait(LONG_S)
        return rank(*args, **options)

    monkeypatch.setattr(me, "rank", slowly)
    with serving(me) as served, send_to(served, "/v1/rank", {"query": "parsers"}):
        assert begun.acquire(timeout=LONG_S)
        with send_to(served, "/v1/feedback", {"id": made, "pick": 2}):
            wait_until(lambda: served.app.service.engine.waiting == 1)
        gate.set()
        wait_until(lambda: me.store.choice(made) is not None)


@pytest.mark.parametrize("path", ["/v1/feedback", "/api/choose"])
def test_choices_that_wait_when_the_time_is_over_are_kept_and_say_so(person, monkeypatch, path):
    monkeypatch.setattr("hydra_edge.server.service._GRACE_S", 0.1)
    me = person()
    made = [me.generate(f"parsers {i}", task="paper_title").id for i in range(2)]

    def give(served, generation_id):
        with served.client() as client:
            return client.post(path, json={"id": generation_id, "pick": 2})

    with serving(me, timeout_s=0.05) as served:
        with held(me), ThreadPoolExecutor(2) as pool:
            told = list(pool.map(give, [served] * 2, made))
        wait_until(lambda: not served.app.service.is_learning)
        assert [me.store.choice(each).picked for each in made] == [1, 1]
    for response in told:
        assert response.status_code == 504
        assert "The choice is kept" in response.json()["error"]["message"]


def test_stop_keeps_a_choice_whose_client_was_told_that_it_would_be(person, monkeypatch):
    monkeypatch.setattr("hydra_edge.server.service._GRACE_S", 0.1)
    me = person()
    made, kept = me.generate("parsers 1", task="paper_title").id, []
    close = me.store.close

    def close_and_tell():
        if not kept:  # it is closed twice
            kept.append(me.store.choice(made))
        close()

    monkeypatch.setattr(me.store, "close", close_and_tell)
    with serving(me, timeout_s=0.05) as served:
        with held(me), served.client() as client:
            told = client.post("/v1/feedback", json={"id": made, "pick": 2})
            served.server.stop()
            served.thread.join(0.3)
        served.thread.join(LONG_S)
    assert told.status_code == 504
    assert kept[0].picked == 1


def test_stop_finishes_what_was_taken_and_refuses_what_is_new(person):
    llm = GatedLLM()
    with serving(person(llm)) as served, ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(ask, served, f"parsers {i}") for i in (1, 2)]
        assert llm.started.acquire(timeout=LONG_S)
        lane = served.app.service.llm
        wait_until(lambda: lane.waiting == 1)

        served.server.stop()
        refused = ask(served, "parsers 3")
        with served.client() as client:
            health = client.get("/health")
        llm.gate.set()
        assert [t.result(LONG_S).status_code for t in taken] == [200, 200]
        served.thread.join(LONG_S)
        assert not served.thread.is_alive()

    assert (refused.status_code, health.status_code) == (503, 503)
    assert refused.json()["error"]["code"] == "shutting_down"
    assert "Retry-After" in refused.headers
    assert "x-should-retry" not in refused.headers


def test_stop_twice_breaks_off_and_tells_the_llm(person):
    llm = GatedLLM()
    with serving(person(llm)) as served, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(ask, served, "parsers 1")
        assert llm.started.acquire(timeout=LONG_S)
        served.server.stop()
        served.server.stop()
        assert llm.stopped.acquire(timeout=LONG_S)
        served.thread.join(LONG_S)
        assert not served.thread.is_alive()
        error = taken.exception(LONG_S)
        assert error is not None or taken.result().status_code >= 500


def test_many_clients_lose_and_cross_no_answer(person):
    """Fifty clients at once, each with queries only it asks: each answer is to its own query."""
    clients, each = 50, 40

    async def client(served, number):
        wrong = []
        auth = {"Authorization": f"Bearer {served.token}"}
        async with httpx2.AsyncClient(base_url=served.url, headers=auth, timeout=None) as http:
            for i in range(each):
                nonce = f"n{number}x{i}"
                body = chat(f"parsers {nonce}", hydra_edge={"candidates": 2}, stream=i % 4 == 0)
                response = await http.post(CHAT, json=body)
                if response.status_code != 200 or f' to {nonce}"' not in response.text:
                    wrong.append((nonce, response.status_code, response.text))
        return wrong

    async def all_clients(served):
        return await asyncio.gather(*(client(served, number) for number in range(clients)))

    with serving(person(records=history(4))) as served:
        assert [wrong for wrong in asyncio.run(all_clients(served)) if wrong] == []
        lane = served.app.service.llm
        wait_until(lambda: served.app.running == 0)
        assert (lane.served, lane.waiting) == (clients * each, 0)
