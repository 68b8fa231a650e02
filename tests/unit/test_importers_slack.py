from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import ImportLog, read_slack
from hydra_edge.importers.slacktext import plain_text

ADA, BOB, CYD = "U000000ADA", "U000000BOB", "U000000CYD"
USERS = [
    {"id": ADA, "name": "ada", "profile": {"real_name": "Ada L.", "email": "ada@x.org"}},
    {"id": BOB, "name": "bob", "profile": {"display_name": "Bobby", "real_name": "Bob B."}},
    {"id": CYD, "name": "cyd", "real_name": "Bob B."},
    {"name": "no id"},
]
DAY = "2026-01-31"


def said(by, text, at, thread=None, **more):
    """Write a message of a second; ``thread`` is the second its thread began."""
    found = {"type": "message", "user": by, "text": text, "ts": stamp(at)}
    return found | ({} if thread is None else {"thread_ts": stamp(thread)}) | more


def stamp(at):
    return f"{1_700_000_000 + at}.000100"


def write(path, days, *, users=USERS, top="", channels=None):
    """Write an export; ``days`` has the messages of each file, by its name."""
    listed = [{"id": "C1", "name": "general"}] if channels is None else channels
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{top}users.json", json.dumps(users))
        archive.writestr(f"{top}channels.json", json.dumps(listed))
        archive.writestr(f"{top}integration_logs.json", "[]")
        for name, messages in days.items():
            content = messages if isinstance(messages, bytes) else json.dumps(messages)
            archive.writestr(f"{top}{name}.json", content)
    return path


@pytest.fixture
def save(tmp_path):
    def of_one_day(*messages, **options):
        return write(tmp_path / "export.zip", {f"general/{DAY}": messages}, **options)

    return of_one_day


def read(path, me="ada", **options):
    log = ImportLog()
    return list(read_slack(path, log, me=me, **options)), log


def pairs(records):
    return [(record.input, record.output) for record in records]


def test_slack_reply_in_a_channel_answers_what_was_written_right_before(save):
    path = save(
        said(CYD, "unrelated", 0),
        said(BOB, "Where is it?", 1),
        said(BOB, "The key, I mean.", 2),
        said(ADA, "Under the mat.", 3),
        said(ADA, "As ever.", 4),
        said(BOB, "Thanks!", 5),
        said(ADA, "Welcome", 6),
    )
    records, log = read(path)
    assert pairs(records) == [
        ("Where is it?\nThe key, I mean.", "Under the mat.\nAs ever."),
        ("Thanks!", "Welcome"),
    ]
    assert [r.id for r in records] == [f"C1:{stamp(3)}", f"C1:{stamp(6)}"]
    first = records[0]
    assert (first.task, first.private, first.source) == ("message_reply", True, f"slack:{path}")
    assert first.time == pytest.approx(1_700_000_003.0001)
    assert (log.done, log.total, log.unit) == (1, 1, "days of channels")
    assert not log.skipped


def test_slack_message_long_after_another_answers_nobody(save):
    records, log = read(
        save(said(BOB, "Q", 0), said(ADA, "A", 3600), said(ADA, "other", 7201),
             said(BOB, "R", 7300), said(ADA, "late", 11_000))
    )  # fmt: skip
    assert pairs(records) == [("Q", "A")]
    assert log.skipped == {"message that answers nobody": 2}


def test_slack_reply_in_a_thread_answers_what_others_wrote_since_the_last_one(tmp_path):
    days = {
        "general/2026-01-31": [
            said(BOB, "root", 0, 0, reply_count=4),
            said(CYD, "next in the channel", 1),
            said(ADA, "there", 2),
        ],
        "general/2026-02-01": [
            said(CYD, "and?", 90_000, 0),
            said(ADA, "mine", 99_000, 0),
            said(ADA, "more", 99_001, 0, subtype="thread_broadcast"),
            said(BOB, "why", 99_002, 0),
            said(ADA, "so", 99_003, 0),
        ],
    }
    assert pairs(read(write(tmp_path / "e.zip", days))[0]) == [
        ("next in the channel", "there"),
        ("root\nand?", "mine\nmore"),
        ("why", "so"),
    ]


