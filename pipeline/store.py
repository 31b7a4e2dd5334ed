"""Runs as rows: load, save, list. The only module that sees the pipeline's tables; decides nothing, commits nothing.

Times are the database's, so workers need no common clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, case, delete, func, insert, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from pipeline.errors import NotFound
from pipeline.run import Purpose, Run, Status, Step, StepStatus
from pipeline.tables import events, logs, outbox, runs, steps
from registry.lookup import Viewer
from registry.tables import models, versions

DOORBELL = "slipway_outbox"
"""NOTIFY channel: the outbox has something. No payload."""
NEWS = "slipway_events"
"""NOTIFY channel: a run has a new event. The payload is the run's id."""

_NOW = func.clock_timestamp()


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that must leave the database: `ring` a queue or do the `cleanup` of a run."""

    id: int
    topic: str
    run_id: UUID
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What clients see of one move of a run. `seq` is the run's version."""

    run_id: UUID
    seq: int
    kind: str
    data: dict[str, Any]
    at: datetime


def create(
    session: Session,
    run: Run,
    *,
    version_id: UUID,
    owner_id: UUID,
    purpose: Purpose = Purpose.INTAKE,
    request: Mapping[str, Any] | None = None,
) -> None:
    session.execute(
        insert(runs).values(
            id=run.id,
            version_id=version_id,
            owner_id=owner_id,
            purpose=purpose,
            request=dict(request or {}),
            status=run.status,
            position=run.position,
            version=run.version,
            rung_at=_NOW,
        )
    )
    session.execute(
        insert(steps),
        [{"run_id": run.id, "position": position, **_step_values(step)} for position, step in enumerate(run.plan)],
    )


def load(session: Session, run_id: UUID, *, viewer: Viewer | None = None, lock: bool = False) -> Run:
    """The run as the state machine knows it. Raises `NotFound`, also for a run that the viewer may not see."""
    query = select(runs).where(runs.c.id == run_id)
    if viewer is not None and not viewer.admin:
        query = query.where(or_(runs.c.owner_id == viewer.user_id, _for_a_model_of(viewer)))
    row = session.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("run_not_found", f"There is no run {run_id}.")
    plan = session.execute(select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position)).all()
    return Run(
        id=row.id,
        plan=tuple(
            Step(
                stage=step.stage,
                queue=step.queue,
                max_attempts=step.max_attempts,
                time_limit=step.time_limit,
                status=StepStatus(step.status),
                attempt=step.attempt,
                final_attempt=step.final_attempt,
                optional=step.optional,
            )
            for step in plan
        ),
        status=Status(row.status),
        position=row.position,
        version=row.version,
        code=row.code,
        detail=row.detail,
    )


def save(
    session: Session,
    before: Run,
    after: Run,
    *,
    worker: str | None = None,
    lease: float | None = None,
    report: Any = None,
) -> None:
    """Write what changed between two states of one run; the caller holds its lock."""
    leased = after.status is Status.RUNNING
    values: dict[str, Any] = {
        "status": after.status,
        "position": after.position,
        "version": after.version,
        "code": after.code,
        "detail": after.detail,
        "updated_at": _NOW,
        "worker": worker if leased else None,
        "lease_until": _in(lease or 0.0) if leased else None,
        "finished_at": _NOW if after.status.terminal else None,
    }
    if after.status is Status.QUEUED:
        values |= {"rung_at": _NOW, "rings": 0, "cleaned_at": None}
    session.execute(
        update(runs).where(runs.c.id == after.id, runs.c.version == before.version).values(values).returning(runs.c.id)
    ).one()
    for position, (old, new) in enumerate(zip(before.plan, after.plan, strict=True)):
        if old == new:
            continue
        changed = _step_values(new)
        match new.status:
            case StepStatus.RUNNING:
                changed |= {"started_at": _NOW, "finished_at": None, "code": None, "detail": None}
            case StepStatus.PENDING | StepStatus.QUEUED:
                changed |= {"started_at": None, "finished_at": None, "report": None}
            case _:
                changed |= {"finished_at": case((steps.c.started_at.is_not(None), _NOW), else_=None)}
        if position == before.position:
            changed |= {"code": after.code, "detail": after.detail}
            if report is not None:
                changed["report"] = report
        session.execute(update(steps).where(steps.c.run_id == after.id, steps.c.position == position).values(changed))


