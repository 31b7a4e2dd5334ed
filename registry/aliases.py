"""Aliases as rows: where each points, every move it made, and who may make the next. History is only ever added to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import audit, pointers
from registry.audit import Actor
from registry.errors import Conflict, Missing, Outdated
from registry.tables import alias_moves, aliases, users, versions

Judge = Callable[[Session, Row[Any], Row[Any], str], None]
"""Asked with model, version and alias before an alias moves forward; raises what speaks against it."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the asker believes: that the alias points at this version (None: nowhere), by this move. Unsaid: at any."""

    version_id: UUID | Literal["any"] | None = "any"
    revision: int | None = None


ANYTHING = Expected()


class _Place(NamedTuple):
    """An alias of a model, and the move that made it point where it points."""

    model_id: UUID
    name: str
    last: Row[Any] | None


def permission(model: Row[Any], name: str) -> str:
    """What it takes to move an alias of a model: a protected one decides what is live."""
    return "models:deploy" if name in model.protected_aliases else "models:upload"


def listed(session: Session, model_id: UUID) -> list[Row[Any]]:
    """Where the aliases of a model point now, by name: the last move of each."""
    last = (
        _moves()
        .ext(distinct_on(alias_moves.c.name))
        .where(alias_moves.c.model_id == model_id)
        .order_by(alias_moves.c.name, alias_moves.c.id.desc())
    )
    return [row for row in session.execute(last) if row.version_id is not None]


def names(session: Session, model_id: UUID) -> dict[UUID, list[str]]:
    """The aliases of a model by the version that they point at."""
    found: dict[UUID, list[str]] = {}
    query = select(aliases.c.version_id, aliases.c.name).where(aliases.c.model_id == model_id)
    for row in session.execute(query.order_by(aliases.c.name)):
        found.setdefault(row.version_id, []).append(row.name)
    return found


def find(session: Session, model_id: UUID, name: str, *, at: datetime | None = None) -> Row[Any]:
    """The move that made an alias point where it points, now or at a moment in the past. Raises `Missing`."""
    row = _last(session, model_id, name, at)
    if row is None or row.version_id is None:
        when = "" if at is None else f" at {at.isoformat()}"
        raise Missing("alias_not_found", f"This model has no alias {name!r}{when}.")
    return row


def history(
    session: Session, model_id: UUID, name: str, *, before: int | None = None, limit: int = 20
) -> list[Row[Any]]:
    """Every move, newest first; `before` is the id of the last one seen. Raises `Missing` for what never was."""
    query = _moves().where(*_of(model_id, name))
    if before is not None:
        query = query.where(alias_moves.c.id < before)
    rows = list(session.execute(query.order_by(alias_moves.c.id.desc()).limit(limit)))
    if not rows and before is None:
        raise Missing("alias_not_found", f"This model never had an alias {name!r}.")
    return rows


def move(
    session: Session,
    actor: Actor,
    model: Row[Any],
    name: str,
    version: Row[Any],
    *,
    reason: str,
    judge: Judge,
    expected: Expected = ANYTHING,
) -> Row[Any]:
    """Point an alias at a version; to where it points already is no move. The caller has locked the model, then the version.

    Raises `Invalid` for a name that is none, `Outdated` where somebody moved it meanwhile, `Conflict` for a version that
    nothing may point at, and what `judge` raises.
    """
    pointers.refuse_unless_name(name)
    last = _refuse_unless_expected(session, model.id, name, expected)
    if last is not None and last.version_id == version.id:
        return last
    refuse_unless_fit(version)
    judge(session, model, version, name)
    return _point(session, actor, "alias.moved", _Place(model.id, name, last), to=version.id, reason=reason)


def roll_back(
    session: Session, actor: Actor, model: Row[Any], name: str, *, reason: str, expected: Expected = ANYTHING
) -> Row[Any]:
    """Point an alias where it pointed before, past versions that nothing may point at any more. Nobody is asked.

    The caller has locked the model. Raises `Missing`, `Outdated`, `Conflict("nothing_to_roll_back_to")`.
    """
    last = _refuse_unless_expected(session, model.id, name, expected)
    if last is None:
        raise Missing("alias_not_found", f"This model never had an alias {name!r}.")
    moves = session.execute(
        select(alias_moves.c.version_id).where(*_of(model.id, name)).order_by(alias_moves.c.id)
    ).scalars()
    behind = pointers.behind(moves)
    # In the order of their ids, so that two who lock several versions cannot wait for each other.
    locked = select(versions).where(versions.c.id.in_(behind)).order_by(versions.c.id).with_for_update()
    rows = {row.id: row for row in session.execute(locked)}
    for version_id in behind:
        if version_id in rows and unfit(rows[version_id]) is None:
            return _point(
                session, actor, "alias.rolled_back", _Place(model.id, name, last), to=version_id, reason=reason
            )
    detail = f"{name} never pointed at another version that is still published and clean."
    raise Conflict("nothing_to_roll_back_to", detail)


