"""The page in a real headless Chromium, against the real server and a file of records.

Whatever a test does, at its end the page must have asked nobody but its own server, put no text
into an address, and broken no rule of its content security policy.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from serving import GatedLLM, Served, serving

from hydra_edge.config import load_config
from hydra_edge.paths import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.privatefiles import make_private_dir
from hydra_edge.store import Store
from hydra_edge.types import Record

pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

MARKS = [pytest.mark.browser, pytest.mark.timeout(1800)]
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
