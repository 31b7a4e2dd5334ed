"""Gates and approvals as rows, what rows say of a version's standing, and the refusal of what may not be promoted.

Who judges brings the evidence: only some of it lies here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from registry import audit, store
from registry.audit import Actor
from registry.errors import Conflict, Denied, Missing
from registry.gates import EVERY, Gate, Promotability, checked, facts
from registry.rules import Evidence, Metric, Rival
from registry.tables import aliases, approvals, deployments, gates, metrics, users, versions


def add_gate(
    session: Session, *, model_id: UUID | None, target: str, rule: str, parameters: Mapping[str, Any], actor: Actor
) -> Row[Any]:
    """A gate of one model, or of all where `model_id` is None. Raises `Invalid("invalid_gate")`."""
    kept = checked(rule, parameters, target)
    gate_id = session.execute(
        insert(gates)
        .values(model_id=model_id, target=target, rule=rule, parameters=kept, created_by=actor.id)
        .returning(gates.c.id)
    ).scalar_one()
    row = session.execute(_gates().where(gates.c.id == gate_id)).one()
    audit.append(session, actor, "gate.added", str(row.id), _told(row))
    return row


def remove_gate(session: Session, gate_id: UUID, *, model_id: UUID | None, actor: Actor) -> None:
    """Raises `Missing` for one that is not of that model, or not of all."""
    wanted = (gates.c.id == gate_id, gates.c.model_id.is_(None) if model_id is None else gates.c.model_id == model_id)
    row = session.execute(delete(gates).where(*wanted).returning(gates)).one_or_none()
    if row is None:
        raise Missing("gate_not_found", f"There is no gate {gate_id} here.")
    audit.append(session, actor, "gate.removed", str(gate_id), _told(row))


def list_gates(session: Session, model_id: UUID | None) -> list[Row[Any]]:
    """Those of all models, and of the one given; oldest first."""
    query = _gates().where(or_(gates.c.model_id.is_(None), gates.c.model_id == model_id))
    return list(session.execute(query.order_by(gates.c.created_at, gates.c.id)))


def gates_for(session: Session, model_id: UUID, target: str) -> list[Gate]:
    """The gates that somebody has set before this target, beside those that always count."""
    return [
        Gate(
            id=row.id,
            rule=row.rule,
            target=row.target,
            parameters=row.parameters,
            scope="global" if row.model_id is None else "model",
        )
        for row in list_gates(session, model_id)
        if row.target in (EVERY, target)
    ]


def approve(session: Session, version: Row[Any], target: str, *, comment: str, actor: Actor) -> Row[Any]:
    """Vouch for a version on a target; who has done so already has done it once. Raises `Denied("own_upload")`."""
    store.lock_version(session, version.id)
    if version.uploaded_by == actor.id:
        raise Denied("own_upload", "You have uploaded this version yourself; somebody else must approve it.")
    mine = (approvals.c.approved_by == actor.id, approvals.c.target == target, approvals.c.version_id == version.id)
    known = session.execute(_approvals().where(*mine, approvals.c.revoked_at.is_(None))).one_or_none()
    if known is not None:
        return known
    approval_id = session.execute(
        insert(approvals)
        .values(version_id=version.id, target=target, approved_by=actor.id, comment=comment)
        .returning(approvals.c.id)
    ).scalar_one()
    audit.append(session, actor, "version.approved", str(version.id), {"target": target, "comment": comment})
    return session.execute(_approvals().where(approvals.c.id == approval_id)).one()


def revoke_approval(session: Session, version: Row[Any], approval_id: UUID, *, actor: Actor, admin: bool) -> Row[Any]:
    """Take an approval back: one's own, or any for an admin. What was deployed stays. Raises `Missing`, `Denied`."""
    wanted = (approvals.c.id == approval_id, approvals.c.version_id == version.id)
    row = session.execute(
        select(approvals).where(*wanted, approvals.c.revoked_at.is_(None)).with_for_update()
    ).one_or_none()
    if row is None:
        raise Missing("approval_not_found", "There is no such approval, or it has been taken back already.")
    if row.approved_by != actor.id and not admin:
        raise Denied("not_your_approval", "An approval is taken back by who gave it, or by an admin.")
    session.execute(update(approvals).where(approvals.c.id == row.id).values(revoked_at=func.now()))
    audit.append(session, actor, "approval.revoked", str(version.id), {"approval": str(row.id), "target": row.target})
    return session.execute(_approvals().where(approvals.c.id == row.id)).one()


