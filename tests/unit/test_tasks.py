"""Task specs: names, inference, closed sets."""

from __future__ import annotations

import pytest

from hydra_edge.closedset import answer_key
from hydra_edge.errors import UnknownTaskError
from hydra_edge.spelling import number
from hydra_edge.tasks import (
    BUILTIN,
    TaskSpec,
    canonical_name,
    closed_task,
    find_task,
    fits,
    infer_task,
)


def test_canonical_name_spellings_are_one_task() -> None:
    assert canonical_name(" Commit-Subject ") == canonical_name("commit_subject")
    assert find_task("commit-subject") is BUILTIN["commit_subject"]


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        (["1", "5", "3"] * 4, "rating"),
        (["4.5", "2", "3"] * 4, "rating"),
        ([str(i) for i in range(0, 101, 5)] * 4, "rating"),  # 21 of them
        (["POLITICS", "TECH"] * 6, "label"),
        (["a title about one thing and then another", "b"] * 6, "text"),
        ([f"title {i}" for i in range(40)], "text"),
        (["1", "5"], "text"),  # too few to tell
        (["nan"] * 12, "label"),  # not a number anyone could rate with
    ],
)
def test_infer_task_outputs_tell_the_kind(outputs: list[str], kind: str) -> None:
    spec = infer_task("new", outputs)
    assert spec.kind == kind
    if kind != "text":
        assert set(spec.labels) == set(outputs)


def test_find_task_a_slip_beyond_a_tasks_own_scale_is_left_out_and_another_scale_is_not() -> None:
    stars = BUILTIN["film_rating"]
    usual = ["3", "5", "4", "1"] * 50
    assert find_task("film_rating", outputs=[*usual, "10"]).labels == stars.labels
    half = find_task("film_rating", outputs=[*usual, "3.5"])
    assert half.labels == ("1", "2", "3", "3.5", "4", "5")
    tens = find_task("film_rating", outputs=["2", "8", "10", "6"] * 5).labels
    assert {"8", "10", "6"} <= set(tens)


def test_find_task_answers_that_are_no_labels_are_free_text() -> None:
    paragraphs = [f"A paragraph {i} about a thing.\n\nAnd one more." for i in range(20)]
    custom = {"mine": TaskSpec("mine", "label", max_tokens=16)}
    for outputs in (paragraphs[:12], [*paragraphs, "yes"]):
        spec = find_task("mine", custom=custom, outputs=outputs)
        assert (spec.kind, spec.multiline, spec.max_tokens) == ("text", True, 256)
    assert find_task("mine", custom=custom, outputs=["yes", "no"]).labels == ("no", "yes")


def test_infer_task_one_odd_value_among_numbers_is_left_out_of_the_scale() -> None:
    scale = ["1", "2", "3", "4", "5"]
    for odd in ("N/A", "about 4", "none of these, as I never saw it"):
        spec = infer_task("mine", [*scale * 6, odd])
        assert (spec.kind, spec.labels) == ("rating", tuple(scale))
    assert infer_task("mine", [*scale * 6, "N/A", "N/A"]).kind == "label", "one in 16 is no slip"


@pytest.mark.parametrize(
    "slip",
    [
        "network, but ask the people on the second floor first",
        "network\nbut ask first",
        "network " + "x" * 240,
    ],
)
def test_infer_task_one_long_answer_among_labels_stays_a_label_task(slip: str) -> None:
    teams = ("access", "hardware", "network")
    spec = infer_task("mine", [*teams * 100, slip])
    assert (spec.kind, spec.labels, spec.multiline) == ("label", teams, False)
    assert infer_task("mine", [*teams, *teams[:1] * 16, slip]).kind == "label", "one in 20"
    assert infer_task("mine", [*teams, *teams[:1] * 15, slip]).kind == "text", "one in 19"
    assert infer_task("mine", [*teams * 10, slip, f"{slip}!"]).kind == "text"


SCALE = ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("slips", [["45"], ["10"], ["45", "55"], ["-40"]])
def test_infer_task_a_number_far_from_all_others_is_a_slip(slips: list[str]) -> None:
    assert infer_task("mine", [*SCALE * 6, *slips, *SCALE * 6]).labels == tuple(SCALE)


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        ([*SCALE * 12, "6"], (*SCALE, "6")),
        ([*SCALE * 12, "0"], ("0", *SCALE)),
        (["8", "9", "10"] * 20 + ["1"], ("1", "8", "9", "10")),  # low, and no slip
        (["1", "2"] * 30 + ["5"], ("1", "2", "5")),
        ([*SCALE * 12, *["45"] * 5], (*SCALE, "45")),  # more than a few
        ([*SCALE * 40, *["45"] * 9], (*SCALE, "45")),  # most of the latest
        (["5"] * 60 + ["45"], ("5", "45")),  # beside one answer alone nothing is far
    ],
)  # fmt: skip
def test_infer_task_a_rare_number_that_may_be_of_the_scale_is_kept(
    outputs: list[str], labels: tuple[str, ...]
) -> None:
    assert infer_task("mine", outputs).labels == labels


