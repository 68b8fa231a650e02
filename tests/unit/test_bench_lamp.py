"""Whom the measurement finds in LaMP folders, each once, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.datasets import LampUsers, TaskData, draw_tasks
from bench.guard import BenchError
from bench.lamp import read_lamp_folders

PAPER = 'Generate a title for the following abstract of a paper: "X"'


def profile(user: str, n: int, numbers: str = "") -> list[dict[str, str]]:
    """Make a person's profile, the newest first; its items are numbered as everyone's are."""
    return [{"id": f"{numbers}{d}", "title": f"T{d} {user}", "abstract": f"A{d} {user}",
             "date": f"{2020 + d // 28}-01-{1 + d % 28:02d}"} for d in range(n, 0, -1)]  # fmt: skip


def lamp(
    folder: Path, *profiles: list[dict[str, str]], split: str = "dev", task: str = "LaMP_5"
) -> Path:
    """Write one split of a LaMP task with a question for every profile."""
    folder.mkdir(exist_ok=True)
    people = [{"id": f"{i}", "input": PAPER, "profile": p} for i, p in enumerate(profiles)]
    (folder / f"{split}_questions.json").write_text(json.dumps(people))
    golds = {"task": task, "golds": [{"id": "0", "output": "GOLD"}]}
    (folder / f"{split}_outputs.json").write_text(json.dumps(golds))
    return folder


def read_lamp(folder: Path, queries: int = 9, users: int = 5, sizes: tuple[int, ...] = ()):
    return read_lamp_folders([folder], users=users, queries=queries, seed=0, sizes=sizes)


def drawn(lamp: LampUsers) -> TaskData:
    """Draw three users of the only task, two queries each."""
    (data,) = draw_tasks(lamp.users, users=3, queries=2, seed=0, specs={}, lamp=lamp)
    return data


def test_read_lamp_folders_makes_every_person_a_user_in_time_order(tmp_path: Path) -> None:
    lamp(tmp_path / "LaMP_5", profile("a", 12), profile("b", 3), profile("c", 15))
    found = read_lamp(tmp_path)
    users = found.users
    assert [(u.user, u.task, len(u.records)) for u in users] == [
        ("dev_questions-0", "paper_title", 12),
        ("dev_questions-2", "paper_title", 15),
    ]
    assert [r.output for r in users[0].records] == [f"T{d} a" for d in range(1, 13)]
    assert not any("GOLD" in r.output for u in users for r in u.records)
    assert (dict(found.too_short), found.left_out) == ({"paper_title": 1}, {})


def test_read_lamp_folders_one_person_is_one_user_the_longest(tmp_path: Path) -> None:
    # Three questions of a in one file, and the same person with more of the past in another.
    lamp(tmp_path / "LaMP_5", profile("a", 12), profile("b", 14), profile("a", 12),
         profile("a", 13)[1:])  # fmt: skip
    lamp(tmp_path / "LaMP_5", profile("a", 15, numbers="9"), profile("b", 4), split="train")
    found = read_lamp(tmp_path)
    assert sorted((u.user, len(u.records)) for u in found.users) == [
        ("dev_questions-1", 14),
        ("train_questions-0", 15),
    ]
    assert found.too_short["paper_title"] == 0, "the short one of b is not somebody else"
    (only,) = read_lamp(tmp_path, users=1).users
    assert only.user in ("dev_questions-1", "train_questions-0")


def test_read_lamp_folders_counts_everyone_and_reads_more_for_growth(tmp_path: Path) -> None:
    sizes = [12] * 6 + [30] * 6 + [90]
    lamp(tmp_path / "LaMP_5", *(profile(f"p{i}", n) for i, n in enumerate(sizes)))
    plain = read_lamp(tmp_path, queries=2, users=3)
    data = drawn(plain)
    assert (len(data.users), len(data.able) + data.unread) == (3, 13)
    found = read_lamp(tmp_path, queries=2, users=3, sizes=(4, 20, 64))
    names = [user.user for user in plain.users]
    assert [user.user for user in found.users] == names, "who is measured stays the same"
    data = drawn(found)
    assert [user.user for user in data.users] == sorted(names)
    assert len(data.able) + data.unread == 13
    # One has 64, too few for a curve; three have the 20.
    assert sum(len(user.records) >= 22 for user in data.able) >= 3


def test_read_lamp_folders_two_people_may_share_an_item(tmp_path: Path) -> None:
    shared = profile("x", 1)
    lamp(tmp_path / "LaMP_5", [*profile("a", 12), *shared], [*profile("b", 12), *shared])
    assert len(read_lamp(tmp_path).users) == 2


def test_read_lamp_folders_says_what_it_leaves_out(tmp_path: Path) -> None:
    odd = profile("a", 14)
    odd[3]["abstract"] = ""
    lamp(tmp_path / "LaMP_5", odd)
    lamp(tmp_path / "LaMP_1", profile("a", 14), profile("z", 14), task="LaMP_1")
    tweets = [{"id": str(i), "text": f"tweet {i}"} for i in range(14)]
    lamp(tmp_path / "LaMP_7", tweets, task="LaMP_7")
    found = read_lamp(tmp_path)
    assert [(u.task, len(u.records)) for u in found.users] == [("paper_title", 13)]
    told = {name.split("/")[1]: why for name, why in found.left_out.items()}
    assert list(told) == ["LaMP_1", "LaMP_7", "LaMP_5"]
    assert "papers its author wrote, not the references they chose" in told["LaMP_1"]
    assert told["LaMP_7"] == "a tweet has no input of its own"
    assert told["LaMP_5"] == "of the people drawn: empty input (1 items)"


def test_read_lamp_folders_histories_too_short_say_so(tmp_path: Path) -> None:
    lamp(tmp_path / "LaMP_5", profile("a", 3), profile("b", 7))
    found = read_lamp(tmp_path)
    assert found.users == []
    (why,) = found.left_out.values()
    assert why == "nobody has 12 records; the longest profile of paper_title has 7"


def test_read_lamp_folders_without_questions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="expected a folder of LaMP files"):
        read_lamp(tmp_path)


def test_read_lamp_folders_people_of_two_folders_have_names_of_their_own(tmp_path: Path) -> None:
    # LaMP's two separations number their questions alike, and call their files alike.
    lamp(tmp_path / "time", profile("a", 12), profile("b", 12))
    lamp(tmp_path / "user", profile("c", 12), profile("d", 12))
    found = read_lamp(tmp_path)
    assert {user.user: user.records[0].output for user in found.users} == {
        "dev_questions-0": "T1 a", "dev_questions-1": "T1 b",
        "dev_questions-0 (2)": "T1 c", "dev_questions-1 (2)": "T1 d",
    }  # fmt: skip


def test_read_lamp_folders_people_of_one_id_in_one_file_are_each_read(tmp_path: Path) -> None:
    folder = lamp(tmp_path / "LaMP_5", profile("a", 12), profile("b", 12))
    path = folder / "dev_questions.json"
    people = [person | {"id": "7"} for person in json.loads(path.read_text())]
    path.write_text(json.dumps(people))
    found = read_lamp(tmp_path)
    assert {user.user: user.records[0].output for user in found.users} == {
        "dev_questions-7": "T1 a", "dev_questions-7 (2)": "T1 b",
    }  # fmt: skip
