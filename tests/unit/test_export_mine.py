"""Whom and what to ask about, and the reranker that needs no LLM."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from progress import quiet

from export.data import UserHistory
from export.mine import (
    LlmPlan,
    Plan,
    Question,
    as_float32,
    mine_reranker,
    plan_for,
    questions_for,
    read_plan,
    reranker_users,
    stated_names,
    stated_plan,
    write_plan,
)
from export.pack import neutral_maps
from export.priors import with_maps
from hydra_edge.bundle import Bundle
from hydra_edge.errors import BundleError, ConfigError
from hydra_edge.features import feature_names
from hydra_edge.types import Record

TOPICS = ("parser", "speech", "vision")


def history(user: str, n: int, task: str = "paper_title") -> UserHistory:
    records = tuple(
        Record(
            f"text on {TOPICS[i % 3]} by {user} {i}", f"{TOPICS[i % 3]}: study {i}", task,
            id=f"{task}-{user}-{i}", time=float(i),
        )
        for i in range(n)
    )  # fmt: skip
    return UserHistory(user, task, records)


def users(n: int = 6, records: int = 14, *tasks: str) -> dict[str, list[UserHistory]]:
    return {
        task: [history(f"u{i}", records, task) for i in range(n)]
        for task in tasks or ("paper_title",)
    }


def test_questions_go_round_by_round_from_each_users_last_record() -> None:
    asked = questions_for(users(5), LlmPlan("m", 5, 5, 3), Plan()).pools
    for back in range(3):
        part = asked[5 * back : 5 * back + 5]
        assert {q.record_id for q in part} == {f"paper_title-u{i}-{13 - back}" for i in range(5)}
    orders = [tuple(q.user for q in asked[5 * b : 5 * b + 5]) for b in range(3)]
    assert len(set(orders)) > 1, "each round has an order of its own"


def test_questions_stopped_early_are_a_balanced_set() -> None:
    everyone = users(20, 14, "paper_title", "movie_tag")
    asked = questions_for(everyone, LlmPlan("m", 20, 20, 2), Plan()).pools
    early = Counter(q.task for q in asked[:20])
    assert min(early.values()) >= 5
    assert len({(q.task, q.user) for q in asked[:40]}) == 40, "nobody twice before everybody once"


def test_questions_draw_users_by_the_kind_of_task() -> None:
    everyone = users(9, 14, "paper_title", "movie_tag")
    asked = questions_for(everyone, LlmPlan("m", 7, 3, 1), Plan()).pools
    assert Counter(q.task for q in asked) == {"paper_title": 7, "movie_tag": 3}


def test_questions_leave_out_whom_has_no_past() -> None:
    everyone = {"paper_title": [history("long", 14), history("short", 11), history("tiny", 3)]}
    asked = questions_for(everyone, LlmPlan("m", 9, 9, 4), Plan()).pools
    assert {q.user for q in asked} == {"long"}
    asked = questions_for(everyone, LlmPlan("m", 9, 9, 9), Plan(least_records=2)).pools
    assert [q.record_id for q in asked if q.user == "tiny"] == ["paper_title-tiny-2"]


def test_questions_same_seed_same_users_other_seed_others() -> None:
    everyone, llm = users(30), LlmPlan("m", 6, 6, 2)
    first = questions_for(everyone, llm, Plan(seed=1))
    assert first == questions_for(everyone, llm, Plan(seed=1))
    assert {q.user for q in first.pools} != {
        q.user for q in questions_for(everyone, llm, Plan(seed=2)).pools
    }


def test_questions_of_single_records_are_the_first_of_each_task() -> None:
    everyone = users(9, 14, "paper_title", "movie_tag")
    asked = questions_for(everyone, LlmPlan("m", 9, 9, 2, record_queries=4, records=3), Plan())
    assert Counter(q.task for q in asked.by_record) == {"paper_title": 4, "movie_tag": 4}
    for task in everyone:
        of_task = [q for q in asked.pools if q.task == task]
        assert [q for q in asked.by_record if q.task == task] == of_task[:4]
    assert questions_for(everyone, LlmPlan("m"), Plan()).by_record == ()


def test_plan_names_users_and_records_by_id_only(tmp_path: Path) -> None:
    everyone = users(6, 14, "paper_title", "movie_tag")
    plan = Plan(reranker_users=4, llms=(LlmPlan("a", 4, 2, 2), LlmPlan("b", 3, 3, 1, 2, 5)))
    write_plan(tmp_path / "plan.json", everyone, plan)
    text = (tmp_path / "plan.json").read_text()
    assert "text on" not in text
    assert "study" not in text
    assert read_plan(tmp_path / "plan.json") == [
        questions_for(everyone, llm, plan) for llm in plan.llms
    ]
    written = json.loads(text)
    assert written["plan"]["llms"][0] == {
        "name": "a", "text_users": 4, "label_users": 2, "queries": 2,
        "record_queries": 0, "records": 0,
    }  # fmt: skip
    assert written["reranker"] == {
        task: [u.user for u in reranker_users(everyone, plan) if u.task == task]
        for task in ("movie_tag", "paper_title")
    }


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"llms": [{}]}', '{"llms": [1]}'])
def test_plan_that_is_none_says_how_to_make_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(BundleError, match="--only mine"):
        read_plan(tmp_path / "plan.json")


def test_plan_for_reads_sizes_and_knows_the_shipped_plans() -> None:
    assert plan_for("smollm2") == LlmPlan("smollm2", 80, 40, 4)
    assert plan_for("gemma3") == LlmPlan("gemma3", 40, 32, 3)
    assert plan_for("my.gguf") == LlmPlan("my.gguf")
    assert plan_for("smollm2", "5, 4,3") == LlmPlan("smollm2", 5, 4, 3)
    assert plan_for("x", "5,4,3,2,1") == LlmPlan("x", 5, 4, 3, 2, 1)
    for wrong in ("5", "5,4", "a,b,c", "1,2,-3", "1,2,3,4"):
        with pytest.raises(ConfigError, match="not understood; expected users"):
            plan_for("x", wrong)


def test_question_is_hashable_and_plain() -> None:
    assert len({Question("t", "u", "r"), Question("t", "u", "r")}) == 1


def test_mine_reranker_of_one_user_says_what_is_needed(bundle: Bundle, hash_encoder) -> None:
    with pytest.raises(BundleError, match=r"found 1 users with 12 records.*two or more"):
        mine_reranker(users(1), bundle, hash_encoder, Plan(), quiet)


def test_mine_reranker_refuses_a_task_named_like_a_kind(bundle: Bundle, hash_encoder) -> None:
    with pytest.raises(BundleError, match=r"the task name 'rating'.*Rename it"):
        mine_reranker(users(3, 14, "rating"), bundle, hash_encoder, Plan(), quiet)


@pytest.mark.parametrize("name", ["a.tau", "v1.std", "their.precision"])
def test_mine_reranker_refuses_a_task_named_like_an_array(
    bundle: Bundle, hash_encoder, name: str
) -> None:
    with pytest.raises(BundleError, match=rf"the task name '{name}'.*Rename it"):
        mine_reranker(users(3, 14, name), bundle, hash_encoder, Plan(), quiet)


def test_mine_reranker_of_one_record_repeated_says_what_is_needed(
    bundle: Bundle, hash_encoder
) -> None:
    same = tuple(Record("text", "study", "paper_title", id="one", time=float(i)) for i in range(14))
    of = {"paper_title": [UserHistory(f"u{i}", "paper_title", same) for i in range(3)]}
    neutral = with_maps(
        bundle, neutral_maps({r: feature_names(r) for r in ("reranker", "adapter")})
    )
    with pytest.raises(BundleError, match=r"found 0 users with records that can be told apart"):
        mine_reranker(of, neutral, hash_encoder, Plan(), quiet)


def test_stated_names_hold_no_folder() -> None:
    specs = ("smollm2", "gemma3", "/home/alice/x.gguf", r"chat:C:\Users\bob\x.gguf", "openai:a/b")
    assert stated_names(specs) == dict(
        zip(specs, ("smollm2", "gemma3", "x.gguf", "x.gguf (2)", "openai:a/b"), strict=True)
    )
    plain = Plan().as_json()
    assert stated_plan(plain) == plain


def test_mine_reranker_learns_what_users_have_in_common(bundle: Bundle, hash_encoder) -> None:
    names = {role: feature_names(role) for role in ("reranker", "adapter")}
    neutral = with_maps(bundle, neutral_maps(names))
    plan = Plan(reranker_users=6, reranker_queries=8)
    made = mine_reranker(users(8), neutral, hash_encoder, plan, quiet)
    assert set(made.arrays) == {
        *(f"reranker.scale.{part}" for part in ("mean", "std")),
        *(f"reranker.prior.{group}.{part}" for group in ("text", "paper_title")
          for part in ("mean", "precision", "tau")),
        *(f"reranker.gain.{group}" for group in ("text", "paper_title")),
    }  # fmt: skip
    for array in as_float32(made.arrays).values():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    utility = made.quality["text"]["utility"]
    assert made.quality["text"]["users"] == 6
    assert utility["shared"] > utility["any"]
    again = mine_reranker(users(8), neutral, hash_encoder, plan, quiet)
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
