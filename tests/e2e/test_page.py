"""The page in a real headless Chromium, against the real server and a file of records.

Whatever a test does, at its end the page must have asked nobody but its own server, put no text
into an address, and broken no rule of its content security policy.

Set HYDRA_EDGE_SCREENSHOTS=docs/images to have the pictures in the docs taken anew: that test
uses the shipped base and the local LLM.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from serving import GatedLLM, Served, serving

from hydra_edge import forgetting, portrait
from hydra_edge.config import load_config
from hydra_edge.errors import CancelledError
from hydra_edge.importers import ImportLog, read_jsonl
from hydra_edge.paths import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.privatefiles import make_private_dir
from hydra_edge.store import Store
from hydra_edge.types import Record

pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]

REPO = Path(__file__).parents[2]
SLOW_MS = 300_000  # no step takes this long unless it fails
TASK = "paper_title"
TOPICS = ("parser", "speech", "vision", "search")
QUERY = "a text about parser trees that are read twice"
HOSTILE = '<img src="x" onerror="document.title=1"><script>document.title=2</script>'
PATHS = re.compile(
    r"/(|static/[a-z]+\.(js|css|svg)|api/(summary|llm|heads|growth|answer|choose|fit|records(/[a-z]+)?))"
)
expect.set_options(timeout=SLOW_MS)


class StyledLLM(GatedLLM):
    """Answers a plain title first, then titles in and out of the person's style."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.set()

    def answers(self, prompt, n):
        topic = next((t for t in TOPICS if t in prompt.query), "nothing")
        texts = ["A Study", f"{topic}: study 7", f"On {topic}", "Something Else"] * n
        made = super().answers(prompt, n)
        return [replace(c, text=t) for c, t in zip(made, texts[:n], strict=True)]


def titles(n: int = 24) -> list[Record]:
    return [
        Record(f"a long text about {TOPICS[i % 4]} number {i}", f"{TOPICS[i % 4]}: study {i}",
               TASK, f"r{i}", 1.7e9 + 86400 * i, source="titles.jsonl")
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        reason = "needs Chromium: apt-get install chromium, or CHROMIUM=path"
        if os.environ.get("HYDRA_EDGE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=SLOW_MS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def llm() -> StyledLLM:
    return StyledLLM()


@pytest.fixture
def make(hash_encoder, llm):
    """Make a person of a file of their own, with these records."""
    made: list[Personalizer] = []

    def person(records: list[Record]) -> Personalizer:
        paths = find_paths()
        make_private_dir(paths.users)
        me = Personalizer(
            Store.open(paths.user_file("me"), create=True), user="me", config=load_config(paths),
            paths=paths, llm=llm, encoder=hash_encoder,
        )  # fmt: skip
        me.add(records)
        made.append(me)
        return me

    yield person
    for me in made:
        me.close()


@pytest.fixture
def me(make) -> Personalizer:
    return make(titles())


@pytest.fixture
def served(me) -> Iterator[Served]:
    with serving(me) as running:
        yield running


@contextmanager
def visiting(browser: Browser, url: str, **context) -> Iterator[Page]:
    """Open a page and hold it to its rules for as long as the context lasts."""
    opened = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
    opened.set_default_timeout(SLOW_MS)
    page = opened.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda message: faults.append(message.text) if "Content Security" in message.text else None,
    )
    page.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.log("
        "'Content Security: ' + e.violatedDirective + ' ' + e.blockedURI))"
    )
    try:
        yield page
        assert faults == []
        assert asked
        for address in asked:
            assert address.startswith(url + "/"), address
            # A fragment is never sent; what is sent names a file or a route, and no text.
            path, _, fragment = address.removeprefix(url).partition("#")
            assert PATHS.fullmatch(path), address
            assert fragment == "" or fragment.startswith("token=")
    finally:
        opened.close()


@contextmanager
def opened(browser: Browser, served: Served, **context) -> Iterator[Page]:
    """Open the page as ``hydra-edge serve --open`` does."""
    with visiting(browser, served.url, **context) as page:
        page.goto(f"{served.url}/#token={served.token}")
        expect(page.locator("body[data-state=ready]")).to_be_attached()
        yield page


def ask(page: Page, query: str = QUERY) -> None:
    page.get_by_label("Abstract").fill(query)
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator(".side.mine .answer")).to_be_visible()
    expect(page.get_by_role("button", name="This is it")).to_be_visible()


def refused(page: Page) -> list[str]:
    """Return what axe finds to be a serious or critical barrier."""
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {node['target']} {node.get('failureSummary', '')}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


