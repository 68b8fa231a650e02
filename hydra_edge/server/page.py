"""The page at the server's root: its files, and the routes only it asks.

The files hold nothing personal and are given to anybody on this machine; everything the page
shows comes by ``POST /api/...`` with the owner's token, so that no text is ever part of an
address. Nothing is computed here: the routes ask the facade and ``portrait``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hydra_edge import __version__, portrait
from hydra_edge.aio import heard
from hydra_edge.forms import record_json
from hydra_edge.personalizer import Personalizer
from hydra_edge.portrait import Weight
from hydra_edge.server import page_json as shapes
from hydra_edge.server.fields import Fields, bad_field
from hydra_edge.server.growth import Curves
from hydra_edge.server.lane import Lane
from hydra_edge.server.refusal import Refusal
from hydra_edge.server.service import QUICK_WAITING, Service, scope_of, service_of
from hydra_edge.server.views import Json
from hydra_edge.tasks import TaskSpec, canonical_name
from hydra_edge.types import (
    Completion,
    ForgetReceipt,
    Generation,
    HeadInfo,
    HeadState,
    JsonDict,
    Role,
)

STATIC = Path(__file__).parent / "static"
MOST_RECORDS = 100  # a list of the page
MOST_IDS = 1000
CHANGES_SHOWN = 6
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_ROLES: tuple[Role, ...] = get_args(Role)


def read_static() -> dict[str, tuple[bytes, str]]:
    """Return the page's files by name, each with its media type."""
    return {
        path.name: (path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(STATIC.iterdir())
        if path.suffix in _TYPES
    }


async def _asked(request: Request, *fields: str) -> tuple[Service, Fields]:
    """Return the service and the request's fields, once its sender is known for the owner."""
    if not scope_of(request).is_owner:
        raise Refusal(
            HTTPStatus.FORBIDDEN, "owner_only",
            "The page shows everything, so it takes the owner's token; got an app's. Open it with "
            "`hydra-edge serve --open`.",
        )  # fmt: skip
    asked = Fields.parse(await request.body())
    asked.refuse_others(fields)
    return service_of(request), asked


def _ids(asked: Fields) -> list[str]:
    ids = asked.raw("ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= MOST_IDS:
        raise bad_field("ids", ids, f"a list of 1 to {MOST_IDS} ids of records")
    if not all(isinstance(each, str) and each for each in ids):
        raise bad_field("ids", ids, "ids of records")
    return ids


class Page:
    """The page's routes and what they remember between requests: growth curves drawn before."""

    def __init__(self) -> None:
        self._static = read_static()
        self._naming = Lane(QUICK_WAITING)  # of its own: an LLM may take its time to open
        self._drawing = Lane(QUICK_WAITING)
        self._erasing = Lane(QUICK_WAITING)
        self._forgetting: set[asyncio.Task[ForgetReceipt]] = set()  # asyncio holds none itself
        self._curves = Curves()

    def routes(self) -> list[Route]:
        """Return the routes, to be put behind the guard."""
        asked = {
            "summary": self.summary,
            "llm": self.llm,
            "heads": self.heads,
            "growth": self.growth,
            "records": self.records,
            "records/private": self.set_private,
            "records/delete": self.delete,
            "answer": self.answer,
            "choose": self.choose,
            "fit": self.fit,
        }
        return [
            Route("/", self.file, methods=["GET"]),
            Route("/static/{name}", self.file, methods=["GET"]),
            *(Route(f"/api/{path}", call, methods=["POST"]) for path, call in asked.items()),
        ]

    async def file(self, request: Request) -> Response:
        """Give out one of the page's files."""
        name = request.path_params.get("name", "index.html")
        if name not in self._static:
            raise Refusal(
                HTTPStatus.NOT_FOUND, "not_found", "The page has no such file. Load it again."
            )
        content, kind = self._static[name]
        return Response(content, media_type=kind)

    async def summary(self, request: Request) -> Response:
        """Say whose page it is and which tasks there are."""
        service, _ = await _asked(request)
        task = service.settings.task
        return Json(await service.quickly(lambda person: _summary(person, task), service.engine))

    async def llm(self, request: Request) -> Response:
        """Say which LLM answers, and whether a query leaves this machine; it is opened for that."""
        service, _ = await _asked(request)

        def look(person: Personalizer) -> JsonDict:
            return {"name": person.llm.name, "is_remote": person.llm.is_remote}

        return Json(await service.quickly(look, self._naming))

    async def heads(self, request: Request) -> Response:
        """Show what serves in both roles of a task, why, and what it has learned."""
        service, asked = await _asked(request, "task")
        name = asked.text("task")
        return Json(await service.quickly(lambda person: _heads(person, name), service.engine))

    async def growth(self, request: Request) -> Response:
        """Show how utility grew with the history, in both roles of a task."""
        service, asked = await _asked(request, "task")
        name = asked.text("task")
        work = service.stoppably(
            lambda person, should_stop: self._curves.draw(person, name, should_stop), self._drawing
        )
        return Json(await service.while_connected(request, work))

    async def records(self, request: Request) -> Response:
        """List records, the newest first, or those that hold some words, the best first."""
        service, asked = await _asked(request, "query", "task", "offset", "limit")
        query, task = asked.text("query", "").strip(), canonical_name(asked.text("task", ""))
        offset = asked.whole("offset", 0, 2**31) or 0
        limit = asked.whole("limit", 1, MOST_RECORDS) or 20

        def look(person: Personalizer) -> JsonDict:
            store, end = person.store, offset + limit + 1
            if query:
                found = store.search(query, task=task or None, limit=end)[offset:]
            else:
                found = store.records(
                    task=task or None, limit=limit + 1, offset=offset, newest_first=True
                )
            return {
                "records": [record_json(record) for record in found[:limit]],
                "total": None if query else store.count(task or None),
                "more": len(found) > limit,
            }

        return Json(await service.quickly(look))

    async def set_private(self, request: Request) -> Response:
        """Mark records as private, or not any more."""
        service, asked = await _asked(request, "ids", "private")
        ids, private = _ids(asked), asked.flag("private", default=True)
        changed = await service.quickly(lambda person: person.store.set_private(ids, private))
        return Json({"changed": changed})

    async def delete(self, request: Request) -> Response:
        """Erase records for good; the heads they had taught are fitted again afterwards.

        Until then these are stale, and do not serve.
        """
        service, asked = await _asked(request, "ids")
        ids = _ids(asked)
        erased: asyncio.Future[ForgetReceipt] = asyncio.get_running_loop().create_future()
        work = asyncio.ensure_future(self._forget(service, ids, erased))
        self._forgetting.add(work)
        work.add_done_callback(self._forgetting.discard)
        await asyncio.wait({work, erased}, return_when=asyncio.FIRST_COMPLETED)
        # Whether the fits still run says nothing: those that fail at once are done by now.
        if erased.done() and await asyncio.to_thread(service.owner.store.is_erased):
            work.add_done_callback(heard)  # heads that cannot be fitted say so themselves
            return Json(asdict(erased.result()))
        return Json(asdict(await work))

    async def _forget(
        self, service: Service, ids: Sequence[str], erased: asyncio.Future[ForgetReceipt]
    ) -> ForgetReceipt:
        async with self._erasing.turn():
            return await service.person.forget(ids, on_erased=erased.set_result)

    async def answer(self, request: Request) -> Response:
        """Answer a query: personalized, or plain as the LLM alone would have."""
        service, asked = await _asked(request, "query", "task", "plain", "private")
        query, task = asked.text("query"), asked.text("task", "") or None
        plain, private = asked.flag("plain"), asked.flag("private")
        work = (_plain if plain else _personal)(service, query, task, private)
        return Json(await service.while_connected(request, work))

    async def choose(self, request: Request) -> Response:
        """Learn from the answer taken, and say which weights that moved."""
        service, asked = await _asked(request, "id", "pick", "text", "keep")
        generation_id, pick = asked.text("id"), asked.whole("pick", 1, 2**31)
        text = asked.text("text") if asked.raw("text") is not None else None
        keep = asked.flag("keep", default=True)

        def learn(person: Personalizer, should_stop: Callable[[], bool]) -> JsonDict:
            with person.working():
                made = person.store.generation(generation_id)
                before = _looked_at(person, person.task(made.task), "adapter") if made else None
                result = person.choose(
                    generation_id=generation_id, pick=pick, text=text, keep=keep,
                    should_stop=should_stop,
                )  # fmt: skip
                info, _, after = _looked_at(person, person.task(result.task), "adapter")
            return asdict(result) | {
                "switch": info.switch,
                "changes": _changes(before[2] if before else [], after),
            }

        return Json(await service.learning(request, learn))

    async def fit(self, request: Request) -> Response:
        """Fit and judge both heads of a task on what there is; no LLM is asked."""
        service, asked = await _asked(request, "task")
        work = service.person.fit_head(asked.text("task"), use_llm=False)
        report = await service.while_connected(request, work)
        return Json({"task": report.task, "seconds": report.seconds, "notes": list(report.notes)})


def _summary(person: Personalizer, task: str | None) -> JsonDict:
    counts = person.store.tasks()
    default = person.task(task).name
    names = [*counts, *([] if default in counts else [default])]
    return {
        "version": __version__,
        "user": person.user,
        "task": default,
        "tasks": [_task_json(person.task(name), counts.get(name, 0)) for name in names],
        "records": sum(counts.values()),
        "candidates": person.config.candidates,
        "shown": person.config.records,
        "log": person.config.log,
    }


def _task_json(task: TaskSpec, records: int) -> JsonDict:
    return {
        "name": task.name,
        "records": records,
        "kind": task.kind,
        "input_label": task.input_label,
        "output_label": task.output_label,
    }


def _looked_at(
    person: Personalizer, task: TaskSpec, role: Role
) -> tuple[HeadInfo, HeadState | None, list[Weight]]:
    """Return what serves in a role; a head that cannot serve is as good as none."""
    info = person.engine.active(task, role).info
    state = None if info.version is None else person.store.head(task.name, role)
    return info, state, portrait.weights(person.engine, task, role, state)


def _heads(person: Personalizer, name: str) -> JsonDict:
    with person.working():
        task = person.task(name)
        looked = [_looked_at(person, task, role) for role in _ROLES]
    return {"task": task.name, "roles": [shapes.head_json(*each) for each in looked]}


def _changes(before: Sequence[Weight], after: Sequence[Weight]) -> list[JsonDict]:
    """Return the weights that moved most, each with where it was."""
    old = {weight.feature: weight.mine for weight in before}
    pairs = [(w, old.get(w.feature, w.population)) for w in after]
    pairs.sort(key=lambda pair: -abs(pair[0].mine - pair[1]))
    return [
        shapes.weight_json(weight, "adapter") | {"before": was}
        for weight, was in pairs[:CHANGES_SHOWN]
        if weight.mine != was
    ]


async def _personal(service: Service, query: str, task: str | None, private: bool) -> JsonDict:
    return shapes.answer_json(await _generate(service, query, task, private=private))


async def _plain(service: Service, query: str, task: str | None, private: bool) -> JsonDict:
    """Return the LLM's first answer to the bare query; no record, no head has a part in it."""
    drawn: list[Completion] = []
    made = await _generate(service, query, task, drawn, n=1, k=0, temperature=0.0, private=private)
    text = drawn[0].text.strip() if drawn else made.text
    return {"text": text, "task": made.task, "usage": asdict(made.usage)}


async def _generate(
    service: Service,
    query: str,
    task: str | None,
    drawn: list[Completion] | None = None,
    *,
    n: int | None = None,
    k: int | None = None,
    temperature: float | None = None,
    private: bool = False,
) -> Generation:
    async with service.answering() as is_over:
        return await service.person.generate(
            query, task=task, n=n, k=k, temperature=temperature, private=private,
            should_stop=is_over, on_candidate=None if drawn is None else drawn.append,
        )  # fmt: skip
