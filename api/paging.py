"""Cursors, `Link` headers and times: how a long list is read page by page. Knows no list."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeVar, overload
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import AfterValidator

from api.errors import Problem

T = TypeVar("T")

MAX_LIMIT = 100


def _with_zone(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


Moment = Annotated[datetime | None, AfterValidator(_with_zone)]
"""A time to filter by."""

Cursor = Annotated[str | None, Query(max_length=1000, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items on a page")]


def encode(place: object, row_id: UUID) -> str:
    """A cursor behind a row of a list that is sorted by (place, id)."""
    text = place.isoformat() if isinstance(place, datetime) else str(place)
    return base64.urlsafe_b64encode(f"{row_id} {text}".encode()).decode().rstrip("=")


@overload
def decode(cursor: str | None) -> tuple[datetime, UUID] | None: ...
@overload
def decode(cursor: str | None, read: Callable[[str], T]) -> tuple[T, UUID] | None: ...
def decode(cursor: str | None, read: Callable[[str], Any] | None = None) -> tuple[Any, UUID] | None:
    """The (place, id) that the cursor names; `read` is for places that are no times, and raises `ValueError`.

    400 for text that is no cursor of ours.
    """
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        row_id, _, place = text.partition(" ")
        return (read or moment)(place), UUID(row_id)
    except (ValueError, ArithmeticError) as error:
        detail = "The cursor is not one that this server gave out."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_cursor", detail) from error


Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before")]
"""The cursor of a list whose items are numbered, newest first."""


def page_before(request: Request, response: Response, rows: list[Any], limit: int) -> int | None:
    """As `next_page`, for a list that is read by `before`, the number of the last item seen."""
    if len(rows) <= limit:
        return None
    del rows[limit:]
    last: int = rows[-1].id
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "before"]
    response.headers["Link"] = f'<{request.url.path}?{urlencode([*kept, ("before", last)])}>; rel="next"'
    return last


def moment(text: str) -> datetime:
    """A time with its zone. Raises `ValueError`."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a cursor's time has a zone")
    return at


def next_page(
    request: Request, response: Response, rows: list[Any], limit: int, *, sorted_by: str = "created_at"
) -> str | None:
    """The cursor behind the first `limit` of `rows`, which holds one more where there is more; also as a `Link`.

    Takes the surplus row off `rows`. `sorted_by` is the column that the list is sorted by, before `id`.
    """
    if len(rows) <= limit:
        return None
    del rows[limit:]
    cursor = encode(getattr(rows[-1], sorted_by), rows[-1].id)
    kept = [
        (name, value) for name, value in request.query_params.multi_items() if name not in ("cursor", "page", "skip")
    ]
    query = urlencode([*kept, ("cursor", cursor)])
    response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return cursor
