"""Stopping early: never another answer than the full pool's, and never in vain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import closed_scenes
import numpy as np
import pytest
from closed_scenes import COLOURS, TASKS, Scene, answers, with_votes_weighing
from serving import EchoLLM

from hydra_edge.bundle import Bundle
from hydra_edge.candidates import Callbacks, Draw, sample_pool
from hydra_edge.config import Config
from hydra_edge.errors import ContextLengthError
from hydra_edge.features.adapter import ADAPTER_FEATURES
from hydra_edge.heads import ConditionalLogit
from hydra_edge.personalizer import Personalizer
from hydra_edge.population import prior_for
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.settling import Votes, is_settled
from hydra_edge.types import Completion, Generation, Record

scenes = closed_scenes.scenes


@pytest.mark.parametrize("name", sorted(TASKS))
def test_settled_choice_survives_every_answer_that_may_come(
    scenes: dict[str, Scene], name: str
) -> None:
    scene, labels = scenes[name], scenes[name].history.task.labels
    rng = np.random.default_rng(5)
    seen = {True: 0, False: 0}
    for _ in range(90):
        weights = rng.normal(0.0, rng.choice([0.02, 0.1, 0.3]), 3)
        head = with_votes_weighing(scene.head, weights.tolist())
        drawn = rng.choice(labels, size=rng.integers(1, 6)).tolist()
        settled = is_settled(head, scene.pool, scene.history, answers(drawn), len(drawn) + 3)
        seen[settled] += 1
        if not settled:
            continue
        now = scene.choice(head, answers(drawn))
        for more in (1, 2, 3):
            for come in itertools.combinations_with_replacement(labels, more):
                assert scene.choice(head, answers([*drawn, *come])) == now
    assert min(seen.values()) >= 5, "a rule that always or never stops is not tested"


def test_settled_waits_while_the_rest_can_turn_the_choice(scenes: dict[str, Scene]) -> None:
    scene = scenes["colour"]
    head = with_votes_weighing(scene.head, (3.0, 3.0, 3.0))
    drawn = answers(["amber", "amber", "blue"])
    assert scene.choice(head, drawn) == "amber"
    assert scene.choice(head, [*drawn, *answers(["blue"] * 5, greedy=-1)]) == "blue"
    assert not is_settled(head, scene.pool, scene.history, drawn, 8)


@pytest.mark.parametrize("name", ["consensus", "votes", "log_votes"])
def test_settled_by_one_count_alone_once_the_rest_cannot_outvote_it(
    scenes: dict[str, Scene], name: str
) -> None:
    scene = scenes["colour"]
    weight = np.zeros_like(scene.head.weight)
    weight[ADAPTER_FEATURES.index(name)] = 1.0
    head, drawn = replace(scene.head, weight=weight), answers(["amber", "amber"])
    assert scene.choice(head, [*drawn, *answers(["blue"] * 3, greedy=-1)]) == "blue"
    found = [is_settled(head, scene.pool, scene.history, drawn, n) for n in (3, 5, 8)]
    assert found == [True, False, False]


def test_settled_needs_the_greedy_answer(scenes: dict[str, Scene]) -> None:
    scene = scenes["colour"]
    head = with_votes_weighing(scene.head, (0.0, 0.0, 0.0))
    assert is_settled(head, scene.pool, scene.history, answers(["dun"]), 2)
    assert not is_settled(head, scene.pool, scene.history, answers(["dun"], greedy=-1), 2)


def test_settled_never_with_log_probabilities(scenes: dict[str, Scene]) -> None:
    scene = scenes["colour"]
    head = with_votes_weighing(scene.head, (0.0, 0.0, 0.0))
    drawn = [Completion("dun", greedy=True, logprob=-0.1)]
    assert not is_settled(head, scene.pool, scene.history, drawn, 2)


def test_settled_personal_head_only_where_nothing_else_may_stand(
    scenes: dict[str, Scene], bundle: Bundle
) -> None:
    scene = scenes["colour"]
    head = with_votes_weighing(scene.head, (0.0, 0.0, 0.0))
    prior = prior_for(bundle, scene.history.task, "adapter")
    sure = ConditionalLogit.from_state(head.weight, np.eye(prior.dim, dtype=np.float32), prior)
    head = replace(head, posterior=sure)
    best = scene.choice(replace(head, posterior=None), answers(["dun"]))
    other = next(label for label in COLOURS if label != best)
    # What the head likes best when it is greedy too, and when another answer is.
    found = {
        label: is_settled(head, scene.pool, scene.history, answers([label]), 2)
        for label in (best, other)
    }
    chosen = scene.choice(replace(head, posterior=None), answers([other]))
    assert found[best]
    assert found[other] == (chosen == other)


def test_votes_stay_settled_and_forget_nothing(scenes: dict[str, Scene]) -> None:
    scene = scenes["colour"]
    votes = Votes(with_votes_weighing(scene.head, (0.0, 0.0, 0.0)), scene.pool, scene.history, 8)
    assert not votes.settled()
    for completion in answers(["dun", "amber"]):
        votes.hear(completion)
        assert votes.settled()


class OneByOne(EchoLLM):
    """A server that draws one answer after the other, each paid for."""

    name = "one-by-one"

    def __init__(self, drawn: Sequence[str], *, room: int = 99) -> None:
        super().__init__()
        self.drawn = drawn
        self.room = room
        self.paid = 0

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
        **_options: object,
    ) -> list[Completion]:
        if len(prompt.shots) > self.room:
            raise ContextLengthError("too long")
        assert should_stop is not None
        out: list[Completion] = []
        for i in range(n):
            if should_stop():
                break
            self.paid += 1
            out.append(Completion(self.drawn[i % len(self.drawn)], greedy=i == 0))
            if on_candidate is not None:
                on_candidate(out[-1])
        return out


LIKINGS = [
    Record(f"a film about {('war', 'love')[i % 2]} number {i}", str(1 + 4 * (i % 2)),
           "film_rating", id=f"f{i}", time=float(i))
    for i in range(30)
]  # fmt: skip


def ask(llm: OneByOne, hash_encoder: object, **config: object) -> Generation:
    settings = replace(Config(), log=False, **config)
    with Personalizer.from_records(
        LIKINGS,
        llm=llm,
        config=settings,
        encoder=hash_encoder,
    ) as person:
        return person.generate("a film about love number 77", task="film_rating")


@pytest.mark.parametrize("room", [99, 2])
def test_generate_pays_for_no_vote_that_cannot_matter(hash_encoder: object, room: int) -> None:
    thrifty, thorough = (OneByOne(["5", "5", "4"], room=room) for _ in range(2))
    short = ask(thrifty, hash_encoder)
    full = ask(thorough, hash_encoder, early_stop=False)
    assert thorough.paid == 8
    assert 0 < thrifty.paid < 8
    assert short.text == full.text
    assert len(short.records) == len(full.records) == min(room, 4)
    assert any(f"{thrifty.paid} of 8 candidates sufficed" in note for note in short.notes)
    assert not any("sufficed" in note or "arrived" in note for note in full.notes)


def test_generate_text_is_never_stopped_by_votes(hash_encoder: object) -> None:
    llm = OneByOne(["War", "Love", "Peace"])
    with Personalizer.from_records(
        [replace(r, task="paper_title") for r in LIKINGS], llm=llm,
        config=replace(Config(), log=False), encoder=hash_encoder,
    ) as person:  # fmt: skip
        made = person.generate("a film about love number 77", task="paper_title")
    assert llm.paid == 8
    assert made.usage.received == 8


def test_generate_stopped_by_its_caller_says_so(hash_encoder: object) -> None:
    llm = OneByOne(["War", "Love", "Peace"])
    heard: list[Completion] = []
    with Personalizer.from_records(
        [replace(r, task="paper_title") for r in LIKINGS], llm=llm,
        config=replace(Config(), log=False), encoder=hash_encoder,
    ) as person:  # fmt: skip
        made = person.generate(
            "a film about love number 77", task="paper_title",
            on_candidate=heard.append, should_stop=lambda: len(heard) >= 2,
        )  # fmt: skip
    assert any("it was stopped: 2 of 8" in note for note in made.notes)


def test_votes_judge_by_the_records_that_had_room(scenes: dict[str, Scene]) -> None:
    scene = scenes["colour"]
    weight = np.zeros_like(scene.head.weight)
    weight[ADAPTER_FEATURES.index("cos_shown")] = 1.0
    head = replace(scene.head, weight=weight)
    found = []
    for room in (3, 0):
        votes = Votes(head, scene.pool, scene.history, 8)
        votes.cut(room)
        votes.hear(Completion("dun", greedy=True))
        found.append(votes.settled())
    assert found == [True, False], "without records no candidate leads"


def test_sample_pool_tells_how_many_records_had_room() -> None:
    shots = [Record(f"text {i}", "amber", "colour", id=f"s{i}") for i in range(4)]
    told: list[int] = []
    prompt, _ = sample_pool(
        OneByOne(["amber"], room=2), build_prompt(TASKS["colour"], "a text", shots),
        Draw(2, 0.8, 4), 0, Callbacks(should_stop=lambda: False, on_cut=told.append),
    )  # fmt: skip
    assert told == [3, 2]
    assert len(prompt.shots) == 2


@pytest.mark.parametrize(("enough", "drawn"), [(99, [False, False, True]), (2, [False, False])])
def test_sample_pool_goes_on_without_records_unless_it_was_stopped(
    enough: int, drawn: list[bool]
) -> None:
    class Asked(OneByOne):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            shown.append(len(prompt.shots))
            return super().complete(prompt, **options)

    heard: list[Completion] = []
    shown: list[int] = []
    _, completions = sample_pool(
        Asked(["amber", "blue"]),
        build_prompt(TASKS["colour"], "a text", [Record("text", "amber", "colour", id="s")]),
        Draw(3, 0.8, 4), 1,
        Callbacks(should_stop=lambda: len(heard) >= enough, on_candidate=heard.append),
    )  # fmt: skip
    assert [c.zero_shot for c in completions] == drawn
    assert [c.greedy for c in completions] == [True, False, False][: len(drawn)]
    assert heard == completions, "whoever listens is told alike"
    assert shown == [1, 0][: 1 + drawn[-1]]
