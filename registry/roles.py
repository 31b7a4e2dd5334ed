"""Roles: named sets of permissions, which users have any number of. Those that come with Slipway stay as they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, any_, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import people
from registry.errors import Conflict, Missing
from registry.tables import roles, users

BUILT_IN = ("reader", "engineer", "reviewer", "admin")


def find_many(session: Session) -> list[Row[Any]]:
    """All of them with `members`, the number of users who have them, by name."""
    return list(session.execute(_WITH_MEMBERS.order_by(roles.c.name)))


def find(session: Session, name: str) -> Row[Any]:
    row = session.execute(_WITH_MEMBERS.where(roles.c.name == name)).one_or_none()
    if row is None:
        raise Missing("role_not_found", f"There is no role {name!r}.")
    return row


def put(session: Session, name: str, *, permissions: Collection[str], description: str) -> Row[Any]:
    """Make a role, or change one; whoever has it may from now on what it says.

    Raises `Conflict` for a built-in one, and where nobody would be an admin.
    """
    _refuse_built_in(name)
    values = {"permissions": sorted(set(permissions)), "description": description}
    made = upsert(roles).values(name=name, **values)
    session.execute(made.on_conflict_do_update(index_elements=["name"], set_=values))
    people.keep_an_admin(session)
    return find(session, name)


def remove(session: Session, name: str) -> None:
    """Raises `Missing`, and `Conflict` for a built-in one or one that somebody has."""
    _refuse_built_in(name)
    session.execute(select(roles.c.name).where(roles.c.name == name).with_for_update())  # nobody is given it meanwhile
    members = find(session, name).members
    if members:
        raise Conflict("role_in_use", f"{members} users have the role {name}; take it from them first.")
    session.execute(delete(roles).where(roles.c.name == name))


_WITH_MEMBERS = select(
    roles,
    select(func.count())
    .select_from(users)
    .where(roles.c.name == any_(users.c.roles), users.c.deleted_at.is_(None))
    .scalar_subquery()
    .label("members"),
)


def _refuse_built_in(name: str) -> None:
    if name in BUILT_IN:
        raise Conflict("built_in_role", f"The role {name} comes with Slipway and stays as it is; make one of your own.")
