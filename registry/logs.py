"""The log as rows, for those who have no shell on the machine: what all processes thought worth keeping, for some days."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, select
from sqlalchemy.orm import Session

from registry.tables import log_records
from shared.db import connect, transactions
from shared.logkeeper import LogKeeper, Record

_EVENT, _PROCESS, _TRACE = log_records.c.event, log_records.c.process, log_records.c.trace_id

MOST = 1_000_000
"""Rows: beyond these the oldest go, however young they are."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which records: `level` at least (10, 20, …), `since` within, `until` without."""

    level: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    event: str | None = None
    process: str | None = None
    trace_id: str | None = None


def keeper(url: str, role: str, level: str) -> LogKeeper | None:
    """What keeps this process's log in the database at `url`, from a level's name on; nothing where that is `OFF`.

    It has a connection of its own, when there is something to write: it waits for nobody, and nobody for it.
    """
    if level == "OFF":
        return None
    begin = transactions(connect(url, pool_size=0))

    def write(records: Sequence[Record]) -> None:
        with begin() as session:
            add(session, f"{role}@{socket.gethostname()}:{os.getpid()}", records)

    return LogKeeper(write, level=logging.getLevelNamesMapping()[level])


def add(session: Session, process: str, records: Sequence[Record]) -> None:
    rows = [
        {
            "at": record.at,
            "level": record.level,
            "process": process,
            "event": record.event,
            "trace_id": record.trace_id,
            "fields": dict(record.fields),
        }
        for record in records
    ]
    session.execute(insert(log_records), rows)


def find_many(session: Session, wanted: Wanted, *, offset: int, limit: int) -> list[Row[Any]]:
    """Newest first."""
    query = select(log_records).where(*_filters(wanted)).order_by(log_records.c.at.desc(), log_records.c.id.desc())
    return list(session.execute(query.offset(offset).limit(limit)))


def count(session: Session, wanted: Wanted) -> int:
    return session.execute(select(func.count()).select_from(log_records).where(*_filters(wanted))).scalar_one()


def forget(session: Session, retention: timedelta) -> None:
    """Drop what has been kept long enough, and what is too much."""
    newest = select(func.max(log_records.c.id)).scalar_subquery()
    session.execute(delete(log_records).where(log_records.c.at < func.now() - retention))
    session.execute(delete(log_records).where(log_records.c.id <= newest - MOST))


def _filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.level is not None:
        found.append(log_records.c.level >= wanted.level)
    if wanted.since is not None:
        found.append(log_records.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(log_records.c.at < wanted.until)
    exactly = ((column, getattr(wanted, column.name)) for column in (_EVENT, _PROCESS, _TRACE))
    return found + [column == value for column, value in exactly if value is not None]
