"""Apps against private records: none is shown, and nothing an app is told depends on one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import attacked
import pytest
from attacked import SECRET, code
from serving import LONG_S, EchoLLM, GatedLLM, chat, history, serving

from hydra_edge.personalizer import Personalizer
from hydra_edge.server.tokens import add_app
from hydra_edge.types import Completion, Record

person, served, app_token = attacked.person, attacked.served, attacked.app_token


def test_app_is_never_shown_a_private_record(served, app_token, person):
    body = {"query": "a text about parsers of mine", "k": 100, "task": "paper_title"}
    with served.client() as owner:
        assert SECRET in owner.post("/v1/rank", json=body).text
    with served.client(app_token()) as client:
        response = client.post("/v1/rank", json=body)
        asked = {
            "model": "hydra-edge/paper_title",
            "messages": [{"role": "user", "content": body["query"]}],
        }
        answered = client.post("/v1/chat/completions", json=asked)

    assert response.status_code == answered.status_code == 200
    assert SECRET not in response.text + answered.text
    shown = {shot.output for prompt in person.llm.inner.asked for shot in prompt.shots}
    assert shown
    assert SECRET not in "".join(shown)


def test_app_is_not_told_that_private_records_were_kept_back(served, app_token, person):
    person.llm.inner.is_remote = True
    kept = person.store.count("paper_title")  # of which one is private
    person.add([Record(f"mine {i}", f"Mine {i}", "paper_title", private=True) for i in range(kept)])
    body = chat("a text about parsers of mine", "hydra-edge/paper_title")
    said = []
    for token in (None, app_token()):
        with served.client(token) as client:
            response = client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200
            said.append(response.text)

    assert f"private: no remote LLM is shown {kept + 1} of {2 * kept} records" in said[0]
    assert "private:" not in said[1]


def test_app_answer_is_thrown_away_once_its_record_is_private(hash_encoder):
    shown = Record("a text about parsers of mine", SECRET, "paper_title", "p1", 99.0)
    llm = GatedLLM()
    body = chat(shown.input, "hydra-edge/paper_title", hydra_edge={"candidates": 2})
    with (
        Personalizer.from_records([*history(), shown], llm=llm, encoder=hash_encoder) as person,
        serving(person) as served,
        served.client(add_app(served.files, "editor", user="memory")) as client,
        ThreadPoolExecutor() as threads,
    ):
        waiting = threads.submit(client.post, "/v1/chat/completions", json=body)
        assert llm.started.acquire(timeout=LONG_S)
        person.store.set_private([shown.id], True)
        broken_off = llm.stopped.acquire(timeout=LONG_S)
        llm.gate.set()
        response = waiting.result(timeout=LONG_S)

        assert broken_off
        assert response.status_code == 503
        assert "private meanwhile" in response.text
        assert SECRET not in response.text
        assert person.store.last_generation() is None
        again = client.post("/v1/chat/completions", json=body)
        assert again.status_code == 200
        assert shown.id not in [record["id"] for record in again.json()["hydra_edge"]["records"]]


def test_app_learns_no_name_of_a_task_whose_records_are_all_private(served, app_token, person):
    person.add(
        Record(f"a text {i}", f"an answer {i}", "illness_diary", private=True) for i in range(120)
    )
    assert next(iter(person.store.tasks())) == "illness_diary", "what a query is taken for"
    ask, path = chat("parsers"), "/v1/chat/completions"
    with served.client(app_token()) as client, served.client() as owner:
        assert "illness_diary" in owner.get("/v1/models").text
        assert owner.post(path, json=ask).json()["hydra_edge"]["task"] == "illness_diary"
        answers = [
            client.get("/v1/models"),
            client.post("/v1/rank", json={"query": "parsers"}),
            client.post(path, json=ask),
            client.post(path, json=ask | {"stream": True}),
        ]
        one = client.get("/v1/models/hydra-edge/illness_diary")
        person.store.set_private([person.store.records(task="illness_diary")[0].id], False)
        assert "illness_diary" in client.get("/v1/models").text, "one it may see is enough"

    assert [answer.status_code for answer in answers] == [200] * 4
    assert "illness_diary" not in "".join(answer.text for answer in answers)
    assert [m["id"] for m in answers[0].json()["data"]] == [
        "hydra-edge", "hydra-edge/paper_title", "hydra-edge/note_title",
    ]  # fmt: skip
    assert answers[1].json()["task"] == "paper_title"
    assert one.status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rank", lambda task: {"query": "parsers", "task": task}),
        ("/v1/chat/completions", lambda task: chat("parsers", f"hydra-edge/{task}")),
        (
            "/v1/chat/completions",
            lambda task: chat("parsers", f"hydra-edge/{task}", stream=True),
        ),
    ],
    ids=["rank", "chat", "stream"],
)
def test_app_task_of_private_records_is_refused_as_an_unknown_one_is(
    served, app_token, person, path, body
):
    person.add([Record("a text", "an answer", "illness_diary", private=True)])
    with served.client(app_token()) as client, served.client() as owner:
        private = client.post(path, json=body("Illness-Diary"))
        unknown = client.post(path, json=body("no_such_task"))
        built_in = client.post(path, json=body("email_reply"))
        seen = client.post(path, json=body("Note-Title"))
        assert owner.post(path, json=body("illness_diary")).status_code == 200
    with served.client(app_token("gone", tasks=["no_such_task"])) as client:
        named_but_gone = client.post(path, json=body("no_such_task"))
    with served.client(app_token("diary", tasks=["illness_diary"])) as client:
        named = client.post(path, json=body("illness_diary"))

    assert (private.status_code, code(private)) == (404, "unknown_task")
    assert private.text == unknown.text == named_but_gone.text
    for task in ("diary", "no_such_task", "paper_title", "commit_subject"):
        assert task not in private.text
    assert (built_in.status_code, seen.status_code, named.status_code) == (200, 200, 200)


# ---- apps that guess


MAILS = [
    Record("The mail of a doctor", "positive", "diagnosis", private=True, source="mbox:mail"),
    Record("The mail of a nurse", "positive", "diagnosis", "m2", private=True, source="mbox:mail"),
]


def as_answered(answer):
    """Return all an app is told of an answer that could depend on what it may not see."""
    ours = answer["hydra_edge"]
    return (
        answer["choices"][0]["message"]["content"],
        [(c["text"], c["score"]) for c in ours["candidates"]],
        [(r["id"], r["score"]) for r in ours["records"]],
    )


class ListLLM(EchoLLM):
    """An LLM that gives each of these answers in turn."""

    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def answers(self, prompt, n):
        texts = self.texts
        return [Completion(texts[i % len(texts)], greedy=i == 0, tokens=1) for i in range(n)]


BIOPSY = "Diagnosis of the biopsy taken on the third of March"
GUESSES = {
    "label": ["positive", "negative"],
    "rating": ["1", "2", "3"],
    "text": ["I am fine and will come", "I have cancer and cannot come", "No time, sorry"],
}


@pytest.mark.parametrize("kind", GUESSES)
def test_app_is_answered_as_if_no_private_record_were_there(hash_encoder, kind):
    """Neither what is chosen, nor any score or order, tells what a private record says."""
    guesses, words = GUESSES[kind], ["gardens", "trains", "rivers", "soup", "ladders", "paint"]
    public = [
        Record(
            f"a public note number {i} about {words[i % 6]}",
            f"The {words[i % 6]} look {words[i % 5]}" if kind == "text" else guesses[i % 2],
            "diagnosis", f"p{i}", 1000.0 + i,
        )
        for i in range(12)
    ]  # fmt: skip
    told = []
    for truth in (None, *guesses):
        held = [Record(BIOPSY, truth, "diagnosis", "s", 500.0, private=True)] if truth else []
        me = Personalizer.from_records([*public, *held], llm=ListLLM(guesses), encoder=hash_encoder)
        with me, serving(me) as served:
            assert me.task("diagnosis").kind == kind
            token = add_app(served.files, f"{kind}{len(told)}", user="memory", tasks=["diagnosis"])
            with served.client(token) as spy:
                asked = spy.post("/v1/chat/completions", json=chat(BIOPSY, "hydra-edge/diagnosis"))
                guessed = [
                    {"id": f"g{i}", "input": BIOPSY, "output": guess, "task": "diagnosis"}
                    for i, guess in enumerate(guesses[:2])
                ]
                spy.post("/v1/records", json={"records": guessed})
                body = {"query": BIOPSY, "task": "diagnosis", "k": 100}
                ranked = spy.post("/v1/rank", json=body).json()["records"]
            told.append((as_answered(asked.json()), [(r["id"], r["score"]) for r in ranked]))

    assert len(told[0][1]) == 14
    assert all(one == told[0] for one in told)


@pytest.mark.parametrize("keep", [True, False])
def test_app_guessing_a_label_cannot_tell_whether_private_records_have_it(hash_encoder, keep):
    public = [Record(f"a note {i}", ("well", "tired")[i % 2], "diagnosis", f"p{i}", 1000.0 + i)
              for i in range(12)]  # fmt: skip
    told = []
    for held in ([], [Record(BIOPSY, "positive", "diagnosis", "s", 500.0, private=True)]):
        me = Personalizer.from_records(
            [*public, *held], llm=ListLLM(["well"]), encoder=hash_encoder
        )
        with me, serving(me) as served:
            token = add_app(served.files, f"guess{len(told)}", user="memory", tasks=["diagnosis"])
            with served.client(token) as spy:
                asked = spy.post("/v1/chat/completions", json=chat(BIOPSY, "hydra-edge/diagnosis"))
                guess = {"id": asked.json()["id"], "text": "positive", "keep": keep}
                chosen = spy.post("/v1/feedback", json=guess).json()
                body = {"query": BIOPSY, "task": "diagnosis", "k": 100}
                ranked = spy.post("/v1/rank", json=body).json()["records"]
            told.append((chosen["head_version"], [r["output"] for r in ranked]))

    assert told[0] == told[1]
    assert ("positive" in told[0][1]) is keep


@pytest.mark.parametrize("name", ["", "m2", "m2" * 100], ids=["unnamed", "named", "long"])
@pytest.mark.parametrize("text", [mail.input for mail in MAILS])
def test_app_adding_cannot_tell_what_is_private(hash_encoder, name, text):
    """All it is told and shown is the same whether or not private records hold what it adds."""
    told = []
    for held in ([], MAILS):
        records = [Record("a mail", "seen by all", "diagnosis", "m0"), *held]
        me = Personalizer.from_records(records, llm=EchoLLM(), encoder=hash_encoder)
        with me, serving(me) as served:
            token = add_app(served.files, f"spy{len(told)}", user="memory")
            before = me.store.records(source="mbox:mail")
            counts = []
            with served.client(token) as spy:
                for guess in ("negative", "positive", "positive"):
                    entry = {"id": name, "input": text, "output": guess, "task": "diagnosis"}
                    added = spy.post("/v1/records", json={"records": [entry]})
                    counts.append((added.status_code, added.json()))
                body = {"query": text, "task": "diagnosis", "k": 100}
                ranked = spy.post("/v1/rank", json=body).json()["records"]
                asked = spy.post(
                    "/v1/chat/completions", json=chat(text, "hydra-edge/diagnosis")
                ).json()
            told.append(
                (
                    counts,
                    [(r["id"], r["output"], r["score"]) for r in ranked],
                    as_answered(asked),
                )
            )
            assert me.store.records(source="mbox:mail") == before

    assert told[0] == told[1]
    first, second, again = (count for _, count in told[0][0])
    assert (first["added"], again["unchanged"]) == (1, 1)
    assert (second["updated"] if name else second["added"]) == 1
    assert len(told[0][1]) == (2 if name else 3)
