"""Who works: each worker process says every few seconds that it is there and which queues it serves.

Claims and leases decide who does what; this tells people what a run waits for, and when waiting is pointless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, any_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from pipeline.run import Status
from pipeline.tables import runs, steps, workers

BEAT = 5.0
"""Seconds between two signs of life."""
ONLINE = 20.0
"""Seconds of silence after which a worker counts as gone."""

_NOW = func.clock_timestamp()


def report(
    session: Session, *, name: str, pool: str, queues: Sequence[str], devices: Sequence[Mapping[str, Any]]
) -> None:
    """A worker is there. `devices` are the GPUs that it works on: `{"index", "name", "memory", "sm"}`."""
    values = {"pool": pool, "queues": list(queues), "devices": [dict(one) for one in devices], "seen_at": _NOW}
    session.execute(
        upsert(workers).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )


def leave(session: Session, name: str) -> None:
    """A worker goes: it is offline at once, and was there lately."""
    session.execute(update(workers).where(workers.c.name == name, _online()).values(seen_at=_ago(ONLINE)))


def forget(session: Session, after: float) -> None:
    """Drop those that have been silent for `after` seconds."""
    session.execute(delete(workers).where(workers.c.seen_at < _ago(after)))


def served(session: Session) -> frozenset[str]:
    """The queues that some worker serves now."""
    return frozenset(session.execute(select(func.unnest(workers.c.queues)).where(_online())).scalars())


def waiting(queue: str, served_now: frozenset[str]) -> str | None:
    """For whom an attempt in this queue waits, where nobody is there to take it."""
    return None if queue in served_now else f"waiting for a {queue} worker (none online)"


def unserved(session: Session, wait: float, limit: int) -> list[UUID]:
    """Runs at an optional step that has been queued for `wait` seconds while no worker of its queue was seen. Locked."""
    lately = workers.c.seen_at > _ago(max(wait, ONLINE))
    seen = select(workers.c.name).where(steps.c.queue == any_(workers.c.queues), lately)
    at_hand = and_(steps.c.run_id == runs.c.id, steps.c.position == runs.c.position)
    return list(
        session.execute(
            select(runs.c.id)
            .join(steps, at_hand)
            .where(runs.c.status == Status.QUEUED, steps.c.optional, runs.c.updated_at < _ago(wait), ~seen.exists())
            .order_by(runs.c.updated_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=runs)
        ).scalars()
    )


def _online() -> ColumnElement[bool]:
    alive: ColumnElement[bool] = workers.c.seen_at > _ago(ONLINE)
    return alive


def _ago(seconds: float) -> Any:
    return _NOW - timedelta(seconds=seconds)
