"""The command line calls the engine as asked and prints what it says."""

import json
import re
from dataclasses import replace

import cli_runner
import pytest
from cli_runner import HEAD, RANKED, RECORD, FakePersonalizer

from hydra_edge import __version__
from hydra_edge.errors import EgressDeniedError, UnknownModelError, UnknownUserError
from hydra_edge.types import Ranking


@pytest.fixture
def me():
    return FakePersonalizer()


def call(me, *args, text=None):
    return cli_runner.call(*args, text=text, opener=me.open)


def test_version_is_printed():
    result = cli_runner.call("--version")

    assert (result.exit_code, result.stdout) == (0, f"hydra-edge {__version__}\n")


# ---- the default command and its query


@pytest.mark.parametrize(
    "args",
    [
        ("generate", "my query"),
        ("my query",),
        ("my query", "-u", "ada"),
        ("-u", "ada", "my query"),
        ("--task", "commit_subject", "my query"),
        ("--", "my query"),
    ],
)
def test_generate_may_be_left_out(me, args):
    result = call(me, *args)

    assert result.exit_code == 0, result.output
    assert result.stdout == "Fix empty files\n"
    assert me.asked("generate")[0]["query"] == "my query"
    assert me.opened[0][0] == ("ada" if "ada" in args else None)


def test_generate_single_bare_word_is_a_query(me):
    assert call(me, "hello").exit_code == 0
    assert me.asked("generate")[0]["query"] == "hello"


def test_generate_word_like_a_command_is_a_query_with_a_remark(me):
    result = call(me, "histry")

    assert me.asked("generate")[0]["query"] == "histry"
    assert "did you mean 'history'" in result.stderr


def test_root_mistyped_command_with_arguments_is_refused(me):
    result = call(me, "improt", "git", ".")

    assert result.exit_code == 2
    assert "did you mean 'import'" in result.stderr
    assert not me.calls


def test_generate_several_bare_words_are_refused(me):
    assert call(me, "fix", "the", "parser").exit_code == 2
    assert not me.calls


@pytest.mark.parametrize(
    ("args", "text", "query"),
    [
        (("generate", "my query"), "piped\n", "piped\nmy query"),
        (("generate",), "piped 日本\n", "piped 日本"),
        (("generate", "-"), "piped\n", "piped"),
        (("-",), "piped\n", "piped"),
        (("rank", "my query"), "piped\n", "piped\nmy query"),
    ],
)
def test_query_piped_text_comes_before_the_argument(me, args, text, query):
    assert call(me, *args, text=text).exit_code == 0
    asked = me.asked("rank") or me.asked("generate")
    assert asked[0]["query"] == query


@pytest.mark.parametrize("args", [("generate",), ("generate", "  "), ("rank",), ("",)])
def test_query_nothing_given_is_a_usage_error(me, args):
    result = call(me, *args)

    assert result.exit_code == 2
    assert "no query" in result.stderr
    assert not me.calls


# ---- generate


