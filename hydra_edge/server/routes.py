"""The routes of the API: each reads its fields, asks the facade, and writes the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hydra_edge import __version__
from hydra_edge.apptasks import app_task
from hydra_edge.errors import ConfigError
from hydra_edge.records import checked, name_fault
from hydra_edge.server.apprecords import as_told, of_app
from hydra_edge.server.chat import (
    ID_PREFIX,
    MODEL,
    ChatAnswer,
    ChatRequest,
    limit_to_context,
    read_chat,
    unknown_model,
)
from hydra_edge.server.fields import Fields, bad_field
from hydra_edge.server.guard import CHAT_PATH
from hydra_edge.server.live import Live
from hydra_edge.server.refusal import Refusal
from hydra_edge.server.service import Service, scope_of, service_of
from hydra_edge.server.tokens import Scope
from hydra_edge.server.views import Json, ranking_json
from hydra_edge.tasks import canonical_name
from hydra_edge.types import (
    DEFAULT_TASK,
    AddResult,
    ChoiceResult,
    Generation,
    JsonDict,
    Ranking,
    Record,
)

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store

MOST_SHOWN = 100


async def health(request: Request) -> Response:
    """Say that the server is there, and nothing of whom it serves."""
    return Json({"status": "ok", "version": __version__})


async def models(request: Request) -> Response:
    """List a model for each task of the history, and the plain one."""
    names = await _model_names(request)
    return Json({"object": "list", "data": [_model_json(request, name) for name in names]})


async def model(request: Request) -> Response:
    """Show one model."""
    name = request.path_params["name"]
    if name not in await _model_names(request):
        raise unknown_model(name)
    return Json(_model_json(request, name))


async def _model_names(request: Request) -> list[str]:
    scope = scope_of(request)
    shown = scope.tasks or await service_of(request).quickly(
        lambda person: tuple(_tasks_seen(person.store, scope))
    )
    return [MODEL, *(f"{MODEL}/{task}" for task in shown)]


def _tasks_seen(store: Store, scope: Scope) -> Iterable[str]:
    """Return the tasks of the history, the most used first; an app's have a record it may see."""
    return store.tasks() if scope.is_owner else store.public_tasks()


async def _task(request: Request, wanted: str | None) -> str | None:
    """Return the task to serve; an app gets one whose name it may know, or is refused."""
    service, scope = service_of(request), scope_of(request)
    name = service.task(scope, wanted)
    if scope.is_owner:
        return name
    named = (service.settings.task, *scope.tasks)
    asked = service.quickly(lambda person: app_task(person, name, named), service.engine)
    return await service.while_connected(request, asked)


def _model_json(request: Request, name: str) -> JsonDict:
    created = service_of(request).started
    return {"id": name, "object": "model", "created": created, "owned_by": MODEL}


async def chat_completions(request: Request) -> Response:
    """Answer a chat: records chosen, candidates sampled, the one that fits returned."""
    service = service_of(request)
    asked = read_chat(Fields.parse(await request.body()))
    task = await _task(request, asked.task)
    wanted = max(asked.candidates or service.owner.config.candidates, asked.choices)
    make = partial(_generate, service, scope_of(request), asked, task, n=wanted)
    if asked.stream:
        live = Live(service, asked, wanted)
        return await live.response(request, make(**live.listeners))
    generation = await service.while_connected(request, make())
    return Json(ChatAnswer(asked, generation).whole())


async def _generate(
    service: Service,
    scope: Scope,
    asked: ChatRequest,
    task: str | None,
    *,
    n: int,
    **listeners: Any,
) -> Generation:
    async with service.answering() as is_over:
        limit, lowered = asked.max_tokens, tuple[str, ...]()
        if limit is not None:
            limit, lowered = limit_to_context(limit, await asyncio.to_thread(service.context))
        generation = await service.person.generate(
            asked.query,
            task=task,
            n=n,
            k=asked.records,
            temperature=asked.temperature,
            max_tokens=limit,
            system=asked.system,
            private=asked.private,
            hide_private=not scope.is_owner,
            seed=asked.seed,
            should_stop=is_over,
            **listeners,
        )
    return replace(
        generation,
        records=as_told(scope, generation.records),
        notes=(*generation.notes, *lowered),
    )


async def rank(request: Request) -> Response:
    """Say which records would be shown for a query, and why; an app sees no private one."""
    service, scope = service_of(request), scope_of(request)
    fields = Fields.parse(await request.body())
    fields.refuse_others(("query", "task", "k"))
    query, k = fields.text("query"), fields.whole("k", 1, MOST_SHOWN)
    if not query.strip():
        raise bad_field("query", query, "a text")
    task = await _task(request, fields.text("task", ""))
    ranking = await service.while_connected(request, _rank(service, scope, query, task, k))
    return Json(ranking_json(replace(ranking, records=as_told(scope, ranking.records))))


