"""All that a version's page shows, in one statement that is made once: it is read more often than anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    ColumnElement,
    Row,
    ScalarSelect,
    Select,
    Text,
    and_,
    any_,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from pipeline.run import Purpose, Status, StepStatus
from pipeline.tables import runs, steps
from registry import lookup, metrics, store, tables
from registry.errors import Missing
from registry.lookup import Naming, Numbering, Viewer
from registry.store import Artifact
from registry.tables import aliases, models, users, versions

_CONTRACT = ("inputs", "outputs", "classes", "declared")
_TOLD = [StepStatus.PASSED, StepStatus.SKIPPED, StepStatus.BROKE]
_SHOWN = (
    "id",
    "model_id",
    "ordinal",
    "version",
    "format",
    "servable",
    "filename",
    "size",
    "sha256",
    "declared",
    "side_files",
    "verdict",
    "status",
    "published_at",
    "pins",
    "release_notes",
    "revision",
    "created_at",
)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A version with what hangs on it.

    `version` is its row, with the model's name as `model`, `owner` and `model_framework`, the names of its `uploader` and
    its `aliases`, and the newest `run` that the viewer may see. `metrics` are the latest, as objects. Of its runs:
    `variants` and `rows` as in `evidence.of_version`, the `quality`, the waivers that it leans on (`waived`), and
    `reports`: of the stages of the run that let it in, what tells the contract.
    """

    version: Row[Any]
    artifacts: Sequence[Artifact]
    metrics: Sequence[Mapping[str, Any]]
    reports: Mapping[str, Any]
    variants: Sequence[Any]
    rows: Sequence[Any]
    quality: Any
    waived: Sequence[UUID]


def read(session: Session, viewer: Viewer, model: str, version: str) -> Page:
    """A version of a model that the viewer may see, each by any of its names. Raises `Missing`."""
    by_model, which_model = lookup.called(model)
    by_version, which_version = lookup.numbered(version)
    asked = {**which_model, **which_version, "viewer": viewer.user_id}
    row = session.execute(_page(viewer.admin, by_model, by_version), asked).one_or_none()
    if row is None:
        raise Missing("model_not_found", f"You have no model {model!r}.")
    if row.id is None:
        raise Missing("version_not_found", f"This model has no version {version!r}.")
    return _of(row)


def _of(row: Row[Any]) -> Page:
    told = row.told or ()
    publishing = [each for each in told if each["status"] == Status.SUCCEEDED and Purpose(each["purpose"]).publishes]
    intakes = [each for each in publishing if each["purpose"] == Purpose.INTAKE]
    intake = [each for each in intakes if each["run"] == intakes[-1]["run"]]
    scans = [each for each in told if each["stage"] == "scan" and each["came_to"] == StepStatus.PASSED]
    measured = [each["quality"] for each in intake if each["stage"] == "benchmark"]
    return Page(
        version=row,
        artifacts=[_artifact(each) for each in row.artifacts or ()],
        metrics=row.metrics or (),
        reports={
            each["stage"]: {"facts": {name: each[name] for name in _CONTRACT if each[name] is not None}}
            for each in intake
            if each["stage"] is not None
        },
        variants=[variant for each in publishing for variant in each["variants"] or ()],
        rows=[measurement for each in publishing for measurement in each["rows"] or ()],
        quality=measured[-1] if measured else None,
        waived=[UUID(stop["waived"]) for stop in (scans[-1]["stops"] or () if scans else ()) if stop["waived"]],
    )


def _artifact(each: Mapping[str, Any]) -> Artifact:
    return Artifact(**{**each, "created_at": datetime.fromisoformat(each["created_at"])})


@cache
def _page(admin: bool, by_model: Naming, by_version: Numbering) -> Select[Any]:
    """Less than 4096 characters, so only what is shown: psycopg reads a longer statement anew each time."""
    viewer = lookup.somebody(admin=admin)
    fits, first = lookup.meant(by_version)
    mine = or_(runs.c.owner_id == viewer.user_id, models.c.owner_id == viewer.user_id)
    newest = (
        select(runs.c.id)
        .where(runs.c.version_id == versions.c.id, true() if admin else mine)
        .order_by(runs.c.created_at.desc(), runs.c.id.desc())
        .limit(1)
    )
    named = select(aliases.c.name).where(aliases.c.version_id == versions.c.id).order_by(aliases.c.name)
    uploader = users.alias("uploader")
    return (
        lookup.visible_models(viewer)
        .with_only_columns(
            *(versions.c[name] for name in _SHOWN),
            *(
                models.c.name.label("model"),
                users.c.username.label("owner"),
                models.c.framework.label("model_framework"),
            ),
            select(uploader.c.username)
            .where(uploader.c.id == versions.c.uploaded_by)
            .scalar_subquery()
            .label("uploader"),
            func.array(named.scalar_subquery(), type_=ARRAY(Text)).label("aliases"),
            newest.scalar_subquery().label("run"),
            _gathered(store.artifacts_of(versions.c.id)).label("artifacts"),
            _gathered(metrics.latest_of(tables.metrics.c.version_id == versions.c.id)).label("metrics"),
            _gathered(_told(versions.c.id)).label("told"),
        )
        .outerjoin(versions, and_(versions.c.model_id == models.c.id, fits))
        .where(lookup.named(viewer, by_model))
        .order_by(first)
        .limit(1)
    )


def _told(version_id: ColumnElement[UUID]) -> Select[Any]:
    """What the steps of a version's runs reported, as far as it is shown; a run that reported nothing once."""
    facts = steps.c.report.op("->")(literal_column("'facts'"))
    reported = and_(
        steps.c.run_id == runs.c.id, steps.c.status == any_(literal(_TOLD, ARRAY(Text))), steps.c.report.is_not(None)
    )
    return (
        select(
            *(runs.c.id.label("run"), runs.c.status, runs.c.purpose),
            *(steps.c.stage, steps.c.status.label("came_to")),
            *(
                facts.op("->")(literal_column(f"'{name}'")).label(name)
                for name in ("variants", "rows", "quality", "stops", *_CONTRACT)
            ),
        )
        .outerjoin(steps, reported)
        .where(runs.c.version_id == version_id)
        .order_by(runs.c.created_at, runs.c.id, steps.c.position)
    )


def _gathered(rows: Select[Any]) -> ScalarSelect[Any]:
    """The rows of a query about a version, as one JSON array of objects."""
    each = rows.correlate(versions).subquery()
    return select(func.json_agg(each.table_valued(), type_=JSON)).scalar_subquery()
