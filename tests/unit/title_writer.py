"""A user whose titles start with their topic, and an LLM that now and then writes so, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from hydra_edge.config import Config
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Record

TOPICS = ("parser", "speech", "vision", "search")

Make = Callable[..., Personalizer]


def history(n: int = 40, *, private_every: int = 0) -> list[Record]:
    """Make records of a user whose titles start with the topic of the text."""
    return [
        Record(
            f"a long text about {TOPICS[i % 4]} number {i} with words",
            f"{TOPICS[i % 4]}: study {i}",
            "paper_title",
            id=f"r{i}",
            time=float(i),
            private=bool(private_every) and i % private_every == 0,
        )
        for i in range(n)
    ]


def titles(prompt: Prompt, n: int) -> list[str]:
    """Answer with a plain title first, then titles in and out of the user's style."""
    topic = next((t for t in TOPICS if t in prompt.query), "nothing")
    wanted = ["A Study", f"{topic}: study 7", f"On {topic}", "Something Else", f"{topic}: study 8"]
    return (wanted * 4)[:n]


def people(
    hash_encoder,
    scripted,
    past: Callable[[], list[Record]] = history,
    answers: Callable[[Prompt, int], list[str]] = titles,
) -> Iterator[Make]:
    """Give what makes people who hold such records in memory, and close them: ``yield from`` it."""
    made: list[Personalizer] = []

    def make(held: list[Record] | None = None, /, llm=None, **config: object) -> Personalizer:
        p = Personalizer.from_records(
            past() if held is None else held,
            llm=llm or scripted(answers),
            encoder=hash_encoder,
            config=replace(Config(), **config),
        )
        made.append(p)
        return p

    yield make
    for p in made:
        p.close()