async def _rank(
    service: Service, scope: Scope, query: str, task: str | None, k: int | None
) -> Ranking:
    async with service.answering(service.engine) as is_over:  # it may embed a whole import first
        return await service.person.rank(
            query, task=task, k=k, hide_private=not scope.is_owner, should_stop=is_over
        )


async def feedback(request: Request) -> Response:
    """Learn which candidate was taken, or what was made of the answer."""
    service, scope = service_of(request), scope_of(request)
    service.may_write(scope)
    fields = Fields.parse(await request.body())
    fields.refuse_others(("id", "pick", "text", "keep"))
    generation_id = fields.text("id").removeprefix(ID_PREFIX)
    pick = fields.whole("pick", 1, 2**31)
    text = fields.text("text") if fields.raw("text") is not None else None
    keep = fields.flag("keep", default=True)
    if pick is None and text is None:
        raise bad_field("pick", pick, "the number of a candidate, or else an edited `text`")
    if text is not None and (pick is not None or not text.strip()):
        raise bad_field("text", text, "an edited text, or none beside `pick`")
    found = await service.quickly(lambda person: person.store.generation(generation_id))
    # What an app may not see does not exist for it.
    if found is None or not scope.allows(found.task):
        raise Refusal(
            HTTPStatus.NOT_FOUND, "unknown_generation",
            f"No answer {generation_id[:60]!r} is remembered; expected the id of one given "
            "before. Answers are remembered unless the setting `log` is off.",
            param="id",
        )  # fmt: skip
    if pick is not None and pick > len(found.candidates):
        raise bad_field("pick", pick, f"a candidate, from 1 to {len(found.candidates)}")

    def learn(person: Personalizer, should_stop: Callable[[], bool]) -> ChoiceResult:
        return person.choose(
            generation_id=generation_id,
            pick=pick,
            text=text,
            keep=keep,
            source=scope.source("choices"),
            hide_private=not scope.is_owner,
            should_stop=should_stop,
        )

    result = await service.learning(request, learn)
    return Json({"object": "hydra_edge.choice"} | asdict(result))


async def add_records(request: Request) -> Response:
    """Add records to the history; an app's carry its name as their source."""
    service, scope = service_of(request), scope_of(request)
    service.may_write(scope)
    fields = Fields.parse(await request.body())
    fields.refuse_others(("records",))
    given = fields.raw("records")
    if not isinstance(given, list) or not given:
        raise bad_field("records", given, "a list of at least one record")
    records = [_read_record(service, scope, entry, i) for i, entry in enumerate(given)]

    def add(person: Personalizer) -> AddResult:
        if scope.is_owner:
            return person.add(records)
        done = person.add([of_app(person.store, record) for record in records])
        return replace(done, added=done.added + done.renamed, renamed=0)

    result = await service.quickly(add)
    return Json({"object": "hydra_edge.added"} | asdict(result), HTTPStatus.CREATED)


def _read_record(service: Service, scope: Scope, entry: object, place: int) -> Record:
    if not isinstance(entry, dict):
        raise bad_field(f"records[{place}]", entry, "an object with input and output")
    fields = Fields(entry, f"records[{place}].")
    fields.refuse_others(("id", "input", "output", "private", "source", "task", "time"))
    usual = service.settings.task or service.owner.config.task
    usual = usual if usual and scope.allows(canonical_name(usual)) else ""
    task = service.task(scope, fields.text("task", "") or usual) or DEFAULT_TASK
    record = Record(
        fields.text("input"), fields.text("output"), canonical_name(task), fields.text("id", ""),
        fields.moment("time"), fields.flag("private"),
        scope.source(fields.text("source", "api")),
    )  # fmt: skip
    if not record.input.strip() or not record.output.strip():
        raise bad_field(f"records[{place}]", "", "an input and an output with text")
    for name in ("id", "task"):
        if fault := name_fault(getattr(record, name)):
            field = f"records[{place}].{name}"
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "invalid_value",
                f"Field {field!r} cannot be used: it {fault}. Give it a short name.",
                param=field,
            )  # fmt: skip
    try:
        return checked(record)  # before any is stored: the store takes them batch by batch
    except ConfigError as err:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "invalid_value", str(err), param=f"records[{place}]"
        ) from err


def api_routes() -> list[Route]:
    """Return the routes of the API."""
    return [
        Route("/health", health, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        Route(CHAT_PATH, chat_completions, methods=["POST"]),
        Route("/v1/rank", rank, methods=["POST"]),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/v1/records", add_records, methods=["POST"]),
    ]
