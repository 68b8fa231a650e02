"""Results of the engine as JSON for programs and as text for people.

The JSON shapes are an interface that scripts rely on: keys may be added, none renamed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

from hydra_edge.cli import output
from hydra_edge.forms import ranked_json
from hydra_edge.reasons import BEFORE_CHOICES, head_line, reasons, serving, too_close

if TYPE_CHECKING:
    from hydra_edge.store import LoggedGeneration, StoredChoice
    from hydra_edge.types import (
        Candidate,
        FitReport,
        ForgetReceipt,
        Gain,
        Generation,
        JsonDict,
        RankedRecord,
        Ranking,
        ReportRow,
        RoleReport,
    )

_ROLES = {"reranker": "Which records to show", "adapter": "Which answer to give"}
# The row of a report that tells what serving in such a way was worth.
_ROWS = {"baseline": "prompt-only RAG", "shared": "shared head", "personal": "my head"}
_DIGITS = 3  # of a utility
_UNFINISHED = {"length": " at its limit", "cut": " broken off"}  # how an answer ended


def plural(count: int, noun: str, many: str = "") -> str:
    """Return ``1 record``, ``2 records``; ``many`` where an s does not do."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def when(time: float | None) -> str:
    """Return a record's time as a date, or a dash."""
    if time is None:
        return "-"
    try:
        return datetime.fromtimestamp(time, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"{time:g}"


def ranking_json(ranking: Ranking) -> JsonDict:
    """Return what ``rank --json`` prints."""
    return {
        "query": ranking.query,
        "task": ranking.task,
        "records": [ranked_json(r) for r in ranking.records],
        "head": asdict(ranking.head),
    }


def generation_json(generation: Generation) -> JsonDict:
    """Return what ``generate --json`` prints."""
    return {
        "id": generation.id,
        "text": generation.text,
        "task": generation.task,
        "candidates": [asdict(candidate) for candidate in generation.candidates],
        "records": [ranked_json(r) for r in generation.records],
        "head": asdict(generation.head) | {"reranker": asdict(generation.reranker)},
        "usage": asdict(generation.usage),
        "abstained": generation.abstained,
        "notes": list(generation.notes),
    }


def logged_json(generation: LoggedGeneration) -> JsonDict:
    """Return what ``choose --json`` prints of an answer to choose from, and ``history log``."""
    return {
        "id": generation.id,
        "text": generation.text,
        "task": generation.task,
        "query": generation.query,
        "model": generation.model,
        "time": generation.time,
        "candidates": [_logged_candidate(c) for c in generation.candidates],
    }


def taken_json(choice: StoredChoice | None) -> JsonDict:
    """Return what ``history log --json`` prints of a choice: the candidate's number, if it is one.

    Not its text, which may be somebody's own and of something private.
    """
    picked = None if choice is None or choice.picked is None else choice.picked + 1
    return {"chosen": choice is not None, "picked": picked}


def taken(choice: StoredChoice | None) -> str:
    """Say which candidate was chosen of an answer, if anything was."""
    if choice is None:
        return "-"
    return "own text" if choice.picked is None else str(choice.picked + 1)


def _logged_candidate(candidate: Candidate) -> JsonDict:
    shown = asdict(candidate)
    del shown["contributions"]  # no log holds them
    return shown


def write_ranking(ranked: tuple[RankedRecord, ...], *, stream: IO[str] | None = None) -> None:
    """Write records with their score and the largest reasons, best first."""
    stream = stream or sys.stdout
    for place, item in enumerate(ranked, start=1):
        record = item.record
        marks = " (private)" if record.private else ""
        output.heading(f"{place}. {item.score:+.2f}  {output.one_line(record.output, 90)}{marks}",
                       stream=stream)  # fmt: skip
        output.plain(f"     {output.one_line(record.input, 90)}", stream=stream)
        output.plain(f"     {reasons(item.contributions, 'reranker')}", stream=stream)
        output.plain(f"     {record.id}  {when(record.time)}", stream=stream)


def chosen_place(generation: Generation | LoggedGeneration) -> int | None:
    """Return which candidate, counted from 1, is the answer."""
    for place, candidate in enumerate(generation.candidates, start=1):
        if candidate.text == generation.text:
            return place
    return None


def _origin(candidate: Candidate) -> str:
    if candidate.count == 0:
        return "not drawn"
    marks = (" greedy" if candidate.greedy else "") + (" no records" if candidate.zero_shot else "")
    return f"{candidate.count}x{marks}{_UNFINISHED.get(candidate.finish, '')}"


def write_candidates(generation: Generation | LoggedGeneration, *, stream: IO[str]) -> None:
    """Write the numbered candidates, the chosen one marked; ``choose`` takes their numbers."""
    chosen = chosen_place(generation)
    rows = [
        (
            f"{place}{'*' if place == chosen else ''}",
            f"{candidate.score:+.2f}",
            _origin(candidate),
            candidate.text,
        )
        for place, candidate in enumerate(generation.candidates, start=1)
    ]
    output.table(("#", "score", "drawn", "answer"), rows, stream=stream)


def write_prompts(prompts: Sequence[str], *, as_json: bool, at_most: bool = False) -> None:
    """Write prompts as they would be sent; what stands between them goes to stderr.

    ``at_most`` says that fewer may be.
    """
    if as_json:
        output.write_json({"prompts": list(prompts)})
        return
    for place, prompt in enumerate(prompts, start=1):
        output.note(f"--- prompt {place} of {len(prompts)}")
        output.answer(prompt)
    most = "At most " if prompts and at_most else ""
    output.note(f"{most}{plural(len(prompts), 'prompt')} would be sent; nothing was.")


def write_explanation(generation: Generation, *, stream: IO[str]) -> None:
    """Write why each record was shown, and why this candidate won."""
    output.heading(f"Records shown, by {head_line(generation.reranker, 'your')}", stream=stream)
    if generation.records:
        write_ranking(generation.records, stream=stream)
    else:
        output.plain("  none", stream=stream)
    output.heading(f"Answer chosen by {head_line(generation.head, 'your')}", stream=stream)
    chosen = chosen_place(generation)
    for place, candidate in enumerate(generation.candidates, start=1):
        if place == chosen:
            why = reasons(candidate.contributions, "adapter", count=6)
            output.plain(f"  {candidate.score:+.2f} = {why}", stream=stream)
    ends = [candidate.finish in _UNFINISHED for candidate in generation.candidates]
    if any(ends) and not all(ends):
        of = f"{sum(ends)} of {len(ends)} candidates"
        output.plain(f"  {of} are not whole, and stand behind the others", stream=stream)
    if generation.abstained:
        output.plain(f"  {too_close(generation.head)}", stream=stream)


def usage_line(generation: Generation) -> str:
    """Say what an answer cost."""
    usage = generation.usage
    read = f", {usage.prompt_tokens:,} tokens read" if usage.prompt_tokens else ""
    written = f", {usage.completion_tokens:,} tokens written" if usage.completion_tokens else ""
    missing = usage.requested - usage.received
    cut = f" ({usage.received} of {usage.requested} samples arrived)" if missing > 0 else ""
    return (
        f"{generation.task}: {plural(len(generation.records), 'record')} shown, "
        f"{plural(len(generation.candidates), 'candidate')}{cut}, "
        f"{plural(usage.llm_calls, 'LLM call')}{read}{written}, {usage.latency_ms:,.0f} ms"
    )


def figure(value: float | None, digits: int) -> str:
    """Return a number with so many decimals, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def _row(row: ReportRow) -> tuple[str, str, str, str]:
    return (row.name, figure(row.utility, _DIGITS), str(row.n), row.note)


def _sure(gain: Gain) -> str:
    """Say how sure a gain is; at even odds it is what is expected of a user like the others."""
    if gain.confidence <= 0.5:
        return "expected, counting what other users gained"
    if not math.isfinite(gain.low):
        return "unsure"
    return f"{gain.confidence * 100:.0f} % sure of {gain.low:+.3f} or more"


def _why_not_by_own(role: RoleReport) -> str:
    """Say why a head serves where the rows, which are the user's own, show it below no head."""
    rows = {row.name: row for row in role.rows}
    served = rows.get(_ROWS.get(role.switch, ""))
    plain = rows.get(_ROWS["baseline"])
    if served is None or served.utility is None or plain is None or plain.utility is None:
        return ""
    if round(served.utility, _DIGITS) >= round(plain.utility, _DIGITS):
        return ""
    own = plural(served.n, "query", "queries")
    decides = "what you chose since" if served.note in BEFORE_CHOICES else "what other users gained"
    return f"of your own {own} alone it would not be: {decides} decides"


def _write_role(role: RoleReport) -> None:
    output.table(
        (_ROLES[role.role], "utility", "n", ""), [_row(row) for row in role.rows], indent=2
    )
    output.plain(f"  switched on: {serving(role.switch, 'your')} - {role.reason}")
    if remark := _why_not_by_own(role):
        output.plain(f"    ({remark})")
    gains = (
        ("your head over the shared one", role.personal_over_shared),
        ("the shared head over none", role.shared_over_baseline),
    )
    for name, gain in gains:
        if gain is not None:
            output.plain(f"  {name}: {gain.mean:+.3f} ({_sure(gain)}, n = {gain.n})")


def write_fit(report: FitReport) -> None:
    """Write what a fit learned, what was switched on and why, and what it cost."""
    output.heading(f"{report.task} ({report.kind}, {plural(report.records, 'record')})")
    for role in report.roles:
        _write_role(role)
    pools = f" ({plural(report.pools_reused, 'pool')} paid for earlier)"
    output.plain(
        f"  {report.seconds:.2f} s; texts: {report.vectors_reused:,} vectors reused, "
        f"{report.texts_embedded:,} embedded; {plural(report.llm_calls, 'LLM call')}"
        f"{pools if report.pools_reused else ''}"
    )
    for remark in report.notes:
        output.plain(f"  note: {remark}")


def receipt_line(receipt: ForgetReceipt, *, dry_run: bool = False) -> str:
    """Say what was erased, or what would be."""
    parts = (
        plural(receipt.records, "record"),
        plural(receipt.vectors, "vector"),
        plural(receipt.pools, "answer pool"),
        plural(receipt.choices, "choice"),
        plural(receipt.log_entries, "log entry", "log entries"),
        *([plural(receipt.heads, "head")] if receipt.heads else []),
    )
    line = f"{'Would be forgotten' if dry_run else 'Forgotten'}: {', '.join(parts)}."
    if receipt.repeats:
        kept = plural(receipt.repeats, "answer")
        line += f" Among the records: {kept} you had kept, copied from the others."
    if receipt.tasks:
        tasks = ", ".join(receipt.tasks)
        when = "to be" if dry_run else "now"
        line += f" Heads that had learned from them, {when} fitted again: {tasks}."
    return line


def size(size_bytes: int | None) -> str:
    """Return a size in megabytes, or a dash."""
    return "-" if size_bytes is None else f"{size_bytes / 1e6:,.1f} MB"
