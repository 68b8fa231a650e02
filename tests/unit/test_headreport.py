"""The keys of a head's report are in people's files; what else a file may hold is read, too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_items import make_head

from hydra_edge import headreport

# In heads that releases have stored and exported.
KEYS = {
    "reason", "held_out", "utility", "shared_over_baseline", "personal_over_shared", "rows", "kind",
    "imported", "choices_up_to", "model", "pools_of_model", "choices_until", "choice", "origin",
    "seen", "named",
}  # fmt: skip
EMPTY: dict[str, object] = {}


def test_keys_of_stored_reports_stay_what_they_are() -> None:
    constants = (value for name, value in vars(headreport).items() if name.isupper())
    assert {value for value in constants if isinstance(value, str)} == KEYS


def test_report_that_tells_nothing_keeps_no_head_from_serving() -> None:
    assert headreport.reason_of(EMPTY) == ""
    assert headreport.kind_of(EMPTY, "text") == "text"
    assert headreport.name_of(EMPTY, "titles") == "titles"
    assert headreport.rows_of(EMPTY) == []
    assert headreport.choices_up_to(EMPTY) is headreport.step_of(EMPTY) is None
    assert headreport.seen_by(EMPTY) is None
    assert not headreport.is_imported(EMPTY)


@pytest.mark.parametrize("seen", [None, 3, [3], [3, "4"], [3, 4, 5], {"choice": 3}])
def test_seen_of_another_form_is_as_if_never_told(seen: object) -> None:
    assert headreport.seen_by({"seen": seen}) is None
    assert headreport.seen_by({"seen": [3, 4]}) == (3, 4)


@pytest.mark.parametrize(("origin", "began"), [({}, None), ({"origin": 3}, 3)])
def test_step_tells_the_answer_and_the_version_it_began_from(
    origin: dict[str, int], began: int | None
) -> None:
    assert headreport.step_of({"choice": "g1"} | origin) == ("g1", began)


@pytest.mark.parametrize(
    ("report", "fitted_on", "learned_from"),
    [
        ({"model": "small", "pools_of_model": 2}, "small", "small"),
        ({"model": "small", "pools_of_model": 0}, "small", None),
        ({"model": 7, "pools_of_model": 2}, None, None),
        ({"model": "small", "pools_of_model": 2, "imported": True}, None, None),
        ({}, None, None),
    ],
)
def test_llm_of_a_head_is_told_of_this_devices_pools_only(
    report: dict[str, object], fitted_on: str | None, learned_from: str | None
) -> None:
    head = replace(make_head(), report=report)
    assert (headreport.model_of(head), headreport.taught_by(head)) == (fitted_on, learned_from)
    assert headreport.model_of(None) is headreport.taught_by(None) is None


def test_head_that_moves_leaves_its_llm_and_what_it_says_of_choices() -> None:
    choices = {"choices_up_to": 1, "choices_until": 2.0, "seen": [1, 2], "choice": "g", "origin": 1}
    report = {"kind": "text", "model": "small", "reason": "fine"}
    assert headreport.without_model(report) == {"kind": "text", "reason": "fine"}
    assert headreport.as_imported(report | choices) == report | {"imported": True}


@pytest.mark.parametrize(
    ("known", "named"), [("old", "old"), ("new", "old"), ("other", None)], ids=str
)
def test_head_of_a_renamed_task_says_what_it_was_where_a_base_knows(
    known: str, named: str | None
) -> None:
    report = {"choice": "g", "origin": 2}
    moved = headreport.renamed(report, "old", "new", known.__eq__, 5)
    assert (moved["origin"], moved.get("named")) == (7, named)
    assert "named" not in headreport.renamed(moved, "new", "old", known.__eq__, 0)
    assert report == {"choice": "g", "origin": 2}
