"""``add`` and ``fit-head``: what reaches the engine, and what a person is told."""

import json
from dataclasses import replace

import cli_runner
import pytest
from cli_runner import FakeLLM, FakePersonalizer
from conftest import ScriptedLLM

from hydra_edge import fitreport
from hydra_edge.cli import views
from hydra_edge.personalizer import Personalizer
from hydra_edge.reasons import LEFT_OUT
from hydra_edge.types import Record, ReportRow


@pytest.fixture
def me():
    return FakePersonalizer()


def call(me, *args, text=None):
    return cli_runner.call(*args, text=text, opener=me.open)


def test_add_prints_the_id_and_stores_the_record(me):
    result = call(
        me, "add", "a text", "a title", "-t", "Note-Title", "--time", "2024-01-02", "--private"
    )

    [record] = me.store.records()
    assert result.stdout == f"{record.id}\n"
    assert "0 LLM calls" in result.stderr
    assert (record.task, record.time, record.private) == ("note_title", 1704153600.0, True)
    assert me.opened[0][1] is True


def test_add_again_is_unchanged(me):
    first = call(me, "add", "a text", "a title")
    second = call(me, "add", "a text", "a title")

    assert first.stdout == second.stdout
    assert "was there already" in second.stderr
    assert me.store.count() == 1


def test_add_without_a_task_is_general_whatever_is_used_most(me):
    me.store.add([Record(f"text {i}", "a title", "note_title") for i in range(3)])
    call(me, "add", "a text", "a title", "--id", "mine")

    assert me.store.get("mine").task == "general"
    assert "else general" in " ".join(call(me, "add", "--help").stdout.split())


def test_add_id_taken_prints_the_id_it_really_got(me):
    call(me, "add", "a", "b", "--id", "mine")
    me.store.add([Record("x", "y", id="theirs", source="elsewhere")])
    got = json.loads(call(me, "add", "c", "d", "--id", "theirs", "--json").stdout)

    assert got["renamed"] == 1
    assert me.store.get(got["id"]).output == "d"
    assert me.store.get("theirs").output == "y"
    me.store.forget(["theirs"])
    again = json.loads(call(me, "add", "c", "d", "--id", "theirs", "--json").stdout)
    assert (again["id"], again["unchanged"]) == (got["id"], 1)


@pytest.mark.parametrize(
    "args", [("", "b"), ("a", " "), ("a", "b", "--time", "soon"), ("a", "b", "--id", "x\ny")]
)
def test_add_unusable_values_are_a_usage_error(me, args):
    assert call(me, "add", *args).exit_code == 2
    assert me.store.count() == 0


def test_fit_head_all_tasks_are_fitted_the_largest_first(me):
    me.store.add(
        [Record("a", "b", "note_title"), Record("a", "b", "chat"), Record("c", "d", "chat")]
    )
    result = call(me, "fit-head", "--no-llm")

    assert [flags["task"] for flags in me.asked("fit_head")] == ["chat", "note_title"]
    assert all(flags["use_llm"] is False for flags in me.asked("fit_head"))
    for row in ("unpersonalized", "prompt-only RAG", "shared head", "my head"):
        assert row in result.stdout
    assert "0.254" in result.stdout
    assert "no LLM was asked" in result.stdout
    assert "switched on: your own head - it helps" in result.stdout
    assert "+0.031 (80 % sure of +0.012 or more, n = 20)" in result.stdout
    assert "75 vectors reused, 5 embedded; 6 LLM calls (2 pools paid for earlier)" in result.stdout
    assert "a remark" in result.stdout


@pytest.mark.parametrize(
    ("switch", "utilities", "said"),
    [
        ("shared", (0.099, 0.062, None), True),
        ("personal", (0.099, 0.2, 0.062), True),
        ("shared", (0.062, 0.099, None), False),
        ("shared", (0.0991, 0.0990, None), False),  # the table shows the same
        ("shared", (None, 0.062, None), False),
        ("baseline", (0.099, 0.062, None), False),
    ],
)
def test_fit_head_says_where_others_gains_outweigh_the_users_own_queries(
    me, monkeypatch, switch, utilities, said
):
    names = ("prompt-only RAG", "shared head", "my head")
    rows = tuple(ReportRow(name, u, 5) for name, u in zip(names, utilities, strict=True))
    report = me.fit_head("x")
    [role] = report.roles
    own = replace(report, roles=(replace(role, switch=switch, rows=rows),))
    monkeypatch.setattr(me, "fit_head", lambda task=None, **_: own)

    shown = call(me, "fit-head", "-t", "x", "--no-llm").stdout
    remark = "(of your own 5 queries alone it would not be: what other users gained decides)"
    assert (remark in shown) == said


