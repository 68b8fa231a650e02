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
        ("food and drink", NEWS_SECTIONS, "FOOD & DRINK"),
        ("It is Food and Drink.", NEWS_SECTIONS, "FOOD & DRINK"),
        ("RB", ("R&B", "rock"), "R&B"),
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


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("4/5", "4"),
        ("**4 / 5**", "4"),
        ("4.0/5", "4"),
        ("5/5", "5"),
        ("4/5 stars", "4"),
        ("4 out of 5", "4"),
        ("I'd rate this 4 out of 5.", "4"),
        ("4 stars out of 5", "4"),
        ("4. I loved this 1994 film", "4"),
        ("It's not bad: 4", "4"),
        ("No. 4", "4"),
        ("3.5/5", None),
        ("1.5/5 stars", None),
        ("2.5 out of 5", None),
        ("4/10", None),
        ("4 out of 10", None),
        ("8/10", None),
        ("4/5/2024", None),
        ("4/5, 3/5 for its sound", None),
        ("2 out of 5 scenes are dull", None),
        ("3-4", None),
        ("3\u20134", None),
        ("3.5, so 4", None),
        ("4 (3.5 rounded up)", None),
        ("4 - good, but 2 flaws", None),
        ("not a 4", None),
    ],
)
def test_find_member_reads_a_rating_with_its_scale_and_no_other(answer, rating):
    assert find_member(answer, STARS) == rating


def test_find_member_of_numbers_that_are_no_scale_takes_none_of_two():
    years = ("2019", "2020", "2021")
    assert find_member("2019/2021", years) is None
    assert find_member("2019-2020", years) is None
    assert find_member("In 2019", years) == "2019"
    assert find_member("0/1", ("0", "1")) is None
    assert find_member("1.3/5.0", ("1.0", "1.3", "5.0")) == "1.3"


def test_find_member_takes_no_denied_number_for_a_rating():
    assert find_member("None of 5", ("1", "2", "3", "4", "5")) is None


@pytest.mark.parametrize(
    ("answer", "members", "member"),
    [
        ("It isn't a comedy", MOVIE_TAGS, None),
        ("I don\u2019t think it is a dark comedy", MOVIE_TAGS, None),
        ("not positive", ("positive", "negative"), None),
        ("Das ist nicht positiv", ("positiv", "negativ"), None),
        ("It is a comedy, not a drama", MOVIE_TAGS, "comedy"),
        ("This is no drama but a comedy", MOVIE_TAGS, "comedy"),
        ("No, it is not", ("yes", "no"), "no"),
        ("There is nothing positive about it", ("positive", "negative"), None),
        ("It is anything but comedy", MOVIE_TAGS, None),
        ("far from comedy", MOVIE_TAGS, None),
        ("Comedy is not the tag", MOVIE_TAGS, None),
        ("'comedy' isn't right", MOVIE_TAGS, None),
        ("No doubt, comedy", MOVIE_TAGS, "comedy"),
        ("no doubt recommended", ("recommended", "avoid"), "recommended"),
        ("It is not just comedy", MOVIE_TAGS, "comedy"),
        ("It is not spam", ("spam", "not spam"), "not spam"),
        ("action (because of the violence)", MOVIE_TAGS, None),  # two tags
    ],
)
def test_find_member_takes_no_member_that_is_denied(answer, members, member):
    assert find_member(answer, members) == member


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_find_member_returns_a_member_or_none(answer, members):
    assert find_member(answer, members) in {None, *members}


@given(st.from_regex(r"[-+ 0-9./,a-z]*"), st.lists(st.integers(-9, 9), min_size=1, unique=True))
def test_find_member_reads_any_line_of_numbers(answer, numbers):
    members = [str(n) for n in numbers]
    assert find_member(answer, members) in {None, *members}


@given(st.sampled_from(NEWS_SECTIONS))
def test_find_member_knows_every_member_in_lower_case(member):
    assert find_member(member.lower(), NEWS_SECTIONS) == member
