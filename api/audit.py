"""The audit trail over HTTP, for admins: read it, and have it checked."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.paging import Before, Limit, Moment, page_before
from api.schemas.audit import AuditCheck, AuditEntry, AuditFault, AuditTrail
from registry import audit

router = APIRouter(prefix="/audit", tags=["audit"])

Admin = Annotated[Principal, Depends(require("admin"))]
Word = Annotated[str | None, Query(max_length=200)]


@router.get("", summary="Read the audit trail", responses=documented("unauthenticated", "forbidden", "invalid_field"))
def read_audit(
    request: Request,
    response: Response,
    _: Admin,
    session: Transaction,
    *,
    actor: Word = None,
    action: Word = None,
    subject: Word = None,
    since: Annotated[Moment, Query(description="from then on; UTC where it has no zone")] = None,
    until: Annotated[Moment, Query(description="before then")] = None,
    before: Before = None,
    limit: Limit = 20,
) -> AuditTrail:
    """Newest first: who signed in, uploaded, reviewed, downloaded, moved, deployed, gave and took rights."""
    rows = audit.entries(
        session,
        actor=actor,
        action=action,
        subject=subject,
        since=since,
        until=until,
        before=before,
        limit=limit + 1,
    )
    following = page_before(request, response, rows, limit)
    return AuditTrail(items=[_entry(row) for row in rows], next=following)


@router.get("/check", summary="Check the audit trail", responses=documented("unauthenticated", "forbidden"))
def check_audit(_: Admin, session: Transaction, parts: Parts) -> AuditCheck:
    """Read it from the first entry to the last: every one that was changed or removed is named, and checkpoints are verified."""
    chain = audit.verify(session, (parts.signer.public_key, *parts.settings.trusted_keys))
    return AuditCheck(
        intact=not chain.faults,
        entries=chain.entries,
        head=chain.head,
        broken_at=chain.broken_at,
        signed=chain.signed,
        faults=[AuditFault(what=fault.what, first=fault.first, last=fault.last) for fault in chain.faults],
    )


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        actor_id=row.actor_id,
        action=row.action,
        subject=row.subject,
        details=row.details,
        previous=row.previous,
        hash=row.hash,
    )
