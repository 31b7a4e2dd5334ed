"""Aliases over HTTP: where a model's movable names point, moving them, and what they were when."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.etags import IfMatch, revision_in, tag
from api.idempotency import IdempotentRoute
from api.paging import Before, Limit, page_before
from api.schemas.aliases import Alias, Aliases, AliasHistory, AliasMove, NewPlace, Rollback
from pipeline import comparing, promotability
from pipeline.promotability import Trust
from registry import aliases, lookup, pointers
from registry.aliases import Expected

router = APIRouter(prefix="/models/{model}", tags=["aliases"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]

_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "alias_not_found")
_CHANGES_ONE = (
    "unauthenticated",
    "forbidden",
    "not_granted",
    "model_not_found",
    "alias_moved",
    "precondition_failed",
    "invalid_field",
)
_MOVES_ONE = (
    *_CHANGES_ONE,
    "version_not_found",
    "not_published",
    "not_clean",
    "version_archived",
    "version_breaks_contract",
    "gate_failed",
)


@router.get("/aliases", summary="List aliases", responses=documented("unauthenticated", "forbidden", "model_not_found"))
def list_aliases(model: str, asking: Reader, session: Transaction) -> Aliases:
    """By name. `latest` is not among them: it is computed."""
    owner = lookup.find_model(session, asking.viewer, model)
    return Aliases(items=[_alias(owner, row) for row in aliases.listed(session, owner.id)])


@router.get("/aliases/{alias}", summary="Read an alias", responses=documented(*_ABOUT_ONE, "invalid_field"))
def read_alias(
    model: str,
    alias: str,
    response: Response,
    asking: Reader,
    session: Transaction,
    at: Annotated[AwareDatetime | None, Query(description="a moment, such as 2026-05-03T12:00Z")] = None,
) -> Alias:
    """Where it points, or pointed `at` a moment: what was production on 3 May?"""
    owner = lookup.find_model(session, asking.viewer, model)
    row = aliases.find(session, owner.id, alias, at=at)
    if at is None:
        tag(response, row.id)
    return _alias(owner, row)


@router.get(
    "/aliases/{alias}/history", summary="Read an alias's history", responses=documented(*_ABOUT_ONE, "invalid_field")
)
def read_history(
    model: str,
    alias: str,
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    before: Before = None,
    limit: Limit = 20,
) -> AliasHistory:
    """Every move it made, newest first: from where to where, when, who, why. Never changed, only added to."""
    owner = lookup.find_model(session, asking.viewer, model)
    rows = aliases.history(session, owner.id, alias, before=before, limit=limit + 1)
    following = page_before(request, response, rows, limit)
    moves = [
        AliasMove(
            id=row.id,
            version=row.version,
            previous=row.previous,
            at=row.at,
            moved_by=row.moved_by_name,
            reason=row.reason,
        )
        for row in rows
    ]
    return AliasHistory(items=moves, next=following)


@router.put("/aliases/{alias}", summary="Move an alias", responses=documented(*_MOVES_ONE, "invalid_alias"))
def move_alias(
    model: str,
    alias: str,
    wish: NewPlace,
    response: Response,
    asking: Reader,
    session: Transaction,
    parts: Parts,
    if_match: IfMatch = None,
) -> Alias:
    """Make it, or point it elsewhere: at a version that is published and clean and whose number says what changed.

    Takes models:upload; a protected one (`protected_aliases` of the model) takes models:deploy and passes the gates.
    """
    return _moved(session, response, asking, model, alias, wish, if_match, parts.trust)


@router.put("/activate", summary="Make a version the default", responses=documented(*_MOVES_ONE))
def activate(
    model: str,
    wish: NewPlace,
    response: Response,
    asking: Reader,
    session: Transaction,
    parts: Parts,
    if_match: IfMatch = None,
) -> Alias:
    """Move the alias `default`: the version to use unless one knows better."""
    return _moved(session, response, asking, model, pointers.DEFAULT, wish, if_match, parts.trust)


@router.post(
    "/aliases/{alias}:rollback",
    summary="Roll an alias back",
    responses=documented(*_CHANGES_ONE, "alias_not_found", "nothing_to_roll_back_to"),
)
def roll_back(
    model: str,
    alias: str,
    wish: Rollback,
    response: Response,
    asking: Reader,
    session: Transaction,
    if_match: IfMatch = None,
) -> Alias:
    """Point it where it pointed before, past what is no longer published and clean. No gate stands in the way."""
    owner = _mine(session, asking, model, alias)
    expected = _expected(session, owner, None, if_match)
    row = aliases.roll_back(session, asking.actor, owner, alias, reason=wish.reason, expected=expected)
    tag(response, row.id)
    return _alias(owner, row)


@router.delete(
    "/aliases/{alias}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Remove an alias",
    responses=documented(*_CHANGES_ONE, "alias_not_found"),
)
def remove_alias(
    model: str,
    alias: str,
    asking: Reader,
    session: Transaction,
    *,
    reason: Annotated[str, Query(max_length=2000)] = "",
    if_match: IfMatch = None,
) -> None:
    """It points nowhere from now on; its history stays, and a rollback brings it back."""
    owner = _mine(session, asking, model, alias)
    expected = _expected(session, owner, None, if_match)
    aliases.remove(session, asking.actor, owner, alias, reason=reason, expected=expected)


def _moved(
    session: Session,
    response: Response,
    asking: Principal,
    model: str,
    alias: str,
    wish: NewPlace,
    if_match: str | None,
    trust: Trust,
) -> Alias:
    owner = _mine(session, asking, model, alias)
    pointers.refuse_unless_name(alias)
    version = lookup.find_version(session, owner.id, wish.version, lock=True)
    expected = _expected(session, owner, wish, if_match)
    row = aliases.move(
        session, asking.actor, owner, alias, version, reason=wish.reason, judge=_judge(trust), expected=expected
    )
    tag(response, row.id)
    return _alias(owner, row)


def _judge(trust: Trust) -> aliases.Judge:
    """Whether an alias may point at a version: its number says what changed, and a protected one passes the gates."""

    def judge(session: Session, model: Row[Any], version: Row[Any], alias: str) -> None:
        comparing.refuse_unless_number_fits(session, version)
        if alias in model.protected_aliases:
            promotability.refuse_unless_promotable(session, model, version, alias, trust)

    return judge


def _mine(session: Session, asking: Principal, model: str, alias: str) -> Row[Any]:
    """A model whose alias the asker may move, locked: nobody else moves one of its aliases meanwhile."""
    permission = aliases.permission(lookup.find_model(session, asking.viewer, model, lock=True), alias)
    asking.refuse_without(permission)
    return lookup.find_model(session, asking.viewer, model, permission=permission)


def _expected(session: Session, owner: Row[Any], wish: NewPlace | None, if_match: str | None) -> Expected:
    """What the asker believes, by the ETag they saw and by the version they name."""
    revision = revision_in(if_match)
    if wish is None or "expected" not in wish.model_fields_set:
        return Expected(revision=revision)
    believed = None if wish.expected is None else lookup.find_version(session, owner.id, wish.expected).id
    return Expected(version_id=believed, revision=revision)


def _alias(owner: Row[Any], row: Row[Any]) -> Alias:
    model = f"/api/v1/models/{owner.id}"
    itself = f"{model}/aliases/{row.name}"
    return Alias(
        name=row.name,
        version=row.version,
        version_id=row.version_id,
        protected=row.name in owner.protected_aliases,
        revision=row.id,
        moved_at=row.at,
        moved_by=row.moved_by_name,
        reason=row.reason,
        links={
            "self": itself,
            "history": f"{itself}/history",
            "version": f"{model}/versions/{quote(row.version, safe='')}",
        },
    )
