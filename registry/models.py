"""Models as rows: found by what they are called, hold and are; changed by one person at a time.

What a model looks like in a list takes one query, however long the list is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Literal
from uuid import UUID

from psycopg.errors import InvalidRegularExpression, QueryCanceled
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    Subquery,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.errors import Invalid, Missing, Outdated
from registry.lookup import Naming, Viewer, called, named, somebody, visible_models
from registry.tables import deployments, models, ratings, usage, users, versions

Sort = Literal["created_at", "updated_at", "name", "downloads", "rating"]

PATTERN_SECONDS = 1
"""How long one statement with somebody's regular expression may take."""
_SEPARATORS = re.compile(r"(?<=\w)[._+-]+(?=\w)|[._+]")
_LAST_WORD = re.compile(r"(?<![\w\"-])(\w+)$")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which models to list.

    `search` takes words of names, descriptions and cards, `regex` a pattern for names (POSIX, as Postgres reads it),
    `status` any version's, `stage` the target of a live deployment, `tags` all of them.
    """

    search: str | None = None
    regex: str | None = None
    model_type: str | None = None
    framework: str | None = None
    status: str | None = None
    stage: str | None = None
    tags: Sequence[str] = ()
    owner: str | None = None
    is_active: bool | None = None
    deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class Order:
    """How a list is sorted; ids break ties."""

    by: Sort = "created_at"
    descending: bool = True

    def of(self, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
        """What to order by."""
        return [column.desc() if self.descending else column.asc() for column in columns]


@dataclass(frozen=True, kw_only=True)
class Query:
    """What versions to look for: all that is given must fit. `name` may be `owner/name`, `version` is normalised SemVer."""

    name: str | None = None
    version: str | None = None
    regex: str | None = None


Position = tuple[datetime | str | int | Decimal, UUID]
"""A row's place in a sorted list: what it is sorted by, and its id."""


def listed(
    session: Session,
    viewer: Viewer,
    wanted: Wanted,
    *,
    order: Order = Order(),
    after: Position | None = None,
    offset: int = 0,
    limit: int = 20,
) -> list[Row[Any]]:
    """Models as `shown`, each with its `position` in the order. Raises `Invalid` for a pattern that cannot be used."""
    asked = _asked(wanted)
    query = _listing(viewer.admin, wanted.deleted, frozenset(asked), order, after is not None)
    values = {**asked, "viewer": viewer.user_id, "offset": offset, "limit": limit}
    if after is not None:
        values["place"], values["row"] = after
    with patient(session, wanted.regex):
        return list(session.execute(query, values))


@cache
def _page(admin: bool, by: Naming) -> Select[Any]:
    viewer = somebody(admin=admin)
    return shown(visible_models(viewer).where(named(viewer, by)))


def count(session: Session, viewer: Viewer, wanted: Wanted) -> int:
    """How many models there are."""
    asked = _asked(wanted)
    found = visible_models(viewer, deleted=wanted.deleted).where(*_filters(asked))
    with patient(session, wanted.regex):
        return session.execute(select(func.count()).select_from(found.subquery()), asked).scalar_one()


def read(session: Session, viewer: Viewer, reference: str) -> Row[Any]:
    """One model as `shown`. Raises `Missing`."""
    by, said = called(reference)
    row = session.execute(_page(viewer.admin, by), {**said, "viewer": viewer.user_id}).one_or_none()
    if row is None:
        raise Missing("model_not_found", f"You have no model {reference!r}.")
    return row


