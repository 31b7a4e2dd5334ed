"""Models over HTTP: the named lines of versions that somebody may see."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row

from api.deps import Principal, Transaction, require
from api.errors import documented, invalid
from api.paging import MAX_LIMIT, Cursor, Limit, decode, next_page
from api.schemas.models import Latest, Model, Models
from registry import store

router = APIRouter(prefix="/models", tags=["models"])

Reader = Annotated[Principal, Depends(require("models:read"))]

Status = Literal["training", "testing", "approved", "deprecated", "archived"]

Words = Annotated[str | None, Query(max_length=200)]


@router.get(
    "", summary="List models", responses=documented("invalid_cursor", "unauthenticated", "forbidden", "invalid_field")
)
def list_models(
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    search: Annotated[str | None, Query(max_length=200, description="in names and descriptions")] = None,
    model_type: Words = None,
    framework: Words = None,
    status: Annotated[Status | None, Query(description="of any of the model's versions")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
    page: Annotated[int | None, Query(ge=1, le=10_000, description="instead of a cursor")] = None,
    size: Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="with page")] = None,
    skip: Annotated[int | None, Query(ge=0, le=1_000_000, description="instead of a cursor")] = None,
) -> Models:
    """Yours and the public ones, newest first. `page` and `skip` also count them all in `total`."""
    ways = [name for name, given in (("cursor", cursor), ("page", page or size), ("skip", skip)) if given is not None]
    if len(ways) > 1:
        raise invalid({f"query.{way}": f"use one of {', '.join(ways)}" for way in ways})
    limit = size or limit
    offset = skip or ((page or 1) - 1) * limit
    wanted = store.Wanted(search=search, model_type=model_type, framework=framework, status=status)
    rows = store.list_models(session, asking.viewer, wanted, after=decode(cursor), offset=offset, limit=limit + 1)
    following = next_page(request, response, rows, limit)
    latest = store.latest_versions(session, [row.id for row in rows])
    counted = ways in (["page"], ["skip"])
    return Models(
        items=[_model(row, latest.get(row.id)) for row in rows],
        next=following,
        total=store.count_models(session, asking.viewer, wanted) if counted else None,
    )


@router.get("/{model}", summary="Read a model", responses=documented("unauthenticated", "forbidden", "model_not_found"))
def read_model(model: str, asking: Reader, session: Transaction) -> Model:
    """By id, or by the name of one of yours."""
    row = store.find_model(session, asking.viewer, model)
    return _model(row, store.latest_versions(session, [row.id]).get(row.id))


def _model(row: Row[Any], latest: Row[Any] | None) -> Model:
    itself = f"/api/v1/models/{row.id}"
    return Model(
        id=row.id,
        name=row.name,
        owner=row.owner,
        description=row.description,
        model_type=row.model_type,
        framework=row.framework,
        licence=row.licence,
        tags=row.tags,
        visibility=row.visibility,
        created_at=row.created_at,
        updated_at=row.updated_at,
        latest=latest
        and Latest(
            version=latest.version,
            ordinal=latest.ordinal,
            format=latest.format,
            verdict=latest.verdict,
            status=latest.status,
            published_at=latest.published_at,
            created_at=latest.created_at,
        ),
        links={"self": itself, "versions": f"{itself}/versions"},
    )