def add_event(session: Session, run: Run, kind: str, data: dict[str, Any]) -> None:
    session.execute(insert(events).values(run_id=run.id, seq=run.version, kind=kind, data=data))
    session.execute(select(func.pg_notify(NEWS, str(run.id))))


def post(session: Session, run_id: UUID, topic: str, body: dict[str, Any], delay: float = 0.0) -> None:
    """Put a message into the outbox; the relay hears of it when the transaction commits."""
    session.execute(insert(outbox).values(topic=topic, run_id=run_id, body=body, due_at=_in(delay)))
    session.execute(select(func.pg_notify(DOORBELL, "")))


def take_messages(session: Session, topic: str, limit: int) -> list[Message]:
    """Due messages, oldest first, locked until the transaction ends; two relays never take the same one."""
    rows = session.execute(
        select(outbox)
        .where(outbox.c.topic == topic, outbox.c.due_at <= _NOW)
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Message(id=row.id, topic=row.topic, run_id=row.run_id, body=row.body) for row in rows]


def delivered(session: Session, messages: Sequence[Message]) -> None:
    session.execute(delete(outbox).where(outbox.c.id.in_([message.id for message in messages])))


def put_off(session: Session, message: Message, delay: float) -> None:
    """Have a message fall due later, `delay` seconds from now."""
    session.execute(update(outbox).where(outbox.c.id == message.id).values(due_at=_in(delay)))


def seconds_to_next_message(session: Session, topic: str) -> float | None:
    """How long until the next message falls due, or None when the outbox is empty."""
    due = session.execute(
        select(func.extract("epoch", func.min(outbox.c.due_at) - _NOW)).where(outbox.c.topic == topic)
    ).scalar_one()
    return None if due is None else max(0.0, float(due))


def renew(session: Session, run_id: UUID, stage: str, attempt: int, lease: float) -> bool:
    """Extend the lease. False: the attempt is over, whoever works on it must stop."""
    owned = (
        select(steps.c.run_id)
        .join(runs, runs.c.id == steps.c.run_id)
        .where(
            runs.c.id == run_id,
            runs.c.status == Status.RUNNING,
            steps.c.position == runs.c.position,
            steps.c.stage == stage,
            steps.c.attempt == attempt,
        )
    )
    done = session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.status == Status.RUNNING, owned.exists())
        .values(lease_until=_in(lease))
        .returning(runs.c.id)
    ).one_or_none()
    return done is not None


def lost(session: Session, limit: int) -> list[UUID]:
    """Runs whose worker has not been heard of within its lease."""
    return list(
        session.execute(
            select(runs.c.id)
            .where(runs.c.status == Status.RUNNING, runs.c.lease_until < _NOW)
            .order_by(runs.c.lease_until)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).scalars()
    )