def shown(page: Select[Any], order: Order | None = None) -> Select[Any]:
    """The models of a query with what makes them up: the newest version, ratings, downloads, where they are live.

    With `order` the query has a `position`.
    """
    found = page.subquery("page")
    newest = (
        select(*(versions.c[name].label(f"latest_{name}") for name in LATEST))
        .where(versions.c.model_id == found.c.id, versions.c.deleted_at.is_(None))
        .order_by(versions.c.ordinal.desc())
        .limit(1)
        .lateral("newest")
    )
    rated = (
        select(func.avg(ratings.c.score).label("rating"), func.count().label("ratings"))
        .where(ratings.c.model_id == found.c.id)
        .lateral("rated")
    )
    fetches = func.sum(usage.c.count).filter(usage.c.kind == "download")
    fetched = (
        select(
            cast(func.coalesce(fetches, 0), BigInteger).label("downloads"),
            cast(func.coalesce(func.sum(usage.c.count), 0), BigInteger).label("request_count"),
            func.max(usage.c.last_at).label("last_used"),
        )
        .join(versions, versions.c.id == usage.c.version_id)
        .where(versions.c.model_id == found.c.id)
        .lateral("fetched")
    )
    live = (
        select(func.array_agg(deployments.c.target, type_=ARRAY(Text)).label("stages"))
        .where(deployments.c.model_id == found.c.id, deployments.c.status == "live")
        .lateral("live")
    )
    joined = found.outerjoin(newest, true()).join(rated, true()).join(fetched, true()).join(live, true())
    query = select(found, newest, rated, fetched, live).select_from(joined)
    return query if order is None else query.order_by(*order.of(found.c.position, found.c.id))


LATEST = ("version", "ordinal", "format", "verdict", "status", "published_at", "created_at")
"""What of the newest version a model shows, each as `latest_…`."""


def versions_like(
    session: Session, viewer: Viewer, queries: Sequence[Query], *, offset: int = 0, limit: int = 50
) -> tuple[list[Row[Any]], int]:
    """Versions that fit any of the queries, or all of them where there is none, by name and newest first; and how many.

    Each row is a version with its model's `name`, `owner`, `description`, `licence`, `model_type` and `framework`.
    """
    whose = visible_models(viewer).subquery("whose")
    kept = [whose.c[name] for name in ("name", "owner", "description", "licence", "model_type", "framework")]
    query = (
        select(versions, *kept).join(whose, whose.c.id == versions.c.model_id).where(versions.c.deleted_at.is_(None))
    )
    if queries:
        query = query.where(or_(*(_fits(each, whose) for each in queries)))
    patterns = [each.regex for each in queries if each.regex is not None]
    with patient(session, " ".join(patterns) if patterns else None):
        total = session.execute(select(func.count()).select_from(query.subquery())).scalar_one()
        page = query.order_by(whose.c.name, versions.c.model_id, versions.c.ordinal.desc()).offset(offset).limit(limit)
        return list(session.execute(page)), total


def change(session: Session, row: Row[Any], changes: Mapping[str, Any], *, expected: int | None = None) -> None:
    """Change columns of a model whose row is locked; its revision goes up. Raises `Outdated` where it is not `expected`."""
    if expected is not None and row.revision != expected:
        raise Outdated("stale", f"{row.name} has been changed since you read it; read it again.")
    if changes:
        values = {**changes, "revision": models.c.revision + 1, "updated_at": func.now()}
        session.execute(update(models).where(models.c.id == row.id).values(values))


def card(session: Session, model_id: UUID) -> str | None:
    """The model's card, Markdown, where there is one."""
    found: str | None = session.execute(select(models.c.card).where(models.c.id == model_id)).scalar_one()
    return found


@contextmanager
def patient(session: Session, pattern: str | None) -> Iterator[None]:
    """Bounds the statements of its block where they hold somebody's `pattern`, so that none can hang the database.

    Raises `Invalid` for a pattern that is none, or that takes too long.
    """
    if pattern is None:
        yield
        return
    try:
        with session.begin_nested():
            session.execute(text(f"SET LOCAL statement_timeout = '{PATTERN_SECONDS}s'"))
            yield
            session.execute(text("SET LOCAL statement_timeout TO DEFAULT"))
    except DBAPIError as error:
        match error.orig:
            case InvalidRegularExpression():
                said = str(error.orig).splitlines()[0]
                raise Invalid("invalid_pattern", f"{pattern!r} is no regular expression: {said}.") from error
            case QueryCanceled():
                raise Invalid(
                    "pattern_too_slow", f"{pattern!r} took longer than {PATTERN_SECONDS} s; make it simpler."
                ) from error
            case _:
                raise


def _searched(words: str) -> dict[str, str]:
    """What to search for, as in a web search: `"a phrase"`, `or`, `-without`; the last word may be a part."""
    plain = _SEPARATORS.sub(" ", words)
    last = _LAST_WORD.search(plain)
    before = plain[: last.start()] if last else plain
    if last is None or before.count('"') % 2 or before.rstrip().lower().endswith((" or", "-")):
        return {"words": plain}
    return {"words": before, "beginning": f"{last[1]}:*"}


