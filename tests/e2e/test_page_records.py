"""The page in a browser: records found, kept private and forgotten, and what follows."""

from __future__ import annotations

import threading
from dataclasses import replace

import page_browser
from page_browser import HOSTILE, SLOW_MS, TASK, ask, expect, opened, titles
from serving import serving

from hydra_edge import forgetting, portrait
from hydra_edge.errors import CancelledError
from hydra_edge.types import Record

pytestmark = page_browser.MARKS
browser, llm, make = page_browser.browser, page_browser.llm, page_browser.make
me, served = page_browser.me, page_browser.served


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
    begun, stopped, real = threading.Semaphore(0), threading.Semaphore(0), portrait.growth

    def without_end(engine, past, *args, progress, **options):
        if past.task.name == TASK:
            return real(engine, past, *args, progress=progress, **options)
        begun.release()
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
        assert begun.acquire(timeout=SLOW_MS / 1000)
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
