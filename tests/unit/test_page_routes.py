"""The page's files and routes: who gets what, and that nothing is made up."""

from __future__ import annotations

import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from serving import LONG_S, EchoLLM, GatedLLM, history, serving

from hydra_edge import forgetting
from hydra_edge.config import find_paths
from hydra_edge.errors import CancelledError, ConfigError, StoreError
from hydra_edge.personalizer import Personalizer
from hydra_edge.server import page
from hydra_edge.server.page import STATIC, read_static
from hydra_edge.server.tokens import TokenFiles, add_app
from hydra_edge.types import Record

TASK = "paper_title"
SECRET = "a secret of mine"


@pytest.fixture
def llm():
    return EchoLLM()


@pytest.fixture
def person(hash_encoder, llm):
    records = [
        *history(),
        *history(6, "note_title"),
        Record("a text about parsers of mine", SECRET, TASK, "p1", 99.0, private=True),
    ]
    with Personalizer.from_records(records, llm=llm, encoder=hash_encoder) as me:
        yield me


@pytest.fixture
def ask(person):
    """Return a function that calls a route as the page does."""
    with serving(person) as served, served.client() as client:

        def call(path, expected=200, **body):
            response = client.post(f"/api/{path}", json=body)
            assert response.status_code == expected, response.text
            return response.json()

        call.served = served
        call.client = client
        yield call


@contextmanager
def asked(served, path, **fields):
    """Send the page's request, and hang up at the end without having heard the answer."""
    body = json.dumps(fields).encode()
    lines = [
        f"POST /api/{path} HTTP/1.1", f"Host: 127.0.0.1:{served.port}",
        f"Authorization: Bearer {served.token}", "Content-Type: application/json",
        f"Content-Length: {len(body)}", "", "",
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", served.port), timeout=LONG_S) as sock:
        sock.sendall("\r\n".join(lines).encode() + body)
        yield


def test_files_are_given_to_anybody_and_hold_no_text_of_the_history(ask):
    del ask.client.headers["Authorization"]
    for path in ("/", *(f"/static/{name}" for name in read_static())):
        response = ask.client.get(path)
        assert response.status_code == 200
        assert SECRET not in response.text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert ask.client.get("/static/app.js").headers["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2fpage.py", "%2e%2e/page.py", "..\\page.py", "style.css/x"]
)
def test_files_that_are_not_the_pages_are_not_there(ask, name):
    assert ask.client.get(f"/static/{name}").status_code in (401, 404)


def test_files_hold_no_markup_from_texts_and_ask_nobody_else():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
        assert not re.search(r"https?://|\sstyle=|<script>|<style|\son[a-z]+=", text)


def test_page_promises_that_all_stays_here_only_once_it_knows_the_llm():
    files = {path.name: path.read_text(encoding="utf-8") for path in STATIC.iterdir()}
    assert "stays on this machine" not in files["index.html"]
    told = re.search(r'byId\("where"\)\.textContent = (.*?);', files["app.js"], re.DOTALL)
    remote, local = re.fullmatch(
        r'llm\.is_remote\s+\? "(.*)"\s+: "(.*)"', told[1], re.DOTALL
    ).groups()
    assert "leaves this machine" in remote
    assert local == "Everything here stays on this machine."
    assert 'id="where"' in files["index.html"]


@pytest.mark.parametrize(
    "path",
    ["summary", "llm", "heads", "growth", "records", "records/private", "records/delete",
     "answer", "choose", "fit"],
)  # fmt: skip
def test_routes_are_the_owners_alone(ask, path):
    app = add_app(TokenFiles.of(find_paths()), "viewer", user="memory")
    for token, expected in (("wrong", 401), (app, 403)):
        response = ask.client.post(
            f"/api/{path}", json={"task": TASK}, headers={"Authorization": f"Bearer {token}"}
        )
        assert response.status_code == expected
        assert SECRET not in response.text
    assert ask.client.get(f"/api/{path}").status_code == 405


def test_summary_counts_each_task(ask):
    told = ask("summary")

    assert told["user"] == "memory"
    assert told["task"] == TASK
    assert {t["name"]: t["records"] for t in told["tasks"]} == {TASK: 13, "note_title": 6}
    assert told["records"] == 19


