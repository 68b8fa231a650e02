"""``import``, into a real file of a real user."""

import json
import signal
from contextlib import contextmanager

import cli_runner
import pytest
from cli_runner import call, records

from hydra_edge.errors import ImportFormatError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

GOOD = '{"input": "a text", "output": "a title", "id": "one", "task": "note_title", "time": 5}\n'
_own_folder = cli_runner.own_folder


def test_import_jsonl_good_lines_are_kept_and_bad_ones_told_by_number(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD + "not json\n" + '{"input": "", "output": "x"}\n')
    result = call("import", "jsonl", "h.jsonl", "-u", "ada")

    assert result.exit_code == 0
    assert "line 2: not JSON" in result.stderr
    assert result.stdout == (
        "ada: 1 added, 0 updated, 0 unchanged; 1 skipped (1 empty input); 1 line unreadable; "
        "0 LLM calls\n"
    )
    assert [r.id for r in records("ada")] == ["one"]


@pytest.mark.parametrize(
    "kind", ["jsonl", "csv", "git", "markdown", "chatgpt", "claude", "slack", "mbox", "lamp"]
)
def test_import_of_nobodys_home_is_told_in_words(kind):
    more = {"csv": ("--task", "t"), "slack": ("--me", "ada")}.get(kind, ())
    result = call("import", kind, "~nobody-at-all/h", *more)

    assert result.exit_code != 0
    assert "~nobody-at-all/h" in result.stderr
    assert "fault of its own" not in result.stderr


def test_import_again_changes_nothing(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD)
    call("import", "jsonl", "h.jsonl")

    assert "0 added, 0 updated, 1 unchanged" in call("import", "jsonl", "h.jsonl").stdout


def test_import_json_reports_all_of_it(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD + "[]\n" * 30)
    payload = json.loads(call("import", "jsonl", "h.jsonl", "--json").stdout)

    assert (payload["added"], payload["read"], payload["bad_total"]) == (1, 1, 30)
    assert len(payload["bad"]) == 30
    assert payload["bad"][0]["number"] == 2
    assert payload["bad"][0]["reason"].endswith("expected an object")
    assert payload["llm_calls"] == 0


def test_import_many_bad_lines_only_the_first_are_listed(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD + "[]\n" * 30)
    result = call("import", "jsonl", "h.jsonl")

    assert result.stderr.count("expected an object") == 20
    assert "and 10 more" in result.stderr


