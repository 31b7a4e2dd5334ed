"""The upload of a model as one form: refused as early as possible, stored while it arrives, acknowledged as a run.

No byte of the model is kept here: `api.landing` passes them on. What a form may say is `pipeline.upload`'s business.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import Row
from sqlalchemy.orm import Session
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from api import multipart
from api.deps import Parts, Principal, Problem, Services, require
from api.idempotency import PARAMETER, Once, Replayed, address, key_of
from api.landing import Landing
from api.lingering import lingering
from api.names import remembering
from api.reception import Arrival, Reception, digests_in
from api.upload_reference import (
    ANSWERS,
    DESCRIPTION,
    REQUEST_BODY,
    VERSION_ANSWERS,
    VERSION_BODY,
    VERSION_DESCRIPTION,
    Accepted,
    Followed,
    Taken,
)
from pipeline import comparing, engine, online, planning
from pipeline import store as runs
from pipeline import upload as form
from pipeline.formats import Format
from pipeline.run import Run, Status
from registry import lineage, lookup, quotas, store
from registry.audit import Actor
from registry.errors import Taken as AlreadyTaken
from shared.settings import Settings

log = structlog.get_logger()

SILENCE = 30.0
"""Seconds for which a client may send nothing."""
WINDOW = 30.0
"""Seconds of waiting for the client over which its rate is taken. Time in which storage keeps us busy does not count."""
OVERHEAD = 4 << 20
"""Bytes that text fields, boundaries and part headers may add to the files."""
BASE = "/api/v1"


class UploadRoute(APIRoute):
    """Answers clients that are still sending, and tells each how many uploads they have left."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in scope["state"].get("rate_headers", {}).items():
                    headers.setdefault(name, value)
            await send(message)

        await lingering(super().handle)(scope, receive, answer)


router = APIRouter(prefix="/models", tags=["models"], route_class=UploadRoute)

Uploader = Annotated[Principal, Depends(require("models:upload"))]


def paced(request: Request, parts: Parts, asking: Uploader) -> None:
    """Count this attempt, or refuse it."""
    limit = parts.settings.upload_rate_limit
    decision = parts.limiter.allow(f"upload:{asking.user_id}", limit)
    request.state.rate_headers = decision.headers
    if not decision.allowed:
        detail = f"You have used your {limit} uploads for this hour."
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail)


def afforded(request: Request, parts: Parts, asking: Uploader) -> None:
    """Refuse a body that is longer than what the uploader's quota has left, before a byte of it is read."""
    _refuse_length(request, parts, asking.user_id)


def _refuse_length(request: Request, parts: Services, user_id: UUID) -> None:
    said = request.headers.get("content-length", "")
    length = max(0, int(said) - OVERHEAD) if said.isascii() and said.isdecimal() and len(said) < 20 else 0
    with parts.begin() as session:
        quotas.refuse_length(session, user_id, parts.settings.plans, length)


@router.post(
    "/upload",
    status_code=HTTPStatus.ACCEPTED,
    summary="Upload a model",
    description=DESCRIPTION,
    response_model=Accepted,
    responses=ANSWERS,
    openapi_extra={"requestBody": REQUEST_BODY, "parameters": [PARAMETER]},
    dependencies=[Depends(afforded), Depends(paced)],
)
async def upload(request: Request, parts: Parts, asking: Uploader) -> Response:
    return await take_in(request, parts, asking, Reception)


def target(model: str, parts: Parts, asking: Uploader) -> Row[Any]:
    """The model that a version is for. In a transaction of its own, so that none is open while the upload streams."""
    with parts.begin() as session:
        return lookup.find_model(session, asking.viewer, model, permission="models:upload")


def afforded_by_owner(request: Request, parts: Parts, into: Annotated[Row[Any], Depends(target)]) -> None:
    """As `afforded`, of the model's owner, whose quota it is that a version fills."""
    _refuse_length(request, parts, into.owner_id)


@router.post(
    "/{model}/versions",
    status_code=HTTPStatus.ACCEPTED,
    summary="Upload a version",
    description=VERSION_DESCRIPTION,
    response_model=Accepted,
    responses=VERSION_ANSWERS,
    openapi_extra={"requestBody": VERSION_BODY, "parameters": [PARAMETER]},
    dependencies=[Depends(afforded_by_owner), Depends(paced)],
)
async def upload_version(
    request: Request, parts: Parts, asking: Uploader, into: Annotated[Row[Any], Depends(target)]
) -> Response:
    named = partial(Reception, model=into.name)
    return await take_in(request, parts, asking, named, into)


