"""Whom the measurement draws, and what it takes for the task."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_users import LABELS, label_rows, text_rows, write

from bench.datasets import LampUsers, draw_tasks, read_files, read_specs, spec_for
from bench.guard import BenchError
from hydra_edge.bundle import Bundle
from hydra_edge.engine import Engine
from hydra_edge.errors import HydraError
from hydra_edge.store import Store
from hydra_edge.tasks import BUILTIN, TaskSpec, find_task


def draw(everyone, queries=4, **options):
    given = {"users": 3, "queries": queries, "seed": 0, "specs": {}} | options
    return draw_tasks(everyone, **given)


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


def base_that_knows(bundle: Bundle, **sets: tuple[str, ...]) -> Bundle:
    """Make a base of closed sets it has nothing to say of."""
    maps = dict(bundle.maps)
    for name, labels in sets.items():
        maps[f"adapter.classifier.{name}.weight"] = np.zeros((len(labels), 384), np.float32)
        maps[f"adapter.classifier.{name}.bias"] = np.zeros(len(labels), np.float32)
    return replace(bundle, maps=maps, manifest=replace(bundle.manifest, closed_sets=sets))


def test_draw_tasks_closed_set_of_the_base_is_measured_as_a_device_serves_it(
    tmp_path: Path, bundle: Bundle, hash_encoder
) -> None:
    rows = [row | {"output": f"{row['output']} {i}"} for i, row in enumerate(label_rows(0, 20))]
    users = read_files([write(tmp_path / "a.jsonl", rows)])
    base = base_that_knows(bundle, colour_of_day=("amber", "blue", "zinc"))
    assert draw(users)[0].spec.kind == "text", "what the answers alone would show"
    (data,) = draw(users, bundle=base)
    assert (data.spec.kind, data.spec.labels) == ("label", ("amber", "blue", "zinc"))
    assert data.note == ""
    with Store.in_memory() as store:
        served = Engine(store, base, hash_encoder).declared("colour_of_day")
    assert data.spec == served


def test_draw_tasks_rating_of_the_base_has_one_scale_for_all_users(
    tmp_path: Path, bundle: Bundle
) -> None:
    answers = [[*"121212121212"], [*"151212121212"]]
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers))])
    (data,) = draw(users, bundle=base_that_knows(bundle, stars=("1", "2", "3")))
    assert (data.spec.kind, data.spec.labels) == ("rating", ("1", "2", "3", "5"))


def test_draw_tasks_given_and_built_in_specs_win_over_the_base(
    tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "colour_of_day.toml"
    path.write_text('kind = "text"\ninstruction = "Name it."\n')
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 20), text_rows(0, 20))])
    base = base_that_knows(bundle, colour_of_day=("a", "b"), paper_title=("a", "b"))
    given, built_in = draw(users, specs=read_specs([path], users), bundle=base)
    assert given.spec.instruction == "Name it."
    assert built_in.spec is BUILTIN["paper_title"]


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
    with pytest.warns(UserWarning, match="1 lines that are there already"):
        (user,) = read_files([write(tmp_path / "a.jsonl", [*rows, rows[1], other])])
    assert [r.id for r in user.records] == ["u0-0", "u0-1", "u0-2", "u0-1~2"]
    assert [r.time for r in user.records] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("line", "why"),
    [("{oops", "expected one JSON object a line"), ('{"user": "u"}', "expected user, task, input")],
)
def test_read_files_foreign_line_says_where_and_what_is_expected(
    tmp_path: Path, line: str, why: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(label_rows(0, 1)[0])}\n{line}")
    with pytest.raises(HydraError, match=rf"^a\.jsonl, line 2: .*{why}"):
        read_files([path])


def test_read_files_damaged_or_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(json.dumps(label_rows(0, 20)).encode())
    path.write_bytes(whole[:30] + bytes(30) + whole[60:])
    for name in ("a.jsonl.gz", "none.jsonl"):
        with pytest.raises(HydraError, match=rf"{name} cannot be"):
            read_files([tmp_path / name])


def test_read_files_what_unpacking_raises_besides_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_paths: object) -> None:
        raise zlib.error("invalid distance")

    monkeypatch.setattr("bench.datasets.read_users", damaged)
    with pytest.raises(BenchError, match=r"a\.gz cannot be read: invalid distance"):
        read_files([tmp_path / "a.gz"])


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
    assert (data.spec.kind, data.spec.labels) == ("rating", labels)


def test_draw_tasks_some_answers_that_are_no_numbers_make_no_rating(tmp_path: Path) -> None:
    answers = [["1", "2", "3", "4", "n/a", "5", "n/a", "2", *"1234"] for _ in range(2)]
    (data,) = draw(read_files([write(tmp_path / "a.jsonl", *rated(answers))]))
    assert (data.spec.kind, set(data.spec.labels)) == ("label", {*"12345", "n/a"})
    assert data.note.startswith("inferred as label, 6 labels, from 16 answers; give --task-spec")


# Few of the answers come before the queries: too few of them to tell labels by.
MOODS = ("bad", "meh", "good", "great")
SMALL = ([[MOODS[(u + i) % 4] for i in range(10)] for u in range(3)], [[*("yn?" * 4), "y", "n"]])


@pytest.mark.parametrize("answers", SMALL)
def test_draw_tasks_few_labels_are_labels_in_a_small_file_too(
    tmp_path: Path, answers: list[list[str]]
) -> None:
    for of_user in answers:
        of_user[-1] = "zinc"  # only ever a target
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, "mood"))])
    (data,) = draw(users, queries=7)
    assert data.spec.kind == "label"
    assert set(data.spec.labels) == {a for of_user in answers for a in of_user} - {"zinc"}
    more = [[*of_user[:-7], *of_user] for of_user in answers]
    (same,) = draw(read_files([write(tmp_path / "b.jsonl", *rated(more, "mood"))]), queries=7)
    assert replace(data.spec, labels=()) == replace(same.spec, labels=()), "asked for alike"


def test_draw_tasks_labels_before_and_titles_after_are_text(tmp_path: Path) -> None:
    answers = [[*("yn" * 4), *(f"title {i} of {u}" for i in range(4))] for u in range(3)]
    (data,) = draw(read_files([write(tmp_path / "a.jsonl", *rated(answers, "mood"))]))
    assert data.spec.kind == "text"


def test_draw_tasks_nobody_of_one_task_has_enough_is_told_where_asked_for(tmp_path: Path) -> None:
    users = read_files([write(tmp_path / "a.jsonl", label_rows(0, 6), text_rows(0, 20))])
    left_out: dict[str, str] = {}
    (data,) = draw(users, left_out=left_out)
    assert data.name == "paper_title"
    assert left_out == {
        "colour_of_day": "No user of colour_of_day can be measured: the longest history has 6 "
        "records; expected 7 (4 queries and 3 before them)."
    }
    with pytest.raises(BenchError, match=r"No user of colour_of_day .* Lower --queries"):
        draw(users)
    with pytest.raises(BenchError, match=r"No user of colour_of_day .* No user of paper_title"):
        draw(users, queries=20, left_out=left_out)


SENTENCES = [f"I would say that this one is a film of kind {i}" for i in range(5)]


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([f"title {i}" for i in range(40)], "text from 40 answers, 40 distinct"),
        (SENTENCES * 8, "text from 40 answers, 5 distinct"),
        (["yes", "no"] * 20, "label, 2 labels, from 32 answers"),
        (["10423", "88", "70001", "512", "33"] * 8,
         "rating, 5 levels from 33 to 70001, from 32 answers"),
        ([f"{i}.99" for i in range(80)], "rating, 72 levels from 0.99 to 75.99, from 72 answers"),
        (["001", "01", "1", "10", "010"] * 8, "label, 5 labels, from 32 answers"),
    ],
)  # fmt: skip
def test_draw_tasks_inferred_task_is_always_told(
    tmp_path: Path, outputs: list[str], told: str
) -> None:
    half = len(outputs) // 2
    users = read_files([write(tmp_path / "a.jsonl", *rated([outputs[:half], outputs[half:]]))])
    (data,) = draw(users)
    assert data.note == f"inferred as {told}; give --task-spec to say otherwise"


LONG = [f"a title {i} " + "that goes on and on " * 10 for i in range(12)]
MANY = [[f"The paper {i} of {u} on what is to be known of its own titles" for i in range(40)]
        for u in range(4)]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "spec", "answers", "kind"),
    [
        ("citation", BUILTIN["citation"], MANY, "text"),
        ("papers", TaskSpec("papers", "label"), MANY, "text"),
        ("papers", TaskSpec("papers", "label"), [LONG] * 3, "text"),
        ("mood", TaskSpec("mood", "label"), [LONG, *[["good", "bad"] * 6] * 3], "label"),
        ("mood", TaskSpec("mood", "rating"), [["good", "bad"] * 6] * 3, "text"),
        ("mood", TaskSpec("mood", "rating"), [["good"] * 12, ["1", "2"] * 6, ["3"] * 12], "rating"),
    ],
)
def test_spec_for_set_without_labels_is_one_kind_for_all_users(
    tmp_path: Path, bundle: Bundle, hash_encoder, task: str, spec: TaskSpec,
    answers: list[list[str]], kind: str,
) -> None:  # fmt: skip
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, task))])
    (data,) = draw(users, specs={task: spec})
    assert data.spec.kind == kind
    assert data.note.startswith(f"taken as text, not {spec.kind}" if kind == "text" else "")
    assert bool(data.note) is (kind == "text")
    for user in users:
        with Store.in_memory() as store:
            store.add(user.records[:-4])
            served = Engine(store, bundle, hash_encoder, data.custom).task(task)
        assert replace(served, labels=()) == replace(data.spec, labels=())


def test_draw_tasks_known_rating_has_one_scale_for_all_users(tmp_path: Path) -> None:
    answers = [[*"1234512345", "70", "70"], ["9", *"234592345", "70", "70"]]
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, "product_rating"))])
    (data,) = draw(users, queries=2)
    assert data.spec.labels == ("1", "2", "3", "4", "5", "9")
    assert data.custom == {"product_rating": data.spec}
    assert data.spec.instruction == BUILTIN["product_rating"].instruction
    many = [[f"{i + 20 * u}.5" for i in range(20)] for u in range(4)]
    users = read_files([write(tmp_path / "b.jsonl", *rated(many, "product_rating"))])
    (data,) = draw(users, queries=2)
    assert data.spec.labels == ("0.5", "1", "2", "3", "4", "5", "77.5")


def test_spec_for_known_rating_leaves_out_a_slip_as_a_device_does(tmp_path: Path) -> None:
    answers = [[*"123451234512"] for _ in range(5)]
    answers[3][2] = "44"
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, "film_rating"))])
    known = {"film_rating": BUILTIN["film_rating"]}
    assert spec_for("film_rating", users, 2, known) is BUILTIN["film_rating"]
    outputs = [record.output for user in users for record in user.records[:-2]]
    assert find_task("film_rating", outputs=outputs) == BUILTIN["film_rating"]


def test_draw_tasks_known_rating_within_its_scale_stays_as_it_is(tmp_path: Path) -> None:
    answers = [[*"1234512345", "5.0", "70"]]
    users = read_files([write(tmp_path / "a.jsonl", *rated(answers, "film_rating"))])
    (data,) = draw(users, queries=1)
    assert data.spec is BUILTIN["film_rating"]
    assert data.custom == {}


def test_draw_tasks_counts_those_with_too_few_records(tmp_path: Path) -> None:
    users = [label_rows(i, n) for i, n in enumerate((20, 6, 20, 1))]
    read = read_files([write(tmp_path / "a.jsonl", *users)])
    lamp = LampUsers(too_short=Counter(colour_of_day=5), unread=Counter(colour_of_day=7))
    (data,) = draw(read, lamp=lamp)
    assert (len(data.able), data.too_short, data.unread) == (2, 2 + 5, 7)