def test_summary_of_nobody_has_a_task_to_try(hash_encoder):
    me = Personalizer.from_records([], llm=EchoLLM(), encoder=hash_encoder)
    with me, serving(me) as served, served.client() as client:
        told = client.post("/api/summary", json={}).json()
        heads = client.post("/api/heads", json={"task": told["task"]}).json()
        answer = client.post("/api/answer", json={"query": "hello"}).json()

    assert told["records"] == 0
    assert [t["name"] for t in told["tasks"]] == ["general"]
    assert all(weight["moved"] == 0 for role in heads["roles"] for weight in role["weights"])
    assert answer["text"] in [c["text"] for c in answer["candidates"]]


def test_llm_is_named_with_where_it_is(ask):
    assert ask("llm") == {"name": "echo", "is_remote": False}


def test_heads_show_the_stored_head_in_words(ask, person):
    person.fit_head(TASK, use_llm=False)
    reranker, adapter = ask("heads", task=TASK)["roles"]
    state = person.store.head(TASK, "reranker")

    assert (reranker["version"], reranker["switch"]) == (1, state.switch)
    assert reranker["rows"] == [row | {"n": float(row["n"])} for row in state.report["rows"]]
    by_name = dict(zip(state.features, state.weight.tolist(), strict=True))
    assert {w["feature"]: w["mine"] for w in reranker["weights"]} == pytest.approx(by_name)
    assert all(w["std"] > 0 and w["words"] for w in reranker["weights"])
    assert adapter["version"] is None
    assert adapter["rows"] == []


def test_growth_is_drawn_once_for_each_head_and_history(ask, person, monkeypatch):
    drawn = []
    real = page.portrait.growth
    monkeypatch.setattr(
        page.portrait, "growth", lambda *a, **kw: drawn.append(a[2]) or real(*a, **kw)
    )

    first = ask("growth", task=TASK)
    assert first["roles"][0]["growth"]["points"][0]["queries"] == 0
    assert first["roles"][1]["growth"] is None
    assert ask("growth", task=TASK) == first
    assert drawn == ["reranker", "adapter"]
    person.add([Record("one more text", "One more", TASK)])
    ask("growth", task=TASK)
    assert drawn == ["reranker", "adapter"] * 2


def test_growth_holds_up_nobody_and_ends_when_the_page_is_left(ask, monkeypatch):
    begun, stopped = threading.Semaphore(0), threading.Semaphore(0)

    def without_end(*_args, progress, **_options):
        begun.release()
        try:
            while True:
                progress("pseudo-queries", 1, 2)
        except CancelledError:
            stopped.release()
            raise

    monkeypatch.setattr(page.portrait, "growth", without_end)
    with asked(ask.served, "growth", task=TASK):
        assert begun.acquire(timeout=LONG_S)
        assert ask("records", task=TASK)["total"] == 13
        assert ask("summary")["records"] == 19  # which waits for the engine's turn
        ranked = ask.client.post("/v1/rank", json={"query": "parsers", "task": TASK})
        assert ranked.status_code == 200
        assert not stopped.acquire(blocking=False)
    assert stopped.acquire(timeout=LONG_S)


def test_growth_is_drawn_anew_where_a_record_goes_meanwhile(ask, person, monkeypatch):
    drawn, real = [], page.portrait.growth

    def forgetting(engine, past, role, *, progress, **options):
        drawn.append((role, len(past)))
        if len(drawn) == 1:
            person.store.forget(["r1"])
            progress("pseudo-queries", 1, 2)
        return real(engine, past, role, progress=progress, **options)

    monkeypatch.setattr(page.portrait, "growth", forgetting)
    ask("growth", task=TASK)
    assert drawn == [("reranker", 13), ("reranker", 12), ("adapter", 12)]


def test_growth_survives_three_records_marked_private(ask, person, monkeypatch):
    drawn, real = [], page.portrait.growth

    def marking(engine, past, role, *, progress, **options):
        drawn.append(role)
        if len(drawn) <= 3:
            ask("records/private", ids=[f"r{len(drawn)}"], private=True)
            progress("pseudo-queries", 1, 2)
        return real(engine, past, role, progress=progress, **options)

    monkeypatch.setattr(page.portrait, "growth", marking)
    assert ask("growth", task=TASK)["roles"][0]["growth"]["points"]
    assert drawn == ["reranker"] * 4 + ["adapter"]


