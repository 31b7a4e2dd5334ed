"""`Idempotency-Key`: a POST that is sent once more, because its answer was lost, does once what it asks for.

The answer is kept in the transaction of what it tells of, so there are both or neither, whatever dies in between. After
draft-ietf-httpapi-idempotency-key-header. Refusals are not kept: what was refused may be asked for again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from api.errors import Problem, documented
from registry import answers
from registry.answers import Answer
from registry.errors import Conflict

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT = ("Content-Type", "ETag", "Location", "Retry-After")
"""Headers that belong to an answer, whenever it is given."""
_VISIBLE = re.compile(r"[!-~]{1,255}")


class Replayed(Exception):
    """The same was asked before, and answered."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("replayed")
        self.response = Response(answer.body, answer.status, {**answer.headers, REPLAYED: "true"})


class Once:
    """One request that carries a key. `recall` and `keep` happen in the transaction that does what is asked for."""

    def __init__(self, key: str, asked: Iterable[bytes]) -> None:
        self._key = key
        self._fingerprint = _fingerprint([key.encode(), *asked])
        self._held: tuple[Session, UUID] | None = None

    def recall(self, session: Session, user_id: UUID) -> None:
        """Have the key until the transaction ends. Raises `Replayed`; `Problem` (409) while another request has it, `Invalid`."""
        try:
            answer = answers.recall(session, user_id, self._key, self._fingerprint)
        except Conflict as error:
            raise Problem(HTTPStatus.CONFLICT, error.code, error.message, headers={"Retry-After": "1"}) from error
        if answer is not None:
            raise Replayed(answer)
        self._held = session, user_id

    def keep(self, response: Response) -> None:
        """Keep an answer that tells of something done."""
        if self._held is None or not HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES:
            return
        session, user_id = self._held
        headers = {name: response.headers[name] for name in KEPT if name in response.headers}
        answer = Answer(status=response.status_code, headers=headers, body=bytes(response.body))
        answers.keep(session, user_id, self._key, self._fingerprint, answer)


PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Yours, such as a UUID: sent again under it, the same request is done once and answered as the first time.",
    "example": "5f0c9f0e-2a4c-4c5e-9d7b-3f6a1c8e9b10",
}
PROBLEMS = documented("invalid_idempotency_key", "idempotency_in_flight", "idempotency_mismatch")
"""What an operation that heeds the key may answer besides."""


class IdempotentRoute(APIRoute):
    """Whose POSTs heed the key. Their handlers take `Transaction`, after who is asking."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
        if settings.get("methods") in (["POST"], {"POST"}):
            settings["openapi_extra"] = {**(settings.get("openapi_extra") or {}), "parameters": [PARAMETER]}
        super().__init__(path, endpoint, **settings)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        return handle if self.methods != {"POST"} else _heeding(handle)


def _heeding(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def heed(request: Request) -> Response:
        key = key_of(request)
        if key is None:
            return await handle(request)
        once = request.state.once = Once(key, [*address(request), await request.body()])
        try:
            response = await handle(request)
        except Replayed as replayed:
            return replayed.response
        await run_in_threadpool(once.keep, response)  # the transaction ends behind us
        return response

    return heed


def key_of(request: Request) -> str | None:
    """The key that the client has given. Raises `Problem` (400)."""
    key = request.headers.get(HEADER)
    if key is not None and not _VISIBLE.fullmatch(key):
        detail = f"{HEADER} must be 1 to 255 visible ASCII characters, such as a UUID."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_idempotency_key", detail)
    return key


def address(request: Request) -> list[bytes]:
    """Of what is asked, all but the body."""
    return [request.method.encode(), request.url.path.encode(), request.url.query.encode()]


def _fingerprint(asked: Iterable[bytes]) -> str:
    """What tells one request from another, hex. No sequence of pieces looks like another one."""
    digest = hashlib.sha256()
    for piece in asked:
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.hexdigest()
