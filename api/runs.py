"""Runs over HTTP: list, read, follow, cancel, retry, and what their steps logged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Problem, Services, Transaction, require
from api.errors import documented
from api.etags import IfNoneMatch, matches
from api.idempotency import IdempotentRoute
from api.news import MOST_STREAMS, POLL
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.runs import RetryFrom, Run, Runs, RunStatus, RunSummary
from pipeline import engine, online, quarantine, store
from pipeline.run import Cancel, Purpose, Retry, Signal, Status
from registry.lookup import Viewer

log = structlog.get_logger()

router = APIRouter(prefix="/runs", tags=["runs"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Uploader = Annotated[Principal, Depends(require("models:upload"))]

LOOK_AGAIN = "1"
"""Seconds a poller should wait while a run is under way."""
LOG_LINES = 5000
_ABOUT_ONE = ("unauthenticated", "forbidden", "run_not_found")
_EVENT = {
    "run": "0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2",
    "seq": 3,
    "kind": "passed",
    "status": "queued",
    "stage": "scan",
    "attempt": 1,
    "code": None,
    "detail": None,
    "terminal": False,
    "waiting": None,
    "at": "2026-11-20T12:00:21+00:00",
}


@router.get("", summary="List runs", responses=documented("invalid_cursor", "unauthenticated", "forbidden"))
def list_runs(
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    status: RunStatus | None = None,
    model: Annotated[str | None, Query(max_length=200, description="a model's name")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Runs:
    """Your runs, newest first."""
    before = decode(cursor)
    rows = store.find_many(session, asking.viewer, status=status, model=model, before=before, limit=limit + 1)
    following = next_page(request, response, rows, limit)
    served = online.served(session)
    return Runs(items=[RunSummary(**_summary(row, served)) for row in rows], next=following)


@router.get(
    "/{run_id}",
    summary="Read a run",
    response_model=Run,
    responses=documented(*_ABOUT_ONE) | {304: {"description": "Nothing has happened since the ETag you sent."}},
)
def read_run(
    run_id: UUID,
    response: Response,
    asking: Reader,
    session: Transaction,
    if_none_match: IfNoneMatch = None,
) -> Run | Response:
    """Its steps with their reports, and the files they made. Poll it with `If-None-Match`, or follow its events."""
    row, steps = store.find(session, _viewer(session, asking, run_id), run_id)
    run = whole(row, steps, online.served(session))
    tag = f'W/"{row.id.hex}-{row.version}{"-waiting" if run.waiting else ""}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if not Status(row.status).terminal:
        headers["Retry-After"] = LOOK_AGAIN
    if matches(if_none_match, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    response.headers.update(headers)
    return run


@router.post(
    "/{run_id}/cancel",
    summary="Cancel a run",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(*_ABOUT_ONE, "illegal_transition"),
)
def cancel_run(run_id: UUID, response: Response, asking: Uploader, session: Transaction) -> Run:
    """The step under way is ended; what the run has made so far is kept for a retry, for a while.

    A re-scan is nobody's to stop but an admin's: else a verdict could be kept from being taken back.
    """
    store.load(session, run_id, viewer=asking.viewer)
    if store.purpose_of(session, run_id) is Purpose.RESCAN and not asking.may("admin"):
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Only an admin stops a re-scan.")
    return _move(session, response, asking, run_id, Cancel())


@router.post(
    "/{run_id}/retry",
    summary="Retry a run",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(*_ABOUT_ONE, "illegal_transition", "bytes_gone", "invalid_field"),
)
def retry_run(
    run_id: UUID, response: Response, asking: Uploader, session: Transaction, wish: RetryFrom | None = None
) -> Run:
    """Take a failed or cancelled run up again, `from` a stage or from where it stopped. Passed steps stay passed."""
    run = store.load(session, run_id, viewer=asking.viewer, lock=True)
    if run.status.terminal and store.cleaned(session, run_id):
        detail = "The run's files have left staging; upload the model again."
        raise Problem(HTTPStatus.CONFLICT, "bytes_gone", detail)
    return _move(session, response, asking, run_id, Retry(stage=wish.from_ if wish else None))


@router.get(
    "/{run_id}/steps/{stage}/log",
    summary="Read a step's log",
    response_class=PlainTextResponse,
    responses=documented(*_ABOUT_ONE, "step_not_found")
    | {
        200: {
            "description": "One line each: when, and what. `Link: rel=next` continues behind the last line.",
            "content": {"text/plain": {"example": "2026-11-20T12:00:00.120000+00:00 clamd saw 87412 of 87412 bytes\n"}},
        }
    },
)
def read_log(
    run_id: UUID,
    stage: str,
    request: Request,
    asking: Reader,
    session: Transaction,
    *,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="default: all attempts")] = None,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="where the page before ended")] = 0,
) -> PlainTextResponse:
    """What the step told those who watch it, oldest first."""
    _, steps = store.find(session, asking.viewer, run_id)
    if stage not in [step.stage for step in steps]:
        raise Problem(HTTPStatus.NOT_FOUND, "step_not_found", f"This run has no step {stage!r}.")
    lines = store.read_logs(session, run_id, stage, attempt=attempt, after=after, limit=LOG_LINES)
    text = "".join(f"{line.at.isoformat()} {' '.join(line.text.splitlines())}\n" for line in lines)
    following = request.url.include_query_params(after=lines[-1].id if lines else after)
    return PlainTextResponse(text, headers={"Link": f'<{following.path}?{following.query}>; rel="next"'})


def begin_at(
    run_id: UUID,
    asking: Reader,
    parts: Parts,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    from_query: Annotated[str | None, Query(alias="last_event_id", max_length=100)] = None,
) -> int:
    """The seq of the last event that the asker has seen, or -1. The header, which a browser sends, goes first."""
    with parts.begin() as session:
        run = store.load(session, run_id, viewer=asking.viewer)
    said = last_event_id or from_query
    if not said:
        return -1
    if not (said.isascii() and said.isdecimal() and int(said) <= run.version):
        detail = f"Last-Event-ID must be the id of an event of this run (0 to {run.version})."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_event_id", detail)
    return int(said)


async def seated(asking: Reader, parts: Parts) -> AsyncIterator[None]:
    """Hold a seat for as long as the answer lasts."""
    with parts.hub.seat(asking.user_id) as free:
        if not free:
            detail = f"You follow {MOST_STREAMS} runs already; end a stream, or poll."
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_streams", detail, headers={"Retry-After": "5"})
        yield


@router.get(
    "/{run_id}/events",
    summary="Follow a run",
    response_class=EventSourceResponse,
    dependencies=[Depends(seated)],
    responses=documented(*_ABOUT_ONE, "invalid_event_id", "too_many_streams")
    | {
        200: {
            "description": "Server-sent events; `id` counts without gaps. Ends after an event with `terminal: true`.",
            "content": {
                "text/event-stream": {"example": f"event: passed\ndata: {str(_EVENT)[:60]}…\nid: 3\n\n"},
            },
        }
    },
)
async def follow_run(
    run_id: UUID, seen: Annotated[int, Depends(begin_at)], parts: Parts
) -> AsyncIterator[ServerSentEvent]:
    """Every event behind `Last-Event-ID`, each once and in order, then each as it happens, until the run is over."""
    with parts.hub.subscribe(run_id) as news:
        while True:
            try:
                events, over = await run_in_threadpool(_events, parts, run_id, seen)
            except SQLAlchemyError as error:
                # A browser never comes back to a stream that answers 503, so the open one outlives the database.
                log.warning("events.database_away", run_id=str(run_id), error=str(error).splitlines()[0])
                await asyncio.sleep(POLL)
                events, over = [], parts.hub.closed
            for event in events:
                seen = event.seq
                yield ServerSentEvent(data=_told(event), event=event.kind, id=str(event.seq))
            if over or not await news.wait():
                return


def _events(parts: Services, run_id: UUID, seen: int) -> tuple[list[store.Event], bool]:
    """The events behind `seen`, and whether the run's newest one is its end: one query, so one point in time."""
    with parts.begin() as session:
        events = store.events_after(session, run_id, seen - 1)
    over = not events or bool(events[-1].data.get("terminal"))
    return [event for event in events if event.seq > seen], over


