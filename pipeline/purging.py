"""How what was deleted goes for good: once its time is over, or at once where an admin says so. One way for both.

Rows only: their bytes are garbage from then on (`pipeline.garbage`). A run under way would report about rows that are
gone, so nothing is purged before all of its runs are over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline.run import Status
from pipeline.tables import runs
from registry import audit, removal, retention
from registry.errors import Conflict
from shared.db import Begin

log = structlog.get_logger()

AT_ONCE = 20
_LIVE = (Status.QUEUED, Status.RUNNING)


def purge_overdue(begin: Begin, delete_retention: float) -> int:
    """Purge what was deleted more than `delete_retention` seconds ago, few at a time. How many models and versions.

    What a run goes on for waits for the next time.
    """
    done, waiting = 0, set[UUID]()
    while True:
        with begin() as session:
            overdue = retention.overdue_models(session, delete_retention, AT_ONCE, besides=waiting)
            held = retention.versions_of(session, [each.id for each in overdue])
            models = [each for each in overdue if not _busy(session, held[each.id])]
            for each in models:
                purge_model(session, each)
            alone = retention.overdue_versions(session, delete_retention, AT_ONCE, besides=waiting)
            singles = [each for each in alone if not _busy(session, [each.id])]
            for each in singles:
                retention.drop_version(session, each, actor=audit.SLIPWAY)
        if not overdue and not alone:
            return done
        waiting |= {each.id for each in (*overdue, *alone)}
        done += len(models) + len(singles)
        log.info("retention.purged", models=len(models), versions=len(singles))


def purge_model(session: Session, row: Row[Any], *, actor: audit.Actor = audit.SLIPWAY) -> None:
    """Remove a model whose row is locked, deleted or not, with everything that hangs on it.

    Raises `Conflict`: `model_deployed` where a version of it is live, `runs_under_way` where a run goes on.
    """
    removal.refuse_where_deployed(session, row)
    held = retention.versions_of(session, [row.id])[row.id]
    if busy := _busy(session, held):
        ids = [str(run_id) for run_id in busy]
        raise Conflict("runs_under_way", f"Runs of {row.name} go on: {', '.join(ids)}.", ids)
    retention.drop_model(session, row, held=len(held), actor=actor)


def _busy(session: Session, version_ids: Sequence[UUID]) -> list[UUID]:
    """The runs about these versions that go on, or that somebody is about to change; all others are locked.

    Nobody is waited for: who reports has locked the run and may be waiting for the model's lock, which we hold.
    """
    about = select(runs.c.id).where(runs.c.version_id.in_(version_ids)).order_by(runs.c.id)
    every = session.execute(about).scalars().all()
    over = about.where(runs.c.status.not_in(_LIVE)).with_for_update(skip_locked=True)
    idle = set(session.execute(over).scalars())
    return [run_id for run_id in every if run_id not in idle]