# ---- who is there


def test_first_run_says_which_command_imports(browser, make):
    with serving(make([])) as served, opened(browser, served) as page:
        expect(page.get_by_role("heading", name="Nothing to learn from yet")).to_be_visible()
        expect(page.get_by_text("hydra-edge import git ~/src/project")).to_be_visible()
        expect(page.get_by_text("No records of this task yet.")).to_be_visible()
        expect(page.get_by_role("button", name="Learn and judge again")).to_be_disabled()
        assert page.url == f"{served.url}/"
        assert refused(page) == []


def test_first_run_is_over_once_there_are_records(browser, make):
    me = make([])
    with serving(me) as served, opened(browser, served) as page:
        expect(page.get_by_role("heading", name="Nothing to learn from yet")).to_be_visible()
        me.add(titles())
        page.get_by_role("button", name="Look again").click()

        expect(page.get_by_role("heading", name="Nothing to learn from yet")).to_be_hidden()


def test_page_without_a_token_asks_for_it_and_keeps_it_for_the_tab(browser, served):
    with visiting(browser, served.url) as page:
        page.goto(served.url)
        token = page.get_by_label("Token")
        expect(token).to_be_focused()
        expect(page.get_by_role("heading", name="Try it")).to_be_hidden()
        assert refused(page) == []

        token.fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_text("This token opens nothing")).to_be_visible()
        token.fill(served.token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Try it")).to_be_visible()

        page.reload()
        expect(page.get_by_role("heading", name="Try it")).to_be_visible()
        assert page.evaluate("localStorage.length") == 0
        assert page.context.cookies() == []


@pytest.mark.parametrize("remote", [False, True])
def test_page_says_what_leaves_this_machine(browser, served, llm, remote):
    llm.is_remote = remote
    with opened(browser, served) as page:
        footer = page.locator("footer")
        sent = "What the LLM is sent leaves this machine."
        expect(footer).to_contain_text(sent if remote else "Everything here stays on this machine.")
        assert (sent in footer.inner_text()) is remote
        expect(page.locator("#private-line")).to_be_visible(visible=remote)


def test_server_that_is_gone_is_said_in_words(browser, me):
    with serving(me) as served, opened(browser, served) as page:
        served.stop()
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.locator("#records-problem")).to_contain_text("does not answer")


# ---- records


def test_records_are_found_kept_private_and_forgotten(browser, served, me):
    with opened(browser, served) as page:
        items = page.locator("#records > li")
        expect(items).to_have_count(6)
        expect(page.locator("#records-status")).to_have_text("1–6 of 24 records, newest first")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#records-status")).to_contain_text("7–12 of 24")
        expect(items.first.locator(".output")).to_have_text("speech: study 17")

        page.get_by_label("Search words").fill("vision 14")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(items).to_have_count(1)
        switch = items.get_by_role("switch", name="Private")
        expect(switch).to_have_attribute("aria-checked", "false")
        switch.click()
        expect(switch).to_have_attribute("aria-checked", "true")
        assert me.store.get("r14").private

        items.get_by_role("button", name="Delete").click()
        items.get_by_role("button", name="Keep it").click()
        expect(items.get_by_role("button", name="Delete")).to_be_focused()
        assert me.store.count() == 24
        items.get_by_role("button", name="Delete").click()
        items.get_by_role("button", name="Delete for good").click()
        expect(page.locator("#records-status")).to_contain_text("Deleted")
        expect(page.locator("#who")).to_have_text("me · 23 records")
    assert "r14" not in {record.id for record in me.store.records()}


def test_delete_is_told_before_what_learned_from_it_is_fitted_again(
    browser, served, me, monkeypatch
):
    me.fit_head(TASK, use_llm=False)
    gate, fit = threading.Event(), forgetting.fit_task

    def slowly(*args, **options):
        assert gate.wait(SLOW_MS / 1000)
        return fit(*args, **options)

    monkeypatch.setattr(forgetting, "fit_task", slowly)
    with opened(browser, served) as page:
        status, first = page.locator("#records-status"), page.locator("#records > li").first
        first.get_by_role("button", name="Delete").click()
        first.get_by_role("button", name="Delete for good").click()
        expect(status).to_contain_text("Deleted")
        expect(status).to_contain_text("is still being fitted again")
        expect(first.locator(".output")).to_have_text("vision: study 22")
        page.get_by_role("button", name="Next").click()
        expect(status).to_contain_text("7–12 of 23")
        gate.set()
        expect(page.locator("#who")).to_have_text("me · 23 records")
    assert not me.store.head(TASK, "reranker").stale


