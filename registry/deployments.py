"""Which version is live on which target, and all that was before: rows that end and are never removed.

Who deploys holds the model's lock, so that of two at once one takes the place of the other. Whether a version may be live
is decided elsewhere; a version that loses its clean verdict loses its deployments with it. Whatever becomes of a target
stops what is being rolled out there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, insert, select, tuple_, update
from sqlalchemy.orm import Session

from registry import audit, lookup, promotion, rollouts, store
from registry.audit import Actor
from registry.errors import Conflict, Missing
from registry.gates import Promotability, facts, promotability
from registry.lookup import Viewer
from registry.rollbacks import Past, previous
from registry.tables import deployments, models, users, versions

LIVE = "live"
_NOW = func.clock_timestamp()


def live(session: Session, *, model_id: UUID | None = None, version_id: UUID | None = None) -> list[Row[Any]]:
    """The deployments of a model, or of one version, that are live: while there are any it must not be deleted."""
    query = _shown().where(deployments.c.status == LIVE)
    if model_id is not None:
        query = query.where(deployments.c.model_id == model_id)
    if version_id is not None:
        query = query.where(deployments.c.version_id == version_id)
    return list(session.execute(query.order_by(deployments.c.target)))


def find(session: Session, model_id: UUID, deployment_id: UUID) -> Row[Any]:
    """One of a model's deployments. Raises `Missing`."""
    query = _shown().where(deployments.c.id == deployment_id, deployments.c.model_id == model_id)
    row = session.execute(query).one_or_none()
    if row is None:
        raise Missing("deployment_not_found", f"This model has no deployment {deployment_id}.")
    return row