def test_growth_of_a_history_that_never_rests_ends_with_the_time_allowed(person, monkeypatch):
    def rewriting(*_args, progress, **_options):
        person.store.set_private(["r1"], not person.store.get("r1").private)
        progress("pseudo-queries", 1, 2)

    monkeypatch.setattr(page.portrait, "growth", rewriting)
    with serving(person, timeout_s=0.2) as served, served.client() as client:
        response = client.post("/api/growth", json={"task": TASK})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"


def test_growth_after_an_import_holds_up_nobody_while_it_embeds(
    ask, person, hash_encoder, monkeypatch
):
    begun, go_on, encode = threading.Semaphore(0), threading.Semaphore(0), hash_encoder.encode

    def gated(texts, **options):
        begun.release()
        assert go_on.acquire(timeout=LONG_S)
        return encode(texts, **options)

    person.add(Record(f"{i} {'word ' * 500}", f"Word {i}", TASK, f"w{i}") for i in range(200))
    before = person.engine.encoder.embedded
    monkeypatch.setattr(hash_encoder, "encode", gated)
    with asked(ask.served, "growth", task=TASK), ThreadPoolExecutor(1) as pool:
        assert begun.acquire(timeout=LONG_S)
        try:
            shown = pool.submit(ask, "heads", task="note_title")
            # Between two portions it rests: here as long as that takes, not by the clock.
            resting = SimpleNamespace(sleep=lambda _: wait({shown}, LONG_S))
            monkeypatch.setattr("hydra_edge.server.growth.time", resting)
            go_on.release()
            shown.result(LONG_S)
            assert 0 < person.engine.encoder.embedded - before < 100
        finally:
            go_on.release(1000)


def test_records_are_paged_newest_first_and_found_by_words(ask):
    first = ask("records", task=TASK, limit=5)
    second = ask("records", task=TASK, limit=5, offset=10)
    found = ask("records", query="secret mine")

    assert [r["id"] for r in first["records"]] == ["p1", "r11", "r10", "r9", "r8"]
    assert (first["total"], first["more"]) == (13, True)
    assert [r["id"] for r in second["records"]] == ["r2", "r1", "r0"]
    assert second["more"] is False
    assert [(r["id"], r["output"], r["private"]) for r in found["records"]] == [
        ("p1", SECRET, True)
    ]  # fmt: skip


def test_records_found_by_words_are_paged_too(ask):
    pages = [ask("records", query="parsers", task=TASK, limit=5, offset=o) for o in (0, 5, 10)]

    ids = [r["id"] for page in pages for r in page["records"]]
    assert len(ids) == len(set(ids)) == 13
    assert [page["more"] for page in pages] == [True, True, False]


def test_private_switch_and_delete_change_the_store(ask, person):
    texts = person.store.get("r1").input
    # The other task's record of the very same texts becomes private with it, and stays so.
    assert ask("records/private", ids=["r1"], private=True) == {"changed": 2}
    assert all(r.private for r in person.store.records() if r.input == texts)
    assert ask("records/private", ids=["r1"], private=False) == {"changed": 1}
    assert not person.store.get("r1").private

    assert ask("records/delete", ids=["r1"])["records"] == 1
    assert person.store.count(TASK) == 12
    assert ask("records/delete", 404, ids=["r1"])["error"]["code"] == "record_not_found"


def test_delete_whose_bytes_may_remain_says_what_is_deleted(ask, person, monkeypatch):
    def busy(_db):
        raise StoreError("Another program reads it.")

    monkeypatch.setattr("hydra_edge.store.database.Database.rewrite", busy)
    error = ask("records/delete", 500, ids=["r1"])["error"]
    assert (error["code"], error["deleted"]["records"]) == ("bytes_remain", 1)
    assert person.store.count(TASK) == 12