def test_growth_curve_nobody_looks_at_any_more_is_given_up(browser, make, monkeypatch):
    me = make([*titles(), *(replace(r, id=f"n{r.id}", task="note_title") for r in titles(6))])
    stopped, real = threading.Semaphore(0), portrait.growth

    def without_end(engine, past, *args, progress, **options):
        if past.task.name == TASK:
            return real(engine, past, *args, progress=progress, **options)
        try:
            while True:
                progress("pseudo-queries", 1, 2)
        except CancelledError:
            stopped.release()
            raise

    monkeypatch.setattr(portrait, "growth", without_end)
    with serving(me) as served, opened(browser, served) as page:
        page.get_by_label("Task").select_option("note_title")
        expect(page.locator("#records-status")).to_contain_text("of 6 records")
        page.get_by_label("Task").select_option(TASK)
        assert stopped.acquire(timeout=SLOW_MS / 1000)
        expect(page.locator("#records-status")).to_contain_text("of 24 records")
        expect(page.locator("#board-problem")).to_be_empty()


def test_records_of_one_text_are_shown_private_together(browser, served, me):
    me.store.add([replace(me.store.get("r14"), id="renamed", time=None)])
    with opened(browser, served) as page:
        page.get_by_label("Search words").fill("vision 14")
        page.get_by_role("button", name="Search", exact=True).click()
        switches = page.locator("#records > li").get_by_role("switch", name="Private")
        expect(switches).to_have_count(2)
        switches.first.click()
        for switch in switches.all():
            expect(switch).to_have_attribute("aria-checked", "true")
        expect(page.locator("#records-status")).to_contain_text("Private now")


def test_record_that_looks_like_markup_is_only_text(browser, make):
    me = make([*titles(), Record(HOSTILE, HOSTILE, TASK, "x", 1.9e9, source=HOSTILE)])
    with serving(me) as served, opened(browser, served) as page:
        ask(page, HOSTILE)
        page.get_by_text("candidates", exact=False).first.click()

        expect(page.locator("#records .output").first).to_have_text(HOSTILE)
        assert page.title() == "hydra-edge"
        assert page.locator("main img, main script").count() == 0


# ---- the playground


def test_pick_raises_the_heads_version_and_shows_what_moved(browser, served, me):
    with opened(browser, served) as page:
        verdict = page.locator(".verdict[data-role=adapter]")
        expect(verdict).to_have_attribute("data-version", "")
        ask(page)
        expect(page.locator(".side.plain .answer")).to_have_text("A Study")
        page.get_by_text("All 4 candidates").click()
        expect(page.locator(".candidates > ol > li")).to_have_count(4)
        page.get_by_text("The 4 records shown to the LLM").click()
        expect(page.locator(".shown > ol > li")).to_have_count(4)
        page.locator(".shown .why summary").first.click()
        expect(page.locator(".shown .why .reason").first).to_be_visible()

        page.get_by_role("button", name="Take candidate 2").click()
        expect(page.locator(".learned")).to_contain_text("is now version 1")
        expect(page.locator(".learned .change").first).to_be_visible()
        expect(verdict).to_have_attribute("data-version", "1")
        page.get_by_role("button", name="This is it").click()
        expect(page.locator(".learned")).to_contain_text("is now version 2")
        expect(verdict).to_have_attribute("data-version", "2")
        expect(page.locator("#who")).to_have_text("me · 25 records")

    state = me.store.head(TASK, "adapter")
    assert state.version == 2
    assert len(me.store.choices(TASK)) == 1  # the second thought took the first one's place


def test_own_version_is_learned_and_becomes_a_record(browser, served, me):
    with opened(browser, served) as page:
        ask(page)
        page.get_by_role("button", name="Not like me").click()
        own = page.get_by_label("Or as I would have written it")
        expect(own).to_be_focused()
        own.fill("parser: trees read twice")
        page.get_by_role("button", name="Learn my version").click()

        expect(page.locator(".learned")).to_contain_text("is now version 1")
        expect(page.locator("#records .output").first).to_have_text("parser: trees read twice")
    assert me.store.choices(TASK)[-1].text == "parser: trees read twice"
    assert me.store.records(newest_first=True, limit=1)[0].input == QUERY


def test_plain_answer_can_be_taken_and_kept_out_of_the_records(browser, served, me):
    with opened(browser, served) as page:
        ask(page)
        page.get_by_label("Keep it as a record of mine").uncheck()
        page.get_by_role("button", name="Take the plain answer").click()
        expect(page.locator(".learned")).to_contain_text("is now version 1")

    assert me.store.choices(TASK)[-1].text == "A Study"
    assert me.store.count() == 24


