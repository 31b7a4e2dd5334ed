"""Gathers what the net score of versions is worked out from: their rows, and what their runs have shown. Reads only.

However many versions are asked about, the number of queries is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from pipeline import selection
from pipeline.evidence import SERVABLE
from pipeline.run import Purpose, Status, StepStatus
from pipeline.tables import runs, steps
from registry import lineage, scoring
from registry.lookup import Viewer
from registry.scoring import Claim, Evidence, NetScore
from registry.tables import approvals, artifacts, metrics, models, ratings, versions

MOST_PARENTS = 8
"""Parents whose scores are looked at."""

_ACCURACY = "accuracy"
"""The one metric that Slipway measures itself: the share of the labels in the calibration file that are met."""

_CANONICAL = "canonical"


@dataclass(kw_only=True)
class _Shown:
    """What the runs of a version that ended well have shown.

    `accuracy`: as the verification measured it, by variant, that of the canonical form as `canonical`.
    """

    variants: list[Any] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    accuracy: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rebuilt: bool | None = None
    waivers: int = 0


def net_score(session: Session, viewer: Viewer, version_id: UUID, *, wanted_licence: str | None = None) -> NetScore:
    """A version's score. Its parents' scores count without those of theirs, and only where the viewer may see them."""
    above = lineage.tree(session, viewer, version_id, direction="up", depth=1).nodes
    parents = [node.id for node in above if node.depth == 1 and not node.hidden][:MOST_PARENTS]
    found = gather(session, [version_id, *parents], wanted_licence=wanted_licence)
    scores = [scoring.score(found[one]).net_score for one in parents]
    return scoring.score(replace(found[version_id], parents=scores))


def gather(
    session: Session, version_ids: Collection[UUID], *, wanted_licence: str | None = None
) -> dict[UUID, Evidence]:
    """The evidence of each version, but for its parents' scores."""
    rows = session.execute(
        select(versions, models.c.description, models.c.card, models.c.licence)
        .join(models, models.c.id == versions.c.model_id)
        .where(versions.c.id.in_(version_ids))
    ).all()
    shown = _shown(session, version_ids)
    rated = _rated(session, {row.model_id for row in rows})
    approved = _approved(session, version_ids)
    edges = _by_version(lineage.up(session, version_ids))
    declared = _by_version(
        session.execute(select(metrics).where(metrics.c.version_id.in_(version_ids)).order_by(metrics.c.at))
    )
    servable = _by_version(
        session.execute(
            select(artifacts).where(artifacts.c.version_id.in_(version_ids), artifacts.c.role.in_(SERVABLE))
        )
    )
    found = {}
    for row in rows:
        rating, number = rated.get(row.model_id, (None, 0))
        found[row.id] = replace(
            _evidence(row, shown[row.id], servable[row.id], declared[row.id]),
            wanted_licence=wanted_licence,
            datasets=sum(edge.relation == "dataset" for edge in edges[row.id]),
            code=sum(edge.relation == "code" for edge in edges[row.id]),
            approvals=approved.get(row.id, 0),
            rating=rating,
            ratings=number,
        )
    return found


def _evidence(row: Row[Any], shown: _Shown, servable: Sequence[Row[Any]], declared: Sequence[Row[Any]]) -> Evidence:
    """What the version itself, its artifacts, its declared metrics and its runs say."""
    best = selection.best([one.name for one in servable], shown.variants, shown.rows, pins=row.pins)
    canonical = next((one for one in servable if one.role == _CANONICAL), None)
    form = next((one for one in servable if one.name == best), canonical)
    measured = None if form is None else shown.accuracy.get(_CANONICAL if form is canonical else form.name)
    said: Mapping[str, Any] = row.declared
    return Evidence(
        description=said.get("description") or row.description,
        card=row.card,
        card_file="card" in row.side_files,
        interface=bool(
            said.get("classes") or said.get("input_shape") or any(one.meta.get("inputs") for one in servable)
        ),
        licence=said.get("licence") or row.licence,
        rebuilt=shown.rebuilt,
        toolchain=any(one.meta.get("toolchain") for one in servable),
        training_config=bool(said.get("training_config")),
        requirements="requirements" in row.side_files,
        metrics_with_dataset=sum(one.dataset is not None for one in declared),
        claims=_claims(declared, measured),
        size=row.size if form is None else form.size,
        waivers=shown.waivers,
    )


