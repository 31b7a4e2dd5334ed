"""The audit trail over HTTP, for admins: read it, and have it checked."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row

from api.deps import Principal, Transaction, require
from api.errors import documented
from api.paging import Limit
from api.schemas.audit import AuditCheck, AuditEntry, AuditTrail
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
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before")] = None,
    limit: Limit = 20,
) -> AuditTrail:
    """Newest first: who reviewed, downloaded, condemned, and every verdict that changed."""
    rows = audit.entries(session, actor=actor, action=action, subject=subject, before=before, limit=limit + 1)
    following = None
    if len(rows) > limit:
        del rows[limit:]
        following = rows[-1].id
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "before"]
        query = urlencode([*kept, ("before", following)])
        response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return AuditTrail(items=[_entry(row) for row in rows], next=following)


@router.get("/check", summary="Check the audit trail", responses=documented("unauthenticated", "forbidden"))
def check_audit(_: Admin, session: Transaction) -> AuditCheck:
    """Read it from the first entry to the last and see whether each seals the one before."""
    chain = audit.verify(session)
    return AuditCheck(intact=chain.broken_at is None, entries=chain.entries, head=chain.head, broken_at=chain.broken_at)


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
