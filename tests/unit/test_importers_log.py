from __future__ import annotations

import json

import pytest
from importing import stopped_at_the_third

import hydra_edge.importers as importers
from hydra_edge.importers import ImportLog
from hydra_edge.importers.base import (
    clean_text,
    parse_name,
    parse_private,
    parse_text,
    parse_time,
)
from hydra_edge.importers.log import MAX_BAD_KEPT


def test_exported_names_exist_and_are_listed():
    for name in importers.__all__:
        assert hasattr(importers, name)
    assert {n for n in dir(importers) if n.startswith("read_")} <= set(importers.__all__)


def test_log_many_bad_lines_keeps_the_first_and_counts_all():
    log = ImportLog()
    for number in range(1, 3 * MAX_BAD_KEPT):
        log.reject(number, "broken")
    assert len(log.bad) == MAX_BAD_KEPT
    assert log.bad[-1].number == MAX_BAD_KEPT
    assert log.bad_total == 3 * MAX_BAD_KEPT - 1


def test_log_second_source_restarts_progress_and_keeps_counts():
    log = ImportLog(done=7, total=7, read=3)
    log.skip("empty input")
    log.begin(item="mail", unit="mails", total=2)
    assert (log.done, log.total, log.unit, log.item) == (0, 2, "mails", "mail")
    assert (log.read, log.skipped["empty input"]) == (3, 1)


TWEET = {"id": "1", "profile": [{"text": f"tweet {i}"} for i in range(5)]}


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (importers.read_jsonl, '{"input": "", "output": ""}\n' * 5),
        (importers.read_csv, "input,output\n" + ",\n" * 5),
        (importers.read_chatgpt, json.dumps([{}] * 5)),
        (importers.read_claude, json.dumps([{}] * 5)),
        (lambda path, log: importers.read_lamp(path, None, log), json.dumps([TWEET])),
        (lambda path, log: importers.read_markdown(path.parent, log), ""),
    ],
    ids=["jsonl", "csv", "chatgpt", "claude", "lamp", "markdown"],
)
def test_items_that_give_no_record_are_watched_one_by_one(tmp_path, read, text):
    path = tmp_path / "notes" / "0.md"
    path.parent.mkdir()
    for i in range(5):
        path.with_name(f"{i}.md").write_text(text)
    seen = stopped_at_the_third(lambda log: next(read(path, log)))
    assert len(seen) == 3
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        (0, 0.0),
        (1700000000, 1700000000.0),
        (1.5, 1.5),
        ("1700000000", 1700000000.0),
        ("1970-01-02", 86400.0),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1970-01-01 00:00:10", 10.0),
        ("1969-12-31T23:59:59", -1.0),
        ("20240102", 1704153600.0),
        (" 19700102 ", 86400.0),
        (20240102, 20240102.0),  # a number, not text
        ("20241399", 20241399.0),  # no such day
        ("1970010", 1970010.0),
    ],
)
def test_time_in_any_spelling_becomes_unix_seconds(value, seconds):
    assert parse_time(value) == seconds


@pytest.mark.parametrize(
    "value",
    ["31,12", "soon", "NaN", "Infinity", float("nan"), float("inf"), True, [], {}, 10**400,
     "9" * 400, 1_700_000_000_000],
)  # fmt: skip
def test_time_that_is_no_moment_is_refused(value):
    with pytest.raises(ValueError, match=r"^time is .*; expected unix seconds"):
        parse_time(value)


@pytest.mark.parametrize("year", ["2024", " 1999 ", 2023, 1000, 9999])
def test_time_that_is_a_year_alone_is_refused(year):
    expected = f"a year alone; .*a date such as {str(year).strip()}-01-31"
    with pytest.raises(ValueError, match=expected):
        parse_time(year)


@pytest.mark.parametrize("seconds", [999, 10_000, 2024.0])  # an export writes the last
def test_time_that_is_no_year_is_seconds(seconds):
    assert parse_time(seconds) == seconds


def test_time_with_a_fraction_is_no_year_at_the_first_look():
    compared = []

    class Seconds(float):
        __hash__ = float.__hash__

        def __eq__(self, other):
            compared.append(other)
            return float(self) == other

    assert parse_time(Seconds(1696212345.6789)) == 1696212345.6789
    assert len(compared) < 10


def test_time_zone_does_not_depend_on_the_device(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert parse_time("1970-01-01T00:00:00") == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (3, "3"), (4.0, "4"), (4.5, "4.5"), (1e300, "1e+300"), (None, ""),
     ("a\r\n", "a\r\n")],
)  # fmt: skip
def test_text_from_text_or_number_is_text(value, text):
    assert parse_text(value, "input") == text


@pytest.mark.parametrize("value", [True, [], {}, float("nan"), float("-inf")])
def test_text_from_anything_else_is_refused(value):
    with pytest.raises(ValueError, match=r"^output is .*; expected text"):
        parse_text(value, "output")


def test_text_that_cannot_be_stored_is_replaced():
    assert clean_text("a\ud800b\x00c👩‍👩‍👧") == "a\ufffdb\ufffdc👩‍👩‍👧"


@pytest.mark.parametrize(
    ("value", "name"), [(7, "7"), (" a ", "a"), (None, ""), ("né 日本", "né 日本")]
)
def test_name_from_text_or_number_is_text(value, name):
    assert parse_name(value, "id") == name


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * 201, "201 characters"),
        ("a\nb", "control characters"),
        ("a\x1b[31m", "control characters"),
        ("\ud800", "control characters"),
        ([1], "is a list"),
        ({}, "is an object"),
        (True, "is true or false"),
    ],
)
def test_name_that_cannot_be_one_is_refused(value, reason):
    with pytest.raises(ValueError, match=reason):
        parse_name(value, "id")


@pytest.mark.parametrize(
    ("value", "private"),
    [(True, True), (False, False), (1, True), (0, False), ("Yes", True), ("no", False),
     ("TRUE", True), ("", False), (None, False)],
)  # fmt: skip
def test_private_in_any_spelling_is_understood(value, private):
    assert parse_private(value) is private


@pytest.mark.parametrize("value", ["maybe", 2, 0.5, [], {}])
def test_private_that_is_unclear_is_refused_not_guessed(value):
    with pytest.raises(ValueError, match=r"^private is .*; expected true or false"):
        parse_private(value)
