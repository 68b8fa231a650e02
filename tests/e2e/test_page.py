"""The page in a browser: who is let in, what it says of itself, and how it looks.

Set HYDRA_EDGE_SCREENSHOTS=docs/images to have the pictures in the docs taken anew: that test
uses the shipped base and the local LLM.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import page_browser
import pytest
from page_browser import TASK, ask, expect, opened, refused, titles, visiting
from serving import serving

from hydra_edge.importers import ImportLog, read_jsonl
from hydra_edge.personalizer import Personalizer

pytestmark = page_browser.MARKS

REPO = Path(__file__).parents[2]
browser, llm, make = page_browser.browser, page_browser.llm, page_browser.make
me, served = page_browser.me, page_browser.served


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
