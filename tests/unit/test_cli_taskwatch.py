"""What adding records makes of their tasks is told where they are added, and once."""

import json
from dataclasses import replace

import pytest
from cli_runner import call, loaded
from filled_store import generation_of, put_choice

from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Completion, Record


def given(task, outputs):
    """Add records to the default user, one after the other."""
    with Personalizer.open(create=True) as me:
        me.add(
            Record(f"{task} text {i}", output, task, id=f"{task}{i}", time=1.6e9 + i)
            for i, output in enumerate(outputs)
        )


def written(tmp_path, *records):
    """Write records to a file to be imported."""
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def many(task, outputs):
    return [
        {"input": f"more {i}", "output": output, "task": task} for i, output in enumerate(outputs)
    ]


def test_the_label_too_many_is_told_by_add_and_once():
    given("my_tag", [f"tag{i % 60}" for i in range(600)])
    assert call("add", "a text", "tag3", "-t", "my_tag").stderr == "my_tag: added; 0 LLM calls\n"

    told = call("add", "another", "tag60", "-t", "my_tag")
    assert "my_tag is free text from now on, no longer a choice of labels" in told.stderr
    assert "task file" in told.stderr
    assert "free text" not in call("add", "a third", "tag61", "-t", "my_tag").stderr


def test_the_label_too_many_is_told_by_import_and_once(tmp_path):
    given("my_tag", [f"tag{i % 60}" for i in range(600)])
    file = written(tmp_path, *many("my_tag", [f"tag{i}" for i in range(58, 70)]))

    told = call("import", "jsonl", file)
    assert told.stderr.count("my_tag is free text from now on") == 1
    assert "free text" not in call("import", "jsonl", file).stderr


def test_a_task_that_a_file_describes_has_its_kind_whatever_is_added(home):
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / "my_tag.toml").write_text('kind = "label"\n')
    given("my_tag", [f"tag{i % 60}" for i in range(600)])
    assert "from now on" not in call("add", "a text", "tag60", "-t", "my_tag").stderr


def test_answers_that_come_to_be_a_set_are_told():
    given("mood", ["calm", "wild"] * 3 + ["calm"])
    told = call("add", "a text", "wild", "-t", "mood")
    assert "mood is a choice of labels from now on, no longer free text" in told.stderr


def test_a_rating_beyond_the_scale_is_told_from_the_first_by_add_as_an_object_too():
    given("film_rating", [str(1 + i % 5) for i in range(100)])
    told = call("add", "a film", "8", "-t", "film_rating", "--json")
    assert "8 is beyond the 1 to 5 of film_rating and left out as a slip" in told.stderr
    assert json.loads(told.stdout)["added"] == 1
    assert "beyond" in call("add", "a second film", "8", "-t", "film_rating").stderr
    assert "beyond" not in call("add", "a third film", "4", "-t", "film_rating").stderr


def test_ratings_beyond_the_scale_are_told_once_by_import_until_they_are_most(tmp_path):
    given("film_rating", [str(1 + i % 5) for i in range(400)])
    few = call("import", "jsonl", written(tmp_path, *many("film_rating", ["8", "9", "8"])))
    assert few.stderr.count("8, 9 are beyond the 1 to 5 of film_rating") == 1

    nine = [f"{6 + i % 5}" for i in range(9)]
    followed = call("import", "jsonl", written(tmp_path, *many("film_rating", nine)))
    assert "film_rating runs from 1 to 10 from now on, no longer from 1 to 5" in followed.stderr
    assert "beyond" not in followed.stderr
    assert loaded("tasks", "show", "film_rating", "--json")["labels"][-1] == "10"


def test_a_choice_beyond_the_scale_is_told():
    given("film_rating", [str(1 + i % 5) for i in range(100)])
    with Personalizer.open() as me:
        me.store.log_generation(
            replace(generation_of("g1", "a film", "4"), task="film_rating"), "m"
        )
    told = call("choose", "--text", "8")
    assert "8 is beyond the 1 to 5 of film_rating" in told.stderr


@pytest.mark.parametrize("kept", [True, False])
def test_import_that_moves_records_says_what_stays_behind(tmp_path, kept):
    notes = tmp_path / "notes"
    notes.mkdir()
    for i in range(3):
        (notes / f"n{i}.md").write_text(f"# Title {i}\n\nA note of some length, number {i}.\n")
    call("import", "markdown", str(notes), "-t", "garden")
    if kept:
        with Personalizer.open() as me:
            put_choice(me.store, "g", "garden", picked=0)
            me.store.put_pool(
                "key", task="garden", model="m", query_id="n1.md", record_ids=(),
                completions=[Completion("x")],
            )  # fmt: skip

    moved = call("import", "markdown", str(notes), "-t", "plant", "--user", "me")
    assert "3 updated" in moved.stdout
    if not kept:
        assert "stay with" not in moved.stderr
        return
    assert "3 records of garden moved to another task; 1 choice and 1 answer pool stay" in (
        moved.stderr
    )
    command = "hydra-edge tasks rename garden plant --merge --user me"
    assert command in moved.stderr
    assert call(*command.split()[1:], "--yes").exit_code == 0
    with Personalizer.open() as me:
        assert (len(me.store.choices("plant")), len(me.store.pools("plant"))) == (1, 1)
    assert "stay with" not in call("import", "markdown", str(notes), "-t", "plant").stderr
