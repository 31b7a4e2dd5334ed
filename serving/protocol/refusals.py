"""A request that cannot be taken: whose field is at fault, what was expected, what came – in the form of either protocol."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

import orjson

Kind = Literal["v2", "predict"]
Buffer = bytes | memoryview

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 60
_BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxtuple = 4
_BRIEF.maxlevel = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer: the body is sent buffer by buffer where it is a list of them."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | list[Buffer] = b""

    def joined(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


class BadRequest(Exception):
    """The caller's fault. `details` holds, where there is one, the `field` and what was `expected` and `got`."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        field: str | None = None,
        expected: object = None,
        got: object = None,
    ) -> None:
        super().__init__(message)
        self.status = int(status)
        self.code = code
        self.message = message
        said = {"field": field, "expected": expected, "got": got}
        self.details = {key: value for key, value in said.items() if value is not None}


def brief(value: object) -> str:
    """Whatever a request holds, as a short text in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return value if len(value) <= 60 else f"{value[:40]}… ({len(value)} characters)"
        case dict() if len(value) > 4:
            return f"an object of {len(value)} members"
        case list() if len(value) > 4:
            return f"a list of {len(value)}"
        case _:
            return _BRIEF.repr(value)


def listed(names: Sequence[str]) -> str:
    """Some names for a sentence: all if they are few."""
    shown = ", ".join(brief(one) for one in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "none"


def refusal(kind: Kind, error: BadRequest, *, trace_id: str = "") -> Reply:
    """The answer: `{"error": …}` with code and details in V2, an RFC 9457 problem for `predict`."""
    if kind == "v2":
        told: dict[str, Any] = {"error": error.message, "code": error.code}
        media = "application/json"
    else:
        status = HTTPStatus(error.status)
        told = {
            "type": f"urn:problem-type:slipway:{error.code}",
            "title": status.phrase,
            "status": status.value,
            "detail": error.message,
            "code": error.code,
            "timestamp": datetime.now(UTC).isoformat(),
            "trace_id": trace_id,
        }
        media = "application/problem+json"
    if error.details:
        told["details"] = error.details
    return Reply(status=error.status, headers={"content-type": media}, body=orjson.dumps(told))