def _claims(declared: Iterable[Row[Any]], measured: Mapping[str, Any] | None) -> list[Claim]:
    """The newest accuracy that somebody declared, beside that of the form which is served."""
    claimed = [one.value for one in declared if one.name == _ACCURACY and one.recorded_by is not None]
    if not claimed or measured is None:
        return []
    return [Claim(name=_ACCURACY, claimed=claimed[-1], measured=measured["candidate"], samples=measured["samples"])]


def _shown(session: Session, version_ids: Collection[UUID]) -> defaultdict[UUID, _Shown]:
    """Of each report only what counts here: a scan's findings can be long."""
    facts = steps.c.report["facts"]
    told = session.execute(
        select(
            runs.c.version_id,
            runs.c.purpose,
            steps.c.stage,
            facts["variants"].label("variants"),
            facts["rows"].label("rows"),
            facts["verification"]["accuracy"].label("accuracy"),
            facts["same"].label("same"),
            facts["stops"].label("stops"),
        )
        .join(steps, steps.c.run_id == runs.c.id)
        .where(
            runs.c.version_id.in_(version_ids), runs.c.status == Status.SUCCEEDED, steps.c.status == StepStatus.PASSED
        )
        .order_by(runs.c.created_at, runs.c.id, steps.c.position)
    )
    found: defaultdict[UUID, _Shown] = defaultdict(_Shown)
    for step in told:
        about, purpose = found[step.version_id], Purpose(step.purpose)
        if step.stage == "scan" and purpose.scans:
            about.waivers = sum(bool(stop["waived"]) for stop in step.stops or ())
        if purpose is Purpose.REBUILD and step.same is not None:
            about.rebuilt = bool(step.same)
        if purpose.publishes:
            about.variants += step.variants or ()
            about.rows += step.rows or ()
            if step.stage == "convert" and step.accuracy:
                about.accuracy[_CANONICAL] = step.accuracy
            about.accuracy |= _accuracies(step.variants or ())
    return found


def _accuracies(variants: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found = ((variant["name"], (variant.get("verification") or {}).get("accuracy")) for variant in variants)
    return {name: accuracy for name, accuracy in found if accuracy}


def _approved(session: Session, version_ids: Collection[UUID]) -> dict[UUID, int]:
    """How many people have approved each, beside whoever uploaded it."""
    rows = session.execute(
        select(approvals.c.version_id, func.count(approvals.c.approved_by.distinct()).label("number"))
        .join(versions, versions.c.id == approvals.c.version_id)
        .where(
            approvals.c.version_id.in_(version_ids),
            approvals.c.revoked_at.is_(None),
            approvals.c.approved_by != versions.c.uploaded_by,
        )
        .group_by(approvals.c.version_id)
    )
    return {row.version_id: row.number for row in rows}


def _rated(session: Session, model_ids: Collection[UUID]) -> dict[UUID, tuple[float, int]]:
    """The mean rating of each model that has some, and how many it has."""
    rows = session.execute(
        select(ratings.c.model_id, func.avg(ratings.c.score).label("mean"), func.count().label("number"))
        .where(ratings.c.model_id.in_(model_ids))
        .group_by(ratings.c.model_id)
    )
    return {row.model_id: (float(row.mean), row.number) for row in rows}


def _by_version(rows: Iterable[Row[Any]]) -> defaultdict[UUID, list[Row[Any]]]:
    found: defaultdict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        found[row.version_id].append(row)
    return found
