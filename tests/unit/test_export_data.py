"""Users' past read for a base: in which order, from which lines, and by what it is known."""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from pathlib import Path

import pytest

from export.data import by_task, fingerprint, has_private, has_twin, read_users, sample_users
from hydra_edge.errors import HydraError


def lines(user: str, n: int, task: str = "paper_title") -> list[dict[str, object]]:
    topics = ("parser", "speech", "vision")
    return [
        {
            "user": user, "id": f"{user}-{i}", "seq": i, "time": None, "task": task,
            "input": f"text on {topics[i % 3]} by {user} {i}",
            "output": f"{topics[i % 3]}: study {i}",
        }
        for i in range(n)
    ]  # fmt: skip


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    text = "\n".join(json.dumps(row) for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def at_moments(seqs: list[object], times: list[object]) -> list[dict[str, object]]:
    """One user's lines with these orders."""
    rows = lines("u1", len(seqs))
    return [
        row | {"seq": seq, "time": time} for row, seq, time in zip(rows, seqs, times, strict=True)
    ]


def test_read_users_orders_by_seq_not_by_line(tmp_path: Path) -> None:
    rows = lines("u1", 4)
    (user,) = read_users([write(tmp_path / "a.jsonl.gz", rows[::-1])])
    assert [r.id for r in user.records] == [f"u1-{i}" for i in range(4)]
    assert [r.time for r in user.records] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("seqs", "times", "order"),
    [
        ([None] * 4, [40.0, 30.0, 20.0, 10.0], [3, 2, 1, 0]),  # the newest first, and no seq
        ([3, 2, 1, 0], [40.0, None, "soon", 10.0], [3, 2, 1, 0]),  # seq is for where time is null
        ([2.0, "1", 3.0, 0], [None] * 4, [3, 1, 0, 2]),
        ([None] * 4, [None] * 4, [0, 1, 2, 3]),
    ],
)
def test_read_users_orders_by_seq_else_by_time_else_by_line(
    tmp_path: Path, seqs: list[object], times: list[object], order: list[int]
) -> None:
    (user,) = read_users([write(tmp_path / "a.jsonl", at_moments(seqs, times))])
    assert [r.id for r in user.records] == [f"u1-{i}" for i in order]
    moments = [r.time or 0.0 for r in user.records]
    assert moments == sorted(moments)
    assert len(set(moments)) == 4


@pytest.mark.parametrize(
    ("seqs", "times", "order", "told"),
    [
        ([3, 2, 1, 0], [10.0, 20.0, 30.0, 40.0], [3, 2, 1, 0], "seq and time disagree, and seq"),
        ([3, 2, 1, 0], [10.0, None, None, 40.0], [3, 2, 1, 0], "seq and time disagree, and seq"),
        ([None, 7, None, 8], [40.0, 30.0, 20.0, 10.0], [3, 2, 1, 0], "seq is in some lines only"),
        ([None] * 4, [40.0, None, 20.0, 10.0], [0, 1, 2, 3], "time is in some lines only, and the"),
    ],
)
def test_read_users_seq_against_time_is_told(
    tmp_path: Path, seqs: list[object], times: list[object], order: list[int], told: str
) -> None:
    rows = [*at_moments(seqs, times), *lines("u0", 3), *lines("u2", 3)]
    doubt = f"in doubt for 1 of 3 users, first 'u1': {told}"
    with pytest.warns(UserWarning, match=doubt):
        _, user, _ = read_users([write(tmp_path / "a.jsonl", rows)])
    assert [r.id for r in user.records] == [f"u1-{i}" for i in order]