def test_import_dry_run_stores_nothing_and_shows_samples(tmp_path, home):
    lines = [{"input": f"text {i}", "output": f"title {i}"} for i in range(5)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = call("import", "jsonl", "h.jsonl", "--dry-run")

    assert "Would read 5 records" in result.stdout
    assert result.stdout.count("->") == 3
    assert not home.exists()


@pytest.mark.parametrize("text", ["", "not json\n", '{"input": "", "output": "x"}\n'])
def test_import_nothing_readable_is_exit_1_and_makes_no_file(tmp_path, home, text):
    (tmp_path / "h.jsonl").write_text(text)

    assert call("import", "jsonl", "h.jsonl").exit_code == 1
    assert not home.exists()


def test_import_missing_file_is_one_line_and_exit_1(home):
    result = call("import", "jsonl", "nowhere.jsonl")

    assert result.exit_code == 1
    assert "nowhere.jsonl cannot be read" in result.stderr
    assert not home.exists()


def test_import_columns_are_mapped_from_stdin():
    result = call(
        "import", "csv", "-", "--input", "abstract", "--output", "title", "--id", "doi",
        "--time", "date", "-t", "Paper-Title", "--private",
        text="doi;date;abstract;title\n10/x;2024-01-02;We study it.;A Study\n",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    [record] = records()
    assert (record.id, record.input, record.output) == ("10/x", "We study it.", "A Study")
    assert (record.task, record.time, record.private) == ("paper_title", 1704153600.0, True)


@pytest.mark.parametrize(
    ("options", "header"),
    [((), "input,output,task"), (("--input", "abstract", "--output", "title"), "abstract,title,t")],
)
def test_import_csv_needs_no_columns_of_ids_and_times(options, header):
    result = call("import", "csv", "-", *options, text=f"{header}\nWe study it.,A Study,odd\n")

    assert result.exit_code == 0, result.output
    assert [(r.input, r.output) for r in records()] == [("We study it.", "A Study")]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_import_task_given_is_of_the_records_that_name_none_and_help_says_so(kind):
    lines = {
        "csv": "input,output,task\na,b,own\nc,d,\n",
        "jsonl": '{"input": "a", "output": "b", "task": "own"}\n{"input": "c", "output": "d"}\n',
    }
    call("import", kind, "-", "--task", "given", text=lines[kind])

    assert {r.output: r.task for r in records()} == {"b": "own", "d": "given"}
    assert "Task of the records that name none" in call("import", kind, "--help").stdout


def test_import_jsonl_columns_that_no_line_has_are_told():
    result = call("import", "jsonl", "-", "--time", "when", "--id", "nope", text=GOOD)

    assert result.exit_code == 0
    assert "no line has 'when' (--time)\n" in result.stderr
    assert "no line has 'nope' (--id)\n" in result.stderr
    assert "no line has" not in call("import", "jsonl", "-", text=GOOD).stderr


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_import_times_can_be_left_out_and_help_says_so(kind):
    lines = {
        "csv": "input,output,time\na,b,31.12.2023\n",
        "jsonl": '{"input": "a", "output": "b", "time": "31.12.2023"}\n',
    }
    assert "an ISO date such as 2023-12-31" in call("import", kind, "-", text=lines[kind]).stderr
    assert "1 added" in call("import", kind, "-", "--time", "", text=lines[kind]).stdout
    assert records()[0].time is None
    assert '"" if there is none' in " ".join(call("import", kind, "--help").stdout.split())


def test_import_csv_column_that_was_asked_for_has_to_be_there():
    result = call("import", "csv", "-", "--id", "doi", text="input,output\na,b\n")

    assert result.exit_code == 1
    assert "no column 'doi'" in result.stderr


def test_import_markdown_and_git_and_lamp_reach_their_importers(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a-note.md").write_text("# My note\n\nIts text.\n")
    questions = [{"id": "1", "input": "q", "profile": [{"id": "p", "abstract": "a", "title": "t"}]}]
    (tmp_path / "lamp.json").write_text(json.dumps(questions))

    assert "1 added" in call("import", "markdown", "notes").stdout
    assert "1 added" in call("import", "lamp", "lamp.json", "--task", "paper_title").stdout
    assert "not" in call("import", "git", "notes").stderr
    assert {r.output for r in records()} == {"My note", "t"}


def test_import_mail_is_private_unless_said_otherwise(tmp_path):
    (tmp_path / "Sent").write_text(
        "From a@example.org Mon Jan  1 00:00:00 2024\nFrom: a@example.org\nSubject: Lunch\n"
        "Message-ID: <1@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n"
        "Shall we eat at one?\n\n"
    )
    assert "1 added" in call("import", "mbox", "Sent", "--me", "a@example.org").stdout
    assert [r.private for r in records()] == [True]
    call("import", "mbox", "Sent", "--me", "a@example.org", "--public", "-u", "ada")
    assert [r.private for r in records("ada")] == [False]


MAIL = (
    "From a@example.org Mon Jan  1 00:00:00 2024\nFrom: a@example.org\nSubject: Lunch\n"
    "Message-ID: <1@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n"
    "Shall we eat at one?\n\n"
)


def test_mail_says_that_it_is_private(tmp_path):
    (tmp_path / "Sent").write_text(MAIL)
    would = call("import", "mbox", "Sent", "-u", "ada", "--dry-run").stdout
    result = call("import", "mbox", "Sent", "-u", "ada")
    command = f"hydra-edge history private --off --source mbox:{tmp_path / 'Sent'} --user ada"

    assert "; 1 private (no remote LLM sees them; see --public); " in would
    assert f"; 1 private (no remote LLM sees them; `{command}` lets them); " in result.stdout
    assert call(*command.split()[1:]).stdout == "1 record now public\n"
    assert [r.private for r in records("ada")] == [False]


def test_mail_said_to_be_private_or_public_is_counted_so(tmp_path):
    (tmp_path / "Sent").write_text(MAIL)
    public = call("import", "mbox", "Sent", "-u", "bob", "--public")
    again = json.loads(call("import", "mbox", "Sent", "-u", "ada", "--private", "--json").stdout)

    assert "private" not in public.stdout
    assert (again["private"], again["stay_private"]) == (1, 0)
    hers = call("import", "mbox", "Sent", "-u", "ada", "--public", "--json").stdout
    assert (json.loads(hers)["private"], json.loads(hers)["stay_private"]) == (1, 1)
    assert "1 private (no remote LLM sees them); " in (
        call("import", "mbox", "Sent", "-u", "ada", "--private").stdout
    )


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_import_new_task_is_named_with_the_known_one_near_it(tmp_path, flags):
    (tmp_path / "films.csv").write_text("input,output,task\nA film,5,\nA film too,4,\nx,y,chat\n")
    result = call("import", "csv", "films.csv", "-t", "film_ratng", *flags)

    said = "Tasks: 2 film_ratng (a new task; near it: film_rating), 1 chat\n"
    assert said in result.stderr
    payload = json.loads(call("import", "csv", "films.csv", "-t", "rezept", "--json").stdout)
    assert payload["tasks"] == {"rezept": 2, "chat": 1}
    assert payload["new_tasks"] == {"rezept": None}


def test_import_task_that_is_known_is_not_called_new(tmp_path, home):
    (tmp_path / "h.jsonl").write_text('{"input": "x", "output": "y"}\n')
    (home / "tasks").mkdir(parents=True)
    (home / "tasks" / "mine.toml").write_text('name = "mine"\n')
    for name in ("mine", "paper_title"):
        assert f"Tasks: 1 {name}\n" in call("import", "jsonl", "h.jsonl", "-t", name).stderr
    said = [call("import", "jsonl", "h.jsonl", "-t", "haiku").stderr for _ in range(2)]
    assert ["a new task" in each for each in said] == [True, False]


def test_import_many_tasks_only_some_are_named(tmp_path):
    lines = [{"input": "x", "output": "y", "task": f"{i}{i}{i}{i}"} for i in range(10)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = call("import", "jsonl", "h.jsonl")

    assert result.stderr.count("a new task") == 8
    assert ", and 2 other tasks\n" in result.stderr


def test_import_task_that_no_record_took_is_told(tmp_path):
    (tmp_path / "h.jsonl").write_text(GOOD)
    note = "--task film_ratng was used for no record: each names its own."

    assert note in call("import", "jsonl", "h.jsonl", "-t", "film_ratng").stderr
    assert "was used for" not in call("import", "jsonl", "h.jsonl", "-t", "Note-Title").stderr
    (tmp_path / "h.jsonl").write_text(GOOD + '{"input": "x", "output": "y"}\n')
    assert "was used for" not in call("import", "jsonl", "h.jsonl", "-t", "film_ratng").stderr


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_import_of_nothing_names_the_help_of_its_kind(tmp_path, kind):
    (tmp_path / "h").write_text(
        '{"input": "", "output": ""}\n' if kind == "jsonl" else "input,output\n"
    )

    assert f"by which options: hydra-edge import {kind} --help" in call("import", kind, "h").stderr


def test_import_interrupted_keeps_whole_records_and_says_how_many(tmp_path):
    lines = [json.dumps({"input": f"text {i}", "output": f"title {i}"}) for i in range(100)]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))

    class Interrupted(Personalizer):
        def add(self, new, **options):
            def stopping():
                for count, record in enumerate(new, start=1):
                    yield record
                    if count == 7:
                        signal.raise_signal(signal.SIGINT)

            return super().add(stopping(), **options)

    before = signal.getsignal(signal.SIGINT)
    result = call("import", "jsonl", "h.jsonl", opener=Interrupted.open)

    assert result.exit_code == 130
    assert "7 added" in result.stdout
    assert "Interrupted" in result.stderr
    assert [r.output for r in records()] == [f"title {i}" for i in range(7)]
    assert signal.getsignal(signal.SIGINT) is before


def test_import_source_breaking_off_keeps_what_came_before(tmp_path, monkeypatch):
    from hydra_edge import importers

    def broken(path, log, **_):
        for number in range(3):
            log.read += 1
            yield Record(f"text {number}", "title")
        raise ImportFormatError("The disk went away.")

    monkeypatch.setattr(importers, "read_jsonl", broken)
    result = call("import", "jsonl", "h.jsonl")

    assert result.exit_code == 1
    assert "error: The disk went away." in result.stderr
    assert "3 added" in result.stdout
    assert len(records()) == 3


def test_text_that_is_private_under_another_id_is_counted_as_it_is_stored(tmp_path):
    line = {"input": "a secret text", "output": "a secret", "task": "note"}
    (tmp_path / "first.jsonl").write_text(json.dumps(line | {"id": "z1"}))
    (tmp_path / "then.jsonl").write_text(json.dumps(line | {"id": "z2"}) + "\n")
    call("import", "jsonl", "first.jsonl", "--private")
    told = call("import", "jsonl", "then.jsonl").stdout
    assert "1 private (no remote LLM sees them; " in told
    assert [r.private for r in records()] == [True, True]


def test_lines_that_are_there_twice_are_one_private_record(tmp_path):
    line = json.dumps({"input": "a text", "output": "an answer", "task": "note"})
    (tmp_path / "twice.jsonl").write_text(f"{line}\n{line}\n")
    assert "1 private (" in call("import", "jsonl", "twice.jsonl", "--private").stdout


def test_thousands_of_new_tasks_are_not_each_compared_with_all(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr("hydra_edge.tasks.near_task", lambda name, _: compared.append(name) or "")
    lines = [{"input": f"a text {i}", "output": "x", "task": f"task_{i}"} for i in range(60)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, lines)))
    told = call("import", "jsonl", "many.jsonl").stderr
    assert "and 52 other tasks" in " ".join(told.split())
    assert len(compared) == 8


# ---- whose mail


def mail(sender, subject, *headers):
    lines = [f"From {sender} Mon Jan  1 00:00:00 2024", f"Subject: {subject}", *headers]
    return "\n".join([*lines, "", f"Some words on {subject}.", "> Quoted?", "", ""])


def test_import_mail_of_several_senders_asks_which_one_is_meant(tmp_path, home):
    bob = [mail("b", f"Bob {i}", "From: Bob <BOB@example.org>") for i in range(3)]
    ada = [mail("a", "Ada", "From: ada@example.org")]
    (tmp_path / "All").write_text("".join(ada + bob))
    result = call("import", "mbox", "All")

    assert result.exit_code == 1
    assert "bob@example.org (3), ada@example.org (1)" in result.stderr
    assert "--me ADDRESS" in result.stderr
    assert not home.exists()
    assert "senders" not in call("import", "mbox", "All", "--me", "ada").stderr
    assert [record.output for record in records()] == ["Ada"]
    assert call("import", "mbox", "All", "--me", "*", "-u", "all").exit_code == 0
    assert len(records("all")) == 4


def test_import_replies_of_several_senders_does_not_advise_what_would_be_refused(tmp_path):
    mails = [mail(name, "Lunch", f"From: {name}@example.org") for name in ("ada", "bob")]
    (tmp_path / "All").write_text("".join(mails))
    result = call("import", "mbox", "All", "--replies")

    assert result.exit_code == 1
    assert "--me ADDRESS" in result.stderr
    assert "'*'" not in result.stderr
    everybody = call("import", "mbox", "All", "--replies", "--me", "*")
    assert everybody.exit_code == 2
    assert "'*' is everybody's mail" in everybody.stderr


@pytest.mark.parametrize("options", [(), ("--me", "nobody")])
def test_import_interrupted_before_the_first_record_stops_and_says_so(
    tmp_path, home, monkeypatch, options
):
    from hydra_edge.importers import mbox

    looked_at = []
    senders = mbox._senders

    def interrupted(found):
        looked_at.append(found)
        signal.raise_signal(signal.SIGINT)  # twice would end it at once
        return senders(found)

    monkeypatch.setattr(mbox, "_senders", interrupted)
    (tmp_path / "Sent").write_text("".join(mail("a", f"Lunch {i}", "From: ada") for i in range(9)))
    result = call("import", "mbox", "Sent", *options)

    assert result.exit_code == 130
    assert len(looked_at) == 1
    assert "Interrupted" in result.stderr
    assert not home.exists()


def test_import_progress_moves_while_no_mail_becomes_a_record(tmp_path, monkeypatch):
    shown = []

    @contextmanager
    def progress(*, quiet=False):
        yield lambda stage, done, total: shown.append((stage, done, total))

    monkeypatch.setattr("hydra_edge.cli.output.progress", progress)
    (tmp_path / "Sent").write_text("".join(mail("a", f"Lunch {i}", "From: ada") for i in range(60)))
    call("import", "mbox", "Sent", "--dry-run")
    assert ("reading senders of mails", 50, 60) in shown

    shown.clear()
    call("import", "mbox", "Sent", "--me", "nobody", "--dry-run")
    assert shown == [("reading mails", 50, 60)]


@pytest.mark.parametrize(("options", "written"), [((), "Lunch"), (("--replies",), "Some words on")])
def test_import_mail_of_one_sender_needs_no_address(tmp_path, options, written):
    mails = [mail("a", "Lunch", f"From: {name} <ada@example.org>") for name in ("Ada", "A.")]
    (tmp_path / "Sent").write_text("".join(mails))
    result = call("import", "mbox", "Sent", *options)

    assert result.exit_code == 0, result.output
    assert all(record.output.startswith(written) for record in records())
