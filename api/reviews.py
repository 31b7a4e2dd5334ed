"""Reviews over HTTP: what lies in quarantine, the bytes as an encrypted archive, waivers and condemnations.

For `models:review` only, who see everybody's quarantined files; nobody decides about their own.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Problem, Services, Transaction, require
from api.errors import documented, invalid
from api.idempotency import IdempotentRoute
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.reviews import (
    Condemnation,
    Condemned,
    NewWaiver,
    Quarantine,
    QuarantinedVersion,
    QuarantineSummary,
    ReviewState,
    RevokedWaiver,
    Waived,
    Waiver,
)
from pipeline import quarantine, reviewing
from pipeline.reviewing import Reviewer
from pipeline.upload import key_name
from registry import reviews
from registry.waivers import Stop
from registry.waivers import Waiver as Granted
from shared.storage import Bucket

router = APIRouter(tags=["reviews"], route_class=IdempotentRoute)

Reviewing = Annotated[Principal, Depends(require("models:review"))]

PASSWORD = "infected"  # noqa: S105 - the customary one; it keeps scanners and fingers off, and hides nothing
ZIP = "application/zip"
LONGEST = timedelta(days=366)
_ABOUT_ONE = ("unauthenticated", "forbidden", "version_not_found")


@router.get(
    "/quarantine",
    summary="List what lies in quarantine",
    responses=documented("invalid_cursor", "unauthenticated", "forbidden", "invalid_field"),
)
def list_quarantine(
    request: Request,
    response: Response,
    _: Reviewing,
    session: Transaction,
    *,
    verdict: Annotated[Literal["unknown", "malicious"] | None, Query()] = None,
    status: Annotated[ReviewState | None, Query(description="waiting: nobody has decided yet")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Quarantine:
    """Everybody's, newest first, with what stopped each."""
    rows = quarantine.find_many(session, verdict=verdict, state=status, after=decode(cursor), limit=limit + 1)
    following = next_page(request, response, rows, limit)
    return Quarantine(items=[QuarantineSummary(**_summary(row)) for row in rows], next=following)


@router.get("/quarantine/{version_id}", summary="Read a quarantined version", responses=documented(*_ABOUT_ONE))
def read_quarantined(version_id: UUID, asking: Reviewing, session: Transaction) -> QuarantinedVersion:
    """Every finding with where it stands, and all that reviewers have decided about its files."""
    row = _find(session, asking, version_id)
    digests = reviews.digests(row).values()
    now = datetime.now(UTC)
    return QuarantinedVersion(
        **_summary(row),
        findings=_facts(row).get("findings", []),
        files=_files(row),
        waivers=[_waiver(each, now) for each in reviews.waivers_for(session, digests)],
        condemned=[
            Condemned(sha256=each.sha256, reason=each.reason, condemned_by=each.by, condemned_at=each.created_at)
            for each in reviews.condemnations(session, digests).values()
        ],
    )


