"""Roles over HTTP, for admins."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from sqlalchemy import Row

from api.deps import Principal, Transaction, require
from api.errors import documented
from api.schemas.people import NewRole, Role, Roles
from registry import audit, roles

router = APIRouter(prefix="/roles", tags=["people"])

Admin = Annotated[Principal, Depends(require("admin"))]
Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,62}$", examples=["trainer"])]


@router.get("", summary="List roles", responses=documented("unauthenticated", "forbidden"))
def list_roles(_: Admin, session: Transaction) -> Roles:
    """Those that come with Slipway, and your own, by name."""
    return Roles(items=[_role(row) for row in roles.find_many(session)])


@router.get("/{role}", summary="Read a role", responses=documented("unauthenticated", "forbidden", "role_not_found"))
def read_role(role: Name, _: Admin, session: Transaction) -> Role:
    """What it lets its members do, and how many they are."""
    return _role(roles.find(session, role))


@router.put(
    "/{role}",
    summary="Make or change a role",
    responses=documented("unauthenticated", "forbidden", "built_in_role", "last_admin", "invalid_field"),
)
def put_role(role: Name, wish: NewRole, asking: Admin, session: Transaction) -> Role:
    """Whoever has it may from their next request on what it says now."""
    row = roles.put(session, role, permissions=wish.permissions, description=wish.description)
    audit.append(session, asking.actor, "role.set", role, {"permissions": list(row.permissions)})
    return _role(row)


@router.delete(
    "/{role}",
    summary="Delete a role",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("unauthenticated", "forbidden", "role_not_found", "built_in_role", "role_in_use"),
)
def delete_role(role: Name, asking: Admin, session: Transaction) -> None:
    """One that nobody has."""
    roles.remove(session, role)
    audit.append(session, asking.actor, "role.deleted", role, {})


def _role(row: Row[Any]) -> Role:
    return Role(
        name=row.name,
        permissions=row.permissions,
        description=row.description,
        members=row.members,
        built_in=row.name in roles.BUILT_IN,
    )
