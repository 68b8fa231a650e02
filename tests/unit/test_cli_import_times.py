"""Times that are in the future by this device's clock: not taken, and not in silence."""

import json

import pytest
from cli_runner import call, loaded, records


@pytest.fixture
def history(tmp_path):
    """Have two records of 2020 in a file, and one of 2099 in another."""
    lines = [
        {"input": f"text {i}", "output": f"title {i}", "time": f"20{year}-05-17"}
        for i, year in enumerate(("20", "20", "99"))
    ]
    for name, part in (("past", lines[:2]), ("all", lines)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, part)))
    return tmp_path


def test_import_says_how_many_times_are_not_taken(history):
    for flags in (["--dry-run"], []):
        told = " ".join(call("import", "jsonl", str(history / "all"), *flags).stderr.split())
        assert "1 record is dated in the future by this device's clock, which says 20" in told
    assert sorted(record.time is None for record in records()) == [False, False, True]
    assert loaded("import", "jsonl", str(history / "all"), "--json")["not_dated"] == 1


def test_import_of_the_past_says_nothing_of_times(history):
    assert "dated" not in call("import", "jsonl", str(history / "past")).stderr
    assert loaded("import", "jsonl", str(history / "past"), "--json")["not_dated"] == 0


def test_import_with_a_clock_behind_says_so_and_again_with_the_right_one_takes_all(
    history, monkeypatch
):
    with monkeypatch.context() as unset:
        unset.setattr("time.time", lambda: 1000.0)
        told = call("import", "jsonl", str(history / "past"))
        found = {f["name"]: f for f in json.loads(call("doctor", "--json").stdout)["findings"]}
    assert "2 records are dated in the future by this device's clock, which says 1970-01-01" in (
        " ".join(told.stderr.split())
    )
    assert found["clock"]["state"] == "broken"
    assert "it says 1970-01-01 00:16 UTC" in found["clock"]["detail"]
    assert [record.time for record in records()] == [None, None]

    again = call("import", "jsonl", str(history / "past"))
    assert "2 updated" in again.stdout
    assert "dated" not in again.stderr
    assert all(record.time for record in records())
    found = {f["name"]: f["state"] for f in loaded("doctor", "--json")["findings"]}
    assert found["clock"] == "ok"


def test_add_says_that_its_time_is_not_taken():
    assert "1 record is dated in the future" in call("add", "a", "b", "--time", "2099-01-01").stderr
    assert "dated" not in call("add", "c", "d").stderr
