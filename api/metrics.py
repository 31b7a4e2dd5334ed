"""Metrics of versions over HTTP: record what was measured, read how it went."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from api.deps import Principal, Transaction, require
from api.errors import documented, invalid
from api.idempotency import IdempotentRoute
from api.paging import Before, Limit, page_before
from api.schemas.metrics import Metrics, NewMetrics
from api.versions import find, metric
from registry import audit, lookup, metrics
from registry.metrics import Figure

router = APIRouter(prefix="/models/{model}/versions/{version}/metrics", tags=["versions"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Uploader = Annotated[Principal, Depends(require("models:upload"))]

AHEAD = timedelta(hours=1)
"""By how much somebody's clock may be ahead of ours: what was measured tomorrow would be the latest for ever."""
_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "version_not_found", "invalid_field")


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Record metrics",
    responses=documented(*_ABOUT_ONE, "not_granted", "invalid_metric"),
)
def record_metrics(model: str, version: str, wish: NewMetrics, asking: Uploader, session: Transaction) -> Metrics:
    """Add to the version's history; nothing is overwritten. `f1_score` and `map` are taken for `f1` and `mAP`."""
    soon = datetime.now(UTC) + AHEAD
    late = {
        f"body.metrics.{at}.at": "is in the future" for at, one in enumerate(wish.metrics) if one.at and one.at > soon
    }
    if late:
        raise invalid(late)
    owner = lookup.find_model(session, asking.viewer, model, permission="models:upload")
    row = lookup.find_version(session, owner.id, version)
    found = [Figure(name=one.name, value=one.value, dataset=one.dataset, at=one.at) for one in wish.metrics]
    ids = metrics.record(session, row.id, found, by=asking.user_id)
    recorded = metrics.history(session, row.id, ids=ids)
    told = [{"name": one.name, "value": repr(one.value), "dataset": one.dataset} for one in recorded]
    audit.append(session, asking.actor, "metrics.recorded", str(row.id), {"metrics": told})
    return Metrics(items=[metric(one) for one in recorded])


@router.get("", summary="Read a version's metrics", responses=documented(*_ABOUT_ONE))
def read_metrics(
    model: str,
    version: str,
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    name: Annotated[str | None, Query(max_length=64)] = None,
    dataset: Annotated[str | None, Query(max_length=512)] = None,
    before: Before = None,
    limit: Limit = 100,
) -> Metrics:
    """All that was ever recorded, by the time of measuring, newest first."""
    _, row = find(session, asking.viewer, model, version)
    rows = metrics.history(session, row.id, name=name, dataset=dataset, before=before, limit=limit + 1)
    following = page_before(request, response, rows, limit)
    return Metrics(items=[metric(one) for one in rows], next=following)
