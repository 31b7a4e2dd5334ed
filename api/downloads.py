"""Downloads over HTTP: who may have which bytes, as short-lived addresses; every one is counted and in the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api import objects
from api.deps import Parts, Principal, Problem, Services, Transaction, require
from api.errors import documented, invalid
from api.schemas.downloads import Download, Downloads, Handed
from api.versions import RAW, best, find, refuse_unless_clean
from registry import audit, store, usage
from registry.components import COMPONENTS, SOURCE, Component, Piece, choose
from shared.storage import Bucket

router = APIRouter(prefix="/models/{model}/versions/{version}", tags=["versions"])

Downloader = Annotated[Principal, Depends(require("models:download"))]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One file of a version, and where its bytes are."""

    piece: Piece
    bucket: Bucket
    key: str
    filename: str
    sha256: str
    size: int
    media_type: str


@router.get(
    "/download",
    summary="Get download addresses",
    responses=documented(
        "unauthenticated",
        "forbidden",
        "not_granted",
        "model_not_found",
        "version_not_found",
        "artifact_not_found",
        "quarantined",
        "not_yet_scanned",
        "invalid_field",
    ),
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
    component: Annotated[
        list[Component] | None,
        Query(max_length=len(COMPONENTS), description="instead of an artifact; repeat it for several"),
    ] = None,
) -> Download | Downloads:
    """Short-lived URLs of a version's files, for versions that the scan found clean only.

    Without `component`: of one artifact. With it: of every file of those components, and what is absent is said.
    What was uploaded goes back to the model's owner and to who uploaded it, to nobody else, also where the model is public.
    """
    if artifact is not None and component:
        raise invalid({"query.component": "cannot be combined with artifact"})
    owner, row = find(session, asking.viewer, model, version, permission="models:download")
    refuse_unless_clean(row)
    files = _files(session, parts, asking, owner, row)
    preferred = best(session, row, store.list_artifacts(session, row.id))
    lifetime = parts.settings.download_lifetime
    if not component:
        name = artifact or preferred or SOURCE
        found = next((file for file in files if file.piece.name == name), None)
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, "artifact_not_found", f"This version has no artifact {name!r}.")
        _note(session, asking, row, [found])
        return Download(expires_in=lifetime, **_handed(parts, found))
    choice = choose(component, [file.piece for file in files], best=preferred, packed=row.format == "package")
    chosen = [file for file in files if file.piece.name in choice.names]
    if chosen:
        _note(session, asking, row, chosen)
    return Downloads(
        model=owner.name,
        version=row.version,
        expires_in=lifetime,
        components=list(dict.fromkeys(file.piece.kind for file in chosen)),
        files=[Handed(component=file.piece.kind, **_handed(parts, file)) for file in chosen],
        missing=dict(choice.missing),
    )


def _files(session: Session, parts: Services, asking: Principal, owner: Row[Any], row: Row[Any]) -> list[Stored]:
    """Everything of a version that the asker may have."""
    kept = parts.staging if row.original_key is None else parts.quarantine
    made = [
        Stored(
            piece=Piece(name=one.name, role=one.role),
            bucket=parts.registry,
            key=one.key,
            filename=_filename(owner, row, one.name, PurePosixPath(one.key).suffix),
            sha256=one.sha256,
            size=one.size,
            media_type=one.media_type,
        )
        for one in store.list_artifacts(session, row.id)
    ]
    beside = [
        Stored(
            piece=Piece(name=role, role=role),
            bucket=kept,
            key=file["key"],
            filename=_filename(owner, row, role, PurePosixPath(file["key"]).suffix),
            sha256=file["sha256"],
            size=file["size"],
            media_type=RAW,
        )
        for role, file in row.side_files.items()
    ]
    source = Stored(
        piece=Piece(name=SOURCE, role=SOURCE),
        bucket=kept,
        key=row.original_key or row.staging_key,
        filename=row.filename,
        sha256=row.sha256,
        size=row.size,
        media_type=RAW,
    )
    mine = asking.viewer.admin or asking.user_id in (owner.owner_id, row.uploaded_by)
    return [*made, *beside, *([source] if mine else [])]


def _filename(owner: Row[Any], row: Row[Any], name: str, suffix: str) -> str:
    return f"{owner.name}-{row.version}-{name.removesuffix(suffix)}{suffix}"


def _note(session: Session, asking: Principal, row: Row[Any], files: Sequence[Stored]) -> None:
    """Count one download, and write down who was handed which bytes."""
    usage.count(session, row.id, "download", bytes=sum(file.size for file in files))
    for file in files:
        details = {"artifact": file.piece.name, "sha256": file.sha256, "size": file.size}
        audit.append(session, asking.actor, "artifact.downloaded", str(row.id), details)


def _handed(parts: Services, file: Stored) -> dict[str, Any]:
    said = {"filename": file.filename, "sha256": file.sha256, "size": file.size, "media_type": file.media_type}
    presigned = file.bucket.presign(file.key, file.filename, parts.settings.download_lifetime)
    return {
        "url": presigned or objects.address(parts, file.bucket, file.key, **said),
        "name": file.piece.name,
        **said,
    }