def test_slack_thread_that_begins_with_one_s_own_message(save):
    records, log = read(
        save(said(ADA, "root", 0, 0), said(ADA, "also", 1, 0), said(BOB, "Q", 2, 0),
             said(ADA, "A", 3, 0))
    )  # fmt: skip
    assert pairs(records) == [("Q", "A")]
    assert log.skipped == {"message that answers nobody": 2}


def test_slack_thread_whose_beginning_is_deleted_is_read_and_one_that_began_before_is_not(save):
    deleted = said("USLACKBOT", "This message was deleted.", 0, 0, subtype="tombstone", hidden=True)
    thread = [said(BOB, "Q", 1, 0), said(ADA, "A", 2, 0)]
    records, log = read(save(deleted, *thread))
    assert pairs(records) == [("Q", "A")]
    assert not log.skipped
    records, log = read(save(*thread))
    assert not records
    assert log.skipped == {"reply in a thread that began before": 1}


def test_slack_message_in_two_files_is_one(tmp_path):
    messages = [said(BOB, "Q", 0), said(ADA, "A", 1)]
    path = write(
        tmp_path / "e.zip", dict.fromkeys(("general/2026-01-30", f"general/{DAY}"), messages)
    )
    assert pairs(read(path)[0]) == [("Q", "A")]


def test_slack_channels_and_direct_messages_are_kept_apart(tmp_path):
    days = {
        f"general/{DAY}": [said(BOB, "Q", 0), said(ADA, "A", 2)],
        f"D9/{DAY}": [said(CYD, "R", 1), said(ADA, "B", 3)],
    }
    path = write(tmp_path / "e.zip", days, top="my workspace/")
    records, _ = read(path)
    assert {(r.id, r.input) for r in records} == {(f"C1:{stamp(2)}", "Q"), (f"D9:{stamp(3)}", "R")}


@pytest.mark.parametrize("me", ["ada", "@Ada", "ADA@x.org", "ada l.", ADA])
def test_slack_person_is_found_by_any_name(save, me):
    assert pairs(read(save(said(BOB, "Q", 0), said(ADA, "A", 1)), me)[0]) == [("Q", "A")]


def test_slack_person_of_another_workspace_is_found_by_id(save):
    path = save(said(BOB, "Q", 0), said("U111111111", "A", 1))
    assert pairs(read(path, "U111111111")[0]) == [("Q", "A")]


@pytest.mark.parametrize(
    ("me", "told"),
    [("Bob B.", rf"2 people: {BOB} \(bob\), {CYD} \(cyd\)"), ("eve", "nobody is called so")],
)
def test_slack_person_who_is_not_plain_is_asked_for(save, me, told):
    with pytest.raises(ImportFormatError, match=told):
        read(save(said(BOB, "Q", 0)), me)


def test_slack_notices_files_and_empty_messages_are_left_out_and_counted(save):
    file = {"id": "F1"}
    records, log = read(
        save(
            said(BOB, "Q", 0),
            said(CYD, "joined", 1, subtype="channel_join"),
            said("USLACKBOT", "This message was deleted.", 1, subtype="tombstone", hidden=True),
            said(ADA, "uploaded a file", 2, subtype="file_share", file=file),
            said(ADA, "", 3, files=[file, file]),
            said(ADA, "A", 4, files=[file]),
        )
    )
    assert pairs(records) == [("Q", "A")]
    assert log.skipped == {
        "notice, not a message": 2,
        "attached file": 3,
        "empty message": 1,
    }


def test_slack_bot_may_be_answered_and_is_never_the_person(save):
    bot = said(ADA, "Build failed", 0, subtype="bot_message", bot_id="B1")
    assert pairs(read(save(bot, said(ADA, "On it", 1)))[0]) == [("Build failed", "On it")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a &amp;&lt;b&gt; &amp;lt;", "a &<b> &lt;"),
        (f"<@{BOB}> and <@U9|eve> and <@U8>", "@Bobby and @eve and @U8"),
        ("<#C1|general> <#C2>", "#general #C2"),
        ("<!here> <!subteam^S1|@ops> <!subteam^S1>", "@here @ops @subteam"),
        ("<!date^1^{date}|today>", "today"),
        ("<https://x.org/a?b=1&amp;c=2> <https://x.org|x.org>", "https://x.org/a?b=1&c=2 x.org"),
        ("<mailto:a@x.org|a@x.org> <> <<a> a < b", "a@x.org <> <a a < b"),
    ],
)  # fmt: skip
def test_slack_text_reads_as_it_is_shown(text, shown):
    assert plain_text(text, {BOB: "Bobby"}) == shown