def test_closed_task_of_answers_that_are_known_leaves_none_out() -> None:
    names = [f"team {i}" for i in range(30)]
    spec = closed_task("mine", names)
    assert spec is not None
    assert set(spec.labels) == set(names)
    assert closed_task("mine", [*names, "network, but ask the people on the second floor"]) is None
    assert closed_task("mine", []) is None


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [(["4", "4.0", "5", "5"], ("4", "5")), (["Fine", "fine ", "bad", "bad"], ("Fine", "bad"))],
)
def test_an_answer_in_two_spellings_is_in_an_inferred_set_once(
    outputs: list[str], labels: tuple[str, ...]
) -> None:
    assert infer_task("mine", outputs * 3).labels == labels


def test_an_answer_in_two_spellings_is_in_a_known_set_once() -> None:
    stars = find_task("film_rating", outputs=["4.0", "04", "4.5", "4.50"]).labels
    assert stars == ("1", "2", "3", "4", "4.5", "5")
    tags = find_task("movie_tag", outputs=["Noir", "noir", "ACTION"]).labels
    assert tags[-1] == "Noir"
    assert [tag.casefold() for tag in tags].count("noir") == 1


def test_an_answer_is_in_a_set_in_its_most_frequent_spelling() -> None:
    outputs = [*["Food"] * 19, "FOOD", *["Sport"] * 4]
    assert infer_task("mine", outputs).labels == ("Food", "Sport")
    assert find_task("movie_tag", outputs=outputs).labels[-2:] == ("Food", "Sport")


def test_an_answer_in_two_unicode_forms_is_in_a_set_once() -> None:
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    assert infer_task("mine", [*[apart] * 6, composed, *["Bar"] * 6]).labels == ("Bar", apart)
    assert answer_key(apart.upper(), "label") == answer_key(composed, "label")


def test_infer_task_grades_with_a_decimal_comma_are_a_scale_in_their_own_spelling() -> None:
    grades = ("1,3", "1,7", "2,0", "2,3")
    spec = infer_task("grade", [*reversed(grades)] * 6)
    assert (spec.kind, spec.labels) == ("rating", grades)
    assert spec.span == pytest.approx(1.0)
    half = find_task("film_rating", outputs=["4,5", "3,5", "3"] * 6).labels
    assert half == ("1", "2", "3", "3,5", "4", "4,5", "5")


def test_infer_task_thousands_with_points_have_no_order() -> None:
    assert infer_task("price", ["500", "1.000", "2.500", "10.000"] * 6).kind == "label"
    assert infer_task("share", ["0.125", "0.250", "1.500"] * 6).kind == "rating"
    assert infer_task("stars", ["1.000", "2.5"] * 6).kind == "rating"


def test_infer_task_numbers_with_leading_zeros_are_codes() -> None:
    spec = infer_task("shelf", ["001", "01", "1", "10", "010"] * 6)
    assert (spec.kind, set(spec.labels)) == ("label", {"001", "01", "1", "10", "010"})
    assert infer_task("share", ["0", "0.5", "-0.5"] * 6).kind == "rating"
    assert infer_task("stars", ["1", "2", "3"] * 10 + ["03"]).labels == ("1", "2", "3")  # a slip


def test_infer_task_rating_orders_its_labels_as_numbers() -> None:
    assert infer_task("stars", ["10", "9", "2"] * 4).labels == ("2", "9", "10")
    assert infer_task("stars", ["10", "9", "2"] * 4).span == 8.0


def test_find_task_unknown_name_lists_what_exists() -> None:
    with pytest.raises(UnknownTaskError, match=r"commit_subject.*paper_title"):
        find_task("nonsense")
    with pytest.raises(UnknownTaskError, match=r"commit_subject.*my_teams.*paper_title"):
        find_task("my_taems", used={"my_teams": 3, "paper_title": 1})


def test_unknown_task_is_told_of_the_known_one_near_it() -> None:
    with pytest.raises(UnknownTaskError, match=r"^No task 'film_ratng'; did you mean 'film_rat"):
        find_task("Film-Ratng")
    with pytest.raises(UnknownTaskError, match=r"did you mean 'my_teams'\? Known tasks: "):
        find_task("my_team", used=["my_teams"])
    with pytest.raises(UnknownTaskError, match=r"^No task 'nonsense'\. Known tasks: "):
        find_task("nonsense")


