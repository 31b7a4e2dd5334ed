"""What people say of predictions afterwards: right or wrong, once for each. Counts for the version, and for a rollout's arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import rollouts
from registry.rollouts import Arm, Tally
from registry.tables import feedback, versions


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One prediction and whether it was right. `label` is what would have been, where that was said."""

    prediction_id: str
    version_id: UUID
    rollout_id: UUID | None
    arm: Arm | None
    right: bool
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """How many predictions were found right and wrong."""

    right: int = 0
    wrong: int = 0


def models_of(session: Session, version_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """The model of each of these versions that is still there."""
    query = select(versions.c.id, versions.c.model_id).where(versions.c.id.in_(version_ids))
    return {row.id: row.model_id for row in session.execute(query)}


def record(session: Session, judged: Sequence[Judged], *, given_by: UUID) -> set[str]:
    """Keep what was said; the ids of the predictions that had not been judged before. The others change nothing.

    Of what is said twice of one prediction the first counts.
    """
    once = {each.prediction_id: each for each in reversed(judged)}
    rows = [
        {
            "prediction_id": each.prediction_id,
            "version_id": each.version_id,
            "rollout_id": each.rollout_id,
            "arm": each.arm,
            "right": each.right,
            "label": each.label,
            "given_by": given_by,
        }
        for _, each in sorted(once.items())  # two batches at once lock in one order
    ]
    new = upsert(feedback).values(rows).on_conflict_do_nothing().returning(feedback.c.prediction_id)
    kept = set(session.execute(new).scalars())
    counts = Counter(
        (each.rollout_id, each.arm, each.right)
        for each in once.values()
        if each.prediction_id in kept and each.rollout_id is not None and each.arm is not None
    )
    for rollout_id, arm in sorted({(rollout_id, arm) for rollout_id, arm, _ in counts}):
        tally = Tally(right=counts[rollout_id, arm, True], wrong=counts[rollout_id, arm, False])
        rollouts.add(session, rollout_id, arm, tally)
    return kept


def of_model(session: Session, model_id: UUID, *, days: int) -> dict[str, Score]:
    """What was said of each version of a model in the last `days` days, by its number."""
    recent = feedback.c.at > func.now() - func.make_interval(0, 0, 0, days)
    query = (
        select(
            versions.c.version,
            func.count().filter(feedback.c.right).label("right"),
            func.count().filter(~feedback.c.right).label("wrong"),
        )
        .join(versions, versions.c.id == feedback.c.version_id)
        .where(versions.c.model_id == model_id, recent)
        .group_by(versions.c.version)
    )
    return {row.version: Score(right=row.right, wrong=row.wrong) for row in session.execute(query)}