async def take_in(
    request: Request,
    parts: Services,
    asking: Principal,
    open_reception: Callable[[Landing, Settings, tuple[Format, ...]], Reception],
    into: Row[Any] | None = None,
) -> Response:
    """Take a form in, whatever kind of reception reads it: a version of the model `into`, or of the one that the form names."""
    began = time.perf_counter()
    length = _admitted_length(request, parts.settings)
    key = key_of(request)
    try:
        boundary = multipart.boundary_of(request.headers.get("content-type", ""))
        async with Landing(parts.staging, longest=min(length, parts.settings.max_upload_size)) as landing:
            reception = open_reception(landing, parts.settings, parts.formats)
            try:
                async with asyncio.timeout(parts.settings.upload_timeout):
                    arrival = await _receive(request, boundary, reception)
                    await landing.complete()
            except TimeoutError as error:
                detail = f"The upload took longer than {parts.settings.upload_timeout} s."
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, "upload_timeout", detail) from error
            once = None if key is None else Once(key, [*address(request), *reception.told(arrival)])
            answer = await landing.run(lambda: _record(parts, asking, landing, arrival, reception.recorded, into, once))
    except Replayed as replayed:
        return replayed.response
    except multipart.MalformedError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed_multipart", str(error)) from error
    except ClientDisconnect:
        log.info("upload.broken_off", user_id=str(asking.user_id))
        return Response(status_code=HTTPStatus.BAD_REQUEST.value)  # nobody is there to read it
    seconds = time.perf_counter() - began
    log.info("upload.answered", location=answer.headers["Location"], size=arrival.model.size, seconds=round(seconds, 3))
    return answer


def _admitted_length(request: Request, settings: Settings) -> int:
    """The body's length, or the most it may have where the client does not say."""
    most = _most(settings)
    said = request.headers.get("content-length")
    if said is not None and (not said.isascii() or not said.isdecimal()):
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed_multipart", "Content-Length is no number.")
    if said is not None and int(said) > most:
        raise _too_large(settings)
    return most if said is None else int(said)


def _most(settings: Settings) -> int:
    beside = len(form.SIDE_FILES) + 1  # and the document of a bundle
    return settings.max_upload_size + beside * settings.max_side_file_size + OVERHEAD


def _too_large(settings: Settings) -> Problem:
    detail = f"An upload holds a model of at most {settings.max_upload_size:,} bytes; this one is larger."
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


async def _receive(request: Request, boundary: bytes, reception: Reception) -> Arrival:
    """Everything the client sends, checked against the digests in the request's own headers."""
    whole = hashlib.sha256()
    claims = digests_in(request.headers)

    pace = _Pace(reception.settings.upload_min_rate)

    async def chunks() -> AsyncIterator[bytes]:
        stream = request.stream()
        left = _most(reception.settings)
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(SILENCE):
                    chunk = await anext(stream, b"")
            except TimeoutError as error:
                detail = f"Nothing arrived for {SILENCE:.0f} s."
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, "upload_stalled", detail) from error
            if not chunk:
                return
            pace.keep(len(chunk), time.monotonic() - began)
            left -= len(chunk)
            if left < 0:
                raise _too_large(reception.settings)
            if claims:
                whole.update(chunk)
            yield chunk

    async for event in multipart.events(chunks(), boundary):
        await reception.take(event)
    return reception.arrival(claims, whole.hexdigest())


class _Pace:
    """Holds a client to at least `least` bytes a second, window by window: a trickle is as good as silence."""

    def __init__(self, least: int) -> None:
        self._least, self._came, self._waited = least, 0, 0.0

    def keep(self, came: int, waited: float) -> None:
        """Count bytes and the seconds spent on waiting for them. Raises `Problem`."""
        self._came += came
        self._waited += waited
        if self._waited < WINDOW:
            return
        if self._came < self._least * self._waited:
            detail = f"The upload is slower than {self._least:,} bytes a second."
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, "upload_too_slow", detail)
        self._came, self._waited = 0, 0.0


