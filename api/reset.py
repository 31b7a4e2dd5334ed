"""`DELETE /reset`, which there is in development only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.deps import Parts, Principal, require
from api.errors import documented, invalid
from api.schemas.operations import Emptied
from registry import audit
from registry.reset import reset
from shared.storage import Bucket

router = APIRouter(tags=["operations"])

Admin = Annotated[Principal, Depends(require("admin"))]
LOT = 1000


@router.delete(
    "/reset",
    summary="Empty everything",
    responses=documented("unauthenticated", "forbidden", "invalid_field", "storage_unavailable"),
)
def empty(
    asking: Admin, parts: Parts, *, confirm: Annotated[str, Query(max_length=20, description="the word reset")]
) -> Emptied:
    """Models, versions, runs and their bytes, and every user who is no admin; admins keep their keys.

    Only where `ENVIRONMENT=development`. The audit trail stays, and has this in it. Done twice it finishes what a storage
    that was away has left.
    """
    if confirm != "reset":
        raise invalid({"query.confirm": "must be the word reset"})
    with parts.begin() as session:
        gone = reset(session)
        told = {"models": gone.models, "versions": gone.versions, "users": gone.users}
        audit.append(session, asking.actor, "instance.reset", "everything", told)
    # After the commit: bytes without rows are swept some day, rows without bytes would be lies.
    removed = sum(_empty(bucket) for bucket in (parts.staging, parts.registry, parts.quarantine))
    return Emptied(**told, objects=removed)


def _empty(bucket: Bucket) -> int:
    keys: Iterator[str] = (stored.key for stored in bucket.list())
    removed = 0
    while lot := list(islice(keys, LOT)):
        bucket.delete(lot)
        removed += len(lot)
    return removed
