"""What the tools hand out, typed: the SDK makes each tool's output schema of these."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hydra_edge.llm.text import well_formed

# JSON cannot carry lone surrogates, which a record may hold: one must not spoil a whole answer.
Text = Annotated[str, BeforeValidator(well_formed)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class Reason(_Shape):
    """One feature's share of a score."""

    feature: Text
    meaning: Text = Field(description="The feature in words.")
    share: float = Field(description="What it adds to the score; below 0 it speaks against.")


class Record(_Shape):
    """One item of the user's history."""

    id: Text
    task: Text
    input: Text = Field(description="What the user was answering.")
    output: Text = Field(description="What the user wrote or chose.")
    date: Text | None = Field(description="When, as YYYY-MM-DD, if known.")


class RankedRecord(Record):
    """A record chosen for a query."""

    score: float
    reasons: list[Reason] = Field(description="The largest shares of the score, largest first.")


class Found(_Shape):
    """Records that hold the words asked for."""

    records: list[Record] = Field(description="Best first.")


class Personalized(_Shape):
    """A prompt made of the user's own examples, and why these."""

    generation_id: Text = Field(
        description="What record_choice takes, with text, once the user took your answer."
    )
    task: Text
    prompt: Text = Field(description="Answer this prompt to answer the query as the user would.")
    records: list[RankedRecord] = Field(description="The records in the prompt, best first.")
    ranked_by: Text = Field(description="Which weights chose the records, and why those.")
    notes: list[Text] = Field(description="What went otherwise than asked, for the user to know.")


class Candidate(_Shape):
    """One distinct answer that was considered."""

    number: int = Field(description="What record_choice takes as pick.")
    text: Text
    score: float
    count: int = Field(description="How many samples gave this answer.")
    finish: Text = Field(
        description="stop; length or cut: it is not whole, and stands behind those that are."
    )


class Generated(_Shape):
    """An answer chosen to fit the user, with the others to choose from."""

    generation_id: Text = Field(description="What record_choice and explain take.")
    task: Text
    text: Text = Field(description="The answer that fits the user best.")
    candidates: list[Candidate] = Field(description="Best first.")
    chosen_by: Text = Field(description="Which weights chose the answer, and why those.")
    abstained: bool = Field(
        description="Too close to call: kept is what would be given without the user's own head."
    )
    notes: list[Text] = Field(description="What went otherwise than asked, for the user to know.")
    llm: Text
    latency_ms: float


class Chosen(_Shape):
    """What a choice taught."""

    generation_id: Text
    task: Text
    text: Text = Field(description="Empty if it was written from a record that is private by now.")
    head_version: int | None = Field(
        description="The version of the user's head it made; null: a record only."
    )
    record_id: Text | None = Field(description="The record kept of it, if any.")


class ExplainedCandidate(Candidate):
    """A candidate with its reasons."""

    reasons: list[Reason] = Field(description="The largest shares of the score, largest first.")


class Explained(_Shape):
    """Why a generation showed these records and gave this answer."""

    generation_id: Text
    task: Text
    query: Text
    text: Text = Field(description="Empty if it was written from a record that is private by now.")
    records: list[RankedRecord] = Field(description="The records in the prompt, best first.")
    ranked_by: Text
    candidates: list[ExplainedCandidate] = Field(description="Best first; none if text is empty.")
    chosen_by: Text
    abstained: bool = Field(
        description="Too close to call: kept is what would be given without the user's own head."
    )
    notes: list[Text] = Field(description="What is left out, for the user to know.")
