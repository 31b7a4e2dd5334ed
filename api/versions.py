"""Versions over HTTP: what was taken in, what was made of it, and short-lived addresses of the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Problem, Transaction, require
from api.errors import documented
from api.schemas.files import Artifact, Artifacts
from api.schemas.versions import Download, LeantOn, Version, Versions, VersionSummary
from pipeline import evidence, quarantine, selection
from pipeline import store as runs
from registry import store
from registry.store import Viewer

router = APIRouter(prefix="/models/{model}/versions", tags=["versions"])

Reader = Annotated[Principal, Depends(require("models:read"))]
Downloader = Annotated[Principal, Depends(require("models:download"))]

SOURCE = "source"
"""The artifact name of the uploaded bytes."""
RAW = "application/octet-stream"
_RUNS_LOOKED_AT = 1000
_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "version_not_found")


@router.get("", summary="List versions", responses=documented("unauthenticated", "forbidden", "model_not_found"))
def list_versions(model: str, asking: Reader, session: Transaction) -> Versions:
    """Newest first."""
    owner = store.find_model(session, asking.viewer, model)
    newest_run: dict[UUID, UUID] = {}
    for run in runs.find_many(session, asking.viewer, model=owner.name, limit=_RUNS_LOOKED_AT):
        newest_run.setdefault(run.version_id, run.id)
    rows = store.list_versions(session, owner.id)
    return Versions(items=[VersionSummary(**_summary(owner, row, newest_run.get(row.id))) for row in rows])


@router.get("/{version}", summary="Read a version", responses=documented(*_ABOUT_ONE))
def read_version(model: str, version: str, asking: Reader, session: Transaction) -> Version:
    """By SemVer (`1.2.0`, `v1.2`), by ordinal (`3`: the third upload), or `latest`."""
    return described(session, asking.viewer, *find(session, asking.viewer, model, version))


@router.get("/{version}/artifacts", summary="List a version's artifacts", responses=documented(*_ABOUT_ONE))
def list_artifacts(model: str, version: str, asking: Reader, session: Transaction) -> Artifacts:
    """What is stored: the `source` as it was uploaded, and, once promoted, what was made of it."""
    _, row = find(session, asking.viewer, model, version)
    return Artifacts(items=_artifacts(session, row))


@router.get(
    "/{version}/download",
    summary="Get a download address",
    responses=documented(*_ABOUT_ONE, "artifact_not_found", "quarantined", "not_yet_scanned"),
)
def download(
    model: str,
    version: str,
    asking: Downloader,
    session: Transaction,
    parts: Parts,
    *,
    artifact: Annotated[
        str | None, Query(max_length=200, description="default: the version's `best_variant`; `source`: the upload")
    ] = None,
) -> Download:
    """A short-lived URL of an artifact's bytes, for versions that the scan found clean only.

    What was uploaded goes back to its owner and to nobody else, not even where the model is public.
    """
    owner, row = find(session, asking.viewer, model, version)
    refuse_unless_clean(row)
    published = store.list_artifacts(session, row.id)
    name = artifact or _best(session, row, published) or SOURCE
    lifetime = parts.settings.download_lifetime
    if name == SOURCE and (asking.viewer.admin or owner.owner_id == asking.viewer.user_id):
        bucket = parts.staging if row.original_key is None else parts.quarantine
        return Download(
            url=bucket.presign(row.original_key or row.staging_key, row.filename, lifetime),
            expires_in=lifetime,
            name=SOURCE,
            filename=row.filename,
            sha256=row.sha256,
            size=row.size,
            media_type=RAW,
        )
    found = next((one for one in published if one.name == name), None)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "artifact_not_found", f"This version has no artifact {name!r}.")
    filename = f"{owner.name}-{row.version}-{found.name.removesuffix(_suffix(found))}{_suffix(found)}"
    return Download(
        url=parts.registry.presign(found.key, filename, lifetime),
        expires_in=lifetime,
        name=found.name,
        filename=filename,
        sha256=found.sha256,
        size=found.size,
        media_type=found.media_type,
    )


def described(session: Session, viewer: Viewer, owner: Row[Any], row: Row[Any]) -> Version:
    """A version in full."""
    run = next(iter(runs.find_many(session, viewer, version_id=row.id, limit=1)), None)
    return Version(
        **_summary(owner, row, run and run.id),
        artifacts=_artifacts(session, row),
        waivers=_leant_on(session, row),
        best_variant=_best(session, row, store.list_artifacts(session, row.id)),
        pinned=row.pins,
        quality=runs.published_by(session, row.id).get("benchmark", {}).get("facts", {}).get("quality"),
    )


def _best(session: Session, row: Row[Any], published: Sequence[store.Artifact]) -> str | None:
    """The variant to prefer on a CPU: pinned, or the fastest verified one, or the canonical one, where there is one."""
    servable = [one.name for one in published if one.role in evidence.SERVABLE]
    variants, rows = evidence.of_version(session, row.id)
    canonical = next((one.name for one in published if one.role == "canonical"), None)
    return selection.best(servable, variants, rows, pins=row.pins) or canonical


def find(session: Session, viewer: Viewer, model: str, version: str) -> tuple[Row[Any], Row[Any]]:
    """A model and one of its versions, as far as the viewer may see them."""
    owner = store.find_model(session, viewer, model)
    return owner, store.find_version(session, owner.id, version)


def _leant_on(session: Session, row: Row[Any]) -> list[LeantOn]:
    """By what reviewers have let pass; their reasons and names stay with them."""
    now = datetime.now(UTC)
    return [
        LeantOn(rule=one.rule, sha256=one.sha256, expires_at=one.expires_at, counts=one.counts(now))
        for one in quarantine.leant_on(session, row.id)
    ]


def refuse_unless_clean(row: Row[Any]) -> None:
    """Raises `Problem` (423) for a version that the scan has not, or not yet, found clean."""
    match row.verdict:
        case "clean":
            return
        case "pending":
            raise Problem(HTTPStatus.LOCKED, "not_yet_scanned", f"{row.version} has not been scanned yet.")
        case verdict:
            detail = f"The scan found {row.version} {verdict}; its bytes are not handed out."
            raise Problem(HTTPStatus.LOCKED, "quarantined", detail)


def _artifacts(session: Session, row: Row[Any]) -> list[Artifact]:
    source = Artifact(
        name=SOURCE,
        role=SOURCE,
        sha256=row.sha256,
        size=row.size,
        media_type=RAW,
        meta={"filename": row.filename, "format": row.format},
        created_at=row.created_at,
    )
    made = [
        Artifact(
            name=one.name,
            role=one.role,
            sha256=one.sha256,
            size=one.size,
            media_type=one.media_type,
            meta=dict(one.meta),
            created_at=one.created_at,
        )
        for one in store.list_artifacts(session, row.id)
    ]
    return [source, *made]


def _summary(owner: Row[Any], row: Row[Any], run_id: UUID | None) -> dict[str, Any]:
    model = f"/api/v1/models/{owner.id}"
    itself = f"{model}/versions/{quote(row.version, safe='')}"
    links = {
        "self": itself,
        "model": model,
        "artifacts": f"{itself}/artifacts",
        "download": f"{itself}/download",
        "variants": f"{itself}/variants",
        "rebuild": f"{itself}/rebuild",
    }
    return {
        "id": row.id,
        "model": owner.name,
        "version": row.version,
        "ordinal": row.ordinal,
        "format": row.format,
        "framework": row.declared.get("framework") or owner.framework,
        "servable": row.servable,
        "verdict": row.verdict,
        "status": row.status,
        "published_at": row.published_at,
        "created_at": row.created_at,
        "sha256": row.sha256,
        "size": row.size,
        "filename": row.filename,
        "declared": row.declared,
        "side_files": {
            role: {name: value for name, value in file.items() if name != "key"}
            for role, file in row.side_files.items()
        },
        "run": run_id,
        "links": links if run_id is None else links | {"run": f"/api/v1/runs/{run_id}"},
    }


def _suffix(artifact: store.Artifact) -> str:
    return PurePosixPath(artifact.key).suffix
