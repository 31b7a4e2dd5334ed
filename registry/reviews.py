"""Verdicts, and what reviewers decide about files: waivers, condemnations. Every change of a verdict goes through here.

What is not clean is not handed out, whatever was made of it: a version's artifacts, and whatever serves them, ask for
the version's verdict. So taking a verdict back takes all of it back, and ends what is live of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import audit, deployments, store
from registry.audit import Actor
from registry.errors import Denied, Missing
from registry.tables import condemned, models, users, versions, waivers
from registry.waivers import Waiver


def judge(
    session: Session,
    version_id: UUID,
    verdict: str,
    *,
    ruleset: str | None = None,
    waived_until: datetime | None = None,
    actor: Actor = audit.SLIPWAY,
    details: Mapping[str, Any] | None = None,
) -> str:
    """Set a version's verdict (`clean`, `malicious`, `unknown`) and return the one that it has now.

    A condemned file stays malicious, also where the scan looked before it was condemned: the version's row is locked
    before the condemnations are read, and `condemn` takes the same lock.
    """
    row = session.execute(select(versions).where(versions.c.id == version_id).with_for_update(key_share=True)).one()
    if verdict != "malicious" and condemnations(session, digests(row).values()):
        verdict = "malicious"
    values: dict[str, Any] = {"verdict": verdict, "waived_until": waived_until}
    if ruleset is not None:
        values["ruleset"] = ruleset
    session.execute(update(versions).where(versions.c.id == version_id).values(values))
    if verdict != "clean":
        deployments.tell_ended(session, deployments.end_condemned(session, [version_id], verdict, actor), actor)
    if row.verdict != verdict:
        _told(session, actor, [(version_id, row.verdict)], verdict, details or {})
    return verdict


def condemn(
    session: Session, sha256: str, *, reason: str, by: UUID, actor: Actor, version_id: UUID
) -> tuple[bool, list[UUID]]:
    """Never let this file pass again. Whether it is news, and the versions that lost their verdict by it."""
    new = session.execute(
        upsert(condemned)
        .values(sha256=sha256, reason=reason, condemned_by=by)
        .on_conflict_do_nothing()
        .returning(condemned.c.sha256)
    ).one_or_none()
    found = store.lock_versions(session, holds(sha256))
    changed = [(row.id, row.verdict) for row in found if row.verdict != "malicious"]
    ids = [one for one, _ in changed]
    session.execute(update(versions).where(versions.c.id.in_(ids)).values(verdict="malicious", waived_until=None))
    ended = deployments.end_condemned(session, ids, "malicious", actor)
    if new is not None:
        audit.append(session, actor, "file.condemned", str(version_id), {"sha256": sha256, "reason": reason})
    _told(session, actor, changed, "malicious", {"condemned": sha256})
    deployments.tell_ended(session, ended, actor)
    return new is not None, ids


def forget_rules(session: Session) -> None:
    """Have every clean version count as judged by other rules than today's."""
    store.lock_versions(session, versions.c.verdict == "clean")
    session.execute(update(versions).where(versions.c.verdict == "clean").values(ruleset=None))


def grant(
    session: Session, row: Row[Any], *, sha256: str, rule: str, reason: str, by: UUID, expires_at: datetime
) -> UUID:
    """Waive a rule for a file of the version `row`; the waiver's id. Raises `Denied` for one's own upload."""
    if is_of(session, sha256, by):
        raise Denied("own_upload", "You have uploaded this file yourself; somebody else must review it.")
    waiver_id: UUID = session.execute(
        insert(waivers)
        .values(sha256=sha256, rule=rule, reason=reason, version_id=row.id, granted_by=by, expires_at=expires_at)
        .returning(waivers.c.id)
    ).scalar_one()
    return waiver_id


def revoke(session: Session, waiver_id: UUID) -> tuple[Waiver, list[Row[Any]]]:
    """End a waiver now. With it the clean versions that hold its file and lean on some waiver: they need another look.

    Raises `Missing` for one that is not there or has been revoked.
    """
    ended = session.execute(
        update(waivers)
        .where(waivers.c.id == waiver_id, waivers.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(waivers.c.id)
    ).one_or_none()
    if ended is None:
        raise Missing("waiver_not_found", "There is no such waiver, or it has been revoked already.")
    (waiver,) = _waivers(session, waivers.c.id == waiver_id)
    leans = and_(holds(waiver.sha256), versions.c.verdict == "clean", versions.c.waived_until.is_not(None))
    leaning = store.lock_versions(session, leans)
    ids = [row.id for row in leaning]
    session.execute(update(versions).where(versions.c.id.in_(ids)).values(waived_until=func.now()))
    return waiver, leaning


def in_force(session: Session, sha256: Collection[str]) -> list[Waiver]:
    """The waivers for these files that count now, by the database's clock."""
    live = (waivers.c.revoked_at.is_(None), waivers.c.expires_at > func.clock_timestamp())
    return _waivers(session, and_(waivers.c.sha256.in_(sha256), *live))


def waivers_for(session: Session, sha256: Collection[str]) -> list[Waiver]:
    """All waivers that there ever were for these files, newest first."""
    return _waivers(session, waivers.c.sha256.in_(sha256))


def waivers_by_id(session: Session, ids: Collection[UUID]) -> list[Waiver]:
    return _waivers(session, waivers.c.id.in_(ids))


def condemnations(session: Session, sha256: Collection[str]) -> dict[str, Row[Any]]:
    """Which of these files are condemned: digest → who, when, why."""
    rows = session.execute(
        select(condemned, users.c.username.label("by"))
        .join(users, users.c.id == condemned.c.condemned_by)
        .where(condemned.c.sha256.in_(sha256))
    )
    return {row.sha256: row for row in rows}


def digests(row: Row[Any]) -> dict[str, str]:
    """The files of a version by role (`model`, `config`, …), each with its SHA-256."""
    return {"model": row.sha256} | {role: file["sha256"] for role, file in row.side_files.items()}


def is_of(session: Session, sha256: str, user_id: UUID) -> bool:
    """Whether somebody has uploaded this very file, or owns a model that holds it."""
    query = (
        select(versions.c.id)
        .join(models, models.c.id == versions.c.model_id)
        .where(holds(sha256), or_(versions.c.uploaded_by == user_id, models.c.owner_id == user_id))
    )
    return session.execute(query.limit(1)).one_or_none() is not None


def holds(sha256: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Versions one of whose files has this digest."""
    path: ColumnElement[Any] = literal_column("'$.*.sha256 ? (@ == $digest)'::jsonpath")
    beside = func.jsonb_path_exists(versions.c.side_files, path, func.jsonb_build_object("digest", sha256))
    return or_(versions.c.sha256 == sha256, beside)


def _waivers(session: Session, wanted: ColumnElement[bool]) -> list[Waiver]:
    rows = session.execute(
        select(waivers, users.c.username)
        .join(users, users.c.id == waivers.c.granted_by)
        .where(wanted)
        .order_by(waivers.c.created_at.desc(), waivers.c.id)
    )
    return [
        Waiver(
            id=row.id,
            sha256=row.sha256,
            rule=row.rule,
            reason=row.reason,
            granted_by=row.username,
            granted_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


def _told(
    session: Session, actor: Actor, changed: Sequence[tuple[UUID, str]], verdict: str, details: Mapping[str, Any]
) -> None:
    for version_id, before in changed:
        audit.append(session, actor, "verdict.changed", str(version_id), {"from": before, "to": verdict, **details})