def test_generate_every_flag_reaches_the_engine(me):
    result = call(
        me, "generate", "q", "-u", "ada", "-t", "commit_subject", "-m", "openai:big", "-n", "5",
        "-k", "2", "--temperature", "0.5", "--max-tokens", "9", "--seed", "3",
        "--system", "Be kind", "--private", "--offline", "--base-url", "http://localhost:9931/v1",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert me.asked("generate") == [
        {"query": "q", "streams": False, "task": "commit_subject", "n": 5, "k": 2,
         "temperature": 0.5, "max_tokens": 9, "system": "Be kind", "private": True, "seed": 3}
    ]  # fmt: skip
    config = me.opened[0][2]
    assert (config.model, config.base_url, config.offline) == (
        "openai:big", "http://localhost:9931/v1", True,
    )  # fmt: skip


def test_add_help_names_the_task_a_record_gets_by_default(me):
    assert "setting `task`, else general" in " ".join(call(me, "add", "--help").stdout.split())


def test_generate_no_records_may_be_asked_for(me):
    assert call(me, "generate", "q", "-k", "0").exit_code == 0
    assert me.asked("generate")[0]["k"] == 0


def test_generate_flags_left_out_keep_the_settings(me, monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_MODEL", "mine.gguf")
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "true")
    call(me, "generate", "q")

    config = me.opened[0][2]
    assert (config.model, config.offline) == ("mine.gguf", True)


def test_generate_answer_alone_goes_to_stdout(me):
    result = call(me, "q", "--explain", "--show-candidates")

    assert result.stdout == "Fix empty files\n"
    assert "7 of 8 candidates arrived" in result.stderr
    assert "2*" in result.stderr  # the chosen one, by the number `choose` takes
    assert "hydra-edge choose N --id g1" in result.stderr
    assert "+1.00 shares rare words with the query" in result.stderr
    assert "+1.50 = +1.00 agrees with the other samples; +0.50 a usual answer" in result.stderr
    assert "your own head v3, learned from 40 queries: it helps" in result.stderr
    assert "7 of 8 samples arrived" in result.stderr


def test_explain_shows_the_numbers_choose_takes(me):
    result = call(me, "q", "--explain")

    assert result.stdout == "Fix empty files\n"
    rows = [line.split() for line in result.stderr.splitlines()]
    assert [row[0] for row in rows if row[0] in {"1", "2*"}] == ["1", "2*"]
    assert "Take one: hydra-edge choose N --id g1" in result.stderr
    both = call(me, "q", "--explain", "--show-candidates").stderr
    assert both.count("2*") == both.count("Take one") == 1
    assert "2*" not in call(me, "q").stderr


def test_choosing_is_told_with_the_user_it_is_for(me):
    result = call(me, "generate", "q", "--show-candidates", "-u", "bob")
    assert re.search(r"Take one: hydra-edge choose N --id \S+ --user bob\n", result.stderr)


def test_generate_json_has_the_promised_shape(me):
    result = call(me, "generate", "q", "--json")
    payload = json.loads(result.stdout)

    assert list(payload) == [
        "id", "text", "task", "candidates", "records", "head", "usage", "abstained", "notes",
    ]  # fmt: skip
    assert payload["candidates"][0] == {
        "text": "Handle files", "count": 1, "greedy": True, "zero_shot": False,
        "logprob": -0.5, "score": 0.25, "finish": "stop",
        "contributions": {"greedy": 0.25},
    }  # fmt: skip
    assert payload["records"] == [
        {"id": "r1", "score": 1.25, "input": RECORD.input, "output": RECORD.output,
         "time": RECORD.time, "private": False,
         "contributions": {"bm25": 1.0, "recency": 0.25}}
    ]  # fmt: skip
    assert payload["head"]["role"] == "adapter"
    assert payload["head"]["reranker"]["role"] == "reranker"
    assert payload["usage"]["llm_calls"] == 1
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_generate_dry_run_prints_the_exact_prompt_and_asks_nothing(me):
    result = call(me, "generate", "q", "--dry-run", "-k", "2", "--private")

    assert result.stdout == "Text: q\nSubject:\n"
    assert me.asked("render_prompts")[0]["k"] == 2
    assert me.asked("render_prompts")[0]["private"] is True
    assert not me.asked("generate")


def test_generate_dry_run_says_what_is_to_be_said_of_the_prompts(me, monkeypatch):
    def render(query, *, on_note, **_):
        on_note("private: 5 of 5")
        return ["a prompt"]

    monkeypatch.setattr(me, "render_prompts", render)
    for flags in ((), ("--json",)):
        assert "private: 5 of 5\n" in call(me, "generate", "q", "--dry-run", *flags).stderr


@pytest.mark.parametrize(
    ("flags", "streams"),
    [
        (("-n", "1"), True),
        ((), False),
        (("-n", "2"), False),
        (("-n", "1", "--no-stream"), False),
        (("-n", "1", "--json"), False),
        (("-n", "1", "--task", "movie_tag"), False),
    ],
)
def test_generate_streams_only_one_text_answer_for_a_person(me, flags, streams):
    me.pieces = ("Fix", " empty", " files")  # together they are the text, as Pieces sees to
    result = call(me, "q", *flags)

    assert me.asked("generate")[0]["streams"] is streams
    call(me, "q", *flags, "--dry-run")
    assert me.asked("render_prompts")[0]["stream"] is streams
    if "--json" not in flags:
        assert result.stdout == "Fix empty files\n"


def test_generate_default_user_is_created_but_a_named_one_is_not(me):
    call(me, "q")
    call(me, "q", "-u", "ada")

    assert [(user, create) for user, create, *_ in me.opened] == [(None, True), ("ada", False)]


# ---- rank, choose


def test_rank_shows_records_with_reasons_and_no_escape(me):
    result = call(me, "rank", "q", "-t", "commit_subject", "-k", "3")

    assert me.asked("rank") == [{"query": "q", "task": "commit_subject", "k": 3}]
    assert "1. +1.25  Fix [bold]empty[/] files" in result.stdout
    assert "+1.00 shares rare words with the query; +0.25 recent" in result.stdout
    assert "r1" in result.stdout
    assert "\x1b" not in result.stdout


def test_rank_marks_private_records_and_its_help_says_who_sees_them(me, monkeypatch):
    private = replace(RANKED, record=replace(RANKED.record, private=True))
    monkeypatch.setattr(
        me, "rank", lambda query, **_: Ranking(query, "commit_subject", (private,), HEAD)
    )

    assert "Fix [bold]empty[/] files (private)" in call(me, "rank", "q").stdout
    assert "a local LLM only" in " ".join(call(me, "rank", "--help").stdout.split())


def test_no_records_of_a_task_name_the_next_step(me, monkeypatch):
    assert "No records of" not in call(me, "q").stderr
    bare = replace(me.generate("q"), records=())
    monkeypatch.setattr(me, "generate", lambda query, **_: bare)
    monkeypatch.setattr(me, "rank", lambda query, **_: Ranking(query, "chat", (), HEAD))

    told = call(me, "q").stderr
    assert "No records of commit_subject yet: the LLM saw nothing of yours. Next: hydra" in told
    assert "No record of task chat to show. Next: hydra-edge import" in call(me, "rank", "q").stderr
    assert call(me, "q", "--json").stderr == ""
    me.store.add([RECORD])
    assert "No records of" not in call(me, "q", "-k", "0").stderr


def test_rank_json_has_the_promised_shape(me):
    payload = json.loads(call(me, "rank", "q", "--json").stdout)

    assert list(payload) == ["query", "task", "records", "head"]
    assert set(payload["records"][0]) == {
        "id", "score", "input", "output", "time", "private", "contributions",
    }  # fmt: skip
    assert payload["head"]["switch"] == "personal"


@pytest.mark.parametrize("name", ["choose", "feedback"])
def test_choose_number_reaches_the_engine(me, name):
    result = call(me, name, "2", "--id", "g7", "--no-keep", "-u", "ada")

    assert me.asked("choose") == [{"generation_id": "g7", "pick": 2, "text": None, "keep": False}]
    assert "your head is now v4" in result.stderr
    assert "0 LLM calls" in result.stderr


def test_choose_text_may_come_from_stdin(me):
    call(me, "choose", "--text", "-", text="My own words\n")

    assert me.asked("choose")[0]["text"] == "My own words"


def test_choose_without_keeping_says_what_was_kept_before(me):
    told = call(me, "choose", "2", "--no-keep", "-u", "ada").stderr
    assert (
        "kept as record choice-g1, since an earlier choice of it was "
        "(`hydra-edge forget choice-g1 --user ada` erases it)"
    ) in told
    assert "forget" not in call(me, "choose", "2").stderr


@pytest.mark.parametrize("args", [("2", "--text", "x"), ("0",), ("two",)])
def test_choose_wrong_arguments_are_a_usage_error(me, args):
    assert call(me, "choose", *args).exit_code == 2
    assert not me.calls


# ---- how a command fails


def test_error_on_purpose_is_one_line_and_exit_1(me):
    me.error = UnknownUserError("There is no user 'x'.\nKnown: me.")
    result = call(me, "rank", "q", "-u", "x")

    assert result.exit_code == 1
    assert result.stderr == "error: There is no user 'x'. Known: me.\n"
    assert result.stdout == ""


def test_error_on_purpose_with_json_is_an_object_too(me):
    me.error = EgressDeniedError("No.")
    result = call(me, "generate", "q", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"error": {"code": "egress_denied", "message": "No."}}


def test_error_json_in_a_query_is_not_an_option(me):
    me.error = UnknownModelError("None.")
    assert call(me, "generate", "--", "--json").stdout == ""


def test_fault_of_ours_repeats_no_text_and_asks_for_a_report(me):
    me.error = RuntimeError("my private diary")
    result = call(me, "generate", "q")

    assert result.exit_code == 1
    assert "RuntimeError" in result.stderr
    assert "HYDRA_EDGE_DEBUG=1" in result.stderr
    assert "diary" not in result.output
    assert "Traceback" not in result.stderr


def test_fault_of_ours_debug_prints_the_traceback(me, monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_DEBUG", "1")
    me.error = RuntimeError("details")

    assert "Traceback" in call(me, "generate", "q").stderr


def test_interrupt_ends_quietly_with_130(me):
    me.error = KeyboardInterrupt()
    result = call(me, "generate", "q")

    assert result.exit_code == 130
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "args", [("rank", "q", "--nonsense"), ("heads", "nonsense"), ("import", "jsonl")]
)
def test_usage_error_is_exit_2(me, args):
    assert call(me, *args).exit_code == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("add", "", "b"), "Invalid value for INPUT: is empty; expected text."),
        (("rank", "hi", "-k", "0"), "should be greater than or equal to 1"),
        (("generate", "hi", "-k", "-1"), "should be greater than or equal to 0"),
        (("generate",), "no query"),
        (("rank", "q", "--nonsense"), "No such option: --nonsense"),
        (("import", "jsonl"), "Missing argument 'FILE'"),
        (("heads", "nonsense"), "No such command 'nonsense'"),
        (("improt", "git"), "did you mean 'import'"),
    ],
)
def test_usage_error_with_json_is_an_object_too(me, args, said):
    result = call(me, *args, "--json", text="")
    error = json.loads(result.stdout)["error"]

    assert result.exit_code == 2
    assert error["code"] == "usage"
    assert said in error["message"]
    assert "Usage: hydra-edge" in result.stderr
    assert said in result.stderr
    assert call(me, *args, text="").stdout == ""


def test_settings_unreadable_are_one_line(me, home):
    home.mkdir()
    (home / "config.toml").write_text("user = [")
    result = call(me, "rank", "q")

    assert result.exit_code == 1
    assert "config.toml cannot be read" in result.stderr