def _fits(query: Query, whose: Subquery) -> ColumnElement[bool]:
    parts: list[ColumnElement[bool]] = [true()]
    if query.name is not None:
        owner, slash, name = query.name.rpartition("/")
        parts.append(whose.c.name == name)
        if slash:
            parts.append(whose.c.owner == owner)
    if query.version is not None:
        parts.append(versions.c.version == query.version)
    if query.regex is not None:
        parts.append(whose.c.name.regexp_match(query.regex))
    return and_(*parts)


def _asked(wanted: Wanted) -> dict[str, Any]:
    """What is wanted, by the parameters of `_filters`."""
    asked: dict[str, Any] = _searched(wanted.search) if wanted.search else {}
    given = {
        "regex": wanted.regex or None,
        "tags": list(wanted.tags) or None,
        "model_type": wanted.model_type,
        "framework": wanted.framework,
        "is_active": wanted.is_active,
        "owner": wanted.owner,
        "status": wanted.status or None,
        "stage": wanted.stage or None,
    }
    return asked | {name: value for name, value in given.items() if value is not None}


def _filters(asked: Collection[str]) -> list[ColumnElement[bool]]:
    """Whether a model is what these parameters ask for; their values are given at execution."""
    sought: ColumnElement[Any] = func.websearch_to_tsquery("simple", bindparam("words"), type_=TSQUERY)
    if "beginning" in asked:
        sought = sought.op("&&")(func.to_tsquery("simple", bindparam("beginning"), type_=TSQUERY))
    version = (versions.c.model_id == models.c.id, versions.c.deleted_at.is_(None))
    live = (deployments.c.model_id == models.c.id, deployments.c.status == "live")
    conditions = {
        "words": models.c.words.op("@@")(sought),
        "regex": models.c.name.regexp_match(bindparam("regex")),
        "tags": models.c.tags.op("@>")(bindparam("tags", type_=ARRAY(Text))),
        "model_type": models.c.model_type == bindparam("model_type"),
        "framework": models.c.framework == bindparam("framework"),
        "is_active": models.c.is_active == bindparam("is_active"),
        "owner": users.c.username == bindparam("owner"),
        "status": exists().where(*version, versions.c.status == bindparam("status")),
        "stage": exists().where(*live, deployments.c.target == bindparam("stage")),
    }
    return [condition for name, condition in conditions.items() if name in asked]


@lru_cache(maxsize=256)
def _listing(admin: bool, deleted: bool, asked: frozenset[str], order: Order, after: bool) -> Select[Any]:
    found = visible_models(somebody(admin=admin), deleted=deleted).where(*_filters(asked))
    query, key = _sorted(found, order.by)
    if after:
        place, last = (
            tuple_(key, models.c.id),
            tuple_(bindparam("place", type_=key.type), bindparam("row", type_=Uuid())),
        )
        query = query.where(place < last if order.descending else place > last)
    query = query.add_columns(key.label("position")).order_by(*order.of(key, models.c.id))
    page = query.offset(bindparam("offset", type_=Integer())).limit(bindparam("limit", type_=Integer()))
    return shown(page, order)


def _sorted(query: Select[Any], by: Sort) -> tuple[Select[Any], ColumnElement[Any]]:
    """The query with what it takes to sort it, and what it is sorted by."""
    match by:
        case "downloads":
            fetched = (
                select(versions.c.model_id, cast(func.sum(usage.c.count), BigInteger).label("total"))
                .join(usage, usage.c.version_id == versions.c.id)
                .where(usage.c.kind == "download")
                .group_by(versions.c.model_id)
                .subquery()
            )
            return query.outerjoin(fetched, fetched.c.model_id == models.c.id), func.coalesce(fetched.c.total, 0)
        case "rating":
            rated = (
                select(ratings.c.model_id, func.round(func.avg(ratings.c.score), 6).label("score"))
                .group_by(ratings.c.model_id)
                .subquery()
            )
            return query.outerjoin(rated, rated.c.model_id == models.c.id), func.coalesce(rated.c.score, literal(0))
        case _:
            return query, models.c[by]
