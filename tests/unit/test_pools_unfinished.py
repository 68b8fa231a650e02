"""Pools of which some answers did not end by themselves: what is judged is what would be given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ScriptedLLM
from learned_titles import TASK, learned_from, records, titles
from title_writer import Make, people

from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


class Unfinished(ScriptedLLM):
    """Ends its answers in a way of their own: the greedy one in one, the others in another."""

    def __init__(self, greedy: str, others: str) -> None:
        super().__init__(titles)
        self.ends = greedy, others

    def complete(self, prompt: Prompt, *, n: int = 1, **options: object) -> list[Completion]:
        given = super().complete(prompt, n=n, **options)
        if n == 1:  # asked for alone it is whole
            return [replace(c, text="Greedy alone") for c in given]
        return [replace(c, finish=self.ends[not c.greedy]) for c in given]


@pytest.mark.parametrize(("others", "left"), [("stop", 4), ("length", 1)])
def test_answers_that_would_not_be_given_are_not_judged(
    person: Make, others: str, left: int
) -> None:
    p = person(llm=Unfinished("stop", others))
    p.fit_head(TASK, calls=200)
    assert {len(u) for _, u in learned_from(p).pools.items} == {left}


def test_sampled_answer_is_not_taken_for_the_greedy_one_that_broke_off(person: Make) -> None:
    p = person(llm=Unfinished("cut", "stop"), records=0)  # so that all prompts are one
    p.fit_head(TASK, calls=100)
    for purpose in ("rag", "zero"):
        pools = p.store.pools(TASK, purpose=purpose)
        assert pools
        assert {c.text for pool in pools for c in pool.completions} == {"Greedy alone"}
