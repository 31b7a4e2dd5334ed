"""What runs have shown about a version, read back: for the steps of later runs, and for choosing among its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, select
from sqlalchemy.orm import Session

from pipeline import quarantine, selection, store
from pipeline.run import Purpose, Status, StepStatus
from pipeline.stage import File, Passage
from pipeline.tables import runs, steps
from registry import store as registry

SERVABLE = ("canonical", "variant")
_CONTRACT = ("inputs", "outputs", "classes", "declared")
_INHERITED = ("scan", "validate", "convert", "optimize", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a run is for and what it was asked for; whose it is."""

    purpose: Purpose
    request: Mapping[str, Any]
    owner_id: UUID


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """What is shown of a version's runs. `variants` and `rows` as in `of_version`; `waived` are waivers that it leans on.

    `reports`: of the stages of the run that let it in, what tells the contract.
    """

    reports: Mapping[str, Any]
    variants: Sequence[Any]
    rows: Sequence[Any]
    quality: Any
    waived: Sequence[UUID]


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


def dossier(session: Session, version_id: UUID) -> Dossier:
    """What a version's runs have shown, in one query: a version's page is read more often than anything else."""
    facts = steps.c.report["facts"]
    told = steps.c.status.in_((StepStatus.PASSED, StepStatus.SKIPPED, StepStatus.BROKE))
    found = session.execute(
        select(
            *(runs.c.id, runs.c.status, runs.c.purpose),
            *(steps.c.stage, steps.c.status.label("came_to")),
            *(facts[name].label(name) for name in ("variants", "rows", "quality", "stops", *_CONTRACT)),
        )
        .outerjoin(steps, and_(steps.c.run_id == runs.c.id, told, steps.c.report.is_not(None)))
        .where(runs.c.version_id == version_id)
        .order_by(runs.c.created_at, runs.c.id, steps.c.position)
    ).all()
    publishing = [row for row in found if row.status == Status.SUCCEEDED and Purpose(row.purpose).publishes]
    intakes = [row for row in publishing if row.purpose == Purpose.INTAKE]
    scans = [row for row in found if row.stage == "scan" and row.came_to == StepStatus.PASSED]
    measured = [row.quality for row in intakes if row.id == intakes[-1].id and row.stage == "benchmark"]
    return Dossier(
        reports={
            row.stage: {"facts": {name: getattr(row, name) for name in _CONTRACT if getattr(row, name) is not None}}
            for row in intakes
            if row.id == intakes[-1].id and row.stage is not None
        },
        variants=[each for row in publishing for each in row.variants or ()],
        rows=[each for row in publishing for each in row.rows or ()],
        quality=measured[-1] if measured else None,
        waived=[UUID(stop["waived"]) for stop in (scans[-1].stops or () if scans else ()) if stop["waived"]],
    )


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
