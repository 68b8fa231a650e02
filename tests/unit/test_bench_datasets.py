"""Whom the measurement draws, and what it takes for the task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_users import LABELS, label_rows, text_rows, write

from bench.datasets import draw_tasks, read_files, read_lamp_folder, read_specs
from bench.guard import BenchError


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


def test_read_lamp_folder_makes_every_profile_a_user_in_time_order(tmp_path: Path) -> None:
    def profile(n: int) -> list[dict[str, str]]:
        days = range(n, 0, -1)
        return [{"id": str(d), "title": f"T{d}", "abstract": f"A{d}", "date": f"2020-01-{d:02d}"}
                for d in days]  # fmt: skip

    question = 'Generate a title for the following abstract of a paper: "X"'
    people = [{"id": str(i), "input": question, "profile": profile(n)}
              for i, n in enumerate((12, 3, 15))]  # fmt: skip
    folder = tmp_path / "LaMP_5"
    folder.mkdir()
    (folder / "dev_questions.json").write_text(json.dumps(people))
    golds = {"task": "LaMP_5", "golds": [{"id": "0", "output": "GOLD"}]}
    (folder / "dev_outputs.json").write_text(json.dumps(golds))
    users = read_lamp_folder(tmp_path, users=5, least=12, seed=0)
    assert [(u.user, u.task, len(u.records)) for u in users] == [
        ("dev_questions-0", "paper_title", 12),
        ("dev_questions-2", "paper_title", 15),
    ]
    assert [r.output for r in users[0].records] == [f"T{d}" for d in range(1, 13)]
    assert not any("GOLD" in r.output for u in users for r in u.records)


def test_read_lamp_folder_without_questions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="expected a folder of LaMP files"):
        read_lamp_folder(tmp_path, users=5, least=3, seed=0)
