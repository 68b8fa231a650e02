"""A program with a model of its own and one thread for the person: what embedding takes.

    python examples/embed_in_app.py

The model here only clips words out of the text, so that the example needs no download: put your
own behind the same five members. The history is held in memory; `Personalizer.open("me",
create=True, llm=...)` keeps it in a file instead.
"""

from __future__ import annotations

import threading

from hydra_edge import Personalizer, Record
from hydra_edge.types import Completion


class MyModel:
    """The shape of an LLM; see docs/python.md."""

    name = "my-model"
    is_remote = False

    def render(self, prompt, *, max_tokens=None, seed=0):
        return prompt.completion_text()

    def complete(
        self, prompt, *, n=1, temperature=0.8, max_tokens=48, choices=None, seed=0,
        on_token=None, should_stop=None, on_candidate=None,
    ):  # fmt: skip
        words = prompt.query.replace(".", "").split()
        answers = []
        for i in range(n):
            if should_stop is not None and should_stop():
                break
            answers.append(Completion(" ".join(words[i : i + 5]), greedy=i == 0, tokens=5))
            if on_candidate is not None:
                on_candidate(answers[-1])
        return answers

    def close(self):
        pass


HISTORY = [
    Record(
        f"The {part} fails on {what} file. Look before reading it.",
        f"{part} fails on {what} file",
        task="commit_subject",
    )
    for part in ("parser", "cache", "index", "reader", "loader", "writer")
    for what in ("an empty", "a missing")
]


def main() -> None:
    with Personalizer.from_records(HISTORY, llm=MyModel()) as person:
        report = person.fit_head("commit_subject", calls=40, progress=show)
        for role in report.roles:
            print(f"{role.role}: {role.switch} head in force, from {role.n_queries} queries")

        # In a window this thread would be the one that must not block.
        enough = threading.Event()
        worker = threading.Thread(target=answer, args=(person, enough))
        worker.start()
        worker.join()  # a "stop" button would call enough.set()


def show(stage: str, done: int, total: int) -> None:
    if done >= total:
        print(f"{stage}: {done} of {total}")


def answer(person: Personalizer, enough: threading.Event) -> None:
    made = person.generate(
        "The scheduler fails on an empty queue. Look before starting it.",
        should_stop=enough.is_set,
    )
    for place, candidate in enumerate(made.candidates, start=1):
        print(f"{place}. {candidate.score:+.2f}  {candidate.text}")
    choice = person.choose(generation_id=made.id, pick=1)
    print(f"you took {choice.text!r}; your head is at version {choice.head_version}")


if __name__ == "__main__":
    main()