def test_history_kept_out_is_kept_out_of_both_answers(browser, served, llm):
    llm.is_remote = True
    sent = []
    with opened(browser, served) as page:
        page.on("request", lambda r: sent.append(r) if r.url.endswith("/api/answer") else None)
        page.get_by_label("Keep my history out of what is sent").check()
        ask(page)

    assert [request.post_data_json["private"] for request in sent] == [True, True]


def test_cancel_stops_the_llm(browser, served, llm):
    llm.gate.clear()
    with opened(browser, served) as page:
        page.get_by_label("Abstract").fill(QUERY)
        page.get_by_role("button", name="Answer", exact=True).click()
        assert llm.started.acquire(timeout=SLOW_MS / 1000)
        page.get_by_role("button", name="Cancel").click()

        expect(page.get_by_text("Cancelled. Nothing was learned.").first).to_be_attached()
        assert llm.stopped.acquire(timeout=SLOW_MS / 1000)
        llm.gate.set()
        ask(page)


def test_fit_judges_and_draws_how_it_grew(browser, served, me):
    with opened(browser, served) as page:
        page.get_by_role("button", name="Learn and judge again").click()
        verdict = page.locator(".verdict[data-role=reranker]")
        expect(verdict).to_have_attribute("data-version", "1")
        expect(verdict.locator("dt")).to_have_count(4)
        chart = page.get_by_role("img", name="Utility of your own head")
        expect(chart).to_be_visible()
        page.get_by_text("As a table").click()
        expect(page.locator("#growth tbody tr").first).to_be_visible()
        row = page.locator("#learned .weight-row").first
        expect(row.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile(r"yours .*give or take .*other people")
        )


def test_everything_can_be_done_by_keyboard(browser, served, me):
    with opened(browser, served) as page:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Abstract")).to_be_focused()
        page.keyboard.type(QUERY)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        taken = page.get_by_role("button", name="This is it")
        expect(taken).to_be_visible()
        for _ in range(20):
            page.keyboard.press("Tab")
            if taken.evaluate("e => e === document.activeElement"):
                break
        expect(taken).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".learned")).to_contain_text("is now version 1")


# ---- strangers


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


# ---- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_page_has_no_barrier_and_fits_its_window(browser, served, scheme, width):
    context = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with opened(browser, served, **context) as page:
        page.get_by_role("button", name="Learn and judge again").click()
        expect(page.locator("#fit-status")).to_contain_text("Judged anew")
        ask(page)
        page.get_by_role("button", name="This is it").click()
        expect(page.locator(".learned")).to_contain_text("is now version")
        page.locator("#records").get_by_role("switch").first.click()
        page.locator("#records").get_by_role("button", name="Delete").last.click()
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")

        assert refused(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        columns = page.evaluate(
            "getComputedStyle(document.querySelector('.columns')).gridTemplateColumns.split(' ')"
        )
        assert len(columns) == (2 if width > 1000 else 1)


def _folder() -> Path | None:
    wanted = os.environ.get("HYDRA_EDGE_SCREENSHOTS")
    return None if not wanted else REPO / ("docs/images" if wanted == "1" else wanted)


@pytest.mark.model
@pytest.mark.skipif(_folder() is None, reason="takes pictures: HYDRA_EDGE_SCREENSHOTS=docs/images")
def test_screenshots_are_of_the_shipped_base_and_a_local_llm(browser):
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    papers = read_jsonl(REPO / "examples/papers/author-a.jsonl", ImportLog())
    records = [replace(record, source="jsonl:author-a.jsonl") for record in papers]
    query = (
        "Large language models answer questions about long stories poorly. We build a corpus of "
        "narratives with questions and show that retrieving the right passages helps."
    )
    calls = int(os.environ.get("HYDRA_EDGE_SCREENSHOT_CALLS", "180"))
    with Personalizer.open("me", create=True) as me:
        me.add(records)
        me.fit_head(TASK, calls=calls)
        with serving(me) as served, opened(browser, served) as page:
            ask(page, query)
            page.locator(".why summary").first.click()
            page.get_by_role("button", name="This is it").click()
            expect(page.locator(".learned")).to_contain_text("is now version")
            page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            for name, scheme, width, height in (
                ("light", "light", 1280, 0), ("dark", "dark", 1280, 1200),
                ("narrow", "light", 360, 1500),
            ):  # fmt: skip
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": height or 900})
                page.screenshot(path=folder / f"page-{name}.png", full_page=not height)