def test_fit_head_says_where_later_choices_outweigh_the_users_own_records(me, monkeypatch):
    names = ("prompt-only RAG", "shared head", "my head")
    rows = tuple(ReportRow(name, u, 5, LEFT_OUT) for name, u in zip(names, (1, 0, 0), strict=True))
    report = me.fit_head("x")
    [role] = report.roles
    own = replace(report, roles=(replace(role, switch="shared", rows=rows),))
    monkeypatch.setattr(me, "fit_head", lambda task=None, **_: own)

    shown = call(me, "fit-head", "-t", "x", "--no-llm").stdout
    assert "5 queries alone it would not be: what you chose since decides)" in shown


def test_rows_of_a_fit_are_known_by_the_names_they_are_shown_by():
    assert tuple(views._ROWS.values()) == fitreport.ROWS[1:]


def test_fit_head_one_budget_is_shared_by_all_tasks(me):
    me.store.add([Record("a", "b", "note_title"), Record("a", "b", "chat")])
    call(me, "fit-head", "--calls", "10", "--budget", "1h")

    first, second = me.asked("fit_head")
    assert (first["calls"], second["calls"]) == (10, 4)  # the fake spends 6
    assert (first["budget_s"], second["budget_s"]) == (1800.0, 3600.0)  # and no time of the LLM


class Spending(FakePersonalizer):
    """Spends of a fit's budget what is written down for its task: answers, and LLM seconds."""

    def __init__(self):
        super().__init__()
        self.spends = {}

    def fit_head(self, task=None, **flags):
        calls, seconds = self.spends.get(task, (0, 0.0))
        report = super().fit_head(task, **flags)
        return replace(report, llm_calls=calls, llm_seconds=seconds, seconds=1000.0)


@pytest.fixture
def spending():
    me = Spending()
    sizes = {"chat": 3, "note_title": 2, "tweet": 1}
    me.store.add(
        [Record(f"{task} {i}", "b", task) for task, size in sizes.items() for i in range(size)]
    )
    return me


def test_fit_head_time_left_is_divided_among_the_tasks_left_by_what_the_llm_took(spending):
    spending.spends = {"chat": (5, 4.0), "note_title": (5, 18.0)}
    result = call(spending, "fit-head", "--budget", "40s")

    budgets = [flags["budget_s"] for flags in spending.asked("fit_head")]
    assert budgets == pytest.approx([40 / 3, 18.0, 18.0])
    assert "used up" not in result.stdout


def test_fit_head_answers_left_are_divided_but_each_task_has_enough_for_a_record(spending):
    spending.spends = dict.fromkeys(("chat", "note_title", "tweet"), (10, 0.0))
    call(spending, "fit-head", "--calls", "90")
    assert [flags["calls"] for flags in spending.asked("fit_head")] == [30, 40, 70]

    spending.calls.clear()
    call(spending, "fit-head", "--calls", "24")
    assert [flags["calls"] for flags in spending.asked("fit_head")] == [10, 10, 4]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--budget", "40s"), "the time allowed was"),
        (("--calls", "10"), "the answers allowed were"),
        (("--calls", "14"), "the answers allowed were"),
    ],
)
def test_fit_head_budget_used_up_by_an_earlier_task_says_so(spending, flags, what):
    spending.spends = {"chat": (10, 87.0)}
    reports = json.loads(call(spending, "fit-head", *flags, "--json").stdout)["reports"]

    for report in reports:
        used_up = f"{what} used up before this task: hydra-edge fit-head --task {report['task']}"
        assert (used_up in report["notes"]) == (report["task"] != "chat")


@pytest.mark.parametrize("flags", [("--calls", "0"), ("--budget", "0s"), ("--calls", "4"), ()])
def test_fit_head_nothing_spent_is_not_said_to_be_used_up(spending, flags):
    assert "used up" not in call(spending, "fit-head", *flags).output


def test_fit_head_no_records_says_what_to_do(me):
    result = call(me, "fit-head")

    assert result.exit_code == 0
    assert "hydra-edge import" in result.stderr


def test_fit_head_dry_run_prints_prompts_and_fits_nothing(me):
    result = call(me, "fit-head", "-t", "chat", "--dry-run", "--calls", "2")

    assert result.stdout == "prompt A\nprompt B\n"
    assert "nothing was" in result.stderr
    assert not me.asked("fit_head")


def test_fit_head_dry_run_without_an_llm_prints_nothing_and_says_so(me):
    me.llm = FakeLLM("gpt", is_remote=True)
    fit = ("fit-head", "-t", "chat", "--dry-run", "--no-llm", "--budget", "60s")
    result = call(me, *fit)

    assert (result.exit_code, result.stdout) == (0, "")
    assert "no LLM is asked" in result.stderr
    assert json.loads(call(me, *fit, "--json").stdout) == {"prompts": []}
    assert not me.asked("fit_prompts")


def test_fit_head_dry_run_under_calls_says_at_most_how_many_would_be_sent(me):
    fit = ("fit-head", "-t", "chat", "--dry-run")

    assert "At most 2 prompts would be sent" in call(me, *fit, "--calls", "2").stderr
    assert "\n2 prompts would be sent" in call(me, *fit).stderr


