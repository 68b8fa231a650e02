"""Every rule of honesty, with the leak it is there for planted."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench.guard
from bench.guard import (
    BenchError,
    Watched,
    check_history,
    check_not_trained_on,
    check_prompt,
    target_in_input,
)
from export.data import UserHistory, fingerprint
from hydra_edge.bundle import Bundle
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN, find_task
from hydra_edge.types import Record

TITLE, TAG = BUILTIN["paper_title"], BUILTIN["movie_tag"]
RECORDS = tuple(
    Record(f"text {i}", f"the title number {i}", "paper_title", id=f"r{i}") for i in range(5)
)
USER = UserHistory("u", "paper_title", RECORDS)
QUERY = 3


def prompt(*shown: Record, system: str = "") -> Prompt:
    return build_prompt(TITLE, RECORDS[QUERY].input, shown, system=system)


def test_check_history_accepts_what_was_there_before() -> None:
    check_history(RECORDS[:QUERY], USER, QUERY)


@pytest.mark.parametrize(
    ("leak", "why"),
    [
        (RECORDS[QUERY], "the query itself"),
        (RECORDS[4], "the later record r4"),
        (Record("x", "y", "paper_title", id="v7"), "no record of this user"),
        (replace(RECORDS[1], output=RECORDS[QUERY].output), "r1 with other content"),
    ],
)
def test_check_history_planted_leak_is_caught(leak: Record, why: str) -> None:
    with pytest.raises(BenchError, match=why):
        check_history([RECORDS[0], leak], USER, QUERY)


def test_check_prompt_accepts_earlier_records_and_a_profile() -> None:
    check_prompt(prompt(*RECORDS[:QUERY]), USER, QUERY, TITLE)
    about = "About me: likes titles"
    check_prompt(prompt(*RECORDS[:QUERY], system=about), USER, QUERY, TITLE, about)


@pytest.mark.parametrize(
    ("leak", "why"),
    [
        (prompt(RECORDS[QUERY]), "shows r3, no earlier record"),
        (prompt(RECORDS[4]), "shows r4, no earlier record"),
        (prompt(replace(RECORDS[0], output="the title number 3")), "r0 with other content"),
        (prompt(system="Say: The title: number 3!"), "more than the user's profile"),
        (replace(prompt(), query="text 3 the title number 3"), "not the record's input"),
        (
            replace(prompt(), task=replace(TITLE, instruction="Say the title number 3.")),
            "not the one declared",
        ),
    ],
)
def test_check_prompt_planted_leak_is_caught(leak: Prompt, why: str) -> None:
    with pytest.raises(BenchError, match=why):
        check_prompt(leak, USER, QUERY, TITLE)


def test_check_prompt_target_as_a_member_of_the_closed_set_is_no_leak() -> None:
    records = tuple(Record(f"film {i}", "comedy", "movie_tag", id=str(i)) for i in range(3))
    user = UserHistory("u", "movie_tag", records)
    task = find_task("movie_tag", outputs=["comedy", "my own"])
    with pytest.raises(BenchError, match="closed set holds 'my own', not answered before"):
        check_prompt(build_prompt(task, "film 2", []), user, 2, TAG)
    check_prompt(build_prompt(TAG, "film 2", []), user, 2, TAG)


def test_check_prompt_closed_set_completed_by_the_target_alone_is_caught() -> None:
    records = (
        Record("film 0", "slow", "movie_tag", id="0"),
        Record("film 1", "never said before", "movie_tag", id="1"),
    )
    user = UserHistory("u", "movie_tag", records)
    told = find_task("movie_tag", outputs=[r.output for r in records])
    with pytest.raises(BenchError, match="'never said before', not answered before"):
        check_prompt(build_prompt(told, "film 1", records[:1]), user, 1, TAG)
    fair = find_task("movie_tag", outputs=["slow"])
    check_prompt(build_prompt(fair, "film 1", records[:1]), user, 1, TAG)


def test_target_in_input_is_counted_for_free_text_only() -> None:
    copied = Record("see: the title number 3 below", "The title number 3", "paper_title")
    assert target_in_input(copied, TITLE)
    assert not target_in_input(RECORDS[0], TITLE)
    assert not target_in_input(Record("a comedy it is", "comedy", "movie_tag"), TAG)


def test_check_not_trained_on_finds_the_file_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "innocent.jsonl"
    path.write_text("{}\n")
    mark = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    quality = {"priors": {"trained_on": {"paper_title.train.jsonl": mark}}}
    manifest = SimpleNamespace(quality=quality, provenance={})
    base = SimpleNamespace(manifest=manifest, base_id="b" * 64)
    with pytest.raises(BenchError, match=r"cannot measure base .*: trained on it"):
        check_not_trained_on(base, [path])
    path.write_text("{} \n")
    check_not_trained_on(base, [path])


@pytest.mark.parametrize("built", ["now", "before"])
def test_check_not_trained_on_finds_the_file_however_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str
) -> None:
    content = b'{"user": "u"}\n' * 500
    trained, plain = tmp_path / "a.train.jsonl.gz", tmp_path / "plain.jsonl"
    trained.write_bytes(gzip.compress(content, 9, mtime=0))
    plain.write_bytes(content)
    marks = fingerprint([trained])
    if built == "before":  # the base states the packed bytes alone
        packed, unpacked = marks.values()
        marks = {trained.name: packed}
        monkeypatch.setitem(bench.guard.UNPACKED, packed, unpacked)
    manifest = SimpleNamespace(quality={"trained_on": marks}, provenance={})
    base = SimpleNamespace(manifest=manifest, base_id="b" * 64)
    again = tmp_path / "again.jsonl.gz"
    again.write_bytes(gzip.compress(content, 1, mtime=7))
    assert again.read_bytes() != trained.read_bytes()
    for path in (trained, plain, again):
        with pytest.raises(BenchError, match=r"trained on it \(as a\.train\.jsonl\.gz"):
            check_not_trained_on(base, [path])
    again.write_bytes(gzip.compress(content[14:], 1))
    check_not_trained_on(base, [again])


def test_what_the_shipped_bases_packed_files_hold_is_known(bundle: Bundle) -> None:
    from bench.guard import _trained_on

    found = dict(_trained_on(bundle.manifest.quality))
    assert set(found.values()) <= {*bench.guard.UNPACKED, *bench.guard.UNPACKED.values()}
    assert all(len(mark) == 16 for mark in bench.guard.UNPACKED.values())


def test_shipped_manifest_lists_what_it_was_trained_on(bundle: Bundle) -> None:
    from bench.guard import _trained_on

    manifest = bundle.manifest
    found = [*_trained_on(manifest.quality), *_trained_on(manifest.provenance)]
    assert found
    assert all(len(mark) == 16 for _, mark in found)


def test_watched_tells_every_answer_and_is_not_stopped(scripted) -> None:
    llm, heard = Watched(scripted(lambda _, n: ["a", "b", "c"][:n])), []
    found = llm.complete(prompt(), n=3, should_stop=lambda: True, on_candidate=heard.append)

    assert [completion.text for completion in found] == ["a", "b", "c"]
    assert heard == found
