"""Names of models over HTTP: ask about one before it is taken, and see what was found about others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from api.deps import Principal, Transaction, require
from api.errors import documented
from api.paging import Limit
from api.schemas.models import Name
from api.schemas.names import NameCheck, NameChecks, Outcome, RememberedCheck
from registry import naming
from shared.db import Begin

router = APIRouter(tags=["models"])

Reader = Annotated[Principal, Depends(require("models:read"))]
Admin = Annotated[Principal, Depends(require("admin"))]


@contextmanager
def remembering(begin: Begin) -> Iterator[None]:
    """Goes around a transaction in which a model is named: what a refused name was like is kept all the same."""
    try:
        yield
    except naming.NameRefused as refused:
        with begin() as session:
            naming.remember(session, refused.check)
        raise


@router.get(
    "/models:check-name",
    summary="Check a name",
    responses=documented("unauthenticated", "forbidden", "invalid_field"),
)
def check_name(name: Annotated[Name, Query()], asking: Reader, session: Transaction) -> NameCheck:
    """What would become of a model of yours with this name. Private models of others are not looked at."""
    found = naming.look(session, asking.user_id, name)
    naming.remember(session, naming.Check(asked_by=asking.user_id, name=name, judgement=found))
    similar = [{"name": each.name, "owner": each.owner, "relation": each.relation} for each in found.similar]
    return NameCheck.model_validate({"name": name, "outcome": found.outcome, "similar": similar})


@router.get(
    "/name-checks",
    summary="See what was found about names",
    responses=documented("unauthenticated", "forbidden", "invalid_field"),
)
def list_checks(
    request: Request,
    response: Response,
    _: Admin,
    session: Transaction,
    *,
    outcome: Outcome | None = None,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before")] = None,
    limit: Limit = 20,
) -> NameChecks:
    """Newest first: who wanted which name, what it was like, and what came of it."""
    rows = naming.checks(session, outcome=outcome, before=before, limit=limit + 1)
    following = None
    if len(rows) > limit:
        del rows[limit:]
        following = rows[-1].id
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "before"]
        query = urlencode([*kept, ("before", following)])
        response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    items = [
        RememberedCheck(
            id=row.id,
            name=row.name,
            outcome=row.outcome,
            similar=row.similar,
            asked_by=row.username,
            confirmed=row.confirmed,
            at=row.at,
        )
        for row in rows
    ]
    return NameChecks(items=items, next=following)
