"""The ladder of training: what is planted must be found, what is not there must not be kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ladder_users
import numpy as np
import pytest
from ladder_users import SIZE, everyone, history, material
from progress import quiet

pytest.importorskip("torch")
pytest.importorskip("transformers")

from scipy.optimize import minimize

from export.data import LeakError
from export.episodes import Episode, UserEpisodes
from export.ladder.climb import Fold, Judged, Material, Trial, split
from export.ladder.material import STATS, Person, profile_before, reranker_people
from export.ladder.report import ALL, LEAST_USERS, by_task, markdown, summarize
from export.ladder.run import climb, with_reranker
from export.ladder.rungs import FREE, LOWEST, Fit, ProfileMap, Rows, fit_joint, fit_plain, rungs_of
from export.metalearn import Recipe
from export.priors import engine_for
from hydra_edge.bundle import Bundle
from hydra_edge.features import feature_names
from hydra_edge.types import Float1d

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[2]
DIM, D = 4, len(feature_names("reranker"))
TRIAL = Trial(taus=(0.1,), ridges=(1.0,), holds=(30.0, 300.0))
RECIPE = Recipe(k=2, steps=5)
Taste = Callable[[int], Float1d]
neutral = ladder_users.neutral


def person(name: str, taste: Float1d, sign: float, seed: int, queries: int = 8) -> Person:
    """Make a user whose records are worth what their taste says of the features."""
    rng = np.random.default_rng(seed)
    episodes = []
    for position in range(queries):
        raw = rng.standard_normal((12, D)).astype(np.float32)
        score = raw @ taste
        worth = ((score - score.min()) / np.ptp(score)).astype(np.float32)
        sides = tuple(rng.standard_normal((12, DIM)).astype(np.float32) for _ in range(2))
        query = rng.standard_normal(DIM).astype(np.float32)
        episodes.append(Episode(position + 2, raw, worth, query, sides))
    known = rng.standard_normal((queries, 2 * DIM + len(STATS))).astype(np.float32) * 0.1
    known[:, -1] = sign
    return Person(UserEpisodes(name, "task", "text", tuple(episodes)), known)


def people(n: int, *, told: bool) -> list[Person]:
    """Make users of two tastes, which their profile tells; or of one, which it cannot."""
    out = []
    for i in range(n):
        taste, sign = np.zeros(D, dtype=np.float32), 1.0 if i % 2 else -1.0
        taste[0], taste[1] = (sign if told else 1.0), 0.5
        out.append(person(f"u{i:02}", taste, sign, seed=i))
    return out


def fold_of(of: Sequence[Person], inside: frozenset[str]) -> Fold:
    return Fold.of(Material("reranker", of), inside, TRIAL, RECIPE, seed=0, report=quiet)


def climbed(of: Sequence[Person]) -> dict:
    judged: dict[str, list[Judged]] = {}
    for inside in split((p.user for p in of), 3, seed=0):
        for name, users in fold_of(of, inside).climb(rungs_of(())).items():
            judged.setdefault(name, []).extend(users)
    return summarize(judged, rungs_of(()), seed=0)["reranker"][ALL]


def test_ladder_profile_that_predicts_weights_pays() -> None:
    figures = climbed(people(30, told=True))
    assert figures["amortized"]["pays"]
    assert figures["amortized"]["gain"]["low"] > 0.05
    own = figures["interpretable"]["personal"]["over_shared"]
    assert own["low"] > 0.05  # what the profile would have told, a user's own queries tell too


def test_ladder_profile_that_predicts_nothing_is_not_kept() -> None:
    figures = climbed(people(30, told=False))
    assert figures["interpretable"]["pays"]
    assert not figures["amortized"]["pays"]
    assert abs(figures["amortized"]["gain"]["mean"]) < 0.01


def test_ladder_every_rung_is_judged_on_every_user_once() -> None:
    of = people(9, told=True)
    rungs = rungs_of((2,))
    judged: dict[str, list[Judged]] = {}
    for inside in split((p.user for p in of), 3, seed=1):
        for name, users in fold_of(of, inside).climb(rungs).items():
            judged.setdefault(name, []).extend(users)
    assert set(judged) == {"baseline", *(rung.name for rung in rungs)}
    for users in judged.values():
        assert sorted(u.user for u in users) == [p.user for p in of]


def test_ladder_of_two_users_climbs_without_a_profile() -> None:
    of = people(2, told=True)
    for inside in split((p.user for p in of), 2, seed=0):
        found = fold_of(of, inside).climb(rungs_of(()))
        assert {len(users) for users in found.values()} == {1}


def test_summarize_few_users_never_pay() -> None:
    none = np.zeros(0)

    def some(n: int, worth: float) -> list[Judged]:
        return [
            Judged("reranker", f"u{i}", "task", np.array([worth]), none, none) for i in range(n)
        ]

    for n in (LEAST_USERS - 1, LEAST_USERS):
        judged = {"baseline": some(n, 0.1), LOWEST.name: some(n, 0.5)}
        found = summarize(judged, [LOWEST], seed=0)["reranker"]["task"][LOWEST.name]
        assert found["gain"] == {"mean": 0.4, "low": 0.4, "high": 0.4}
        assert found["pays"] == (n >= LEAST_USERS)


def test_summarize_answers_of_two_llms_are_one_user() -> None:
    none = np.zeros(0)
    judged = [
        Judged("adapter", "a", "task", np.array([0.0, 0.0, 0.0]), none, none),
        Judged("adapter", "a", "task", np.array([1.0]), none, none),
        Judged("adapter", "b", "task", np.array([1.0]), none, none),
    ]
    found = summarize({LOWEST.name: judged}, [LOWEST], seed=0)["adapter"]["task"][LOWEST.name]
    assert found["users"] == 2
    assert found["utility"]["mean"] == 0.625


def rows(n: int, d: int, seed: int) -> list[Rows]:
    rng = np.random.default_rng(seed)
    return [
        Rows(
            f"u{i}", "task",
            tuple((rng.standard_normal((5, d)).astype(np.float32),
                   rng.random(5).astype(np.float32)) for _ in range(6)),
            np.zeros((6, 1)),
        )
        for i in range(n)
    ]  # fmt: skip


def test_fit_joint_agrees_with_a_minimiser_of_everything_at_once() -> None:
    n, d, tau = 4, 3, 0.3
    users, centre = rows(n, d, seed=0), np.array([0.2, 0.0, -0.1])
    ridge = np.array([1.0, 2.0, 0.5])

    def loss(flat: np.ndarray) -> float:
        shared, own = flat[:d], flat[d:].reshape(n, d)
        total = 0.5 * float(ridge @ (shared - centre) ** 2)
        for user, extra in zip(users, own, strict=True):
            total += 0.5 * FREE * float(extra @ extra)
            for phi, worth in user.items:
                score = phi @ (shared + extra)
                target = np.exp(worth / tau) / np.exp(worth / tau).sum()
                total -= float(target @ (score - np.log(np.exp(score).sum())))
        return total

    best = minimize(loss, np.zeros(d * (n + 1)), method="BFGS", options={"gtol": 1e-7}).x[:d]
    found = fit_joint(users, centre, Fit(tau, ridge, 1.0, d))
    np.testing.assert_allclose(found, best, atol=5e-3)
    assert np.linalg.norm(found - fit_plain(users, centre, Fit(tau, ridge, 1.0, d))) > 0.02


def test_profile_map_is_fitted_on_what_it_is_given() -> None:
    raw = np.random.default_rng(0).standard_normal((20, 2 * DIM + len(STATS))).astype(np.float32)
    found = ProfileMap.of(raw, len(STATS)).apply(raw)
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(found.std(axis=0), 1.0, atol=0.1)


# Leaks: each is planted here, and seen to change nothing or to be refused.


def test_fold_user_left_out_changes_no_weight() -> None:
    of = people(12, told=True)
    inside = frozenset({"u00", "u01", "u02"})
    other = [
        person(p.user, np.full(D, 9.0, np.float32), 7.0, seed=99) if p.user in inside else p
        for p in of
    ]
    first, second = fold_of(of, inside), fold_of(other, inside)
    for rung in rungs_of((2,)):
        np.testing.assert_array_equal(
            first.weights("task", rung), second.weights("task", rung), err_msg=rung.name
        )
    moved = fold_of(other, frozenset({"u05"}))  # not left out, the same users do change it
    assert not np.array_equal(first.weights("task", LOWEST), moved.weights("task", LOWEST))


def test_fold_user_on_both_sides_is_refused() -> None:
    of = people(6, told=True)
    outside, left = Material("reranker", of), Material("reranker", of[:1])
    with pytest.raises(LeakError, match="u00"):
        Fold(outside, left, TRIAL, RECIPE, seed=0, report=quiet)


def test_fold_queries_out_of_order_are_refused() -> None:
    of = people(6, told=True)
    queries = of[0].episodes.episodes
    mixed = replace(of[0], episodes=replace(of[0].episodes, episodes=queries[::-1]))
    with pytest.raises(LeakError, match="out of order"):
        fold_of([mixed, *of[1:]], frozenset({"u01"}))


def test_fold_later_queries_do_not_change_what_a_head_is_fitted_on() -> None:
    of = people(8, told=True)
    late = person("u00", np.full(D, 9.0, np.float32), 7.0, seed=99)
    half = len(late.episodes.episodes) // 2
    mixed = replace(
        of[0].episodes,
        episodes=(*of[0].episodes.episodes[:-1], late.episodes.episodes[-1]),
    )
    profiles = of[0].profiles.copy()
    profiles[-1] = late.profiles[-1]
    inside = frozenset({"u00"})
    before = fold_of(of, inside).judge(LOWEST)[0]
    after = fold_of([Person(mixed, profiles), *of[1:]], inside).judge(LOWEST)[0]
    np.testing.assert_array_equal(before.personal[:-1], after.personal[:-1])
    assert len(before.personal) == len(late.episodes.episodes) - half


def test_reranker_people_know_nothing_of_later_records(
    neutral: Bundle, hash_encoder: object
) -> None:
    whole = history("u1")
    other = replace(whole.records[-1], input="quite another text", output="and another answer")
    changed = replace(whole, records=(*whole.records[:-1], other))
    first, second = (
        reranker_people([u], neutral, hash_encoder, 5, quiet)[0] for u in (whole, changed)
    )
    assert first.profiles.shape == (5, 2 * 384 + len(STATS))
    np.testing.assert_array_equal(first.profiles, second.profiles)
    pairs = zip(first.episodes.episodes, second.episodes.episodes, strict=True)
    for i, (a, b) in enumerate(pairs):
        same = np.array_equal(a.raw, b.raw) and np.array_equal(a.utilities, b.utilities)
        assert same == (i < 4)  # only the changed record's own query is another
    engine = engine_for(whole, neutral, hash_encoder)
    known = engine.history(engine.task(whole.task))
    engine.store.close()
    assert not np.array_equal(profile_before(known, 8), profile_before(known, 7))


def test_climb_judges_both_roles_and_closed_sets(neutral: Bundle, hash_encoder: object) -> None:
    of = material(neutral, hash_encoder, everyone())
    figures = climb(of, SIZE, quiet, recipe=RECIPE)
    assert set(figures) == {"reranker", "adapter", "closed"}
    assert set(figures["closed"]) == {ALL, "movie_tag"}
    for what in ("reranker", "adapter"):
        assert set(figures[what]) == {ALL, "movie_tag", "paper_title"}
        ladder = figures[what]["paper_title"]
        assert set(ladder) == {"baseline", *(rung.name for rung in rungs_of((2,)))}
        assert all(ladder[r.name]["users"] == 8 for r in rungs_of((2,)))
    # The greedy answer is the same for everyone here, and what users wrote is in every pool.
    adapter = figures["adapter"]["paper_title"]
    assert adapter["interpretable"]["utility"]["mean"] > adapter["baseline"]["utility"]["mean"]
    json.dumps(figures)


def test_with_reranker_is_the_same_whatever_a_user_left_out_wrote(
    neutral: Bundle, hash_encoder: object
) -> None:
    users = [history(f"u{i}") for i in range(8)]
    other = [replace(history("u5"), user="u0"), *users[1:]]
    bases = []
    for inside in (frozenset({"u0"}), frozenset({"u7"})):
        for of in (users, other):
            records = reranker_people(of, neutral, hash_encoder, 5, quiet)
            bases.append(with_reranker(neutral, fold_of(records, inside)))
    left_out, kept = bases[:2], bases[2:]
    mean = "reranker.prior.paper_title.mean"
    for name in (mean, "reranker.scale.mean", "reranker.scale.std"):
        np.testing.assert_array_equal(left_out[0].array(name), left_out[1].array(name))
    assert not np.array_equal(kept[0].array(mean), kept[1].array(mean))


def export(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "export", "ladder", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip


def test_export_ladder_help_has_an_example() -> None:
    done = export("--help")
    assert done.returncode == 0
    assert "python -m export ladder" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "The ladder has nothing to climb with: found no"),
        (("--dims", "4,x"), "--dims: got '4,x'; expected whole numbers above 0"),
    ],
)
def test_export_ladder_that_cannot_run_says_why_on_one_line(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    (tmp_path / "a.jsonl").write_text("")
    done = export("--data", tmp_path / "a.jsonl", "--work", tmp_path / "work", *options)
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1
    assert told in error[0]


def test_training_page_states_what_was_measured() -> None:
    figures = json.loads((ROOT / "bench" / "results" / "ladder.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for line in (*markdown(figures), *by_task(figures)):
        assert line in page.splitlines()
