"""The one door through which a run changes: lock, decide, save. State, event and outbox together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from pipeline import online, results, store
from pipeline.errors import SlipwayError
from pipeline.run import (
    NO_WORKER,
    AttemptSignal,
    Broke,
    Cancel,
    Claimed,
    Cleanup,
    Effect,
    Passed,
    Publish,
    Purpose,
    Refused,
    Resume,
    Retry,
    Ring,
    Run,
    Signal,
    Skip,
    Status,
    Step,
    advance,
)
from pipeline.run import submit as first_state
from registry import blobs, reviews, signatures
from registry import store as registry
from registry.lookup import Viewer
from registry.store import Artifact

WORKER_LOST = "worker_lost"

EVENT_KINDS: dict[type[Signal], str] = {
    Claimed: "claimed",
    Passed: "passed",
    Refused: "refused",
    Broke: "broke",
    Skip: "skipped",
    Cancel: "cancelled",
    Retry: "retried",
    Resume: "resumed",
}
"""What clients call a move; `submitted` is the first of every run."""


def submit(
    session: Session,
    *,
    version_id: UUID,
    owner_id: UUID,
    plan: Sequence[Step],
    purpose: Purpose = Purpose.INTAKE,
    request: Mapping[str, Any] | None = None,
) -> Run:
    """A new run for a version, its first step ringing. Its stages find what was asked for in `request` among their options."""
    run, effects = first_state(uuid4(), tuple(plan))
    store.create(session, run, version_id=version_id, owner_id=owner_id, purpose=purpose, request=request)
    _follow(session, run, "submitted", effects, data={})
    return run


def send(session: Session, run_id: UUID, signal: Signal, *, viewer: Viewer | None = None) -> Run:
    """Apply one signal to one run, with everything that follows from it, or nothing.

    Raises `NotFound` (also for a run that is not the viewer's), `Stale`, `IllegalTransition`.
    """
    before = store.load(session, run_id, viewer=viewer, lock=True)
    after, effects = advance(before, signal)
    _claim(session, run_id, signal)
    match signal:
        case Claimed(worker=worker, lease=lease):
            store.save(session, before, after, worker=worker, lease=lease)
        case Passed(report=report) | Refused(report=report):
            store.save(session, before, after, report=dict(report))
            _judge(session, run_id, report)
            # What a rebuild has made leaves with it, so it answers for nothing.
            if isinstance(signal, Passed) and report.get("key") and store.purpose_of(session, run_id).publishes:
                results.remember(session, run_id, signal.stage, report["key"])
        case Skip(detail=why) | Broke(detail=why) if after.position > before.position:
            store.save(session, before, after, report={"facts": {"skipped": why}, "files": []})
        case _:
            store.save(session, before, after)
    _follow(session, after, EVENT_KINDS[type(signal)], effects, data=_data(before, signal))
    return after


def sweep(session: Session, *, ring_again: float, broker_forgot: bool = False, limit: int = 100) -> int:
    """Bring back what a dead process left: attempts without a lease, doorbells that nobody heard. How many were found."""
    found = 0
    for run_id in store.lost(session, limit):
        step = store.load(session, run_id).step
        signal = Broke(
            stage=step.stage, attempt=step.attempt, code=WORKER_LOST, detail="The worker was not heard of again."
        )
        send(session, run_id, signal)
        found += 1
    for run_id in store.unheard(session, ring_again, limit, at_once=broker_forgot):
        step = store.load(session, run_id).step
        _ring(session, run_id, Ring(stage=step.stage, queue=step.queue, attempt=step.attempt))
        found += 1
    return found


def give_up(session: Session, *, wait: float, limit: int = 100) -> int:
    """Have runs go on without an optional step that nobody came to take for `wait` seconds. How many there were."""
    found = online.unserved(session, wait, limit)
    for run_id in found:
        step = store.load(session, run_id).step
        why = f"No {step.queue} worker came within {wait:g} s; the run went on without this step."
        send(session, run_id, Skip(stage=step.stage, attempt=step.attempt, detail=why))
    return len(found)


def expire(session: Session, *, retention: float, limit: int = 100) -> int:
    """Have the staged bytes of old failed and cancelled runs removed. How many there were."""
    old = store.expired(session, retention, limit)
    for run_id in old:
        store.post(session, run_id, "cleanup", {})
    return len(old)


def _follow(session: Session, run: Run, kind: str, effects: Sequence[Effect], data: dict[str, Any]) -> None:
    store.add_event(
        session,
        run,
        kind,
        {
            "status": run.status,
            "stage": run.step.stage,
            "attempt": run.attempt,
            "code": run.code,
            "detail": run.detail,
            "terminal": run.status.terminal,
            "waiting": online.waiting(run.step.queue, online.served(session)) if run.status is Status.QUEUED else None,
            **data,
        },
    )
    for effect in effects:
        match effect:
            case Ring():
                _ring(session, run.id, effect)
            case Publish():
                _publish(session, run.id)
            case Cleanup():
                store.post(session, run.id, "cleanup", {})


def _data(before: Run, signal: Signal) -> dict[str, Any]:
    """What the event says of the attempt that the signal was about, not of the one that follows."""
    match signal:
        case AttemptSignal(stage=stage, attempt=attempt):
            about: dict[str, Any] = {"stage": stage, "attempt": attempt}
        case Cancel() | Retry() | Resume():
            about = {"stage": before.step.stage, "attempt": before.attempt}
    match signal:
        case Skip(detail=detail):
            about |= {"code": NO_WORKER, "detail": detail}
        case Broke(code=code, detail=detail) | Refused(code=code, detail=detail):
            about |= {"code": code, "detail": detail}
        case Claimed(worker=worker):
            about |= {"worker": worker}
    return about


def _ring(session: Session, run_id: UUID, ring: Ring) -> None:
    body = {
        "stage": ring.stage,
        "queue": ring.queue,
        "attempt": ring.attempt,
        "model": store.label(session, run_id),
    }
    store.post(session, run_id, "ring", body, delay=ring.delay)


def _claim(session: Session, run_id: UUID, signal: Signal) -> None:
    """Keep what the run has made from the garbage collection, where it may lie in the registry from an earlier time."""
    match signal:
        case Passed(report=report):
            reports = [report]
        case Retry() | Resume():
            reports = list(store.reports(session, run_id).values())
        case _:
            return
    blobs.hold(session, [file["sha256"] for report in reports for file in report.get("files") or ()])


def _judge(session: Session, run_id: UUID, report: Mapping[str, Any]) -> None:
    """A report that carries a verdict decides whether the version may be downloaded and served."""
    facts = report.get("facts", {})
    if facts.get("verdict") is not None:
        until = facts.get("waived_until")
        reviews.judge(
            session,
            store.version_of(session, run_id),
            facts["verdict"],
            ruleset=facts.get("ruleset"),
            waived_until=None if until is None else datetime.fromisoformat(until),
            details={"run": str(run_id)},
        )


def _publish(session: Session, run_id: UUID) -> None:
    """The last report names what was copied into the registry; now it becomes visible. Not every run copies something."""
    if not store.purpose_of(session, run_id).publishes:
        return
    *_, last = store.reports(session, run_id).values()
    published = last["facts"].get("published")
    if published is None:
        raise SlipwayError("nothing_published", "The last step of a plan must report what it published.")
    version_id = store.version_of(session, run_id)
    registry.publish(
        session,
        version_id,
        [Artifact(**entry) for entry in published],
        servable=last["facts"].get("servable", True),
    )
    manifest = last["facts"].get("manifest", {})
    if "signature" in manifest:
        signatures.add(session, version_id, sha256=manifest["sha256"], **manifest["signature"])
