"""Free answers read as members of a closed set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.llm.members import find_member
from hydra_edge.tasks import MOVIE_TAGS, NEWS_SECTIONS

STARS = ("1", "2", "3", "4", "5")


@pytest.mark.parametrize(
    ("answer", "members", "member"),
    [
        ("politics", NEWS_SECTIONS, "POLITICS"),
        (" Politics. ", NEWS_SECTIONS, "POLITICS"),
        ("food and drink", NEWS_SECTIONS, None),
        ("Food&Drink", NEWS_SECTIONS, "FOOD & DRINK"),
        ("us news", NEWS_SECTIONS, "U.S. NEWS"),
        ("The section is TRAVEL, I think", NEWS_SECTIONS, "TRAVEL"),
        ("TRAVEL or SPORTS", NEWS_SECTIONS, None),
        ("TRAVELLING", NEWS_SECTIONS, None),
        ("a dark comedy", MOVIE_TAGS, "dark comedy"),
        ("scifi", MOVIE_TAGS, "sci-fi"),
        ("**4**", STARS, "4"),
        ("4.0", STARS, "4"),
        ("Rating: 4", STARS, "4"),
        ("4.5", STARS, None),
        ("4 or 5", STARS, None),
        ("45", STARS, None),
        ("4.5", ("4", "4.5", "5"), "4.5"),
        ("no idea\nPOLITICS", NEWS_SECTIONS, None),
        ("", STARS, None),
        ("!!", STARS, None),
        ("!!", ("!!", "??"), "!!"),
        ("日本", ("日本", "中国"), "日本"),
        ("เสื้อ", ("เสือ", "หมา"), None),  # a shirt is no tiger: marks tell words apart
        ("माल", ("मिल", "खेल"), None),
        ("कमी", ("कम", "खेल"), None),
        ("यह कम है", ("कम", "खेल"), "कम"),
        ("Cafe\u0301", ("Caf\u00e9", "Bar"), "Caf\u00e9"),
        ("a Cafe\u0301, I think", ("Caf\u00e9", "Bar"), "Caf\u00e9"),
        ("\u22123", ("-3", "0", "3"), "-3"),
        ("Score: \u22123", ("-3", "0", "3"), "-3"),
        ("-3", ("3", "1"), None),
        ("Score: -3", ("3", "1"), None),
        ("Score-3", ("3", "1"), "3"),
        ("3\ufe0f\u20e3", STARS, "3"),
        ("1,3", ("1.3", "1.7"), "1.3"),
        ("85", ("8,5", "7"), None),
        ("\u2600\ufe0f", ("\u2764\ufe0f", "\u2601"), None),
    ],
)
def test_find_member_is_certain_or_none(answer, members, member):
    assert find_member(answer, members) == member


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_find_member_returns_a_member_or_none(answer, members):
    assert find_member(answer, members) in {None, *members}


@given(st.sampled_from(NEWS_SECTIONS))
def test_find_member_knows_every_member_in_lower_case(member):
    assert find_member(member.lower(), NEWS_SECTIONS) == member
