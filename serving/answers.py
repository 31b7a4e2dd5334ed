"""What goes back over HTTP: an answer, or a refusal in the words of the form that was asked in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.protocol import refusals
from serving.protocol.refusals import BadRequest, Kind

JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Refused(Exception):
    """A request that gets no prediction. `code` is stable, the message for the person who must act."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers, self.details = dict(headers or {}), details


def told(facts: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status=status, headers={"content-type": JSON, **(headers or {})}, body=orjson.dumps(facts))


def refusal(refused: Refused, kind: Kind) -> Answer:
    """In V2's words or as RFC 9457 has it, with the same code in both."""
    flaw = BadRequest(refused.code, refused.message, status=refused.status)
    flaw.details = dict(refused.details or {})
    reply = refusals.refusal(kind, flaw)
    return Answer(status=refused.status, headers={**reply.headers, **refused.headers}, body=reply.joined())