def remove(
    session: Session, actor: Actor, model: Row[Any], name: str, *, reason: str, expected: Expected = ANYTHING
) -> None:
    """Take an alias away; its history stays. The caller has locked the model. Raises `Missing`, `Outdated`."""
    last = _refuse_unless_expected(session, model.id, name, expected)
    if last is None or last.version_id is None:
        raise Missing("alias_not_found", f"This model has no alias {name!r}.")
    session.execute(delete(aliases).where(aliases.c.model_id == model.id, aliases.c.name == name))
    _note(session, actor, "alias.removed", _Place(model.id, name, last), to=None, reason=reason)


def unfit(version: Row[Any]) -> tuple[str, str] | None:
    """Why nothing may point at a version: code and reason; None where something may."""
    if version.deleted_at is not None:
        return "version_deleted", f"{version.version} has been deleted."
    if version.published_at is None:
        return "not_published", f"{version.version} is not published (yet)."
    if version.verdict != "clean":
        return "not_clean", f"The scan found {version.version} {version.verdict}; nothing may point at it."
    if version.status == "archived":
        return "version_archived", f"{version.version} is archived; nothing may point at it."
    return None


def refuse_unless_fit(version: Row[Any]) -> None:
    """Raises `Conflict` for a version that nothing may point at."""
    found = unfit(version)
    if found is not None:
        raise Conflict(*found)


def _refuse_unless_expected(session: Session, model_id: UUID, name: str, expected: Expected) -> Row[Any] | None:
    """The last move, as the asker believed it to be."""
    last = _last(session, model_id, name)
    points_at = None if last is None else last.version_id
    moved = None if last is None else last.id
    if expected.version_id not in ("any", points_at) or expected.revision not in (None, moved):
        where = (
            "is gone" if last is None or points_at is None else f"points at {last.version} since {last.at.isoformat()}"
        )
        raise Outdated("alias_moved", f"Somebody was first: {name} {where}.")
    return last


def _point(session: Session, actor: Actor, action: str, place: _Place, *, to: UUID, reason: str) -> Row[Any]:
    there = {"version_id": to, "moved_at": func.clock_timestamp()}
    pointer = upsert(aliases).values(model_id=place.model_id, name=place.name, **there)
    session.execute(pointer.on_conflict_do_update(index_elements=["model_id", "name"], set_=there))
    _note(session, actor, action, place, to=to, reason=reason)
    return find(session, place.model_id, place.name)


def _note(session: Session, actor: Actor, action: str, place: _Place, *, to: UUID | None, reason: str) -> None:
    previous_id = None if place.last is None else place.last.version_id
    session.execute(
        insert(alias_moves).values(
            model_id=place.model_id,
            name=place.name,
            version_id=to,
            previous_id=previous_id,
            reason=reason,
            moved_by=actor.id,
        )
    )
    told = {
        "model": str(place.model_id),
        "alias": place.name,
        "from": None if previous_id is None else str(previous_id),
        "reason": reason,
    }
    audit.append(session, actor, action, str(to or previous_id), told)


def _last(session: Session, model_id: UUID, name: str, at: datetime | None = None) -> Row[Any] | None:
    query = _moves().where(*_of(model_id, name))
    if at is not None:
        query = query.where(alias_moves.c.at <= at)
    return session.execute(query.order_by(alias_moves.c.id.desc()).limit(1)).one_or_none()


def _of(model_id: UUID, name: str) -> Sequence[ColumnElement[bool]]:
    return alias_moves.c.model_id == model_id, alias_moves.c.name == name


def _moves() -> Select[Any]:
    """Moves with the numbers of the versions, and who made them."""
    previous = versions.alias("previous")
    return (
        select(
            alias_moves,
            versions.c.version,
            previous.c.version.label("previous"),
            users.c.username.label("moved_by_name"),
        )
        .outerjoin(versions, versions.c.id == alias_moves.c.version_id)
        .outerjoin(previous, previous.c.id == alias_moves.c.previous_id)
        .outerjoin(users, users.c.id == alias_moves.c.moved_by)
    )
