"""What lies in quarantine, as reviewers see it: everybody's, with the run that put it there. Reads only, decides nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, literal, or_, select, true, tuple_
from sqlalchemy.orm import Session

from pipeline.run import Purpose, Status, StepStatus
from pipeline.tables import runs, steps
from registry import reviews
from registry.errors import Missing
from registry.tables import condemned, models, users, versions, waivers

State = Literal["waiting", "scanning", "condemned"]
"""It needs a decision; its run goes on; never again."""

SCAN = "scan"
_LIVE = (Status.QUEUED, Status.RUNNING)
_LOOKS = runs.c.purpose.in_([purpose for purpose in Purpose if purpose.scans])


def find_many(
    session: Session,
    *,
    verdict: str | None = None,
    state: State | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """Versions in quarantine, newest first; `after` is the (created_at, id) of the last one seen."""
    query = _reviewed().where(versions.c.verdict.in_(("unknown", "malicious")))
    if verdict is not None:
        query = query.where(versions.c.verdict == verdict)
    if state is not None:
        query = query.where(_STATE.in_((state,)))
    if after is not None:
        query = query.where(tuple_(versions.c.created_at, versions.c.id) < after)
    return list(session.execute(query.order_by(versions.c.created_at.desc(), versions.c.id.desc()).limit(limit)))


def find(session: Session, version_id: UUID, *, any_version: bool = False) -> Row[Any]:
    """One that is in quarantine or about which reviewers have decided; any version for whoever may see all.

    Raises `Missing`, also for a version that is no reviewer's business.
    """
    query = _reviewed().where(versions.c.id == version_id)
    if not any_version:
        decided = select(waivers.c.id).where(waivers.c.version_id == versions.c.id).exists()
        query = query.where(or_(versions.c.verdict.in_(("unknown", "malicious")), decided))
    row = session.execute(query).one_or_none()
    if row is None:
        raise Missing("version_not_found", f"There is no version {version_id} in quarantine.")
    return row


def concerns(session: Session, run_id: UUID) -> bool:
    """Whether a run is about a version that `find` gives to reviewers."""
    version_id = session.execute(select(runs.c.version_id).where(runs.c.id == run_id)).scalar_one_or_none()
    if version_id is None:
        return False
    try:
        find(session, version_id)
    except Missing:
        return False
    return True


def passed(session: Session, version_id: UUID) -> dict[str, Any]:
    """What the newest scan that let a version pass has reported; nothing where none has."""
    report = session.execute(
        select(steps.c.report)
        .join(runs, runs.c.id == steps.c.run_id)
        .where(runs.c.version_id == version_id, steps.c.stage == SCAN, steps.c.status == StepStatus.PASSED)
        .order_by(runs.c.created_at.desc())
        .limit(1)
    ).scalar_one_or_none()
    facts: dict[str, Any] = (report or {}).get("facts", {})
    return facts


def stale(session: Session, ruleset: str, limit: int) -> list[Row[Any]]:
    """Clean versions that need another look, longest waiting first: judged by other rules, or leaning on a waiver that is over.

    Versions with a live run are left out: their run looks for itself. Those found are locked.
    """
    return list(
        session.execute(
            select(versions)
            .where(versions.c.verdict == "clean", _needs_a_look(ruleset), ~_has_live_run())
            .order_by(versions.c.created_at, versions.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True, key_share=True)
        )
    )


def has_live_run(session: Session, version_id: UUID) -> bool:
    """Whether a run is about to look at the version."""
    live = select(runs.c.id).where(runs.c.version_id == version_id, runs.c.status.in_(_LIVE), _LOOKS).limit(1)
    return session.execute(live).one_or_none() is not None


def _needs_a_look(ruleset: str) -> ColumnElement[bool]:
    return or_(versions.c.ruleset.is_distinct_from(ruleset), versions.c.waived_until <= func.clock_timestamp())


def _has_live_run() -> ColumnElement[bool]:
    return select(runs.c.id).where(runs.c.version_id == versions.c.id, runs.c.status.in_(_LIVE), _LOOKS).exists()


_CONDEMNED = select(condemned.c.sha256).where(reviews.holds(condemned.c.sha256)).exists()
_STATE = case((_CONDEMNED, literal("condemned")), (_has_live_run(), literal("scanning")), else_=literal("waiting"))


def _reviewed() -> Select[Any]:
    newest = (
        select(runs.c.id, runs.c.status, runs.c.code)
        .where(runs.c.version_id == versions.c.id, _LOOKS)
        .order_by(runs.c.created_at.desc(), runs.c.id.desc())
        .limit(1)
        .lateral("newest")
    )
    return (
        select(
            versions,
            models.c.name.label("model"),
            models.c.owner_id,
            users.c.username.label("owner"),
            newest.c.id.label("run_id"),
            newest.c.status.label("run_status"),
            newest.c.code.label("run_code"),
            steps.c.report,
            _STATE.label("state"),
        )
        .join(models, models.c.id == versions.c.model_id)
        .join(users, users.c.id == models.c.owner_id)
        .outerjoin(newest, true())
        .outerjoin(steps, and_(steps.c.run_id == newest.c.id, steps.c.stage == SCAN))
    )