def test_fit_head_remote_llm_without_a_person_to_ask_is_refused(me):
    me.llm = FakeLLM("gpt", is_remote=True)
    result = call(
        me,
        "fit-head",
        "-t",
        "chat",
        "--calls",
        "9",
        "--base-url",
        "https://llm.example.org/v1",
        "-m",
        "openai:gpt",
    )

    assert result.exit_code == 1
    assert "gpt at llm.example.org would be sent at most 2 prompts" in result.stderr
    assert "--yes" in result.stderr
    assert not me.asked("fit_head")


def test_fit_head_remote_llm_with_consent_is_asked(me):
    me.llm = FakeLLM("gpt", is_remote=True)
    result = call(me, "fit-head", "-t", "chat", "--calls", "9", "--yes", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["reports"][0]["roles"][0]["switch"] == "personal"
    assert me.asked("fit_head")[0]["calls"] == 9


@pytest.mark.parametrize("flags", [("--budget", "soon"), ("--calls", "-1"), ("--calls", "many")])
def test_fit_head_unusable_budget_is_a_usage_error(me, flags):
    assert call(me, "fit-head", *flags).exit_code == 2
    assert not me.calls


def remote_user(private=False):
    """Return an opener of a real user with a few records, whose LLM is remote and remembers."""
    llm = ScriptedLLM(lambda _prompt, n: ["a title"] * n, is_remote=True)

    def open_me(user, *, create, config, paths):
        return Personalizer.open(user, create=create, config=config, paths=paths, llm=llm)

    with Personalizer.open(create=True) as me:
        me.add(
            Record(f"a text of {word}", f"{word} it is", "note_title", time=float(i),
                   private=private)
            for i, word in enumerate(("apples", "pears", "plums", "figs", "dates"))
        )  # fmt: skip
    return llm, open_me


def test_fit_head_too_few_calls_for_a_record_says_so_and_asks_for_no_consent():
    llm, opener = remote_user()
    fit = ("fit-head", "-t", "note_title")
    why = "one record takes up to 10 answers, more than the 8 allowed; give --calls 10 or more"
    planned = cli_runner.call(*fit, "--calls", "8", "--dry-run", opener=opener)
    done = cli_runner.call(*fit, "--calls", "8", opener=opener)
    told = cli_runner.call(*fit, "--calls", "8", "--json", opener=opener)

    assert (planned.exit_code, planned.stdout) == (0, "")
    assert why in planned.stderr
    assert done.exit_code == 0, done.stderr
    assert f"note: nothing is sent: {why}" in done.stdout
    assert why in json.loads(told.stdout)["reports"][0]["notes"][0]
    assert llm.prompts == []
    # What it advises is enough.
    assert cli_runner.call(*fit, "--calls", "10", "--dry-run", opener=opener).stdout


def test_fit_head_nothing_that_may_be_sent_says_so_and_asks_for_no_consent():
    llm, opener = remote_user(private=True)
    why = "there is no record left to ask about; private ones are never sent"
    for flags in (("--calls", "8"), ("--calls", "8", "--budget", "1h")):
        done = cli_runner.call("fit-head", *flags, opener=opener)
        assert done.exit_code == 0, done.stderr
        assert why in done.stdout
    assert why in cli_runner.call("fit-head", "--dry-run", opener=opener).stderr
    assert llm.prompts == []


@pytest.mark.parametrize("flags", [("--yes",), ("--dry-run",)])
def test_fit_head_remote_llm_with_a_time_alone_is_refused_and_sent_nothing(flags):
    llm, opener = remote_user()
    done = cli_runner.call("fit-head", "--budget", "10m", *flags, opener=opener)

    assert done.exit_code == 1
    assert "got a time alone; expected how many answers" in done.stderr
    assert "--calls N" in done.stderr
    assert (done.stdout, llm.prompts) == ("", [])


def test_fit_head_dry_run_of_a_remote_llm_without_calls_shows_nothing_and_what_calls_would():
    llm, opener = remote_user()
    planned = cli_runner.call("fit-head", "--dry-run", opener=opener)
    with_calls = cli_runner.call("fit-head", "--dry-run", "--calls", "80", "--json", opener=opener)
    count = len(json.loads(with_calls.stdout)["prompts"])

    assert (planned.exit_code, planned.stdout) == (0, "")
    assert "is remote and is asked nothing without --calls" in planned.stderr
    assert f"with --calls 80 it would be sent at most {count} prompts" in planned.stderr
    assert count > 0
    assert cli_runner.call("fit-head", opener=opener).exit_code == 0
    assert llm.prompts == []


def test_fit_head_dry_run_of_a_local_llm_without_calls_says_there_may_be_more(me):
    said = "a local LLM is asked as many as it has time for"
    assert said in call(me, "fit-head", "-t", "chat", "--dry-run").stderr
    assert said not in call(me, "fit-head", "-t", "chat", "--dry-run", "--calls", "2").stderr
