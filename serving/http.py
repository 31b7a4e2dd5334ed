"""HTTP as bytes: takes a request in, bounded, and finds whose it is. Plain ASGI, because this is the hot path.

Reads no body: that is for the runtime child.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Literal

import structlog

from serving.answers import Answer, Refused, refusal
from serving.endpoints import POSTED, Endpoints
from serving.protocol.refusals import Kind

log = structlog.get_logger()

Action = Literal["metadata", "ready", "infer", "stats", "config", "schema", "openapi.json", "predict"]
_VERBS = ("ready", "infer", "stats", "config", "schema", "openapi.json")
_TOGETHER = 8
"""How many of the largest requests all that are under way may make up together."""
_PREDICT = re.compile(r"/api/v1/models/(?P<model>[^/]+(?:/[^/]+)?)(?:/versions/(?P<ref>[^/]+))?/predict")


@dataclass(frozen=True, kw_only=True)
class Request:
    """`headers` are by lower-case name, `body` is as it came, in pieces. `address` is the client's, without a port."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: list[bytes] = field(default_factory=list)
    address: str = ""

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(frozen=True, kw_only=True)
class Meant:
    """What an address means: an action on a model, under a reference to one of its versions or none."""

    action: Action
    model: str
    reference: str | None


def meant(path: str) -> Meant | None:
    """`/v2/models/[owner/]name[/versions/reference][/action]` or `/api/v1/models/…/predict`; None for anything else."""
    simple = _PREDICT.fullmatch(path)
    if simple is not None:
        return Meant(action="predict", model=simple["model"], reference=simple["ref"])
    if not path.startswith("/v2/models/") or path == "/v2/models/stats":
        return None
    parts = path.removeprefix("/v2/models/").split("/")
    action: Any = parts.pop() if parts[-1] in _VERBS and len(parts) > 1 else "metadata"
    reference = None
    if len(parts) > 2 and parts[-2] == "versions":
        reference = parts[-1] or None
        parts = parts[:-2]
    if not 1 <= len(parts) <= 2 or not all(parts):
        return None
    return Meant(action=action, model="/".join(parts), reference=reference)


@dataclass
class _Body:
    """What has come of a request's body; `size` counts as long as the request is not answered."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class Edge:
    """The ASGI app. `lifespan` gives it its `endpoints`; a body has at most `largest` bytes and `patience` seconds to come in."""

    def __init__(
        self, lifespan: Callable[[Edge], AbstractAsyncContextManager[None]], *, largest: int, patience: float
    ) -> None:
        self._lifespan, self._largest, self._patience = lifespan, largest, patience
        self._held = 0
        self.endpoints: Endpoints | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            async with self._lifespan(self):
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as fault:
            log.exception("serving.not_started")
            await send({"type": "lifespan.startup.failed", "message": str(fault)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        kind: Kind = "predict" if path.startswith("/api/") else "v2"
        body = _Body()
        try:
            answer = await self._handle(scope, receive, body)
        except Refused as refused:
            answer = refusal(refused, kind)
        except Exception:
            trace = token_hex(8)
            log.exception("request.crashed", path=path, trace_id=trace)
            fault = Refused(500, "internal", f"A fault of ours; the log has it under {trace}.")
            answer = refusal(fault, kind)
        finally:
            self._held -= body.size
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        content = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": content})

    async def _handle(self, scope: MutableMapping[str, Any], receive: Any, body: _Body) -> Answer:
        endpoints = self.endpoints
        assert endpoints is not None  # noqa: S101 - the lifespan has begun
        method, path = scope["method"], scope["path"]
        client = scope.get("client")
        request = Request(
            method="GET" if method == "HEAD" else method,
            path=path,
            query=scope["query_string"],
            headers=dict(scope["headers"]),
            address=client[0] if client else "",
        )
        what = None if "\0" in path else meant(path)
        if what is None:
            return await endpoints.server(request)
        if (what.action in POSTED) != (request.method == "POST"):
            allowed = "POST" if what.action in POSTED else "GET"
            raise Refused(405, "method_not_allowed", f"{what.action} takes {allowed}.", headers={"Allow": allowed})
        if what.action not in POSTED:
            return await endpoints.describe(request, what)
        # Who may not ask, or not so often, does not get to send a body.
        caller = await endpoints.admit(request, what)
        try:
            async with asyncio.timeout(self._patience):
                await self._read(body, request.headers, receive)
        except TimeoutError as slow:
            raise Refused(408, "request_timeout", f"The body was not here within {self._patience:g} s.") from slow
        kind: Kind = "predict" if what.action == "predict" else "v2"
        request.body.extend(body.pieces)
        return await endpoints.predict(request, caller, what.reference, kind)

    async def _read(self, body: _Body, headers: Mapping[bytes, bytes], receive: Any) -> None:
        """Take the body in, as long as all that are here together leave room for it."""
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._largest:
            raise self._too_large()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "incomplete", "The connection ended before the body did.")
            piece = message.get("body", b"")
            body.size += len(piece)
            self._held += len(piece)
            if body.size > self._largest:
                raise self._too_large()
            if self._held > _TOGETHER * self._largest:
                detail = "The requests that are under way together are as large as they may be; come again."
                raise Refused(503, "overloaded", detail, headers={"Retry-After": "1"})
            if piece:
                body.pieces.append(piece)
            if not message.get("more_body"):
                return

    def _too_large(self) -> Refused:
        return Refused(
            413, "request_too_large", f"A request may have {self._largest} bytes here (SERVING_MAX_REQUEST)."
        )
