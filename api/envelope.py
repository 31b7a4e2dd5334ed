"""What is around every exchange: a trace id, a log line, a tally, security headers, patience with bodies, the last catch.

Knows no route but those whose bodies it must let through.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from secrets import token_hex

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Problem, internal, respond
from api.lingering import lingering
from api.traffic import OTHER, Traffic

log = structlog.get_logger()

MAX_BODY = 1 << 20
BODY_SECONDS = 30.0
"""How long a small body may take; the routes that stream have limits of their own."""

STREAM = "text/event-stream"
QUIET = frozenset({"/livez", "/readyz"})
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent where the answer does not say otherwise."""
TRANSPORT_SECURITY = "max-age=31536000"
"""Behind TLS only: over plain HTTP browsers ignore it, and a promise about subdomains is not ours to make."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)


class Envelope:
    """The outermost layer of ours. `streamed` matches the paths whose bodies may be long and slow, `base` is before the API's own."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        traffic: Traffic,
        base: str = "",
        streamed: str = "",
        max_body: int = MAX_BODY,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._base = base
        self._streamed = re.compile(streamed)
        self._max_body = max_body
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        trace_id = _trace_id(asked)
        kept = "private, no-cache" if "authorization" in asked else "no-cache"
        state = scope.setdefault("state", {})
        state["trace_id"] = trace_id
        status, streams = 0, False
        began = time.perf_counter()

        async def sealed(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                streams = headers.get("content-type", "").startswith(STREAM)
                if (left := state.get("calls_remaining")) is not None:
                    headers.append("RateLimit", f'"calls";r={left}')
                headers["X-Trace-Id"] = trace_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", kept if "etag" in headers else "no-store")
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
            await send(message)

        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                await self._guarded(scope, receive, sealed)
            except Exception as error:
                log.exception("http.failed", method=scope["method"], path=scope["path"], exc_info=error)
                state["code"] = "internal"
                if status:  # the answer has begun: cutting it off is the only way left to say that it is wrong
                    raise
                await respond(internal(), trace_id)(scope, receive, sealed)
            finally:
                self._note(scope, status, time.perf_counter() - began, streams=streams)

    def _note(self, scope: Scope, status: int, seconds: float, *, streams: bool) -> None:
        """Count the request, and log it: as a warning what was refused, as an error what failed, as is the custom."""
        quiet = scope["path"] in QUIET
        endpoint = self._endpoint(scope)
        failed = not 0 < status < HTTPStatus.BAD_REQUEST
        if not quiet:
            named = f"{scope['method']} {endpoint}" if endpoint else OTHER
            self._traffic.saw(named, failed=failed, seconds=None if streams else seconds)
        tell = log.debug if quiet else log.info
        if failed and not (quiet and status == HTTPStatus.SERVICE_UNAVAILABLE):
            tell = log.error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.warning
        told = {"endpoint": endpoint, "code": scope["state"].get("code")}
        tell(
            "http.request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
            **{name: value for name, value in told.items() if value is not None},
        )

    def _endpoint(self, scope: Scope) -> str | None:
        """The address as the reference writes it. A route of an included router knows only its own part."""
        path: str | None = getattr(scope.get("route"), "path", None)
        included = path is not None and scope["path"].startswith(self._base) and not path.startswith(self._base)
        return f"{self._base}{path}" if included else path

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the exchange with a body that is small and comes soon, or refuse it at once."""
        app = self._app
        if not self._streamed.fullmatch(scope["path"]):
            length = Headers(scope=scope).get("content-length", "")
            too_large = length.isascii() and length.isdecimal() and int(length) > self._max_body
            inner = app
            if too_large:
                problem = self._too_large()
                scope["state"]["code"] = problem.code
                inner = respond(problem, scope["state"]["trace_id"])

            async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
                await inner(scope, self._patient(receive), send)

            app = lingering(guarded)
        await app(scope, receive, send)

    def _patient(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """`receive` that raises 413 and 408. Once the body is here it waits for ever, as event streams want."""
        left = self._max_body
        ends = asyncio.get_running_loop().time() + self._seconds
        complete = False

        async def received() -> Message:
            nonlocal left, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError as error:
                detail = f"The request's body did not arrive within {self._seconds:g} s."
                headers = {"Connection": "close"}
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", detail, headers=headers) from error
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            complete = not message.get("more_body", False)
            return message

        return received

    def _too_large(self) -> Problem:
        detail = f"The request's body exceeds {self._max_body >> 20} MiB."
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return Problem(status, "too_large", detail, headers={"Connection": "close"})


def _trace_id(headers: Headers) -> str:
    """The caller's own (W3C Trace Context), so that both sides' logs meet, or a fresh one."""
    match = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return match[1] if match else token_hex(16)
