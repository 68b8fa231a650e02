"""What kind a task has that is not built in: one for all training users."""

from __future__ import annotations

from export.data import LEAST_USERS, UserHistory, by_task, with_specs
from export.label import Job, prepare_pools
from export.priors import engine_for
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.types import Record

TASK = "desk"
DESKS = ("printer", "network", "password")


def of(user: str, outputs: list[str], task: str = TASK) -> UserHistory:
    records = (
        Record(f"text {i} of {user}", output, task, id=f"{user}-{i}", time=float(i))
        for i, output in enumerate(outputs)
    )
    return UserHistory(user, task, tuple(records))


def clerks(few: int = 4) -> list[UserHistory]:
    """Make users of one closed set, the last of whom have ``few`` records."""
    sizes = [15, 15, 15, 15, few, few]
    return [of(f"u{i}", [DESKS[j % 3] for j in range(n)]) for i, n in enumerate(sizes)]


def specs(users: list[UserHistory]) -> list[UserHistory]:
    return [user for told in with_specs(by_task(users)).values() for user in told]


def test_user_with_few_records_is_asked_for_what_everybody_is(
    bundle: Bundle, hash_encoder: TextEncoder
) -> None:
    def kind(user: UserHistory) -> str:
        engine = engine_for(user, bundle, hash_encoder)
        found = engine.task(TASK)
        engine.store.close()
        return found.kind

    users = clerks()
    assert {kind(user) for user in users} == {"label", "text"}, "this is what few records look like"
    assert {kind(user) for user in specs(users)} == {"label"}
    assert set(specs(users)[-1].full_spec.labels) == set(DESKS)


def test_prompt_offers_what_others_answer_before_the_user_does(
    bundle: Bundle, hash_encoder: TextEncoder
) -> None:
    late = of("late", [*["printer"] * 13, "network", "own way"])
    told = next(user for user in specs([*clerks(), late]) if user.user == "late")
    asks = prepare_pools(
        bundle, hash_encoder, [Job("m", told, told.records[-1 - i].id) for i in range(2)]
    )
    assert asks
    assert all(set(ask.prompt.task.labels) == set(DESKS) for ask in asks)


def test_answer_of_few_people_is_shown_to_nobody_else() -> None:
    for givers in (LEAST_USERS - 1, LEAST_USERS):
        users = clerks(15)
        told = specs([of(u.user, [*(r.output for r in u.records), "spy"]) for u in users[:givers]]
                     + users[givers:])  # fmt: skip
        assert ("spy" in told[-1].full_spec.labels) == (givers == LEAST_USERS)
        assert "spy" in told[0].full_spec.labels, "one's own answer is one's own"


def test_sets_of_their_own_stay_closed() -> None:
    users = [of(f"u{i}", [f"{DESKS[j % 3]} {i}" for j in range(15)]) for i in range(40)]
    told = specs([*users, of("few", ["printer few", "network few"])])
    assert {user.full_spec.kind for user in told} == {"label"}
    assert {len(user.full_spec.labels) for user in told} == {2, 3}


def test_text_stays_text_where_one_user_repeats_himself() -> None:
    users = [of(f"u{i}", [f"answer {j} of {i}" for j in range(15)]) for i in range(6)]
    told = specs([*users, of("same", ["yes", "no"] * 8)])
    assert {user.full_spec.kind for user in told} == {"text"}


def test_built_in_task_is_left_to_its_spec() -> None:
    told = specs([of(f"u{i}", ["printer"] * 15, "paper_title") for i in range(4)])
    assert {user.spec for user in told} == {None}
    assert {user.full_spec.kind for user in told} == {"text"}
