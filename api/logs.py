"""The kept log over HTTP, for admins."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.paging import Moment
from api.schemas.logs import LogRecord, Logs
from registry import logs

router = APIRouter(prefix="/logs", tags=["operations"])

Admin = Annotated[Principal, Depends(require("admin"))]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Word = Annotated[str | None, Query(max_length=200)]


@router.get("", summary="Read the log", responses=documented("unauthenticated", "forbidden", "invalid_field"))
def read_logs(
    _: Admin,
    session: Transaction,
    parts: Parts,
    *,
    level: Annotated[Level | None, Query(description="this one and worse")] = None,
    start_time: Annotated[Moment, Query(description="from then on; UTC where it has no zone")] = None,
    end_time: Annotated[Moment, Query(description="before then")] = None,
    event: Word = None,
    process: Word = None,
    trace_id: Word = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Logs:
    """Newest first: what API, relay and workers thought worth keeping, and every request that was refused or failed.

    A request's line says method, endpoint, status, error code and trace id; no line holds a secret. What a process could
    not keep, because too much came at once or the database was away, is counted in an event `log.lost`.
    """
    wanted = logs.Wanted(
        level=None if level is None else logging.getLevelNamesMapping()[level],
        since=start_time,
        until=end_time,
        event=event,
        process=process,
        trace_id=trace_id,
    )
    kept, days = parts.settings.log_store_level, parts.settings.log_retention / 86400
    return Logs(
        items=[_record(row) for row in logs.find_many(session, wanted, offset=offset, limit=limit)],
        total=logs.count(session, wanted),
        offset=offset,
        limit=limit,
        note=f"Kept from level {kept} on, for {days:g} days. The whole log is what the processes write to their streams.",
    )


def _record(row: Row[Any]) -> LogRecord:
    fields = row.fields
    method, endpoint = fields.get("method"), fields.get("endpoint")
    return LogRecord(
        timestamp=row.at,
        level=logging.getLevelName(row.level),
        process=row.process,
        event=row.event,
        trace_id=row.trace_id,
        endpoint=f"{method} {endpoint}" if method and endpoint else None,
        method=method,
        status_code=fields.get("status"),
        error=fields.get("code") or fields.get("error") or fields.get("exception"),
        fields=fields,
    )