def test_read_users_lines_of_one_seq_are_ordered_by_time_and_told(tmp_path: Path) -> None:
    rows = at_moments([0, 1, 0, 1], [30.0, 40.0, 10.0, 40.0])
    with pytest.warns(UserWarning, match=r"1 of 1 users, first 'u1': one seq is in several lines"):
        (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert [r.id for r in user.records] == ["u1-2", "u1-0", "u1-1", "u1-3"]
    assert [r.time for r in user.records] == [0.0, 1.0, 2.0, 3.0]


def test_read_users_seq_begun_again_in_a_second_file_is_told_twice(tmp_path: Path) -> None:
    years = [
        [row | {"id": f"{year}-{i}", "time": f"{year}-03-0{i + 1}", "input": f"text of {year} {i}"}
         for i, row in enumerate(lines("u1", 3))]
        for year in (2019, 2020)
    ]  # fmt: skip
    paths = [write(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate(years)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_users(paths)
    told = [str(one.message) for one in caught]
    assert len(told) == 2
    assert "one seq is in several lines" in told[0]
    assert "seq and time disagree" in told[1]


def test_read_users_iso_times_order_records(tmp_path: Path) -> None:
    times: list[object] = ["2020-03-01T00:30:00+01:00", "2020-02-29T23:45:00Z", "20200101", 0]
    (user,) = read_users([write(tmp_path / "a.jsonl", at_moments([None] * 4, times))])
    assert [r.id for r in user.records] == ["u1-3", "u1-2", "u1-0", "u1-1"]


def test_read_users_without_ids_names_records_apart(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("id", "seq")} for row in lines("u1", 3)]
    (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert len({r.id for r in user.records}) == 3


def test_read_users_with_a_seq_that_is_no_number_is_refused(tmp_path: Path) -> None:
    rows = [row | {"seq": "first"} for row in lines("u1", 2)]
    with pytest.raises(HydraError, match=r"^a\.jsonl, line 1: seq is 'first'; expected .* 'u1'"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("name", ["seq", "time"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-Infinity", "1e999"])
def test_read_users_with_a_moment_before_or_after_nothing_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    rows = [row | {"seq": None, "time": None} | {name: i} for i, row in enumerate(lines("u1", 4))]
    rows[2][name] = value
    with pytest.raises(HydraError, match=rf"^a\.jsonl, line 3: {name} is .*; expected .* 'u1'"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("name", ["user", "task"])
def test_read_users_without_a_name_says_which_line(tmp_path: Path, name: str) -> None:
    rows = [row | ({name: " "} if i == 1 else {}) for i, row in enumerate(lines("u1", 3))]
    with pytest.raises(HydraError, match=rf"^a\.jsonl, line 2: got a blank {name}; expected"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("without", [(), ("id",), ("id", "time"), ("id", "seq", "time")])
def test_read_users_takes_a_line_of_two_files_once(
    tmp_path: Path, without: tuple[str, ...]
) -> None:
    rows = [
        {key: value for key, value in row.items() if key not in without}
        for row in (*lines("u1", 4), *lines("u2", 3))
    ]
    other = [row | {"user": "u3"} for row in rows[:2]]
    once = read_users([write(tmp_path / "once.jsonl", [*rows, *other])])
    overlap = [
        write(tmp_path / "a.jsonl", rows),
        write(tmp_path / "b.jsonl.gz", [*rows[1:3], *other]),
    ]
    with pytest.warns(UserWarning, match=r"^2 lines that are there already.*b\.jsonl\.gz, line 1"):
        found = read_users(overlap)
    told = [[(u.user, r.input, r.output) for u in users for r in u.records]
            for users in (once, found)]  # fmt: skip
    assert told[0] == told[1]


def test_read_users_takes_what_one_wrote_twice_as_two_records(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("id", "seq")} for row in lines("u1", 3)]
    (user,) = read_users([write(tmp_path / "a.jsonl", [*rows, rows[0]])])
    assert len(user.records) == 4
    same = [lines("u1", 1)[0] | {"seq": seq} for seq in range(3)]
    (user,) = read_users([write(tmp_path / "b.jsonl", same)])
    assert len(user.records) == 3, "at other moments"


@pytest.mark.parametrize("name", ["user", "task", "input", "output"])
@pytest.mark.parametrize(("value", "got"), [(None, "null"), (["a"], "a list"), ({}, "an object")])
def test_read_users_with_no_text_where_it_must_be_names_the_line(
    tmp_path: Path, name: str, value: object, got: str
) -> None:
    rows = [row | ({name: value} if i == 2 else {}) for i, row in enumerate(lines("u1", 4))]
    with pytest.raises(HydraError, match=rf"^b\.jsonl, line 3: got {got} as {name}; expected text"):
        read_users([write(tmp_path / "a.jsonl", lines("u0", 3)), write(tmp_path / "b.jsonl", rows)])


@pytest.mark.parametrize("name", ["id", "input", "output"])
@pytest.mark.parametrize("got", ["NaN", "Infinity", "-Infinity"])
def test_read_users_nan_output_is_refused(tmp_path: Path, name: str, got: str) -> None:
    rows = [row | ({name: float(got)} if i == 2 else {}) for i, row in enumerate(lines("u1", 4))]
    with pytest.raises(HydraError, match=rf"^a\.jsonl, line 3: got {got} as {name}; expected text"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_read_users_reads_past_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, lines("u1", 3))
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = b"\xef\xbb\xbf" + content
    path.write_bytes(gzip.compress(content) if packed else content)
    (user,) = read_users([path])
    assert (user.user, len(user.records)) == ("u1", 3)


def test_read_users_takes_two_spellings_of_a_task_for_one(tmp_path: Path) -> None:
    rows = [
        row | {"task": name}
        for row, name in zip(
            lines("u1", 3), ("Paper-Title", "paper_title", "paper title "), strict=True
        )
    ]
    (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert user.task == "paper_title"
    assert [record.task for record in user.records] == ["paper_title"] * 3


def test_read_users_refuses_the_same_lines_twice(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, lines("u", 3)) for name in ("a.jsonl", "a.jsonl.gz")]
    with pytest.raises(HydraError, match=r"a\.jsonl\.gz holds the same as .*a\.jsonl;"):
        read_users(paths)


def test_read_users_leaves_out_blank_answers_and_says_so(tmp_path: Path) -> None:
    rows = lines("u", 5)
    rows[1] |= {"output": " "}
    rows[3] |= {"input": ""}
    with pytest.warns(UserWarning, match=r"2 lines with a blank .* first is a\.jsonl, line 2"):
        (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert len(user.records) == 3


def test_read_users_leaves_out_what_is_private_and_says_how_much(tmp_path: Path) -> None:
    rows = [row | {"private": i in (1, 4)} for i, row in enumerate(lines("u", 6))]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.warns(UserWarning, match=r"^2 lines that are marked private.* a\.jsonl, line 2"):
        (user,) = read_users([path])
    assert [r.id for r in user.records] == ["u-0", "u-2", "u-3", "u-5"]
    assert has_private([path])


def test_read_users_leaves_out_every_line_that_says_what_a_private_one_says(tmp_path: Path) -> None:
    rows = lines("u", 4)
    # Exported before it was marked, under another id; the same words of another user are theirs.
    before = write(tmp_path / "a.jsonl", [*rows, rows[2] | {"id": "again", "seq": 9}])
    marked = write(
        tmp_path / "b.jsonl", [rows[2] | {"private": True}, rows[2] | {"user": "v", "id": "v-0"}]
    )
    with pytest.warns(UserWarning, match=r"^3 lines that are marked private, or say what"):
        users = read_users([before, marked])
    assert [[r.id for r in user.records] for user in users] == [["u-0", "u-1", "u-3"], ["v-0"]]


@pytest.mark.parametrize("value", ["maybe", 2, 1.0, [True]])
def test_read_users_that_cannot_tell_what_is_private_is_refused(
    tmp_path: Path, value: object
) -> None:
    rows = [row | {"private": value if i == 1 else None} for i, row in enumerate(lines("u", 3))]
    path = write(tmp_path / "a.jsonl", rows)
    for read in (read_users, has_private):
        with pytest.raises(HydraError, match=r"^a\.jsonl, line 2: private is .*expected true or"):
            read([path])


@pytest.mark.parametrize("value", [False, None, "no", 0])
def test_read_users_takes_what_is_said_not_to_be_private(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "a.jsonl", [row | {"private": value} for row in lines("u", 3)])
    (user,) = read_users([path])
    assert len(user.records) == 3
    assert not has_private([path])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{half", r"a\.jsonl, line 2: .*expected one JSON object"),
        ("[1]", r"a\.jsonl, line 2: got \[1\]; expected one JSON object"),
        ('{"user": "u", "task": "t", "input": "i"}', "line 2: found no output"),
    ],
)
def test_read_users_damaged_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write(tmp_path / "a.jsonl", lines("u", 1))
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(HydraError, match=told):
        read_users([path])


def test_read_users_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [row for i in range(50) for row in lines(f"u{i}", 9)])
    whole = path.read_bytes()
    for damaged in (whole[:-200], whole[:200] + bytes(20) + whole[220:]):
        path.write_bytes(damaged)
        with pytest.raises(HydraError, match=r"a\.jsonl\.gz cannot be (read|unpacked)"):
            read_users([path])


def test_has_twin_finds_an_earlier_record_of_the_same_content_under_any_id(tmp_path: Path) -> None:
    rows = lines("u1", 3)
    later = [
        rows[1] | {"id": "again", "seq": 3},
        rows[2] | {"id": "other answer", "seq": 4, "output": "another"},
        rows[2] | {"id": "other text", "seq": 5, "input": "another"},
    ]
    (user,) = read_users([write(tmp_path / "a.jsonl", [*rows, *later])])
    assert [has_twin(user, i) for i in range(6)] == [False, False, False, True, False, False]


# ---- which users, and which files


def test_sample_users_same_seed_same_users(tmp_path: Path) -> None:
    rows = [row for i in range(9) for row in lines(f"u{i}", 3 + i)]
    users = read_users([write(tmp_path / "a.jsonl", rows)])
    first = sample_users(users, 3, least=5, seed=1)
    assert first == sample_users(users, 3, least=5, seed=1)
    assert all(len(u.records) >= 5 for u in first)


def test_by_task_sorts_tasks_and_keeps_the_order_of_users(tmp_path: Path) -> None:
    rows = [row for task in ("b", "a") for u in ("u2", "u1") for row in lines(u, 1, task)]
    users = by_task(read_users([write(tmp_path / "a.jsonl", rows)]))
    assert list(users) == ["a", "b"]
    assert [u.user for u in users["b"]] == ["u1", "u2"]


def test_fingerprint_is_of_the_bytes_and_under_the_files_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines("u", 1))
    assert fingerprint([path]) == {"a.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()[:16]}


def test_fingerprint_of_a_packed_file_tells_what_it_holds_too(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", lines("u", 1))
    path = write(tmp_path / "b.jsonl.gz", lines("u", 1))
    marks = fingerprint([path])
    assert list(marks) == ["b.jsonl.gz", "b.jsonl.gz unpacked"]
    assert marks["b.jsonl.gz"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert marks["b.jsonl.gz unpacked"] == fingerprint([plain])["a.jsonl"]


@pytest.mark.parametrize(
    "content", [b"plain", gzip.compress(b"text" * 99)[:-9]], ids=["plain", "cut off"]
)
def test_fingerprint_of_a_file_that_cannot_be_unpacked_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(
        HydraError, match=r"a\.jsonl\.gz cannot be unpacked: .*Expected a whole gzip"
    ):
        fingerprint([path])


def test_fingerprint_of_files_of_one_name_names_both(tmp_path: Path) -> None:
    places = [tmp_path / site for site in "ab"]
    for place in places:
        place.mkdir()
    paths = [write(place / "x.jsonl", lines(place.name, 1)) for place in places]
    marks = fingerprint(paths)
    assert list(marks) == ["x.jsonl", "x.jsonl (2)"]
    assert set(marks.values()) == {mark for path in paths for mark in fingerprint([path]).values()}
