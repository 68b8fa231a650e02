"""The page in a browser: answers asked for, taken, rewritten and learned from."""

from __future__ import annotations

import re

import page_browser
import pytest
from page_browser import QUERY, SLOW_MS, TASK, ask, expect, opened

from hydra_edge.engine import Engine

pytestmark = page_browser.MARKS
browser, llm, make = page_browser.browser, page_browser.llm, page_browser.make
me, served = page_browser.me, page_browser.served


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


@pytest.mark.parametrize(
    ("keep", "title", "kept"),
    [(True, "Kept", " It is kept as a record of yours."), (False, "Taken", "")],
)
def test_choice_that_teaches_nothing_says_so(browser, served, me, monkeypatch, keep, title, kept):
    # As where another program has fitted the head with another base meanwhile.
    monkeypatch.setattr(Engine, "is_behind", lambda *_: True)
    with opened(browser, served) as page:
        ask(page)
        page.get_by_label("Keep it as a record of mine").set_checked(keep)
        page.get_by_role("button", name="This is it").click()
        told = f"{title}Your head learned nothing from this choice.{kept}"
        expect(page.locator(".learned")).to_have_text(told)
        expect(page.locator("#who")).to_have_text(f"me · {24 + keep} records")
    assert me.store.head(TASK, "adapter") is None


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
