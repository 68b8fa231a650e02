"""Stage label from a data set to what an API is sent of it: nothing private, and at what cost."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import api_client
import pytest
from llm_server import Handler, Seen, Server, answer, completion
from progress import quiet

from export.asking import REPORT_FILE, SPENT_FILE, Asking
from export.cache import CachedLLM, answers_file
from export.data import by_task, read_users, with_specs
from export.mine import LlmPlan, Plan, write_plan
from export.vectors import RememberingEncoder
from export.workshop import PLAN_FILE, Settings
from hydra_edge.bundle import Bundle
from hydra_edge.llm.openai_api import OpenAIApi

server = api_client.server

LLM = "openai:tiny"
TAGS = ("comedy", "action", "romance")
USERS, QUERIES = 3, 2
READ, WRITTEN = 100, 3  # tokens: of every prompt, of every answer


def rows(task: str, hidden: Iterable[int] = ()) -> list[dict[str, object]]:
    """Users' records; those ``hidden`` are marked private and hold a word no other has."""
    return [
        {
            "user": f"{task[0]}{user}", "id": f"{task}-{user}-{i}", "seq": i, "task": task,
            "input": f"text {i} by {user}" + (" SECRET" if i in hidden else ""),
            "output": TAGS[i % 3] if task == "movie_tag" else f"study {i} of {user}",
            "private": i in hidden,
        }
        for user in range(USERS)
        for i in range(16)
    ]  # fmt: skip


class Shop:
    """What the stage needs of a workshop: a base that is there, and users from files."""

    def __init__(self, folder: Path, base: Bundle, encoder: object, told: list[object]) -> None:
        self.settings = Settings(
            (), folder / "base", folder / "work", folder / "answers",
            Plan(llms=(LlmPlan(LLM, USERS, USERS, QUERIES),)),
        )  # fmt: skip
        file = folder / "a.train.jsonl"
        file.write_text("\n".join(map(json.dumps, told)), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lines left out: told of elsewhere
            self.users = with_specs(by_task(read_users([file])))
        self.base = base
        self.encoder = RememberingEncoder(encoder, folder / "vectors.npz", key="k")
        for stage in ("mine", "label"):
            (folder / "work" / stage).mkdir(parents=True, exist_ok=True)
        write_plan(self.at("mine", PLAN_FILE), self.users, self.settings.plan)

    def at(self, stage: str, name: str) -> Path:
        return self.settings.work / stage / name

    def first_base(self) -> Bundle:
        return self.base


@pytest.fixture
def label(tmp_path: Path, bundle: Bundle, hash_encoder, server: Server):
    """Run the stage on such records with the server as its LLM; return the lines it says."""

    def run(*told: dict[str, object]) -> list[str]:
        shop, said = Shop(tmp_path, bundle, hash_encoder, [*told]), []

        def open_llm(spec: str, replay: bool) -> CachedLLM:
            api = None if replay else OpenAIApi("tiny", base_url=server.url, timeout_s=5)
            name = f"{LLM}@127.0.0.1:{server.server_port}"
            return CachedLLM(api, answers_file(shop.settings.answers, spec), name=name)

        Asking(shop, open_llm, quiet, said.append).run(shop.at("label", ""))
        return said

    return run


def serves_n(handler: Handler, seen: Seen) -> None:
    """Answer as often as is wished, and bill for it."""
    n = seen.body.get("n", 1)
    reply = completion(*(TAGS[i % 3] for i in range(n)))
    usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN * n}
    answer({**reply, "usage": usage})(handler, seen)


def serves_one(handler: Handler, seen: Seen) -> None:
    """Answer once, however many are wished."""
    usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN}
    answer({**completion(TAGS[0]), "usage": usage})(handler, seen)


@pytest.mark.parametrize("task", ["paper_title", "movie_tag"])
def test_no_request_holds_what_is_marked_private(label, server: Server, task: str) -> None:
    server.otherwise = serves_n
    label(*rows(task, hidden=(0, 7, 15)))  # of 16: the latest is the first query
    assert server.seen
    assert not any(b"SECRET" in seen.raw for seen in server.seen)


@pytest.mark.parametrize(
    ("task", "act", "prompts", "requests"),
    [
        ("movie_tag", serves_n, 1, 2),  # the greedy answer, and all the others
        ("paper_title", serves_n, 2, 4),  # the same with no record shown
        ("movie_tag", serves_one, 1, 8),
        ("paper_title", serves_one, 2, 8 + 4),
    ],
)
def test_report_states_what_a_server_was_sent(
    label, server: Server, tmp_path: Path, task: str, act, prompts: int, requests: int
) -> None:
    server.otherwise = act
    said = label(*rows(task))
    spent = json.loads((tmp_path / "work" / "label" / SPENT_FILE).read_text())[LLM]
    asked = USERS * QUERIES
    assert spent["prompts"] == asked * prompts
    assert spent["requests"] == len(server.seen) == asked * requests
    assert spent["prompt_tokens"] == len(server.seen) * READ
    assert spent["answer_tokens"] == asked * (8 if prompts == 1 else 8 + 4) * WRITTEN
    assert spent["seconds"] > 0.0
    assert said[0].startswith(
        f"label: {LLM} was sent {spent['prompts']} prompts in {spent['requests']} requests: "
        f"{spent['prompt_tokens']:,} prompt tokens, {spent['answer_tokens']} answer tokens, "
    )


def test_replayed_stage_costs_nothing_and_makes_the_same(
    label, server: Server, tmp_path: Path
) -> None:
    server.otherwise = serves_n
    label(*rows("movie_tag"))
    folder = tmp_path / "work" / "label"
    first = (folder / REPORT_FILE).read_bytes()
    sent = len(server.seen)
    label(*rows("movie_tag"))
    assert len(server.seen) == sent
    assert (folder / REPORT_FILE).read_bytes() == first
    assert json.loads((folder / SPENT_FILE).read_text()) == {}
