"""Which head made a choice, in words."""

from dataclasses import replace

from hydra_edge.reasons import head_line
from hydra_edge.types import HeadInfo

OWN = HeadInfo("t", "adapter", "personal", 2, "base", 40, "it helps")


def test_own_head_that_is_not_used_is_not_said_to_have_chosen():
    assert head_line(OWN, "your") == "your own head v2, learned from 40 queries: it helps"
    assert head_line(replace(OWN, switch="shared", reason=""), "your") == (
        "the shared head (your own v2, learned from 40 queries, is not used)"
    )
    assert head_line(HeadInfo("t", "adapter", "shared", None, "base"), "your") == "the shared head"


def test_own_head_is_said_to_be_whoevers_it_is():
    assert head_line(replace(OWN, n_queries=1), "the user's") == (
        "the user's own head v2, learned from 1 query: it helps"
    )
    assert head_line(replace(OWN, switch="baseline", reason=""), "the user's") == (
        "no head (plain order, first answer) (the user's own v2, learned from 40 queries, is not "
        "used)"
    )