def _record(
    parts: Services,
    asking: Principal,
    landing: Landing,
    arrival: Arrival,
    also: Callable[[Session, Row[Any], Actor], None],
    into: Row[Any] | None,
    once: Once | None,
) -> Response:
    """The answer to an upload that has arrived: as another version, or as one that is there already."""
    try:
        return _taken_in(parts, asking, landing, arrival, also, into, once)
    except AlreadyTaken as error:
        if error.code != "version_exists":
            raise
        # Whoever was quicker may have sent the very same: now it can be seen.
        return _taken_in(parts, asking, landing, arrival, also, into, once)


def _taken_in(
    parts: Services,
    asking: Principal,
    landing: Landing,
    arrival: Arrival,
    also: Callable[[Session, Row[Any], Actor], None],
    into: Row[Any] | None,
    once: Once | None,
) -> Response:
    """Version, run, first doorbell and the answer's copy in one transaction, and what `also` adds to it."""
    said, model = arrival.declaration, arrival.model
    servable = arrival.format.why_unservable(said.declared) is None
    intake = store.Intake(
        owner_id=asking.user_id if into is None else into.owner_id,
        uploaded_by=asking.user_id,
        model_id=None if into is None else into.id,
        model=said.name,
        version=said.version,
        bump=said.bump,
        format=arrival.format.name,
        servable=servable,
        filename=model.name,
        size=model.size,
        sha256=model.sha256,
        staging_key=model.key,
        declared=said.declared,
        side_files={
            role: {"name": file.name, "key": file.key, "sha256": file.sha256, "size": file.size}
            for role, file in arrival.side_files.items()
        },
        card=arrival.card,
        confirm_name=said.confirm_name,
    )
    with remembering(parts.begin), parts.begin() as session:
        if once is not None:
            once.recall(session, asking.user_id)
        if (same := store.find_same(session, intake)) is not None:
            newest = runs.newest(session, asking.viewer, [same.id]).get(same.id)
            run = None if newest is None else runs.load(session, newest)
            if run is not None and run.status not in (Status.FAILED, Status.CANCELLED):
                return _answer(arrival, same, run, already_there=True)
        without = planning.unwanted(
            parts.stages,
            policy=parts.settings.tensorrt,
            asked=planning.targets(said.declared),
            served=online.served(session),
        )
        plan = planning.intake(parts.stages, servable=servable, extra=arrival.extra, without=without)
        quotas.admit_version(
            session,
            intake.owner_id,
            parts.settings.plans,
            model=said.name,
            files=[(file.sha256, file.size) for file in (model, *arrival.side_files.values())],
        )
        row = store.add_version(session, intake)
        comparing.refuse_unless_number_fits(session, row)
        run = engine.submit(session, version_id=row.id, owner_id=asking.user_id, plan=plan)
        lineage.declare_uploaded(session, asking.viewer, asking.actor, row.id, said.declared)
        also(session, row, asking.actor)
        answer = _answer(arrival, row, run)
        if once is not None:
            once.keep(answer)
        landing.keep()
    return answer


def _answer(arrival: Arrival, row: Row[Any], run: Run, *, already_there: bool = False) -> Response:
    model_id: UUID = row.model_id
    here = f"{BASE}/runs/{run.id}"
    named = f"{arrival.declaration.name} {row.version}"
    accepted = Accepted(
        message=f"{named} is there already, with the same bytes; its run is {run.status}."
        if already_there
        else f"{named} has arrived; follow its run.",
        already_there=already_there,
        data=Taken(
            model_id=model_id,
            name=arrival.declaration.name,
            version=row.version,
            ordinal=row.ordinal,
            framework=form.framework_of(arrival.declaration, arrival.format.name),
            format=arrival.format.name,
            file_size=arrival.model.size,
            checksum=f"sha256:{arrival.model.sha256}",
            validation_warnings=form.warnings(
                arrival.declaration,
                found=arrival.format.name,
                title=arrival.format.title,
                unservable=arrival.format.why_unservable(arrival.declaration.declared),
                extra=arrival.extra,
                card_unshown="card" in arrival.side_files and arrival.card is None,
            ),
        ),
        run=Followed(id=run.id, status=run.status, links={"self": here, "events": f"{here}/events"}),
    )
    status = HTTPStatus.OK if already_there else HTTPStatus.ACCEPTED
    headers = {"Location": here, "Retry-After": "1"}
    return Response(accepted.model_dump_json(), status, headers, media_type="application/json")
