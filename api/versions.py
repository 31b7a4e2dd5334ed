"""Versions over HTTP: what was taken in and what was made of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Principal, Problem, Transaction, Visiting, require
from api.errors import documented
from api.etags import IfMatch, revision_in, tag
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.files import Artifact, Artifacts
from api.schemas.metrics import Metric
from api.schemas.versions import (
    LeantOn,
    NewStatus,
    Port,
    Version,
    VersionChange,
    Versions,
    VersionSummary,
)
from pipeline import comparing, evidence, pages
from pipeline import store as runs
from registry import aliases, audit, contracts, lookup, pointers, removal, reviews, rollouts, statuses, store
from registry.components import SOURCE
from registry.lookup import Viewer
from registry.statuses import Status

router = APIRouter(prefix="/models/{model}/versions", tags=["versions"])

Reader = Annotated[Principal, Depends(require("models:read"))]
Uploader = Annotated[Principal, Depends(require("models:upload"))]

RAW = "application/octet-stream"
_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "version_not_found")
_CHANGES_ONE = (*_ABOUT_ONE, "not_granted")


@router.get(
    "",
    summary="List versions",
    responses=documented("invalid_cursor", "unauthenticated", "forbidden", "model_not_found", "invalid_field"),
)
def list_versions(
    model: str,
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    status: Annotated[Status | None, Query()] = None,
    is_default: Annotated[bool | None, Query(description="whether the alias `default` points at it")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Versions:
    """Newest first, each with the aliases that point at it."""
    owner = lookup.find_model(session, asking.viewer, model)
    after = decode(cursor, int)
    below = None if after is None else after[0]
    rows = store.list_versions(session, owner.id, status=status, is_default=is_default, below=below, limit=limit + 1)
    following = next_page(request, response, rows, limit, sorted_by="ordinal")
    run = runs.newest(session, asking.viewer, [row.id for row in rows])
    named = aliases.names(session, owner.id)
    return Versions(
        next=following,
        items=[
            VersionSummary(
                **_summary(
                    row, owner.name, owner.owner, owner.framework, run_id=run.get(row.id), named=named.get(row.id, [])
                )
            )
            for row in rows
        ],
    )


@router.get("/{version}", summary="Read a version", response_model=Version, responses=documented(*_ABOUT_ONE))
def read_version(model: str, version: str, visiting: Visiting) -> Response:
    """By SemVer (`1.2.0`, `v1.2`), by ordinal (`3`: the third upload), by alias (`production`, `default`), or `latest`."""
    with visiting.begin("models:read") as (session, asking):
        answer = described(session, asking.viewer, model, version)
    # Written here: FastAPI would check it once more, for which it waits for another thread.
    response = Response(answer.model_dump_json(), media_type="application/json")
    tag(response, answer.revision)
    return response


@router.patch(
    "/{version}",
    summary="Change a version's release notes",
    responses=documented(*_CHANGES_ONE, "version_changed", "precondition_failed", "invalid_field"),
)
def change_version(
    model: str,
    version: str,
    change: VersionChange,
    response: Response,
    asking: Uploader,
    session: Transaction,
    if_match: IfMatch = None,
) -> Version:
    """The only thing that may be said anew; all else of a version never changes. `If-Match` keeps others' words safe."""
    owner, row = _own(session, asking, model, version)
    row = store.describe_version(session, row.id, revision=revision_in(if_match), release_notes=change.release_notes)
    tag(response, row.revision)
    answer = described(session, asking.viewer, str(owner.id), row.version)
    audit.append(session, asking.actor, "version.noted", str(row.id), {"release_notes": change.release_notes})
    return answer


@router.put(
    "/{version}/status",
    summary="Set a version's status",
    responses=documented(
        *_CHANGES_ONE,
        "illegal_status",
        "version_deployed",
        "version_has_alias",
        "version_breaks_contract",
        "version_changed",
        "precondition_failed",
        "invalid_field",
    ),
)
def set_status(
    model: str,
    version: str,
    wanted: NewStatus,
    response: Response,
    asking: Uploader,
    session: Transaction,
    if_match: IfMatch = None,
) -> Version:
    """`training`, `testing`, `approved`, `deprecated` or `archived`, by legal moves only.

    From training to testing and back, from testing to approved and back, from approved to deprecated and back, from
    anywhere to archived and from there to deprecated. Approving takes a version that is published and clean and whose
    number says what changed; archiving one that is live nowhere and that no alias points at; it ends its rollouts.
    """
    owner, row = _own(session, asking, model, version)
    before = row.status
    statuses.refuse_unless_legal(before, wanted.status, ready=row.published_at is not None and row.verdict == "clean")
    if wanted.status == "approved":
        comparing.refuse_unless_number_fits(session, row)
    stopped = []
    if wanted.status == "archived":
        removal.refuse_where_relied_upon(session, row)
        stopped = rollouts.interrupt_versions(session, [row.id], f"{row.version} was archived", asking.actor)
    row = store.describe_version(session, row.id, revision=revision_in(if_match), status=wanted.status)
    tag(response, row.revision)
    answer = described(session, asking.viewer, str(owner.id), row.version)
    told = {"from": before, "to": wanted.status, "reason": wanted.reason}
    audit.append(session, asking.actor, "version.status", str(row.id), told)
    rollouts.tell_ended(session, stopped, asking.actor)
    return answer