def test_find_task_label_set_includes_the_users_own_answers() -> None:
    labels = find_task("movie_tag", outputs=["noir", "ACTION", "noir "]).labels
    assert labels[-1] == "noir"
    assert labels.count("action") == 1
    assert "ACTION" not in labels


def test_find_task_rating_set_ignores_answers_that_are_no_numbers() -> None:
    assert find_task("film_rating", outputs=["0", "great"]).labels == ("0", "1", "2", "3", "4", "5")


def test_find_task_rating_beyond_the_scale_is_a_slip_until_most_of_the_latest_are() -> None:
    known = [str(1 + i % 5) for i in range(1000)]
    own = BUILTIN["film_rating"].labels
    for beyond in (["8"], ["6", "7", "8", "9", "10", "8", "8", "8"]):
        assert find_task("film_rating", outputs=[*known, *beyond]).labels == own
        assert find_task("film_rating", outputs=[*known, *beyond, *known[:16]]).labels == own
    nine = ["8", "6", "7", "8", "3", "9", "10", "8", "2", "8", "9"]
    assert find_task("film_rating", outputs=[*known, *nine]).labels == (*own, *"6789", "10")
    assert find_task("film_rating", outputs=[*nine, *known]).labels == own, "oldest first"
    assert find_task("film_rating", outputs=["8", "4"]).labels == (*own, "8")


def test_fits_few_ratings_beyond_and_half_of_the_labels_may_be_others() -> None:
    rating, label = BUILTIN["film_rating"], BUILTIN["movie_tag"]
    assert fits(rating, ["1", "4,5", *"235" * 6, "9"])
    assert not fits(rating, ["1", "4.5", *"235", "9"])
    assert not fits(rating, ["fine"] * 3)
    assert fits(label, ["Action", "noir"])
    assert not fits(label, ["Action", "noir", "western"])
    assert fits(BUILTIN["note_title"], ["anything"])
    assert fits(BUILTIN["citation"], ["anything"])


def test_find_task_of_more_answers_than_a_prompt_can_name_keeps_those_given_most_often() -> None:
    rare = [f"tag number {i:04}" for i in range(600)]
    tags = find_task("movie_tag", outputs=[*rare, "noir", "noir", *rare[:3] * 2])
    assert tags.kind == "label"
    assert tags.labels[:15] == BUILTIN["movie_tag"].labels
    assert tags.labels[15:19] == ("noir", *rare[:3])
    assert 200 < len(tags.labels) < 400
    scores = find_task("film_rating", outputs=[str(i + 0.5) for i in range(2000)] + ["1999.5"])
    assert {"1", "1999.5"} < set(scores.labels)
    assert len(scores.labels) < 1000


def test_find_task_of_more_citations_than_a_prompt_can_name_is_free_text() -> None:
    often = find_task("citation", outputs=[f"title {i % 40}" for i in range(1000)])
    assert (often.kind, len(often.labels)) == ("label", 40)
    once = find_task("citation", outputs=[f"title {i}" for i in range(1000)])
    assert (once.kind, once.labels) == ("text", ())


def test_infer_task_answers_too_long_to_be_named_are_text() -> None:
    assert infer_task("mine", ["x" * 241, "y"] * 6).kind == "text"
    assert infer_task("mine", ["a\u2028b", "y"] * 6).kind == "text"
    assert infer_task("mine", [f"{i}" * 120 for i in range(10, 70)] * 3).kind == "text"


def test_find_task_custom_spec_wins() -> None:
    mine = TaskSpec("commit_subject", instruction="Mine.")
    assert find_task("commit_subject", custom={"commit_subject": mine}).instruction == "Mine."


def test_number_only_finite_ones() -> None:
    assert number(" 4.5 ") == 4.5
    assert number("inf") is None
    assert number("four") is None
    assert number("1_000") is None


def test_number_is_read_with_a_decimal_comma_and_a_typographic_minus() -> None:
    assert number(" 1,3") == 1.3
    assert number("-2,50") == -2.5
    assert number("\u22123") == -3.0
    for text in ("1,300", "1,2,3", ",5", "1,", "1.000,5"):
        assert number(text) is None


def test_stop_single_line_answers_end_at_the_newline() -> None:
    assert BUILTIN["commit_subject"].stop == ("\n",)
    assert BUILTIN["general"].stop == ("\n\nInput:",)