def test_slack_day_that_is_damaged_costs_itself(tmp_path):
    days = {
        "general/2026-01-29": b"[{",
        "general/2026-01-30": b"{}",
        f"general/{DAY}": [7, said(BOB, "Q", 0), {"text": "when?"}, said(ADA, "A", 1)],
    }
    records, log = read(write(tmp_path / "e.zip", days))
    assert pairs(records) == [("Q", "A")]
    assert [(bad.number, bad.reason.partition(":")[0]) for bad in log.bad] == [
        (1, "'general/2026-01-29.json'"),
        (2, "'general/2026-01-30.json'"),
        (3, f"'general/{DAY}.json'"),
        (3, f"'general/{DAY}.json'"),
    ]


@pytest.mark.parametrize("value", [7, None, [], {"a": 1}, True, "x\x1b[2J"])
def test_slack_fields_of_another_kind_cost_a_message_at_most(tmp_path, value):
    odd = [said(BOB, "odd", n) | {field: value} for n, field in enumerate(said(BOB, "", 0, 0))]
    days = {f"general/{DAY}": [*odd, said(BOB, "Q", 9), said(ADA, "A", 10)]}
    users = [*USERS, {"id": value, "profile": value, "name": value}]
    path = write(tmp_path / "e.zip", days, users=users, channels=[{"id": value, "name": value}])
    records, log = read(path)
    assert records[-1].output == "A"
    assert all(bad.reason.isprintable() for bad in log.bad)


def test_slack_every_message_is_there_for_who_prunes(save):
    log = ImportLog(held=set())
    list(read_slack(save(said(BOB, "Q", 0), said(ADA, "A", 1)), log, me="ada"))
    assert log.held == {f"C1:{stamp(0)}", f"C1:{stamp(1)}"}


def test_slack_channel_that_unpacks_beyond_the_limit_is_refused(tmp_path):
    path = write(tmp_path / "e.zip", {f"general/{DAY}": b" " * 200_000 + b"[]"})
    with pytest.raises(ImportFormatError, match=r"unpacks to more than 100000.*fewer days"):
        read(path, max_bytes=100_000)


@pytest.mark.parametrize(
    ("item", "command"), [({"mapping": {}}, "chatgpt"), ({"chat_messages": []}, "claude")]
)
@pytest.mark.parametrize("packed", [True, False])
def test_slack_given_another_export_names_the_command_for_it(tmp_path, item, command, packed):
    path = tmp_path / "e.zip"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conversations.json", json.dumps([item]))
    else:
        path.write_text(json.dumps([item]))
    with pytest.raises(ImportFormatError, match=f"hydra-edge import {command} {path}$"):
        read(path)


def test_slack_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "e.zip"
    path.write_text("text")
    with pytest.raises(ImportFormatError, match="is no Slack export"):
        read(path)


def test_slack_export_whose_people_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.json", "[{")
        archive.writestr(f"general/{DAY}.json", "[]")
    with pytest.raises(ImportFormatError, match=r"users\.json in .* cannot be read: not JSON"):
        read(path)


@given(
    st.lists(
        st.tuples(st.sampled_from([ADA, BOB, CYD]), st.integers(1, 4000), st.integers(-1, 6)),
        max_size=14,
    )
)
def test_slack_each_message_of_a_person_is_in_one_answer_or_counted(tmp_path_factory, rows):
    at, times = 0, []
    for _, later, _ in rows:
        at += later
        times.append(at)
    messages = []
    for place, (by, _, root) in enumerate(rows):
        thread = times[root] if 0 <= root < place else None
        messages.append(said(by, f"{by}-{place}", times[place], thread))
    path = Path(tmp_path_factory.getbasetemp()) / "property.zip"
    records, log = read(write(path, {f"general/{DAY}": messages}))

    mine = [line for record in records for line in record.output.split("\n")]
    assert len(mine) == len(set(mine))
    assert all(line.startswith(ADA) for line in mine)
    assert len(mine) + log.skipped.total() == sum(by == ADA for by, *_ in rows)
    for record in records:
        heard = record.input.split("\n")
        assert not any(line.startswith(ADA) for line in heard)
        last, first = (int(x.partition("-")[2]) for x in (heard[-1], record.output.split("\n")[0]))
        assert last < first