def approvals_of(session: Session, version_id: UUID) -> list[Row[Any]]:
    """All that there ever were, newest first."""
    query = _approvals().where(approvals.c.version_id == version_id)
    return list(session.execute(query.order_by(approvals.c.created_at.desc(), approvals.c.id)))


def approvers(session: Session, version_id: UUID, target: str) -> frozenset[str]:
    """Whose approval for the target counts now."""
    counts = (approvals.c.version_id == version_id, approvals.c.revoked_at.is_(None))
    query = _approvals().where(*counts, approvals.c.target.in_((EVERY, target)))
    return frozenset(row.approver for row in session.execute(query))


def standing(session: Session, version_ids: Collection[UUID]) -> list[Row[Any]]:
    """Versions as they are now, each with its `uploader` and whether the waiver that it leans on is over."""
    return list(
        session.execute(
            select(
                versions,
                users.c.username.label("uploader"),
                func.coalesce(versions.c.waived_until <= func.clock_timestamp(), False).label("waiver_over"),
            )
            .join(users, users.c.id == versions.c.uploaded_by)
            .where(versions.c.id.in_(version_ids))
        )
    )


def basics(row: Row[Any], model: Row[Any], target: str) -> Evidence:
    """What a row of `standing` and its model's row show by themselves."""
    return Evidence(
        target=target,
        version=row.version,
        uploader=row.uploader,
        verdict=row.verdict,
        waiver_over=row.waiver_over,
        published=row.published_at is not None,
        status=row.status,
        size=row.size,
        deleted=row.deleted_at is not None or model.deleted_at is not None,
        model_active=model.is_active,
        licence=row.declared.get("licence") or model.licence,
    )


def recorded(session: Session, version_id: UUID) -> list[Metric]:
    """A version's metrics, those measured last first."""
    query = select(metrics).where(metrics.c.version_id == version_id).order_by(metrics.c.at.desc(), metrics.c.id.desc())
    return [Metric(name=row.name, value=row.value, dataset=row.dataset) for row in session.execute(query)]


def rivals(session: Session, model_id: UUID, names: Collection[str]) -> dict[str, Rival]:
    """The version that is live on each of these targets, or where an alias of that name points, as far as there is one."""
    deployed = select(deployments.c.target.label("name"), deployments.c.version_id).where(
        deployments.c.model_id == model_id, deployments.c.status == "live", deployments.c.target.in_(names)
    )
    pointed = select(aliases.c.name, aliases.c.version_id).where(
        aliases.c.model_id == model_id, aliases.c.name.in_(names)
    )
    found = {row.name: row.version_id for query in (pointed, deployed) for row in session.execute(query)}
    named = {row.id: row.version for row in standing(session, set(found.values()))}
    return {
        name: Rival(version=named[version_id], metrics=recorded(session, version_id))
        for name, version_id in found.items()
    }


def refuse_unless(judged: Promotability, version: str) -> None:
    """Raises `Conflict("gate_failed")` where a gate is not passed; its details are the failing gates."""
    if judged.promotable:
        return
    details = [facts(outcome) | {"message": outcome.needed} for outcome in judged.failing]
    wanted = "; ".join(judged.to_change)
    raise Conflict("gate_failed", f"{version} may not go to {judged.target}. It would take: {wanted}.", details)


def _gates() -> Select[Any]:
    return select(gates, users.c.username.label("creator")).outerjoin(users, users.c.id == gates.c.created_by)


def _approvals() -> Select[Any]:
    return select(approvals, users.c.username.label("approver")).join(users, users.c.id == approvals.c.approved_by)


def _told(row: Row[Any]) -> dict[str, Any]:
    """For the audit trail, which takes no fractions."""
    parameters = {name: str(value) for name, value in row.parameters.items()}
    model = None if row.model_id is None else str(row.model_id)
    return {"model": model, "target": row.target, "rule": row.rule, "parameters": parameters}
