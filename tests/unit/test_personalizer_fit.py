"""Fitting through the facade: what it asks an LLM, what it costs, what it never shows."""

from __future__ import annotations

import pytest
from title_writer import Make, people, titles

from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_fit_head_without_llm_fits_the_reranker_only(person: Make) -> None:
    report = person().fit_head(use_llm=False)
    reranker, adapter = report.roles
    assert reranker.version == 1
    assert [row.name for row in reranker.rows] == [
        "unpersonalized", "prompt-only RAG", "shared head", "my head",
    ]  # fmt: skip
    assert all(row.utility is not None for row in reranker.rows)
    assert adapter.version is None
    assert report.llm_calls == 0


def test_fit_head_spends_no_more_than_its_calls_and_resumes(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    first = p.fit_head(calls=50)
    assert 0 < first.llm_calls <= 50
    second = p.fit_head(calls=50)
    assert second.pools_reused == first.pools_made
    asked = [(prompt.query, prompt.record_ids) for prompt in llm.prompts]
    assert len(asked) == len(set(asked)), "a candidate was paid for twice"
    third = p.fit_head(use_llm=False)
    assert third.roles[1].version is not None
    assert third.roles[1].n_queries == first.pools_made + second.pools_made


def test_fit_head_stopped_in_the_middle_pays_for_nothing_twice(person: Make, scripted) -> None:
    class Stopping(scripted(titles).__class__):
        left = 5

        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().complete(prompt, **options)

    llm = Stopping(titles)
    p = person(llm=llm)
    with pytest.raises(KeyboardInterrupt):
        p.fit_head(calls=500)
    assert len(p.store.pools()) >= 5
    llm.left = 1000
    p.fit_head(calls=100)
    asked = [(prompt.query, prompt.record_ids) for prompt in llm.prompts]
    assert len(asked) > 5
    assert len(asked) == len(set(asked))


def test_fit_head_never_shows_the_answer_nor_a_later_record(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    p.fit_head(calls=300)
    position = {r.id: i for i, r in enumerate(p.store.records())}
    by_query = {r.input: r for r in p.store.records()}
    assert llm.prompts
    for prompt in llm.prompts:
        record = by_query[prompt.query]
        assert record.output not in prompt.completion_text()
        for shot in prompt.shots:
            assert position[shot.record_id] < position[record.id]


def test_fit_head_llm_that_keeps_failing_is_left_alone(person: Make, scripted) -> None:
    llm = scripted(titles)
    llm.fail_next = 100
    report = person(llm=llm).fit_head(calls=500)
    assert "failed 3 times in a row" in " ".join(report.notes)
    assert llm.fail_next == 97


def test_fit_head_remote_llm_is_asked_nothing_unless_told(person: Make, scripted) -> None:
    llm = scripted(titles, is_remote=True)
    report = person(llm=llm).fit_head()
    assert llm.prompts == []
    assert "give --calls N" in " ".join(report.notes)


def test_fit_head_counts_the_answers_it_encoded_too(person: Make, hash_encoder) -> None:
    report = person().fit_head("paper_title", calls=60)
    assert report.pools_made
    assert report.texts_embedded == len(hash_encoder.encoded) > 80


def test_fit_head_reuses_every_cached_vector(person: Make, hash_encoder) -> None:
    p = person()
    assert p.fit_head(use_llm=False).texts_embedded == 80
    hash_encoder.encoded.clear()
    p.add([Record("a new text", "new: title", "paper_title", id="new", time=99.0)])
    report = p.fit_head(use_llm=False)
    assert sorted(hash_encoder.encoded) == ["a new text", "new: title"]
    assert (report.texts_embedded, report.vectors_reused) == (2, 80)


def test_fit_prompts_sends_nothing_and_shows_all(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    prompts = p.fit_prompts(calls=20)
    assert llm.prompts == []
    assert prompts
    assert p.store.heads() == []
    p.fit_head(calls=20)
    sent = {prompt.completion_text() for prompt in llm.prompts}
    assert sent == set(prompts)
