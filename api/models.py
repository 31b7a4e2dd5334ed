"""Models over HTTP: the named lines of versions that somebody may see, made, found and changed."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from http import HTTPStatus
from operator import attrgetter
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy import Row

from api import endpoints, etags
from api.deps import Parts, Principal, Problem, Transaction, require
from api.errors import documented, invalid
from api.etags import IfMatch, IfNoneMatch
from api.idempotency import IdempotentRoute
from api.names import remembering
from api.paging import MAX_LIMIT, Cursor, Limit, decode, next_page
from api.schemas.models import (
    QUERIED,
    FoundVersion,
    FoundVersions,
    Latest,
    Model,
    ModelChange,
    Models,
    NewModel,
    Target,
    VersionQuery,
)
from registry import audit, lookup, models, naming, quotas
from registry import endpoints as endpoint_rules
from shared.settings import Settings

router = APIRouter(prefix="/models", tags=["models"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Uploader = Annotated[Principal, Depends(require("models:upload"))]

Status = Literal["training", "testing", "approved", "deprecated", "archived"]

Word = Annotated[str | None, Query(max_length=200)]

_PLACES = {"downloads": int, "rating": Decimal, "name": str}
"""How a cursor's place is read, where it is no time."""
_OWNERS_BUSINESS = frozenset({"visibility", "protected_aliases"})
"""What nobody changes who was only given a grant."""
_MADE = frozenset({"latest", "links", "stages", "endpoint_url"})
"""What of a model is in no column."""
_CARD_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


@router.post(
    "",
    summary="Make a model without a version",
    status_code=HTTPStatus.CREATED,
    responses=documented(
        "unauthenticated",
        "forbidden",
        "quota_exceeded",
        "model_exists",
        "name_confusable",
        "name_unconfirmed",
        "name_in_use_by_deleted",
        "invalid_field",
    ),
)
def create_model(wish: NewModel, response: Response, asking: Uploader, session: Transaction, parts: Parts) -> Model:
    """It is yours. A name that looks like another model's is refused; one that is near to one wants `confirm_name`."""
    values = wish.model_dump(exclude={"name", "confirm_name"})
    with remembering(parts.begin):
        quotas.admit_model(session, asking.user_id, parts.settings.plans)
        made = naming.create(
            session, owner_id=asking.user_id, name=wish.name, values=values, confirmed=wish.confirm_name
        )
        row = models.read(session, asking.viewer, str(made.id))
        audit.append(session, asking.actor, "model.created", str(row.id), {"name": row.name})
    response.headers["Location"] = f"/api/v1/models/{row.id}"
    return tagged(response, row, parts.settings)


@router.get(
    "", summary="List models", responses=documented("invalid_cursor", "unauthenticated", "forbidden", "invalid_field")
)
def list_models(
    request: Request,
    response: Response,
    asking: Reader,
    parts: Parts,
    *,
    search: Annotated[
        str | None,
        Query(max_length=200, description='words, as in a web search: `"a phrase"`, `or`, `-without`, the last a part'),
    ] = None,
    regex: Annotated[str | None, Query(min_length=1, max_length=200, description="for names, POSIX")] = None,
    model_type: Word = None,
    framework: Word = None,
    status: Annotated[Status | None, Query(description="of any of the model's versions")] = None,
    stage: Annotated[Target | None, Query(description="where a version is live")] = None,
    tag: Annotated[list[str], Query(max_length=20, description="all of them")] = [],  # noqa: B006 - FastAPI copies it
    owner: Word = None,
    is_active: bool | None = None,
    deleted: Annotated[bool, Query(description="instead: what you have deleted")] = False,
    sort: models.Sort = "created_at",
    order: Literal["asc", "desc"] = "desc",
    cursor: Cursor = None,
    limit: Limit = 20,
    page: Annotated[int | None, Query(ge=1, le=10_000, description="instead of a cursor")] = None,
    size: Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="with page")] = None,
    skip: Annotated[int | None, Query(ge=0, le=1_000_000, description="instead of a cursor")] = None,
) -> Models:
    """Yours, those that you were given a grant for, and the public ones. `page` and `skip` also count them all in `total`."""
    ways = [name for name, given in (("cursor", cursor), ("page", page or size), ("skip", skip)) if given is not None]
    if len(ways) > 1:
        raise invalid({f"query.{way}": f"use one of {', '.join(ways)}" for way in ways})
    limit = size or limit
    wanted = models.Wanted(
        search=search,
        regex=regex,
        model_type=model_type,
        framework=framework,
        status=status,
        stage=stage,
        tags=tag,
        owner=owner,
        is_active=is_active,
        deleted=deleted,
    )
    after: models.Position | None = decode(cursor, _PLACES[sort]) if sort in _PLACES else decode(cursor)
    counted = ways in (["page"], ["skip"])
    with (parts.reading if regex is None else parts.begin)() as session:  # a pattern's time limit takes a transaction
        rows = models.listed(
            session,
            asking.viewer,
            wanted,
            order=models.Order(by=sort, descending=order == "desc"),
            after=after,
            offset=skip or ((page or 1) - 1) * limit,
            limit=limit + 1,
        )
        total = models.count(session, asking.viewer, wanted) if counted else None
    following = next_page(request, response, rows, limit, sorted_by="position")
    return Models(items=[described(row, parts.settings) for row in rows], next=following, total=total)


