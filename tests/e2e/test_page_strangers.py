"""The page in a browser beside pages of other origins, which get and change nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import page_browser
import pytest
from page_browser import SLOW_MS

pytestmark = page_browser.MARKS
browser, llm, make = page_browser.browser, page_browser.llm, page_browser.make
me, served = page_browser.me, page_browser.served


HOSTILE_PAGE = """<!doctype html><title>evil</title><body><script>
const target = TARGET, got = [], body = JSON.stringify({ids: ["r1"]});
const headers = {"Content-Type": "application/json", Authorization: TOKEN};
const go = (what, path, options) => fetch(target + path, options).then(
  async (r) => got.push(`${what} ${r.type} ${(await r.text()).length}`),
  () => got.push(`${what} blocked`));
const frame = new Promise((done) => {
  const it = document.createElement("iframe");
  it.onload = () => { got.push(it.contentDocument ? "frame seen" : "frame closed"); done(); };
  it.src = target + "/";
  document.body.append(it);
});
Promise.all([
  frame,
  go("read", "/", {}),
  go("health", "/health", {}),
  go("json", "/api/records/delete", {method: "POST", headers, body}),
  go("simple", "/api/records/delete", {method: "POST", mode: "no-cors", body}),
]).then(() => { document.title = JSON.stringify(got.sort()); });
</script>"""


@contextmanager
def another_site(content: str) -> Iterator[str]:
    """Serve one page on a port of its own, which makes it another origin; return its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_port}/"
        finally:
            site.shutdown()
            thread.join()


def test_page_of_another_origin_gets_and_changes_nothing(browser, served, me):
    secrets = {"TARGET": served.url, "TOKEN": f"Bearer {served.token}"}
    content = HOSTILE_PAGE
    for name, value in secrets.items():
        content = content.replace(name, json.dumps(value))
    with another_site(content) as address:
        page = browser.new_page()
        try:
            page.goto(address, timeout=SLOW_MS)
            page.wait_for_function("document.title !== 'evil'", timeout=SLOW_MS)
            got = json.loads(page.title())
        finally:
            page.close()

    # Even with the right token: a browser says which page asks, and that page is not ours.
    assert got[:4] == ["frame closed", "health blocked", "json blocked", "read blocked"]
    assert got[4] in ("simple opaque 0", "simple blocked")
    assert me.store.count() == 24


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1"])
def test_forged_origin_is_refused(served, me, origin):
    with served.client(Origin=origin) as client:
        response = client.post("/api/records/delete", json={"ids": ["r1"]})
    assert response.status_code == 403
    assert me.store.count() == 24
