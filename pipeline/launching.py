"""What becomes of a target: a version goes live if every gate lets it, at once or after a rollout that has shown it fit.

The same way leads there for people and for Slipway itself, which judges the gates anew when a rollout has been won.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from pipeline import promotability
from pipeline.promotability import Trust
from registry import deployments, lookup, rollouts, store
from registry.audit import SLIPWAY, Actor
from registry.errors import Conflict
from registry.gates import facts
from registry.lookup import Viewer
from registry.rollouts import Ending, Kind, Rules, Sticky
from registry.verdicts import Verdict, judge


def deploy(
    session: Session,
    model: Row[Any],
    version: Row[Any],
    target: str,
    *,
    config: Mapping[str, Any],
    note: str,
    actor: Actor,
    trust: Trust,
    on_behalf_of: str | None = None,
    deployed_by: UUID | None = None,
) -> Row[Any]:
    """Make a version live; the new deployment. Needs the model's lock. Raises `Conflict`: `gate_failed`, `already_live`.

    `deployed_by` is whose deployment it is, where not the actor's own.
    """
    judged = promotability.refuse_unless_promotable(session, model, version, target, trust)
    return deployments.deploy(
        session,
        model,
        version,
        target,
        config=config,
        note=note,
        evidence=[facts(outcome) for outcome in judged.outcomes],
        actor=actor,
        on_behalf_of=on_behalf_of,
        deployed_by=deployed_by,
    )


def start(
    session: Session,
    model: Row[Any],
    version: Row[Any],
    target: str,
    *,
    kind: Kind,
    weight: float,
    sticky: Sticky,
    rules: Rules,
    note: str,
    actor: Actor,
    trust: Trust,
) -> Row[Any]:
    """Roll a version out beside what is live on a target; the new rollout. Needs the model's lock.

    The gates count as for a deployment. Raises `Conflict`: `nothing_live`, `gate_failed`, and what `rollouts.start` raises.
    """
    control = _live(session, model, target)
    for version_id in sorted({control.version_id, version.id}):  # condemning locks them in this order too
        store.lock_version(session, version_id)
    control = _live(session, model, target)  # only now its verdict, and so its deployment, stays as it is
    promotability.refuse_unless_promotable(session, model, version, target, trust)
    return rollouts.start(
        session,
        model,
        target,
        control=control,
        candidate=version,
        kind=kind,
        weight=weight,
        sticky=sticky,
        rules=rules,
        note=note,
        actor=actor,
    )


def verdict(session: Session, row: Row[Any]) -> Verdict:
    """What a rollout's figures say now; `row` has its rules and `hours`."""
    arms = rollouts.tally(session, row.id)
    return judge(Rules.of(row.rules), arms["control"], arms["candidate"], hours=float(row.hours))


def promote(
    session: Session, model: Row[Any], rollout_id: UUID, *, reason: str, actor: Actor, trust: Trust
) -> Row[Any]:
    """Make the candidate of a running rollout live, with the control's config; the rollout, ended. Needs the model's lock.

    Raises `Missing`, `Conflict`: `rollout_ended`, `gate_failed`.
    """
    row = rollouts.find(session, model.id, rollout_id)
    store.lock_version(session, row.candidate_id)
    row = rollouts.require_running(session, model.id, rollout_id)
    control = _live(session, model, row.target)
    figures = verdict(session, row).figures()
    ended = rollouts.end(session, row, "promoted", reason=reason, figures=figures, actor=actor)
    deploy(
        session,
        model,
        lookup.find_version(session, model.id, row.candidate),
        row.target,
        config=control.config,
        note=f"rolled out: {reason}",
        actor=actor,
        trust=trust,
        deployed_by=row.started_by,
    )
    rollouts.tell_ended(session, [ended], actor)
    return ended


def stop(session: Session, model: Row[Any], rollout_id: UUID, *, reason: str, actor: Actor) -> Row[Any]:
    """End a running rollout undecided; what was live stays. Raises `Missing`, `Conflict("rollout_ended")`."""
    row = rollouts.require_running(session, model.id, rollout_id)
    return _without_candidate(session, row, "stopped", verdict(session, row), reason=reason, actor=actor)


def settle(session: Session, model_id: UUID, rollout_id: UUID, trust: Trust) -> Row[Any] | None:
    """Do what a running rollout's figures say, if they say anything yet; the rollout, where that ended it.

    A candidate that has won and that the gates do not let pass any more is stopped with what they say.
    """
    row = rollouts.find(session, model_id, rollout_id)
    said = verdict(session, row)
    if said.decision == "keep_on":
        return None
    model = lookup.find_model(session, Viewer(user_id=row.started_by, admin=True), str(model_id), lock=True)
    try:
        if said.decision != "promote":
            row = rollouts.require_running(session, model.id, rollout_id)
            status: Ending = "rolled_back" if said.decision == "roll_back" else "stopped"
            return _without_candidate(session, row, status, said, reason=said.reason, actor=SLIPWAY)
        with session.begin_nested():
            return promote(session, model, rollout_id, reason=said.reason, actor=SLIPWAY, trust=trust)
    except Conflict as error:
        if error.code == "rollout_ended":  # somebody was faster
            return None
        if error.code != "gate_failed":
            raise
        refused = f"{said.reason} But {error.message}"
    row = rollouts.require_running(session, model.id, rollout_id)
    return _without_candidate(session, row, "stopped", said, reason=refused, actor=SLIPWAY)


def _without_candidate(
    session: Session, row: Row[Any], status: Ending, said: Verdict, *, reason: str, actor: Actor
) -> Row[Any]:
    ended = rollouts.end(session, row, status, reason=reason, figures=said.figures(), actor=actor)
    rollouts.tell_ended(session, [ended], actor)
    return ended


def _live(session: Session, model: Row[Any], target: str) -> Row[Any]:
    there = next((row for row in deployments.live(session, model_id=model.id) if row.target == target), None)
    if there is None:
        detail = f"Nothing is live on {target}, so there is nothing to compare with; deploy the version instead."
        raise Conflict("nothing_live", detail)
    return there