def _told(event: store.Event) -> dict[str, Any]:
    return {
        "run": str(event.run_id),
        "seq": event.seq,
        "kind": event.kind,
        **event.data,
        "at": event.at.isoformat(),
    }


def _viewer(session: Session, asking: Principal, run_id: UUID) -> Viewer:
    """As whom somebody reads a run: a reviewer may follow what a decision in the quarantine has set going."""
    if asking.may("models:review") and quarantine.concerns(session, run_id):
        return replace(asking.viewer, admin=True)
    return asking.viewer


def _move(session: Session, response: Response, asking: Principal, run_id: UUID, signal: Signal) -> Run:
    engine.send(session, run_id, signal, viewer=asking.viewer)
    response.headers["Location"] = f"/api/v1/runs/{run_id}"
    return whole(*store.find(session, asking.viewer, run_id), online.served(session))


def whole(row: Row[Any], steps: list[Row[Any]], served: frozenset[str]) -> Run:
    """A run with its steps and files, from what `store.find` gives and the queues that are served now."""
    return Run(
        **_summary(row, served),
        steps=[_step(step) for step in steps],
        artifacts=[_file(file) for step in steps for file in (step.report or {}).get("files", ())],
    )


def _summary(row: Row[Any], served: frozenset[str]) -> dict[str, Any]:
    model = f"/api/v1/models/{row.model_id}"
    itself = f"/api/v1/runs/{row.id}"
    return {
        "id": row.id,
        "purpose": row.purpose,
        "status": row.status,
        "stage": None if row.status == Status.SUCCEEDED else row.stage,
        "waiting": online.waiting(row.queue, served) if row.status == Status.QUEUED else None,
        "model": row.model,
        "version": row.version_name,
        "code": row.code,
        "detail": row.detail,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "finished_at": row.finished_at,
        "links": {
            "self": itself,
            "events": f"{itself}/events",
            "model": model,
            "version": f"{model}/versions/{quote(row.version_name, safe='')}",
        },
    }


def _step(step: Row[Any]) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "queue": step.queue,
        "status": step.status,
        "attempt": step.attempt,
        "max_attempts": step.max_attempts,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "code": step.code,
        "detail": step.detail,
        "report": _without_keys(step.report),
    }


def _without_keys(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A report's facts as clients may see them: where bytes are stored is nobody's business."""
    if report is None:
        return None
    facts = dict(report.get("facts", {}))
    if "published" in facts:
        facts["published"] = [
            {name: value for name, value in entry.items() if name != "key"} for entry in facts["published"]
        ]
    return facts


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    """A file under the name that it has in the registry: its variant's, where it is one."""
    shown = {name: file[name] for name in ("role", "sha256", "size", "media_type", "meta")}
    return {"name": file["meta"].get("variant", file["name"]), **shown}