def unheard(session: Session, ring_again: float, limit: int, *, at_once: bool = False) -> list[UUID]:
    """Queued runs whose doorbell may have been lost; each is rung less often as it waits longer.

    The pause starts at `ring_again` seconds and doubles up to 64 times as much. `at_once`: the broker has forgotten
    everything, so ring for all that were last rung more than a second ago.
    """
    pause = literal(ring_again) * func.pow(2, func.least(runs.c.rings, 6))
    waited = func.extract("epoch", _NOW - runs.c.rung_at)
    in_outbox = select(outbox.c.id).where(outbox.c.run_id == runs.c.id, outbox.c.topic == "ring").exists()
    found = list(
        session.execute(
            select(runs.c.id)
            .where(runs.c.status == Status.QUEUED, ~in_outbox, waited > (literal(1.0) if at_once else pause))
            .order_by(runs.c.rung_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).scalars()
    )
    session.execute(update(runs).where(runs.c.id.in_(found)).values(rung_at=_NOW, rings=runs.c.rings + 1))
    return found


def version_of(session: Session, run_id: UUID) -> UUID:
    version_id: UUID = session.execute(select(runs.c.version_id).where(runs.c.id == run_id)).scalar_one()
    return version_id


def purpose_of(session: Session, run_id: UUID) -> Purpose:
    return Purpose(session.execute(select(runs.c.purpose).where(runs.c.id == run_id)).scalar_one())


def cleaned(session: Session, run_id: UUID) -> bool:
    """Whether what the run had in staging has been removed."""
    return session.execute(select(runs.c.cleaned_at).where(runs.c.id == run_id)).scalar_one() is not None


def note_cleaned(session: Session, run_id: UUID) -> None:
    session.execute(update(runs).where(runs.c.id == run_id).values(cleaned_at=_NOW))


def label(session: Session, run_id: UUID) -> str:
    """`model@version`, for people who watch queues."""
    row = session.execute(
        select(models.c.name, versions.c.version)
        .join(versions, versions.c.model_id == models.c.id)
        .join(runs, runs.c.version_id == versions.c.id)
        .where(runs.c.id == run_id)
    ).one()
    return f"{row.name}@{row.version}"


def reports(session: Session, run_id: UUID) -> dict[str, Any]:
    """What the passed steps reported, and why others were left out, by stage, in the plan's order."""
    told = steps.c.status.in_((StepStatus.PASSED, StepStatus.SKIPPED, StepStatus.BROKE))
    rows = session.execute(
        select(steps.c.stage, steps.c.report)
        .where(steps.c.run_id == run_id, told, steps.c.report.is_not(None))
        .order_by(steps.c.position)
    )
    return {row.stage: row.report for row in rows if row.report}  # a retry empties reports to JSON's null


def published_by(session: Session, version_id: UUID) -> dict[str, Any]:
    """The reports of the run that let a version in, none where no run has."""
    run_id = session.execute(
        select(runs.c.id)
        .where(runs.c.version_id == version_id, runs.c.status == Status.SUCCEEDED, runs.c.purpose == Purpose.INTAKE)
        .order_by(runs.c.created_at.desc())
        .limit(1)
    ).scalar_one_or_none()
    return {} if run_id is None else reports(session, run_id)


def find(session: Session, viewer: Viewer, run_id: UUID) -> tuple[Row[Any], list[Row[Any]]]:
    """A run with its model's and version's names, and its steps, as clients see them."""
    row = session.execute(_visible(viewer).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        raise NotFound("run_not_found", f"There is no run {run_id}.")
    return row, list(session.execute(select(steps).where(steps.c.run_id == run_id).order_by(steps.c.position)))


def find_many(
    session: Session,
    viewer: Viewer,
    *,
    status: str | None = None,
    model: str | None = None,
    version_id: UUID | None = None,
    purpose: Purpose | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """Newest first; `before` is the (created_at, id) of the last one seen."""
    query = _visible(viewer)
    if status is not None:
        query = query.where(runs.c.status == status)
    if model is not None:
        query = query.where(models.c.name == model)
    if version_id is not None:
        query = query.where(runs.c.version_id == version_id)
    if purpose is not None:
        query = query.where(runs.c.purpose == purpose)
    if before is not None:
        query = query.where(tuple_(runs.c.created_at, runs.c.id) < before)
    return list(session.execute(query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)))


def newest(session: Session, viewer: Viewer, version_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """The newest run of each version that has one which the viewer may see."""
    visible = _visible(viewer).where(runs.c.version_id.in_(version_ids)).subquery()
    query = (
        select(visible.c.version_id, visible.c.id)
        .ext(distinct_on(visible.c.version_id))
        .order_by(visible.c.version_id, visible.c.created_at.desc(), visible.c.id.desc())
    )
    return {row.version_id: row.id for row in session.execute(query)}


def hand_over(session: Session, model_ids: Iterable[UUID], owner_id: UUID) -> None:
    """The runs of these models belong to whoever owns the models now."""
    of_models = select(versions.c.id).where(versions.c.model_id.in_(model_ids))
    session.execute(update(runs).where(runs.c.version_id.in_(of_models)).values(owner_id=owner_id))


def events_after(session: Session, run_id: UUID, seq: int) -> list[Event]:
    rows = session.execute(select(events).where(events.c.run_id == run_id, events.c.seq > seq).order_by(events.c.seq))
    return [Event(run_id=row.run_id, seq=row.seq, kind=row.kind, data=row.data, at=row.at) for row in rows]


def add_logs(session: Session, run_id: UUID, stage: str, attempt: int, lines: Iterable[tuple[datetime, str]]) -> None:
    rows = [{"run_id": run_id, "stage": stage, "attempt": attempt, "at": at, "text": line} for at, line in lines]
    if rows:
        session.execute(insert(logs), rows)


def read_logs(
    session: Session, run_id: UUID, stage: str, *, attempt: int | None, after: int, limit: int
) -> list[Row[Any]]:
    """Log lines of a step in order, those with an id above `after`."""
    query = select(logs).where(logs.c.run_id == run_id, logs.c.stage == stage, logs.c.id > after)
    if attempt is not None:
        query = query.where(logs.c.attempt == attempt)
    return list(session.execute(query.order_by(logs.c.id).limit(limit)))


def expired(session: Session, retention: float, limit: int) -> list[UUID]:
    """Failed and cancelled runs whose staged bytes have been kept long enough and are still there."""
    over = func.extract("epoch", _NOW - runs.c.finished_at) > retention
    in_outbox = select(outbox.c.id).where(outbox.c.run_id == runs.c.id, outbox.c.topic == "cleanup").exists()
    return list(
        session.execute(
            select(runs.c.id)
            .where(
                runs.c.status.in_([Status.FAILED, Status.CANCELLED]),
                runs.c.cleaned_at.is_(None),
                over,
                ~in_outbox,
            )
            .limit(limit)
        ).scalars()
    )


def _visible(viewer: Viewer) -> Select[Any]:
    query = (
        select(
            runs,
            models.c.id.label("model_id"),
            models.c.name.label("model"),
            versions.c.version.label("version_name"),
            versions.c.ordinal,
            versions.c.servable,
            steps.c.stage,
            steps.c.queue,
        )
        .join(versions, versions.c.id == runs.c.version_id)
        .join(models, models.c.id == versions.c.model_id)
        .join(steps, (steps.c.run_id == runs.c.id) & (steps.c.position == runs.c.position))
    )
    if viewer.admin:
        return query
    return query.where(or_(runs.c.owner_id == viewer.user_id, models.c.owner_id == viewer.user_id))


def _for_a_model_of(viewer: Viewer) -> ColumnElement[bool]:
    """Runs that somebody else started, for a version of the viewer's model."""
    mine = select(versions.c.id).join(models, models.c.id == versions.c.model_id)
    return mine.where(versions.c.id == runs.c.version_id, models.c.owner_id == viewer.user_id).exists()


def _step_values(step: Step) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "queue": step.queue,
        "max_attempts": step.max_attempts,
        "time_limit": step.time_limit,
        "status": step.status,
        "attempt": step.attempt,
        "final_attempt": step.final_attempt,
        "optional": step.optional,
    }


def _in(seconds: float) -> Any:
    return _NOW + timedelta(seconds=seconds)