def find_many(
    session: Session,
    viewer: Viewer,
    *,
    model_id: UUID | None = None,
    target: str | None = None,
    status: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """Of the models that the viewer may see, newest first; `after` is the (created_at, id) of the last one seen."""
    query = _shown().where(deployments.c.model_id.in_(lookup.visible(viewer)))
    if model_id is not None:
        query = query.where(deployments.c.model_id == model_id)
    if target is not None:
        query = query.where(deployments.c.target == target)
    if status is not None:
        query = query.where(deployments.c.status == status)
    if after is not None:
        query = query.where(tuple_(deployments.c.deployed_at, deployments.c.id) < after)
    query = query.order_by(deployments.c.deployed_at.desc(), deployments.c.id.desc())
    return list(session.execute(query.limit(limit)))


def deploy(
    session: Session,
    model: Row[Any],
    version: Row[Any],
    target: str,
    *,
    config: Mapping[str, Any],
    note: str,
    evidence: Sequence[Mapping[str, Any]],
    actor: Actor,
    on_behalf_of: str | None = None,
    deployed_by: UUID | None = None,
) -> Row[Any]:
    """Make a version live on a target in the place of what is live there; the new deployment.

    Needs the model's lock and a version that was judged under it; `evidence` is what each gate said. `deployed_by` is
    whose deployment it is, where not the actor's own. Raises `Conflict("already_live")` where this version is, with this
    config.
    """
    stopped = rollouts.interrupt(session, model.id, target, f"{version.version} was deployed there", actor)
    there = _live_on(session, model.id, target)
    if there is not None and there.version_id == version.id and there.config == dict(config):
        raise Conflict(
            "already_live", f"{version.version} is live on {target} already, with this config.", {"id": str(there.id)}
        )
    if there is not None:
        _end(session, deployments.c.id == there.id, "superseded", f"{version.version} took its place", actor)
    after = None if there is None else there.id
    made = _begin(
        session,
        model,
        version.id,
        target,
        config=config,
        note=note,
        evidence=evidence,
        by=deployed_by or actor.id,
        after=after,
    )
    told = {"model": str(model.id), "version": version.version, "target": target, "note": note}
    told |= {"replaces": str(made.previous_id)} if made.previous_id else {}
    told |= {"on_behalf_of": on_behalf_of} if on_behalf_of else {}
    audit.append(session, actor, "deployment.created", str(made.id), told)
    rollouts.tell_ended(session, stopped, actor)
    return find(session, model.id, made.id)


def roll_back(session: Session, model: Row[Any], target: str, *, reason: str, actor: Actor) -> Row[Any]:
    """Make live again what was live before, with its config of then; the new deployment. Needs the model's lock.

    It leads from what is live, or was last where that has been ended, to the newest that was superseded and whose
    version is still clean, published and available: other gates are not asked in an emergency. Raises
    `Conflict("nothing_to_roll_back_to")`.
    """
    # All that it may lead to, before any verdict is read: none changes from here on.
    here = (deployments.c.model_id == model.id, deployments.c.target == target)
    store.lock_versions(session, versions.c.id.in_(select(deployments.c.version_id).where(*here)))
    history, verdicts = _history(session, model, target)
    chosen = previous(
        [
            Past(id=row.id, version_id=row.version_id, status=row.status, good=verdicts[row.version_id].promotable)
            for row in history
        ]
    )
    if chosen is None:
        detail = f"Nothing that was live on {target} before is left that could be live today."
        raise Conflict("nothing_to_roll_back_to", detail)
    (row,) = [each for each in history if each.id == chosen.id]
    newest = history[0]
    stopped = rollouts.interrupt(session, model.id, target, f"{target} was rolled back: {reason}", actor)
    _end(session, deployments.c.id == newest.id, "rolled_back", reason, actor)
    note = f"rolled back from {newest.version}: {reason}"
    made = _begin(
        session,
        model,
        row.version_id,
        target,
        config=row.config,
        note=note,
        evidence=[facts(outcome) for outcome in verdicts[row.version_id].outcomes],
        by=actor.id,
        after=newest.id,
    )
    told = {"model": str(model.id), "from": newest.version, "to": row.version, "target": target, "reason": reason}
    audit.append(session, actor, "deployment.rolled_back", str(made.id), told)
    rollouts.tell_ended(session, stopped, actor)
    return find(session, model.id, made.id)


def end(session: Session, model: Row[Any], deployment_id: UUID, *, reason: str, actor: Actor) -> Row[Any]:
    """Take a live deployment down. Raises `Missing`, `Conflict("not_live")`."""
    row = find(session, model.id, deployment_id)
    stopped = []
    if row.status == LIVE:
        why = f"{row.version} was taken down: {reason}"
        stopped = rollouts.interrupt(session, model.id, row.target, why, actor)
    if not _end(session, deployments.c.id == row.id, "ended", reason, actor):
        raise _not_live(find(session, model.id, deployment_id))
    told = {"model": str(model.id), "version": row.version, "target": row.target, "reason": reason}
    audit.append(session, actor, "deployment.ended", str(row.id), told)
    rollouts.tell_ended(session, stopped, actor)
    return find(session, model.id, row.id)


def require_live(session: Session, model_id: UUID, deployment_id: UUID) -> Row[Any]:
    """One of a model's deployments, live. Raises `Missing`, `Conflict("not_live")`."""
    row = find(session, model_id, deployment_id)
    if row.status != LIVE:
        raise _not_live(row)
    return row


class Ended(NamedTuple):
    """What a version took with it when it lost its verdict."""

    deployments: list[Row[Any]]
    rollouts: list[Row[Any]]


def end_condemned(session: Session, version_ids: Collection[UUID], verdict: str, actor: Actor) -> Ended:
    """Take down whatever is live or rolled out of versions that are not clean any more, before anything else is told of it.

    What ended. The caller writes it into the audit trail with `tell_ended`, once it holds all its locks.
    """
    reason = f"The verdict of the version became {verdict}."
    stopped = rollouts.interrupt_versions(session, version_ids, reason, actor)
    return Ended(_end(session, deployments.c.version_id.in_(version_ids), "ended", reason, actor), stopped)


def tell_ended(session: Session, ended: Ended, actor: Actor) -> None:
    for row in ended.deployments:
        told = {
            "model": str(row.model_id),
            "version_id": str(row.version_id),
            "target": row.target,
            "reason": row.reason,
        }
        audit.append(session, actor, "deployment.ended", str(row.id), told)
    rollouts.tell_ended(session, ended.rollouts, actor)


def _begin(
    session: Session,
    model: Row[Any],
    version_id: UUID,
    target: str,
    *,
    config: Mapping[str, Any],
    note: str,
    evidence: Sequence[Mapping[str, Any]],
    by: UUID | None,
    after: UUID | None,
) -> Row[Any]:
    return session.execute(
        insert(deployments)
        .values(
            model_id=model.id,
            version_id=version_id,
            target=target,
            config=dict(config),
            evidence=[dict(each) for each in evidence],
            note=note,
            deployed_by=by,
            deployed_at=_NOW,
            previous_id=after,
        )
        .returning(deployments)
    ).one()


def _end(session: Session, wanted: ColumnElement[bool], status: str, reason: str, actor: Actor) -> list[Row[Any]]:
    """End those that are live at this very moment, and nothing that somebody else has ended; what ended."""
    return list(
        session.execute(
            update(deployments)
            .where(wanted, deployments.c.status == LIVE)
            .values(status=status, reason=reason, ended_by=actor.id, ended_at=_NOW)
            .returning(deployments)
        )
    )


def _not_live(row: Row[Any]) -> Conflict:
    return Conflict("not_live", f"{row.version} is not live on {row.target} any more: it was {row.status}.")


def _live_on(session: Session, model_id: UUID, target: str) -> Row[Any] | None:
    query = select(deployments).where(deployments.c.model_id == model_id, deployments.c.target == target)
    return session.execute(query.where(deployments.c.status == LIVE).with_for_update()).one_or_none()


def _history(session: Session, model: Row[Any], target: str) -> tuple[list[Row[Any]], dict[UUID, Promotability]]:
    """What was deployed on a target, newest first, and what the gates that always count say of each version today."""
    rows = list(
        session.execute(
            select(deployments, versions.c.version)
            .join(versions, versions.c.id == deployments.c.version_id)
            .where(deployments.c.model_id == model.id, deployments.c.target == target)
            .order_by(deployments.c.deployed_at.desc(), deployments.c.id.desc())
        )
    )
    standing = promotion.standing(session, {row.version_id for row in rows})
    evidence = {each.id: promotion.basics(each, model, target) for each in standing}
    return rows, {version_id: promotability(known, ()) for version_id, known in evidence.items()}


def _shown() -> Select[Any]:
    deployer, ender, owner = users.alias("deployer"), users.alias("ender"), users.alias("owner")
    return (
        select(
            deployments,
            deployments.c.deployed_at.label("created_at"),
            models.c.name.label("model"),
            owner.c.username.label("owner"),
            versions.c.version,
            deployer.c.username.label("deployer"),
            ender.c.username.label("ender"),
        )
        .join(models, models.c.id == deployments.c.model_id)
        .join(owner, owner.c.id == models.c.owner_id)
        .join(versions, versions.c.id == deployments.c.version_id)
        .join(deployer, deployer.c.id == deployments.c.deployed_by)
        .outerjoin(ender, ender.c.id == deployments.c.ended_by)
    )