@router.get("/{version}/artifacts", summary="List a version's artifacts", responses=documented(*_ABOUT_ONE))
def list_artifacts(model: str, version: str, asking: Reader, session: Transaction) -> Artifacts:
    """What is stored: the `source` as it was uploaded, and, once promoted, what was made of it."""
    _, row = find(session, asking.viewer, model, version)
    return Artifacts(items=_artifacts(row, store.list_artifacts(session, row.id)))


def described(session: Session, viewer: Viewer, model: str, version: str) -> Version:
    """A version in full."""
    page = pages.read(session, viewer, model, version)
    row = page.version
    promises = comparing.contract(page.reports, row)
    return Version(
        **_summary(row, row.model, row.owner, row.model_framework, run_id=row.run, named=row.aliases),
        release_notes=row.release_notes,
        revision=row.revision,
        uploaded_by=row.uploader,
        training_config=row.declared.get("training_config"),
        inputs=_ports(promises.inputs) if promises else None,
        outputs=_ports(promises.outputs) if promises else None,
        classes=list(promises.classes) if promises else row.declared.get("classes"),
        metrics=[Metric(**{**one, "recorded_by": one["recorded_by_name"]}) for one in page.metrics],
        artifacts=_artifacts(row, page.artifacts),
        waivers=_leant_on(session, page.waived),
        best_variant=evidence.preferred(row, page.artifacts, page.variants, page.rows),
        pinned=row.pins,
        quality=page.quality,
    )


def best(session: Session, row: Row[Any], published: Sequence[store.Artifact]) -> str | None:
    """The variant to prefer on a CPU: pinned, or the fastest verified one, or the canonical one, where there is one."""
    return evidence.preferred(row, published, *evidence.of_version(session, row.id))


def _own(session: Session, asking: Principal, model: str, version: str) -> tuple[Row[Any], Row[Any]]:
    """A version that the asker may change, locked."""
    owner = lookup.find_model(session, asking.viewer, model, permission="models:upload")
    return owner, lookup.find_version(session, owner.id, version, lock=True)


def _ports(ports: Sequence[contracts.Port]) -> list[Port]:
    return [Port(name=one.name, dtype=one.dtype, shape=None if one.shape is None else list(one.shape)) for one in ports]


def metric(row: Row[Any]) -> Metric:
    """One measurement."""
    return Metric(
        id=row.id, name=row.name, value=row.value, dataset=row.dataset, at=row.at, recorded_by=row.recorded_by_name
    )


def find(
    session: Session, viewer: Viewer, model: str, version: str, *, permission: str | None = None
) -> tuple[Row[Any], Row[Any]]:
    """A model and one of its versions, as far as the viewer may see them, and may do with them what the permission is for."""
    owner = lookup.find_model(session, viewer, model, permission=permission)
    return owner, lookup.find_version(session, owner.id, version)


def _leant_on(session: Session, waived: Sequence[UUID]) -> list[LeantOn]:
    """By what reviewers have let pass; their reasons and names stay with them."""
    now = datetime.now(UTC)
    return [
        LeantOn(rule=one.rule, sha256=one.sha256, expires_at=one.expires_at, counts=one.counts(now))
        for one in (reviews.waivers_by_id(session, waived) if waived else ())
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


def _artifacts(row: Row[Any], published: Sequence[store.Artifact]) -> list[Artifact]:
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
        for one in published
    ]
    return [source, *made]


def _summary(
    row: Row[Any], name: str, owner: str, framework: str | None, *, run_id: UUID | None, named: list[str]
) -> dict[str, Any]:
    """What is shown of a version everywhere; `name`, `owner` and `framework` are its model's."""
    model = f"/api/v1/models/{row.model_id}"
    itself = f"{model}/versions/{quote(row.version, safe='')}"
    links = {
        "self": itself,
        "model": model,
        "artifacts": f"{itself}/artifacts",
        "download": f"{itself}/download",
        "variants": f"{itself}/variants",
        "rebuild": f"{itself}/rebuild",
        "metrics": f"{itself}/metrics",
        "exports": f"{itself}/exports",
    }
    return {
        "id": row.id,
        "model": name,
        "owner": owner,
        "version": row.version,
        "ordinal": row.ordinal,
        "format": row.format,
        "framework": row.declared.get("framework") or framework,
        "servable": row.servable,
        "verdict": row.verdict,
        "status": row.status,
        "aliases": named,
        "is_default": pointers.DEFAULT in named,
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
