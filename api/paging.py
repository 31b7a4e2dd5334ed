"""Cursors and `Link` headers: how a long list is read page by page. Knows no list."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query, Request, Response

from api.errors import Problem

MAX_LIMIT = 100

Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items on a page")]


def encode(created_at: datetime, row_id: UUID) -> str:
    """A cursor behind a row of a list that is sorted by (created_at, id)."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def decode(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The (created_at, id) that the cursor names. 400 for text that is no cursor of ours."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        moment, _, row_id = text.partition(" ")
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None:
            raise ValueError("a cursor's time has a zone")
        return at, UUID(row_id)
    except (ValueError, binascii.Error) as error:
        detail = "The cursor is not one that this server gave out."
        raise Problem(HTTPStatus.BAD_REQUEST, "invalid_cursor", detail) from error


def next_page(request: Request, response: Response, rows: list[Any], limit: int) -> str | None:
    """The cursor behind the first `limit` of `rows`, which holds one more where there is more; also as a `Link`.

    Takes the surplus row off `rows`.
    """
    if len(rows) <= limit:
        return None
    del rows[limit:]
    cursor = encode(rows[-1].created_at, rows[-1].id)
    kept = [
        (name, value) for name, value in request.query_params.multi_items() if name not in ("cursor", "page", "skip")
    ]
    query = urlencode([*kept, ("cursor", cursor)])
    response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return cursor