def fits_that_wait(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Hold the fits that follow a delete back until the gate opens."""
    gate, fit = threading.Event(), forgetting.fit_task

    def slowly(*args, **options):
        assert gate.wait(LONG_S)
        return fit(*args, **options)

    monkeypatch.setattr(forgetting, "fit_task", slowly)
    return gate


def test_delete_is_answered_before_heads_are_fitted_again(ask, person, monkeypatch):
    person.fit_head(TASK, use_llm=False)
    gate = fits_that_wait(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        told = ask("records/delete", ids=["r1"])
        assert (told["records"], told["tasks"]) == (1, [TASK])
        assert person.store.head(TASK, "reranker").stale
        assert ask("records", task=TASK)["total"] == 12
        waits = pool.submit(ask, "heads", task=TASK)  # for the engine's turn
        assert ask("records", task=TASK)["total"] == 12
        gate.set()
        assert waits.result(LONG_S)["roles"][0]["version"] == 2
    assert not person.store.head(TASK, "reranker").stale


def test_delete_heads_that_cannot_be_fitted_again_stay_stale(ask, person, monkeypatch):
    def failing(*_args, **_options):
        raise ConfigError("It cannot be.")

    person.fit_head(TASK, use_llm=False)
    monkeypatch.setattr(forgetting, "fit_task", failing)
    assert ask("records/delete", ids=["r1"])["records"] == 1
    role = ask("heads", task=TASK)["roles"][0]
    assert (role["version"], role["switch"]) == (None, "shared")
    assert "forgotten" in role["reason"]


def test_delete_whose_fits_fail_before_it_is_heard_of_is_answered(ask, person, monkeypatch):
    busy, failed, told = threading.Event(), threading.Event(), threading.Event()
    forget, loop = person.store.forget, ask.served.server._loop
    tell = loop.call_soon_threadsafe

    def at_something_else():
        busy.set()
        assert told.wait(LONG_S)

    def while_it_is(*args, **options):
        receipt = forget(*args, **options)
        tell(at_something_else)
        assert busy.wait(LONG_S)
        return receipt

    def failing(*_args, **_options):
        failed.set()
        raise ConfigError("It cannot be.")

    def telling(*args, **options):
        handle = tell(*args, **options)
        if failed.is_set():
            told.set()
        return handle

    person.fit_head(TASK, use_llm=False)
    monkeypatch.setattr(forgetting, "fit_task", failing)
    monkeypatch.setattr(person.store, "forget", while_it_is)
    monkeypatch.setattr(loop, "call_soon_threadsafe", telling)
    assert ask("records/delete", ids=["r1"])["records"] == 1


def test_delete_of_a_taught_record_whose_bytes_may_remain_says_so(ask, person, monkeypatch):
    def busy(_db):
        raise StoreError("Another program reads it.")

    person.fit_head(TASK, use_llm=False)
    monkeypatch.setattr("hydra_edge.store.database.Database.rewrite", busy)
    error = ask("records/delete", 500, ids=["r1"])["error"]
    assert (error["code"], error["deleted"]["tasks"]) == ("bytes_remain", [TASK])


def test_server_that_ends_while_heads_are_fitted_again_loses_nothing(person, monkeypatch):
    person.fit_head(TASK, use_llm=False)
    gate = fits_that_wait(monkeypatch)
    kept = []
    monkeypatch.setattr(
        person.store, "close", lambda: kept.append(person.store.head(TASK, "reranker"))
    )
    with serving(person) as served, served.client() as client:
        deleted = client.post("/api/records/delete", json={"ids": ["r1"]})
        assert deleted.status_code == 200
        served.server.stop()
        assert served.thread.is_alive()
        gate.set()
        served.thread.join(LONG_S)
    assert not kept[0].stale
    assert kept[0].version == 2


@pytest.mark.parametrize("ids", [[], "r1", [1], [""], None, ["r"] * 1001])
def test_delete_of_what_is_no_list_of_ids_deletes_nothing(ask, person, ids):
    ask("records/delete", 400, ids=ids)
    assert person.store.count() == 19


def test_plain_answer_sees_no_record_and_no_head(ask, llm):
    told = ask("answer", query="a text on zebras", task=TASK, plain=True)

    assert told["text"] == "answer 0 to zebras"
    assert llm.asked[-1].shots == ()


def test_plain_answer_in_private_sends_no_label_of_the_history(ask, llm, person):
    person.add(
        Record(f"ticket {i}", ("divorce lawyer", "oncology")[i % 2], "desk", f"d{i}", float(i))
        for i in range(12)
    )
    llm.is_remote = True
    for private in (False, True):
        for plain in (True, False):
            ask("answer", query="a new ticket", task="desk", plain=plain, private=private)
            assert ("oncology" in llm.asked[-1].completion_text()) is not private


def test_answer_explains_every_score_exactly(ask, llm, person):
    told = ask("answer", query="a text about parsers", task=TASK)

    assert len(llm.asked[-1].shots) == len(told["records"]) == person.config.records
    assert sum(c["chosen"] for c in told["candidates"]) == 1
    for item in (*told["candidates"], *told["records"]):
        # What is left out rounds to nothing.
        assert sum(r["share"] for r in item["reasons"]) == pytest.approx(item["score"], abs=0.06)
        assert all(r["words"] for r in item["reasons"])
    assert person.store.generation(told["id"]).text == told["text"]


def test_choice_makes_a_new_version_and_says_what_moved(ask, person):
    made = ask("answer", query="a text about parsers", task=TASK)
    before = {w["feature"]: w["mine"] for w in ask("heads", task=TASK)["roles"][1]["weights"]}
    told = ask("choose", id=made["id"], pick=3, keep=False)
    after = {w["feature"]: w["mine"] for w in ask("heads", task=TASK)["roles"][1]["weights"]}

    assert (told["head_version"], told["record_id"]) == (1, None)
    assert told["changes"]
    for change in told["changes"]:
        assert change["before"] == before[change["feature"]]
        assert change["mine"] == after[change["feature"]] != change["before"]
    moves = [abs(c["mine"] - c["before"]) for c in told["changes"]]
    assert moves == sorted(moves, reverse=True)
    assert ask("choose", id=made["id"], pick=1)["head_version"] == 2
    assert person.store.get(f"choice-{made['id']}").output == made["candidates"][0]["text"]


def test_edited_answer_is_learned_and_kept(ask, person):
    made = ask("answer", query="a text about parsers", task=TASK)
    told = ask("choose", id=made["id"], text="Parser: my own words")

    assert told["text"] == "Parser: my own words"
    assert person.store.get(told["record_id"]).output == "Parser: my own words"
    assert person.store.choices(TASK)[-1].picked is None


def test_choice_of_an_unknown_answer_is_refused_in_words(ask):
    error = ask("choose", 400, id="nothing", pick=1)["error"]
    assert "no answer" in error["message"]


def test_fit_learns_without_an_llm(ask, llm, person):
    told = ask("fit", task=TASK)

    assert told["task"] == TASK
    assert llm.asked == []
    assert person.store.head(TASK, "reranker").version == 1


def test_report_of_a_strangers_head_cannot_break_the_page(ask, person):
    person.fit_head(TASK, use_llm=False)
    state = person.store.head(TASK, "reranker")
    bad = {"rows": [{"name": 3, "utility": "x"}, "row", None, {"utility": 10**400, "n": 10**400}],
           "personal_over_shared": "much", "shared_over_baseline": {"mean": True},
           "reason": ["why"]}  # fmt: skip
    person.store.save_head(replace(state, report=bad))

    role = ask("heads", task=TASK)["roles"][0]
    assert [row.pop("name") for row in role["rows"]] == ["3", ""]
    assert role["rows"] == [{"utility": None, "n": None, "note": ""}] * 2
    assert role["gains"]["personal_over_shared"] is None
    assert role["gains"]["shared_over_baseline"]["mean"] is None


def test_page_that_is_left_stops_the_llm(hash_encoder):
    llm = GatedLLM()
    with (
        Personalizer.from_records(history(), llm=llm, encoder=hash_encoder) as me,
        serving(me) as served,
    ):
        with asked(served, "answer", query="parsers"):
            assert llm.started.acquire(timeout=LONG_S)
        assert llm.stopped.acquire(timeout=LONG_S)
