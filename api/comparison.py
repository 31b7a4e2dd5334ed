"""Versions held against each other over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Principal, Transaction, require
from api.errors import documented, invalid
from api.schemas.comparison import Comparison
from api.versions import find
from pipeline import comparing
from registry import pointers
from registry.lookup import Viewer

router = APIRouter(prefix="/models/{model}", tags=["versions"])

Reader = Annotated[Principal, Depends(require("models:read"))]
Reference = Annotated[str, Query(max_length=256)]


@router.get(
    "/compare",
    summary="Compare versions",
    responses=documented("unauthenticated", "forbidden", "model_not_found", "version_not_found", "invalid_field"),
)
def compare_versions(
    model: str,
    asking: Reader,
    session: Transaction,
    versions: Annotated[
        list[Reference],
        Query(
            min_length=2,
            max_length=4,
            description="two to four: of this model (`1.0.0`, `3`, `production`, `latest`), or of another "
            "(`owner/name@1.0.0`; without @ its latest)",
        ),
    ],
) -> Comparison:
    """Metrics, benchmarks, size, licence, toolchain and quality side by side, and every break of the contract by name."""
    pairs = [_meant(session, asking.viewer, model, reference) for reference in versions]
    if len({row.id for _, row in pairs}) < len(pairs):
        raise invalid({"query.versions": "names the same version twice"})
    return Comparison(**comparing.compared(session, pairs))


def _meant(session: Session, viewer: Viewer, model: str, reference: str) -> tuple[Row[Any], Row[Any]]:
    other, at, version = reference.rpartition("@")
    if at:
        return find(session, viewer, other, version)
    if "/" in reference or "~" in reference:
        return find(session, viewer, reference, pointers.LATEST)
    return find(session, viewer, model, reference)
