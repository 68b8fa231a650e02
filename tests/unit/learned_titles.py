"""A title writer whose heads learn: records, an LLM's answers, what an adapter is fitted on."""

from __future__ import annotations

from title_writer import TOPICS

from hydra_edge.evidence import AdapterEvidence, adapter_evidence
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record

TASK = "paper_title"


def records(n: int = 40) -> list[Record]:
    """Make records of a user whose titles start with the topic of the text."""
    return [
        Record(
            f"a long text about {TOPICS[i % 4]} number {i}", f"{TOPICS[i % 4]}: study {i}", TASK,
            id=f"r{i}", time=float(i),
        )
        for i in range(n)
    ]  # fmt: skip


def titles(prompt: Prompt, n: int) -> list[str]:
    """Answer with four titles over again; the second is as the user writes them."""
    topic = next((t for t in TOPICS if t in prompt.query), "nothing")
    return (["A Study", f"{topic}: study 7", f"On {topic}", "Something Else"] * 4)[:n]


def learned_from(p: Personalizer) -> AdapterEvidence:
    """Return what an adapter is fitted on now."""
    return adapter_evidence(p.engine, p.engine.history(p.engine.task(TASK)), None)


def evidence(p: Personalizer) -> int:
    """Count the queries an adapter is fitted on."""
    return learned_from(p).groups.n_groups


def put(
    p: Personalizer,
    query_id: str,
    text: str,
    *shown: str,
    purpose: str = "pool",
    model: str = "scripted",
) -> None:
    """Store an answer to a record as one that was bought."""
    p.store.put_pool(
        f"{purpose} {query_id}", task=TASK, model=model, query_id=query_id, record_ids=shown,
        purpose=purpose,
        completions=[Completion(text, greedy=True), Completion("Something Else")],
    )  # fmt: skip
