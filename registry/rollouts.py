"""Rollouts and their tallies as rows: a candidate beside what is live on a target, until one of the two is left.

Locks are taken in this order: model, versions, rollouts, deployments, audit trail. Who may be a candidate, and what
becomes of the target when one has won, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Select,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import audit
from registry.audit import Actor
from registry.errors import Conflict, Invalid, Missing
from registry.tables import models, rollouts, tallies, users, versions
from registry.verdicts import LATENCY_BUCKETS, Rules, Tally

__all__ = ["LATENCY_BUCKETS", "Arm", "Ending", "Kind", "Rules", "Sticky", "Tally"]

Kind = Literal["canary", "ab", "shadow"]
Sticky = Literal["none", "user", "key"]
Arm = Literal["control", "candidate"]
Ending = Literal["promoted", "rolled_back", "stopped"]

RUNNING = "running"
_NOW = func.clock_timestamp()
_COUNTS = ("requests", "errors", "slow", "compared", "disagreed", "right", "wrong", "seconds")


def start(
    session: Session,
    model: Row[Any],
    target: str,
    *,
    control: Row[Any],
    candidate: Row[Any],
    kind: Kind,
    weight: float,
    sticky: Sticky,
    rules: Rules,
    note: str,
    actor: Actor,
) -> Row[Any]:
    """Begin a rollout; `control` is the deployment that is live there. Needs the locks of the model and both versions.

    Raises `Conflict`: `already_live` for what is live itself, `rollout_running`; `Invalid("invalid_rollout")` for what
    could never be decided.
    """
    if kind != "shadow" and weight == 1:
        raise Invalid("invalid_rollout", f"A {kind} with a weight of 1 leaves the control without requests; take less.")
    if kind == "shadow" and rules.use_feedback:
        raise Invalid(
            "invalid_rollout", "Nobody sees the answers of a shadow, so none of them can be judged by feedback."
        )
    if control.version_id == candidate.id:
        detail = f"{candidate.version} is live on {target} already; a rollout needs another version."
        raise Conflict("already_live", detail, {"id": str(control.id)})
    wanted = {"model_id": model.id, "target": target, "kind": kind, "weight": weight, "sticky": sticky, "note": note}
    other = session.execute(_shown().where(_running_on(model.id, target))).one_or_none()
    if other is not None:
        detail = f"{other.candidate} is being rolled out on {target} already; stop that first."
        raise Conflict("rollout_running", detail, {"id": str(other.id)})
    made = session.execute(
        insert(rollouts)
        .values(
            **wanted,
            control_id=control.version_id,
            candidate_id=candidate.id,
            rules=rules.kept(),
            started_by=actor.id,
        )
        .returning(rollouts.c.id)
    ).scalar_one()
    row = find(session, model.id, made)
    told = _told(row) | {"kind": kind, "weight": str(weight), "sticky": sticky, "note": note}
    audit.append(session, actor, "rollout.started", str(row.id), told | {"rules": _texts(row.rules)})
    return row


def find(session: Session, model_id: UUID, rollout_id: UUID) -> Row[Any]:
    """One of a model's rollouts. Raises `Missing`."""
    query = _shown().where(rollouts.c.id == rollout_id, rollouts.c.model_id == model_id)
    row = session.execute(query).one_or_none()
    if row is None:
        raise Missing("rollout_not_found", f"This model has no rollout {rollout_id}.")
    return row


