"""What runs have shown about a version, read back: for the steps of later runs, and for choosing among its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline import quarantine, selection, store
from pipeline.run import Purpose, Status
from pipeline.stage import File, Passage
from pipeline.tables import runs
from registry import store as registry

SERVABLE = ("canonical", "variant")
_INHERITED = ("scan", "validate", "convert", "optimize", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a run is for and what it was asked for; whose it is."""

    purpose: Purpose
    request: Mapping[str, Any]
    owner_id: UUID


def errand(session: Session, run_id: UUID) -> Errand:
    row = session.execute(select(runs.c.purpose, runs.c.request, runs.c.owner_id).where(runs.c.id == run_id)).one()
    return Errand(purpose=Purpose(row.purpose), request=row.request, owner_id=row.owner_id)


def earlier(session: Session, run_id: UUID, purpose: Purpose) -> dict[str, Passage]:
    """What a run's stages may know: its own reports and, where it is about a published version, those it builds upon.

    The files of the latter are where promotion put them.
    """
    own = {
        stage: Passage(facts=report["facts"], files=[File(**file) for file in report["files"]])
        for stage, report in store.reports(session, run_id).items()
    }
    if purpose in (Purpose.INTAKE, Purpose.RESCAN):
        return own
    return _inherited(session, store.version_of(session, run_id)) | own


def of_version(session: Session, version_id: UUID) -> tuple[list[Any], list[Any]]:
    """The facts about a version's `variants`, and the `rows` of its benchmarks, of all runs that published for it."""
    variants: list[Any] = []
    rows: list[Any] = []
    for run_id in _publishing(session, version_id):
        for report in store.reports(session, run_id).values():
            variants += report["facts"].get("variants", ())
            rows += report["facts"].get("rows", ())
    return variants, rows


def preferred(
    row: Row[Any],
    published: Sequence[registry.Artifact],
    variants: Sequence[Any],
    rows: Sequence[Any],
    *,
    device: str = selection.CPU,
) -> str | None:
    """The form of a version to serve on a device: pinned, or the fastest verified one, or the canonical one, if there is one."""
    servable = [one.name for one in published if one.role in SERVABLE]
    canonical = next((one.name for one in published if one.role == "canonical"), None)
    return selection.best(servable, variants, rows, device=device, pins=row.pins) or canonical


def recorded(session: Session, version_id: UUID) -> list[dict[str, Any]]:
    """The servable artifacts of a version as a request to build upon them holds them."""
    return [
        {"name": one.name, "role": one.role, "sha256": one.sha256, "toolchain": one.meta.get("toolchain", {})}
        for one in registry.list_artifacts(session, version_id)
        if one.role in SERVABLE
    ]


def queues(session: Session, version_id: UUID) -> dict[str, str]:
    """On which queue each step of a published version's intake waited."""
    return {step.stage: step.queue for step in store.load(session, _publishing(session, version_id)[0]).plan}


def under_way(session: Session, version_id: UUID, purpose: Purpose) -> UUID | None:
    """A run of that kind that is not over yet."""
    live = (Status.QUEUED, Status.RUNNING)
    query = select(runs.c.id).where(runs.c.version_id == version_id, runs.c.purpose == purpose, runs.c.status.in_(live))
    return session.execute(query.limit(1)).scalar_one_or_none()


def _inherited(session: Session, version_id: UUID) -> dict[str, Passage]:
    published = {one.sha256: one.key for one in registry.list_artifacts(session, version_id)}
    reports = store.reports(session, _publishing(session, version_id)[0])
    reports["scan"] = {"facts": quarantine.passed(session, version_id), "files": []}
    return {
        stage: Passage(
            facts=reports[stage]["facts"],
            files=[
                replace(file, key=published[file.sha256])
                for file in (File(**each) for each in reports[stage]["files"])
                if file.sha256 in published
            ],
            own=False,
        )
        for stage in _INHERITED
        if stage in reports
    }


def _publishing(session: Session, version_id: UUID) -> list[UUID]:
    """The runs that published something for a version, the intake first."""
    publishes = [purpose for purpose in Purpose if purpose.publishes]
    found = session.execute(
        select(runs.c.id)
        .where(runs.c.version_id == version_id, runs.c.status == Status.SUCCEEDED, runs.c.purpose.in_(publishes))
        .order_by(runs.c.created_at, runs.c.id)
    )
    return list(found.scalars())
