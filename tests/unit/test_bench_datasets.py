"""Whom the measurement draws, and what it takes for the task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_users import LABELS, label_rows, text_rows, write

from bench.datasets import draw_tasks, read_files, read_lamp_folders, read_specs
from bench.guard import BenchError
from hydra_edge.tasks import BUILTIN


def draw(users, queries=4, **options):
    given = {"users": 3, "queries": queries, "seed": 0, "specs": {}} | options
    return draw_tasks(users, **given)


def test_draw_tasks_unknown_labels_are_inferred_without_the_queries(tmp_path: Path) -> None:
    users = [label_rows(i, 20) for i in range(4)]
    for rows in users:
        for row in rows[-4:]:
            row["output"] = "zinc"  # only ever a target
    (data,) = draw(read_files([write(tmp_path / "a.jsonl", *users)]))
    assert (data.name, data.spec.kind, data.spec.labels) == ("colour_of_day", "label", LABELS)
    assert data.custom == {"colour_of_day": data.spec}
    assert (len(data.users), len(data.able)) == (3, 4)


def test_draw_tasks_built_in_task_stays_as_it_is(tmp_path: Path) -> None:
    (data,) = draw(read_files([write(tmp_path / "a.jsonl", text_rows(0, 20))]))
    assert data.custom == {}


def test_draw_tasks_given_spec_wins_over_inference(tmp_path: Path) -> None:
    path = tmp_path / "colour_of_day.toml"
    path.write_text('kind = "text"\ninstruction = "Name it."\n')
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 20), text_rows(0, 20))])
    data, other = draw(users, specs=read_specs([path], users))
    assert (data.spec.kind, data.spec.instruction) == ("text", "Name it.")
    assert other.custom == {}


def test_read_specs_one_file_for_one_task_is_meant_for_it(tmp_path: Path) -> None:
    path = tmp_path / "any_name.toml"
    path.write_text('kind = "text"\n')
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 20))])
    assert list(read_specs([path], users)) == ["colour_of_day"]
    assert read_specs([path], users)["colour_of_day"].name == "colour_of_day"
    assert read_specs([], users) == {}


def test_read_specs_of_a_task_not_in_the_data_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "any_name.toml"
    path.write_text('kind = "text"\n')
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 20), text_rows(0, 20))])
    with pytest.raises(BenchError, match="describes 'any_name'; the data has colour_of_day"):
        read_specs([path], users)


def test_draw_tasks_same_seed_same_users(tmp_path: Path) -> None:
    users = read_files([write(tmp_path / "a.jsonl", *(label_rows(i, 20) for i in range(9)))])
    names = [[u.user for u in draw(users, seed=seed)[0].users] for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]


def test_draw_tasks_filter_keeps_the_tasks_named_in_any_spelling(tmp_path: Path) -> None:
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 20), text_rows(0, 20))])
    assert [d.name for d in draw(users)] == ["colour_of_day", "paper_title"]
    assert [d.name for d in draw(users, only=["Paper-Title"])] == ["paper_title"]
    with pytest.raises(BenchError, match="No users of task 'recipe'; the data has colour_of_day"):
        draw(users, only=["recipe"])


def test_draw_tasks_histories_too_short_say_how_long_they_must_be(tmp_path: Path) -> None:
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 6))])
    with pytest.raises(BenchError, match="longest history has 6 records; expected 7"):
        draw(users)


def test_draw_tasks_no_data_is_an_error() -> None:
    with pytest.raises(BenchError, match="nobody to measure"):
        draw([])


def test_read_files_names_tasks_as_a_store_does(tmp_path: Path) -> None:
    (user,) = read_files([write(tmp_path / "a.jsonl", label_rows(0, 3, "Colour of-Day"))])
    assert user.task == "colour_of_day"
    assert {r.task for r in user.records} == {"colour_of_day"}


def test_read_files_repeated_line_is_one_record_and_a_shared_id_two(tmp_path: Path) -> None:
    rows = label_rows(0, 3)
    other = rows[1] | {"seq": 9, "input": "elsewhere"}
    (user,) = read_files([write(tmp_path / "a.jsonl", [*rows, rows[1], other])])
    assert [r.id for r in user.records] == ["u0-0", "u0-1", "u0-2", "u0-1~2"]
    assert [r.time for r in user.records] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("line", "why"), [("{oops", "cannot be read"), ('{"user": "u"}', "'task' is missing")]
)
def test_read_files_foreign_line_says_what_is_expected(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    with pytest.raises(BenchError, match=f"{why}.*Expected one JSON object a line"):
        read_files([path])


def rated(answers: list[list[str]], task: str = "stars") -> list[list[dict[str, object]]]:
    """Make users who gave these answers."""
    return [
        [row | {"task": task, "output": answer}
         for row, answer in zip(label_rows(i, len(of_user)), of_user, strict=True)]
        for i, of_user in enumerate(answers)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        # Half stars: 16 answers, too few to call ten different ones a closed set.
        ([[str((i * 3 + u * 5) % 10 / 2 + 0.5) for i in range(12)] for u in range(2)],
         tuple(str(i / 2) for i in range(1, 11))),
        ([["1", "2", "3", "4", "5"] + ["3"] * 4], ("1", "2", "3", "4", "5")),
        ([["4.0", "4", "1", "2", "3"] + ["1"] * 4], ("1", "2", "3", "4")),  # 4.0 is 4
        # More levels than a prompt lists: the ends, which a user's own answers complete.
        ([[str((i * 37 + u * 11) % 101) for i in range(24)] for u in range(9)], ("0", "100")),
    ],
)  # fmt: skip
def test_draw_tasks_earlier_answers_all_numbers_make_a_rating(
    tmp_path: Path, answers: list[list[str]], labels: tuple[str, ...]
) -> None:
    for of_user in answers:
        of_user[-4:] = ["7000"] * 4  # only ever a target
    (data,) = draw(read_files([write(tmp_path / "a.jsonl", *rated(answers))]))
    assert (data.spec.kind, data.spec.labels, data.note) == ("rating", labels, "")


def test_draw_tasks_one_earlier_answer_that_is_no_number_makes_no_rating(tmp_path: Path) -> None:
    answers = [["1", "2", "3", "4", "n/a", "5", "1", "2", *"1234"] for _ in range(2)]
    (data,) = draw(read_files([write(tmp_path / "a.jsonl", *rated(answers))]))
    assert data.spec.kind == "text"
    assert data.note.startswith("inferred as text from 16 answers, 6 distinct; give --task-spec")


def test_draw_tasks_text_that_does_not_come_again_needs_no_note(tmp_path: Path) -> None:
    answers = [[f"title {i} of {u}" for i in range(12)] for u in range(2)]
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers))])
    (data,) = draw(users)
    assert (data.spec.kind, data.note) == ("text", "")


def test_draw_tasks_known_rating_has_one_scale_for_all_users(tmp_path: Path) -> None:
    answers = [[*"1234512345", "70", "70"], ["9", *"234512345", "70", "70"]]
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, "product_rating"))])
    (data,) = draw(users, queries=2)
    assert data.spec.labels == ("1", "2", "3", "4", "5", "9")
    assert data.custom == {"product_rating": data.spec}
    assert data.spec.instruction == BUILTIN["product_rating"].instruction
    many = [[f"{i + 20 * u}.5" for i in range(20)] for u in range(4)]
    users = read_files([write(tmp_path / "b.jsonl", *rated(many, "product_rating"))])
    (data,) = draw(users, queries=2)
    assert data.spec.labels == ("0.5", "1", "2", "3", "4", "5", "77.5")


def test_draw_tasks_known_rating_within_its_scale_stays_as_it_is(tmp_path: Path) -> None:
    answers = [[*"1234512345", "5.0", "70"]]
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, "film_rating"))])
    (data,) = draw(users, queries=1)
    assert data.spec is BUILTIN["film_rating"]
    assert data.custom == {}


def test_draw_tasks_counts_those_with_too_few_records(tmp_path: Path) -> None:
    users = [label_rows(i, n) for i, n in enumerate((20, 6, 20, 1))]
    read = read_files([write(tmp_path / "a.jsonl", *users)])
    (data,) = draw(read, too_short={"colour_of_day": 5})
    assert (len(data.able), data.too_short) == (2, 2 + 5)


PAPER = 'Generate a title for the following abstract of a paper: "X"'


def profile(user: str, n: int, numbers: str = "") -> list[dict[str, str]]:
    """Make a person's profile, the newest first; its items are numbered as everyone's are."""
    return [{"id": f"{numbers}{d}", "title": f"T{d} {user}", "abstract": f"A{d} {user}",
             "date": f"2020-01-{d:02d}"} for d in range(n, 0, -1)]  # fmt: skip


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


def read_lamp(folder: Path, least: int = 12, users: int = 5):
    return read_lamp_folders([folder], users=users, least=least, seed=0)


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
