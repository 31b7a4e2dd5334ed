"""Ratings of models over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.deps import Principal, Transaction, require
from api.errors import documented
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.ratings import NewRating, Rating, Ratings
from registry import audit, lookup, models, ratings

router = APIRouter(prefix="/models/{model}", tags=["models"])

Reader = Annotated[Principal, Depends(require("models:read"))]
_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found")


@router.put(
    "/rating",
    summary="Rate a model",
    responses=documented(*_ABOUT_ONE, "own_model", "version_not_found", "invalid_field"),
)
def rate(model: str, wish: NewRating, asking: Reader, session: Transaction) -> Rating:
    """From 1 to 5; it takes the place of what you have said before. Nobody rates their own."""
    row = lookup.find_model(session, asking.viewer, model)
    version = lookup.find_version(session, row.id, wish.version) if wish.version is not None else None
    said = ratings.rate(
        session, row, asking.user_id, score=wish.score, review=wish.review, version_id=version and version.id
    )
    audit.append(session, asking.actor, "model.rated", str(row.id), {"name": row.name, "score": wish.score})
    return Rating(
        user=asking.username,
        score=said.score,
        review=said.review,
        version=version and version.version,
        created_at=said.created_at,
        updated_at=said.updated_at,
    )


@router.delete(
    "/rating",
    summary="Take a rating back",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(*_ABOUT_ONE, "rating_not_found"),
)
def withdraw(model: str, asking: Reader, session: Transaction) -> None:
    """Yours."""
    row = lookup.find_model(session, asking.viewer, model)
    ratings.withdraw(session, row, asking.user_id)
    audit.append(session, asking.actor, "rating.withdrawn", str(row.id), {"name": row.name})


@router.get(
    "/ratings",
    summary="List a model's ratings",
    responses=documented(*_ABOUT_ONE, "invalid_cursor", "invalid_field"),
)
def list_ratings(
    model: str,
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Ratings:
    """Newest first, with the average of all."""
    row = models.read(session, asking.viewer, model)
    rows = ratings.of_model(session, row.id, after=decode(cursor), limit=limit + 1)
    following = next_page(request, response, rows, limit)
    items = [
        Rating(
            user=each.username,
            score=each.score,
            review=each.review,
            version=each.version,
            created_at=each.created_at,
            updated_at=each.updated_at,
        )
        for each in rows
    ]
    return Ratings(items=items, next=following, average=row.rating, count=row.ratings)
