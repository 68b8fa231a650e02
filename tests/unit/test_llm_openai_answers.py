"""Answers of a chat model: where they end, and which line of them is one."""

import api_client
import pytest
from api_client import SUBJECT, texts
from llm_server import answer, completion, delta, stream

from hydra_edge.llm.text import AnswerText
from hydra_edge.prompt import Prompt
from hydra_edge.tasks import BUILTIN

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm
SIGNED = "Hello Eva,\n\nTuesday.\n\nThomas Berg\nPhone: +49 30 12\nE-mail: tom@berg.example"
WORKED = "Here it is.\n\nExample:\nInput: 1, 2\nOutput: 3\n\nIt runs in constant time."
LONG = {"email_reply": SIGNED, "general": WORKED}


@pytest.mark.parametrize("task", LONG)
def test_answer_of_several_lines_comes_whole_whatever_its_lines_begin_with(llm, server, task):
    server.otherwise = answer(completion(LONG[task]))
    prompt = Prompt(BUILTIN[task], "a query")
    assert texts(llm.complete(prompt)) == [LONG[task]]
    assert "stop" not in server.seen[0].body
    server.otherwise = stream(*map(delta, LONG[task]), delta(None, "stop"), "data: [DONE]\n\n")
    told = []
    assert texts(llm.complete(prompt, on_token=told.append)) == ["".join(told)] == [LONG[task]]


@pytest.mark.parametrize("task", LONG)
def test_model_that_continues_a_text_ends_where_the_next_block_begins(task):
    spec = BUILTIN[task]
    written = AnswerText(spec.stop)
    written.feed(f"{LONG[task]}\n\n{spec.input_label}: another")
    assert (written.finish(), written.stopped) == (LONG[task], True)


def test_stop_is_sent_for_a_closed_set_alone(llm, server):
    server.otherwise = answer(completion("action"))
    tag = Prompt(BUILTIN["movie_tag"], "A film")
    llm.complete(tag, choices=tag.task.labels)
    assert server.seen[0].body["stop"] == ["\n"]


def test_answer_of_one_line_is_the_same_streamed_or_not(llm, server):
    said = 'Sure! Here is one:\n\n```\nSubject: "One subject"\n```\nIt is short.'
    server.otherwise = answer(completion(said))
    (whole,) = llm.complete(SUBJECT)
    server.otherwise = stream(*map(delta, said), delta(None, "length"), "data: [DONE]\n\n")
    told = []
    (streamed,) = llm.complete(SUBJECT, on_token=told.append)
    assert (whole.text, whole.finish) == (streamed.text, streamed.finish) == ("One subject", "stop")
    assert told == ["One subject"]


def test_answer_of_one_line_that_never_came_is_at_its_limit_or_broken_off(llm, server):
    server.otherwise = stream(delta("Sure! Here is:\n\nOne sub"), delta(None, "length"))
    (out,) = llm.complete(SUBJECT, on_token=[].append)
    assert (out.text, out.finish) == ("One sub", "length")