def find_many(
    session: Session,
    *,
    model_id: UUID,
    target: str | None = None,
    status: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """A model's, newest first; `after` is the (created_at, id) of the last one seen."""
    query = _shown().where(rollouts.c.model_id == model_id)
    if target is not None:
        query = query.where(rollouts.c.target == target)
    if status is not None:
        query = query.where(rollouts.c.status == status)
    if after is not None:
        query = query.where(tuple_(rollouts.c.started_at, rollouts.c.id) < after)
    return list(session.execute(query.order_by(rollouts.c.started_at.desc(), rollouts.c.id.desc()).limit(limit)))


def running(session: Session) -> list[Row[Any]]:
    """All that run: id, model_id, target, control_id, candidate_id, kind, weight, sticky, rules, and `hours` since when."""
    return list(session.execute(select(rollouts, _HOURS).where(rollouts.c.status == RUNNING)))


def require_running(session: Session, model_id: UUID, rollout_id: UUID) -> Row[Any]:
    """One of a model's rollouts, locked. Raises `Missing`, `Conflict("rollout_ended")`."""
    query = _shown().where(rollouts.c.id == rollout_id, rollouts.c.model_id == model_id)
    row = session.execute(query.with_for_update(of=rollouts)).one_or_none()
    if row is None:
        raise Missing("rollout_not_found", f"This model has no rollout {rollout_id}.")
    if row.status != RUNNING:
        words = row.status.replace("_", " ")
        raise Conflict("rollout_ended", f"The rollout of {row.candidate} on {row.target} was {words} already.")
    return row


def of_version(session: Session, version_id: UUID) -> list[str]:
    """The targets on which a version is being rolled out, as the candidate."""
    mine = (rollouts.c.candidate_id == version_id, rollouts.c.status == RUNNING)
    return list(session.execute(select(rollouts.c.target).where(*mine).order_by(rollouts.c.target)).scalars())


def add(session: Session, rollout_id: UUID, arm: Arm, tally: Tally) -> None:
    """Add to what came of an arm; once the rollout has ended, nothing is added."""
    new = {name: getattr(tally, name) for name in _COUNTS}
    columns = [*new, "latencies"]
    values = [literal(value, tallies.c[name].type) for name, value in new.items()]
    counted = cast(list(tally.latencies), ARRAY(BigInteger))
    mine = select(rollouts.c.id, literal(arm), *values, counted).where(
        rollouts.c.id == rollout_id, rollouts.c.status == RUNNING
    )
    statement = upsert(tallies).from_select(["rollout_id", "arm", *columns], mine)
    sums: dict[str, Any] = {name: tallies.c[name] + statement.excluded[name] for name in new}
    sums |= {"latencies": _sum(tallies.c.latencies, statement.excluded.latencies), "updated_at": _NOW}
    session.execute(statement.on_conflict_do_update(index_elements=["rollout_id", "arm"], set_=sums))


def tally(session: Session, rollout_id: UUID) -> dict[Arm, Tally]:
    """What came of both arms so far."""
    found = {row.arm: row for row in session.execute(select(tallies).where(tallies.c.rollout_id == rollout_id))}
    arms: tuple[Arm, ...] = ("control", "candidate")
    return {arm: _tally(found[arm]) if arm in found else Tally() for arm in arms}


def end(
    session: Session,
    row: Row[Any],
    status: Ending,
    *,
    reason: str,
    figures: Sequence[Mapping[str, Any]],
    actor: Actor,
) -> Row[Any]:
    """End a rollout that `require_running` has given; it, ended, for `tell_ended`. `figures` are kept with it."""
    _end(session, rollouts.c.id == row.id, status, reason, actor, decision={"metrics": list(figures)})
    return find(session, row.model_id, row.id)


def interrupt(session: Session, model_id: UUID, target: str, reason: str, actor: Actor) -> list[Row[Any]]:
    """Stop what is being rolled out on a target, because something else becomes of it; what ended, for `tell_ended`."""
    return _end(session, _running_on(model_id, target), "stopped", reason, actor)


def interrupt_versions(session: Session, version_ids: Collection[UUID], reason: str, actor: Actor) -> list[Row[Any]]:
    """Stop the rollouts that a version takes part in, as either; what ended, for `tell_ended`."""
    taking_part = or_(rollouts.c.control_id.in_(version_ids), rollouts.c.candidate_id.in_(version_ids))
    return _end(session, taking_part, "stopped", reason, actor)


def tell_ended(session: Session, ended: Sequence[Row[Any]], actor: Actor) -> None:
    """Write what ended into the audit trail, with its figures; once the caller holds all its locks."""
    for each in ended:
        row = find(session, each.model_id, each.id)
        arms = tally(session, row.id)
        counted = {f"{arm}_came": {name: int(getattr(arms[arm], name)) for name in _COUNTS} for arm in arms}
        told = _told(row) | {"reason": row.reason} | counted | _evidence(row.decision)
        audit.append(session, actor, f"rollout.{row.status}", str(row.id), told)


def _end(
    session: Session,
    wanted: ColumnElement[bool],
    status: Ending,
    reason: str,
    actor: Actor,
    *,
    decision: Mapping[str, Any] | None = None,
) -> list[Row[Any]]:
    """End those that run at this very moment; what ended."""
    values = {"status": status, "reason": reason, "ended_by": actor.id, "ended_at": _NOW, "decision": decision}
    statement = update(rollouts).where(wanted, rollouts.c.status == RUNNING).values(values)
    return list(session.execute(statement.returning(rollouts.c.id, rollouts.c.model_id)))


def _running_on(model_id: UUID, target: str) -> ColumnElement[bool]:
    return (rollouts.c.model_id == model_id) & (rollouts.c.target == target) & (rollouts.c.status == RUNNING)


def _tally(row: Row[Any]) -> Tally:
    return Tally(**{name: getattr(row, name) for name in _COUNTS}, latencies=tuple(row.latencies))


def _sum(mine: ColumnElement[Any], more: ColumnElement[Any]) -> ColumnElement[Any]:
    """Two arrays added up place by place, the shorter one as if it went on with zeros."""
    pair = func.unnest(mine, more).table_valued("mine", "more", with_ordinality="place").render_derived()
    both = func.coalesce(pair.c.mine, 0) + func.coalesce(pair.c.more, 0)
    summed = select(func.array_agg(aggregate_order_by(both, pair.c.place))).select_from(pair)
    return func.coalesce(summed.scalar_subquery(), cast([], ARRAY(BigInteger)))


def _told(row: Row[Any]) -> dict[str, Any]:
    return {"model": str(row.model_id), "target": row.target, "control": row.control, "candidate": row.candidate}


def _evidence(decision: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures for the audit trail, which takes no fractions."""
    metrics = (decision or {}).get("metrics", ())
    return {
        "evidence": {each["metric"]: {side: _texts(each[side]) for side in ("worse", "not_worse")} for each in metrics}
    }


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


_HOURS = (func.extract("epoch", _NOW - rollouts.c.started_at) / 3600).label("hours")


def _shown() -> Select[Any]:
    starter, ender, owner = users.alias("starter"), users.alias("ender"), users.alias("owner")
    control, candidate = versions.alias("control"), versions.alias("candidate")
    return (
        select(
            rollouts,
            rollouts.c.started_at.label("created_at"),
            _HOURS,
            models.c.name.label("model"),
            owner.c.username.label("owner"),
            control.c.version.label("control"),
            candidate.c.version.label("candidate"),
            starter.c.username.label("starter"),
            ender.c.username.label("ender"),
        )
        .join(models, models.c.id == rollouts.c.model_id)
        .join(owner, owner.c.id == models.c.owner_id)
        .join(control, control.c.id == rollouts.c.control_id)
        .join(candidate, candidate.c.id == rollouts.c.candidate_id)
        .join(starter, starter.c.id == rollouts.c.started_by)
        .outerjoin(ender, ender.c.id == rollouts.c.ended_by)
    )
