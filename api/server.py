"""How the app is served: a uvicorn that gives up early on what is no request (`shared.patience`).

Event streams end before it waits for them. Bodies are the business of `api.envelope` and `api.upload`.
"""

from __future__ import annotations

import socket
from http import HTTPStatus
from secrets import token_hex
from typing import Any

import uvicorn
from fastapi import FastAPI

from api.envelope import HEADERS
from api.errors import Problem, respond
from api.news import Hub
from shared.patience import PatientProtocol, Refusal

KEEP_ALIVE = 20
GRACE = 15
"""Seconds that requests under way have to end in when the process is told to stop."""


class ProblemProtocol(PatientProtocol):
    """Refuses in problems (RFC 9457)."""

    def rendered(self, refusal: Refusal) -> bytes:
        """A problem, with the headers that every answer has."""
        trace_id = token_hex(16)
        answer = respond(Problem(refusal.status, refusal.code, refusal.detail), trace_id)
        status = HTTPStatus(answer.status_code)
        fixed: dict[str, Any] = {**HEADERS, "X-Trace-Id": trace_id, "Cache-Control": "no-store", "Connection": "close"}
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        lines += [f"{name}: {value}".encode() for name, value in fixed.items()]
        return b"\r\n".join([*lines, b"", bytes(answer.body)])


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets=sockets)


def server(app: FastAPI, *, host: str, port: int) -> Server:
    """A server for an app whose services hold the hub; `run` it or `serve` it."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=ProblemProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    return Server(config, app.state.services.hub)