@router.get(
    "/quarantine/{version_id}/download",
    summary="Take the quarantined files away",
    response_class=StreamingResponse,
    responses=documented(*_ABOUT_ONE, "bytes_missing", "storage_unavailable")
    | {
        200: {
            "description": f"A zip, encrypted (AES-256, WinZip AE-2) with the password `{PASSWORD}`.",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}, "example": "PK…"}},
        }
    },
)
def download_quarantined(version_id: UUID, asking: Reviewing, session: Transaction, parts: Parts) -> StreamingResponse:
    """What was uploaded, byte for byte, in an archive that neither a scanner nor a double click opens. Audited."""
    row = _find(session, asking, version_id)
    members = _members(parts, row)
    reviewing.fetched(session, _reviewer(asking), row)
    name = quote(f"quarantined-{row.id}.zip", safe="")
    return StreamingResponse(
        _archive(members),
        media_type=ZIP,
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


@router.post(
    "/quarantine/{version_id}/waivers",
    summary="Waive a rule for a file",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(
        *_ABOUT_ONE,
        "own_upload",
        "not_waivable",
        "nothing_to_waive",
        "condemned",
        "illegal_transition",
        "invalid_field",
    ),
)
def waive(version_id: UUID, wish: NewWaiver, response: Response, asking: Reviewing, session: Transaction) -> Waived:
    """For exactly this rule and exactly this file (its SHA-256), until it expires. Once nothing remains, the run goes on.

    Only what is unknown can be waived. Nobody waives what they have uploaded themselves.
    """
    done = reviewing.waive(
        session,
        _reviewer(asking),
        version_id,
        rule=wish.rule,
        sha256=wish.sha256,
        reason=wish.reason,
        expires_at=_end(wish),
    )
    run = f"/api/v1/runs/{done.run_id}"
    response.headers["Location"] = run
    return Waived(
        waiver=_waiver(done.waiver, datetime.now(UTC)),
        run=done.run_id,
        resumed=done.resumed,
        remaining=[_stop(stop) for stop in done.remaining],
        links={"run": run, "version": f"/api/v1/quarantine/{version_id}"},
    )


@router.delete(
    "/waivers/{waiver_id}",
    summary="Revoke a waiver",
    responses=documented("unauthenticated", "forbidden", "waiver_not_found"),
)
def revoke(waiver_id: UUID, asking: Reviewing, session: Transaction, parts: Parts) -> RevokedWaiver:
    """It counts no longer from now on. Versions that lean on it are scanned again at once, by the runs named here."""
    step = next(stage.step() for stage in parts.stages if stage.name == quarantine.SCAN)
    waiver, looks = reviewing.revoke(session, _reviewer(asking), waiver_id, step=step)
    return RevokedWaiver(waiver=_waiver(waiver, datetime.now(UTC)), runs=looks)


@router.post(
    "/quarantine/{version_id}/condemn",
    summary="Condemn a file",
    responses=documented(*_ABOUT_ONE, "no_such_file", "invalid_field"),
)
def condemn(version_id: UUID, wish: Condemnation, asking: Reviewing, session: Transaction) -> Condemned:
    """For good and by its SHA-256, wherever it comes from. Everything that was made of it is locked (423)."""
    digest, _ = reviewing.condemn(session, _reviewer(asking), version_id, reason=wish.reason, sha256=wish.sha256)
    row = reviews.condemnations(session, [digest])[digest]
    return Condemned(sha256=digest, reason=row.reason, condemned_by=row.by, condemned_at=row.created_at)


def _find(session: Session, asking: Principal, version_id: UUID) -> Row[Any]:
    return quarantine.find(session, version_id, any_version=asking.may("admin"))


def _reviewer(asking: Principal) -> Reviewer:
    return Reviewer(id=asking.user_id, name=asking.username, everything=asking.may("admin"))


def _end(wish: NewWaiver) -> datetime:
    now = datetime.now(UTC)
    end = wish.expires_at or now + timedelta(days=wish.days or 0)
    if not now < end <= now + LONGEST:
        raise invalid({"body.expires_at": f"must lie ahead, by {LONGEST.days} days at most"})
    return end


def _members(parts: Services, row: Row[Any]) -> list[tuple[str, Bucket, str]]:
    """Name in the archive, bucket and key of every file of a version. 409 where one is gone."""
    stored = [(f"model/{key_name(row.filename)}", row.original_key or row.staging_key)]
    stored += [(f"{role}/{key_name(file['name'])}", file["key"]) for role, file in row.side_files.items()]
    members = []
    for name, key in stored:
        bucket = parts.quarantine if key.startswith(f"{row.id}/") else parts.staging
        if bucket.size(key) is None:
            raise Problem(
                HTTPStatus.CONFLICT, "bytes_missing", f"{name} is not in storage; it may be on its way there."
            )
        members.append((name, bucket, key))
    return members


def _archive(members: Sequence[tuple[str, Bucket, str]]) -> Iterator[bytes]:
    """The archive piece by piece. Stored without packing: models do not shrink, and flat memory is worth more."""
    from stream_zip import ZIP_64, stream_zip

    now = datetime.now(UTC)
    files = ((name, now, 0o100600, ZIP_64, bucket.stream(key)) for name, bucket, key in members)
    yield from stream_zip(
        files, password=PASSWORD, get_compressobj=lambda: zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
    )


def _summary(row: Row[Any]) -> dict[str, Any]:
    itself = f"/api/v1/quarantine/{row.id}"
    facts = _facts(row)
    links = {"self": itself, "download": f"{itself}/download"}
    return {
        "id": row.id,
        "model": row.model,
        "owner": row.owner,
        "version": row.version,
        "format": row.format,
        "filename": row.filename,
        "size": row.size,
        "sha256": row.sha256,
        "verdict": row.verdict,
        "status": row.state,
        "created_at": row.created_at,
        "ruleset": facts.get("ruleset"),
        "counts": dict(Counter(each["severity"] for each in facts.get("findings", ()))),
        "stops": facts.get("stops", []),
        "run": row.run_id,
        "links": links if row.run_id is None else links | {"run": f"/api/v1/runs/{row.run_id}"},
    }


def _facts(row: Row[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = (row.report or {}).get("facts", {})
    return facts


def _files(row: Row[Any]) -> list[dict[str, Any]]:
    model = {"role": "model", "name": row.filename, "sha256": row.sha256, "size": row.size}
    beside = [
        {"role": role, "name": file["name"], "sha256": file["sha256"], "size": file["size"]}
        for role, file in row.side_files.items()
    ]
    return [model, *beside]


def _waiver(waiver: Granted, now: datetime) -> Waiver:
    return Waiver(
        id=waiver.id,
        sha256=waiver.sha256,
        rule=waiver.rule,
        reason=waiver.reason,
        granted_by=waiver.granted_by,
        granted_at=waiver.granted_at,
        expires_at=waiver.expires_at,
        revoked_at=waiver.revoked_at,
        counts=waiver.counts(now),
    )


def _stop(stop: Stop) -> dict[str, Any]:
    return {"sha256": stop.sha256, "rule": stop.rule, "severity": stop.severity, "waived": None}
