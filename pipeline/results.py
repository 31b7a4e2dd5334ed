"""Reports that need not be worked out twice, by owner and key: a pointer to the step that made one, never a copy of it.

What one owner has says nothing to another, not even that it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from pipeline.run import StepStatus
from pipeline.stage import File
from pipeline.tables import results, runs, steps
from registry import store as registry


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a passed step reported; its files are where they lie by now, if they still do."""

    run_id: UUID
    facts: Mapping[str, Any]
    files: Sequence[File]


def remember(session: Session, run_id: UUID, stage: str, key: str) -> None:
    """From now on the report of this step answers for the key."""
    owner = session.execute(select(runs.c.owner_id).where(runs.c.id == run_id)).scalar_one()
    values = {"run_id": run_id, "stage": stage, "created_at": func.now()}
    session.execute(
        upsert(results)
        .values(owner_id=owner, key=key, **values)
        .on_conflict_do_update(index_elements=["owner_id", "key"], set_=values)
    )


def recall(session: Session, owner_id: UUID, key: str) -> Result | None:
    """The report that answers for the key, unless its step has been taken up again since."""
    row = session.execute(
        select(results.c.run_id, steps.c.report, runs.c.version_id)
        .join(runs, runs.c.id == results.c.run_id)
        .join(steps, and_(steps.c.run_id == results.c.run_id, steps.c.stage == results.c.stage))
        .where(results.c.owner_id == owner_id, results.c.key == key, steps.c.status == StepStatus.PASSED)
    ).one_or_none()
    if row is None or row.report.get("key") != key:
        return None
    published = {one.sha256: one.key for one in registry.list_artifacts(session, row.version_id)}
    files = [File(**file) for file in row.report["files"]]
    return Result(
        run_id=row.run_id,
        facts=row.report["facts"],
        files=[replace(file, key=published.get(file.sha256, file.key)) for file in files],
    )
