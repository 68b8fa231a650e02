"""How long an answer may be: as the task says, or as the user's own answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from title_writer import Make, people

from hydra_edge.candidates import longest_answer
from hydra_edge.paths import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.taskfile import read_task_dir
from hydra_edge.tasks import BUILTIN, LONG_ANSWER, CustomTasks, TaskSpec, find_task
from hydra_edge.types import Completion, Record

MAIL = BUILTIN["email_reply"]
LONG = "word " * 500  # 2,500 bytes


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


class Measuring:
    """An LLM that remembers how long its answers might be, asked or only shown a prompt."""

    name = "measuring"

    def __init__(self, *, is_remote: bool = False, n_ctx: int | None = None) -> None:
        self.is_remote, self.n_ctx = is_remote, n_ctx
        self.lengths: list[int | None] = []
        self.shown: list[int | None] = []

    def render(self, prompt: Prompt, *, max_tokens=None, seed=0) -> str:
        self.shown.append(max_tokens)
        return prompt.completion_text()

    def complete(self, prompt: Prompt, *, n=1, max_tokens=48, **_) -> list[Completion]:
        self.lengths.append(max_tokens)
        return [Completion(f"answer {i}", greedy=not i) for i in range(n)]

    def close(self) -> None:
        """Hold nothing."""


def mails(*answers: str, private: Sequence[int] = ()) -> list[Record]:
    """Return mails with these answers, the latest last."""
    return [
        Record(f"mail number {i}", text, "email_reply", f"m{i}", float(i), i in private)
        for i, text in enumerate(answers)
    ]


def length(
    records: Sequence[Record],
    task: TaskSpec = MAIL,
    query: str = "a mail",
    custom: dict[str, TaskSpec] | None = None,
    *,
    no_history: bool = False,
    **llm,
) -> int:
    engine = SimpleNamespace(custom_tasks=custom or {})
    prompt = Prompt(task, query)
    return longest_answer(engine, Measuring(**llm), prompt, records, no_history=no_history)


@pytest.mark.parametrize(
    ("answers", "tokens"),
    [
        ([], LONG_ANSWER),
        (["Yes.\nTom"], LONG_ANSWER),
        ([LONG], 896),
        (["Yes."] * 9 + [LONG], LONG_ANSWER),
        (["Yes."] * 8 + [LONG] * 2, 896),
        ([LONG] * 100 + ["Yes."] * 200, LONG_ANSWER),  # a habit of long ago
        ([LONG * 100], 2048),
        (["字" * 500], 512),
        (["\ud800" * 900], 384),
        # Some words more or less change nothing.
        ([LONG + "word " * 30], 896),
        ([LONG[:-300]], 768),
    ],
)
def test_answer_of_several_lines_has_room_for_most_of_the_users(answers, tokens) -> None:
    assert length(mails(*answers)) == tokens


@pytest.mark.parametrize("task", [task for task in BUILTIN.values() if not task.multiline])
def test_short_answer_has_the_room_its_task_says(task: TaskSpec) -> None:
    assert length([Record("in", LONG, task.name)], task) == task.max_tokens


def test_task_file_that_says_a_length_is_followed() -> None:
    own = replace(MAIL, max_tokens=300)
    for custom, tokens in (
        ({"email_reply": own}, 300),
        (CustomTasks({"email_reply": own}, {}), 300),
        (CustomTasks({"email_reply": own}, {}, ["email_reply"]), 896),
    ):
        assert length(mails(LONG), own, custom=custom) == tokens


def test_local_context_keeps_two_thirds_for_the_prompt_and_all_that_the_query_needs() -> None:
    records = mails(LONG * 3)
    assert length(records) == 2048
    assert length(records, n_ctx=2048) == 682
    assert 512 < length(records, n_ctx=2048, query="word " * 850) < 682
    assert length(records, n_ctx=2048, query="word " * 1500) == LONG_ANSWER
    assert length(records, n_ctx=256) == LONG_ANSWER


def test_remote_llm_is_not_told_how_long_private_answers_are() -> None:
    records = mails(LONG, "Yes.", private=[0])
    assert length(records, is_remote=False) == 896
    assert length(records, is_remote=True) == LONG_ANSWER
    assert length(mails(LONG), is_remote=True) == 896
    assert length(mails(LONG), is_remote=True, no_history=True) == LONG_ANSWER
    assert length(mails(LONG), no_history=True) == 896  # nothing leaves


@pytest.mark.parametrize("is_remote", [False, True])
def test_generate_and_its_dry_run_take_the_same_length(person: Make, is_remote: bool) -> None:
    llm = Measuring(is_remote=is_remote)
    me = person(mails(*[LONG] * 3, "Yes.", private=[3]), llm=llm)
    for wishes, tokens in (({}, 896), ({"max_tokens": 7}, 7), ({"private": True}, None)):
        tokens = tokens or (LONG_ANSWER if is_remote else 896)
        me.render_prompts("a mail", task="email_reply", **wishes)
        me.generate("a mail", task="email_reply", **wishes)
        assert set(llm.shown) == set(llm.lengths) == {tokens}
        llm.shown.clear()
        llm.lengths.clear()


def test_generate_hiding_private_records_does_not_follow_them(person: Make) -> None:
    llm = Measuring()
    me = person(mails(*[LONG] * 3, "Yes.", private=[0, 1, 2]), llm=llm)
    me.generate("a mail", task="email_reply")
    me.generate("a mail", task="email_reply", hide_private=True)
    assert llm.lengths[0] == 896
    assert llm.lengths[-1] == LONG_ANSWER


def test_bought_answers_have_the_same_room(person: Make) -> None:
    llm = Measuring()
    me = person(mails(*[f"{LONG} {i}" for i in range(12)]), llm=llm)
    me.fit_prompts("email_reply", calls=10)
    me.fit_head("email_reply", calls=10)
    assert set(llm.shown) == set(llm.lengths) == {896}


def test_task_file_of_several_lines_that_leaves_the_length_open_follows_the_users(home) -> None:
    folder = find_paths().tasks
    folder.mkdir(parents=True)
    (folder / "letter.toml").write_text("multiline = true\n")
    (folder / "memo.toml").write_text("multiline = true\nmax_tokens = 100\n")
    custom = read_task_dir(folder)
    assert [find_task(name, custom=custom).max_tokens for name in ("letter", "memo")] == [256, 100]
    llm = Measuring()
    with Personalizer.open(create=True, llm=llm) as me:
        me.add([Record("in", LONG, task) for task in ("letter", "memo")])
        for task, tokens in (("letter", 896), ("memo", 100)):
            me.generate("a query", task=task, n=2)
            assert set(llm.lengths) == {tokens}
            llm.lengths.clear()