@router.post(
    ":query",
    summary="Look for many versions at once",
    responses=documented("unauthenticated", "forbidden", "invalid_pattern", "pattern_too_slow", "invalid_field"),
)
def query_versions(
    queries: Annotated[list[VersionQuery], Body(max_length=50, openapi_examples={"one": {"value": [QUERIED]}})],
    asking: Reader,
    session: Transaction,
    *,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
) -> FoundVersions:
    """Every version that fits one of the queries, by name, the newest first; `[]` finds all that you may see."""
    asked = [models.Query(name=each.name, version=each.version, regex=each.regex) for each in queries]
    rows, total = models.versions_like(session, asking.viewer, asked, offset=offset, limit=limit)
    return FoundVersions(items=[_found(row) for row in rows], total=total, offset=offset, limit=limit)


@router.get(
    "/{model}",
    summary="Read a model",
    response_model=Model,
    responses=documented("unauthenticated", "forbidden", "model_not_found") | {304: {"description": "As you have it."}},
)
def read_model(
    model: str,
    response: Response,
    asking: Reader,
    session: Transaction,
    parts: Parts,
    *,
    if_none_match: IfNoneMatch = None,
) -> Model | Response:
    """By id, by the name of one of yours, or by `owner~name`. With `If-None-Match` 304 while nothing has changed."""
    found = tagged(response, models.read(session, asking.viewer, model), parts.settings)
    if etags.matches(if_none_match, response.headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": response.headers["ETag"]})
    return found


_CHANGE = documented(
    "unauthenticated",
    "forbidden",
    "not_granted",
    "model_not_found",
    "name_confusable",
    "stale",
    "precondition_failed",
    "invalid_field",
)


@router.patch("/{model}", summary="Change a model", responses=_CHANGE)
def change_model(
    model: str,
    change: ModelChange,
    response: Response,
    asking: Uploader,
    parts: Parts,
    *,
    if_match: IfMatch = None,
) -> Model:
    """Only what you send is changed. With `If-Match`, 412 where somebody else was first; without, yours counts."""
    changes = change.model_dump(exclude_unset=True)
    with remembering(parts.begin), parts.begin() as session:
        row = lookup.find_model(session, asking.viewer, model, permission="models:upload", lock=True)
        beyond = sorted(_OWNERS_BUSINESS & changes.keys())
        if beyond and not (asking.viewer.admin or row.owner_id == asking.user_id):
            detail = f"Only {row.owner} and admins change {' and '.join(beyond)} of {row.name}."
            raise Problem(HTTPStatus.FORBIDDEN, "not_granted", detail)
        models.change(session, row, changes, expected=etags.revision_in(if_match))
        if changes.get("visibility") == "public" and row.visibility == "private":
            naming.refuse_look_alike(session, row)
        if changes.get("visibility") == "private" and row.visibility == "public":
            # Who opened its endpoint may have been somebody who must not open a private model's.
            endpoint_rules.change(session, row.id, {"auth_required": True}, actor=asking.actor)
        found = tagged(response, models.read(session, asking.viewer, str(row.id)), parts.settings)
        if changes:
            told = {name: value for name, value in changes.items() if name != "card"}
            details = {"name": row.name, "changed": sorted(changes), **told}
            audit.append(session, asking.actor, "model.changed", str(row.id), details)
        return found


@router.put("/{model}", summary="Change a model (as PATCH)", responses=_CHANGE)
def replace_model(
    model: str,
    change: ModelChange,
    response: Response,
    asking: Uploader,
    parts: Parts,
    *,
    if_match: IfMatch = None,
) -> Model:
    """The same as PATCH, for clients that only know PUT: what is left out stays as it is."""
    return change_model(model, change, response, asking, parts, if_match=if_match)


@router.get(
    "/{model}/card",
    summary="Read a model's card",
    response_class=HTMLResponse,
    responses=documented("unauthenticated", "forbidden", "model_not_found", "card_not_found")
    | {
        200: {
            "description": "The card, as a page without scripts or outside content, or as Markdown.",
            "content": {
                "text/html": {"schema": {"type": "string"}, "example": "<!doctype html>…<h1>Digits</h1>"},
                "text/markdown": {"schema": {"type": "string"}, "example": "# Digits\n\nReads digits, 8 x 8."},
            },
        }
    },
)
def read_card(
    model: str, asking: Reader, session: Transaction, *, accept: Annotated[str, Header(max_length=1000)] = "*/*"
) -> Response:
    """A page that runs nothing and loads nothing; with `Accept: text/markdown` the text itself."""
    row = lookup.find_model(session, asking.viewer, model)
    text = models.card(session, row.id)
    if text is None:
        raise Problem(HTTPStatus.NOT_FOUND, "card_not_found", "This model has no card.")
    if "text/markdown" in accept or "text/plain" in accept:
        return PlainTextResponse(text, media_type="text/markdown", headers={"Vary": "Accept"})
    return HTMLResponse(_page(row.name, text), headers={"Content-Security-Policy": _CARD_POLICY, "Vary": "Accept"})


_OWN = tuple(name for name in Model.model_fields if name not in _MADE)
_own = attrgetter(*_OWN)
_latest = attrgetter(*(f"latest_{name}" for name in models.LATEST))


def described(row: Row[Any], settings: Settings) -> Model:
    """A model as `registry.models` shows it, and where it answers."""
    itself = f"/api/v1/models/{row.id}"
    latest = Latest(**dict(zip(models.LATEST, _latest(row), strict=True))) if row.latest_version is not None else None
    return Model(
        **dict(zip(_OWN, _own(row), strict=True)),
        latest=latest,
        stages=sorted(row.stages or ()),
        endpoint_url=endpoints.url(settings, row),
        links={
            "self": itself,
            "versions": f"{itself}/versions",
            "card": f"{itself}/card",
            "ratings": f"{itself}/ratings",
            "usage": f"{itself}/usage",
            "endpoint": f"{itself}/endpoint",
        },
    )


def tagged(response: Response, row: Row[Any], settings: Settings) -> Model:
    """The model, with an ETag that begins with its revision and changes with everything that is shown of it."""
    model = described(row, settings)
    digest = hashlib.sha256(model.model_dump_json().encode()).hexdigest()[:16]
    response.headers["ETag"] = f'"{row.revision}-{digest}"'
    return model


def _found(row: Row[Any]) -> FoundVersion:
    model = f"/api/v1/models/{row.model_id}"
    fields = {name: getattr(row, name) for name in FoundVersion.model_fields if name != "links"}
    return FoundVersion(**fields, links={"self": f"{model}/versions/{quote(row.version, safe='')}", "model": model})


def _page(name: str, card: str) -> str:
    from html import escape

    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(card)
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(name)}</title>\n<body>\n{body}</body></html>\n'
