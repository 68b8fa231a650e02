"""The server against hostile pages, names, programs and bodies; most get nothing but a status."""

from __future__ import annotations

import io
import json
import socket

import attacked
import pytest
from attacked import SECRET, code
from serving import serving
from starlette.routing import Route

from hydra_edge.config import find_paths
from hydra_edge.server import chat, guard, run
from hydra_edge.server.tokens import TokenFiles, owner_token

JSON = {"Content-Type": "application/json"}
person, served = attacked.person, attacked.served


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


def test_photo_in_an_early_turn_ends_no_conversation(served):
    photo = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (2 << 20)}}
    turns = [
        {"role": "user", "content": [photo]},
        {"role": "assistant", "content": "a harbour"},
        {"role": "user", "content": "parsers"},
    ]
    with served.client() as client:
        asked = {"model": "hydra-edge", "messages": turns}
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
        turns[2]["content"] = "x" * (chat.MAX_READ_CHARS + 1)
        response = client.post("/v1/chat/completions", json=asked)
        assert (response.status_code, code(response)) == (413, "body_too_large")
        turns[1]["content"] = "x" * guard.MAX_CHAT_BYTES
        response = client.post("/v1/chat/completions", json=asked)
    assert (response.status_code, code(response)) == (413, "body_too_large")


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


def test_connections_beyond_the_limit_are_told_so(served, monkeypatch):
    with socket.create_connection(("127.0.0.1", served.port)), served.client() as client:
        assert client.get("/v1/models").status_code == 200
        monkeypatch.setattr(run, "_CONNECTIONS", 2)
        refused = client.get("/v1/models")
        assert (refused.status_code, code(refused)) == (503, "too_many_connections")
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"] == "1"


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


@pytest.mark.parametrize("is_there", [False, True])
def test_fault_of_our_own_is_answered_where_nobody_reads_of_it(monkeypatch, is_there):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone() if is_there else None)
    monkeypatch.setenv("HYDRA_EDGE_DEBUG", "1")
    assert guard.as_known(ValueError("a text")).code == "internal"


def test_nothing_of_a_request_is_written_anywhere_by_the_server(served, capfd):
    with served.client() as client:
        client.get(f"/v1/models?q={SECRET}")
        client.post("/v1/rank", json={"query": SECRET})
        client.post("/v1/rank", content=SECRET.encode(), headers=JSON)
        client.post("/v1/nothing", json={"query": SECRET})
    raw(served, f"GARBAGE {SECRET}\r\n\r\n".encode())

    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_half_a_character_in_a_fields_name_is_named(served):
    with served.client() as client:
        for path in ("/v1/chat/completions", "/v1/rank"):
            response = client.post(path, content=b'{"cut \\ud83d": 1}', headers=JSON)
            assert (response.status_code, code(response)) == (400, "unknown_parameter")


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
