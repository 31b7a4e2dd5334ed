"""Users and their roles: who there is, and what they may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from slipway.records import Json, moment
from slipway.transport import Wire, given

PATH = "/api/v1/users"


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with an account; `permissions` is all that they may, `direct` what they may without a role."""

    id: str
    username: str
    email: str | None = None
    permissions: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    plan: str = ""
    is_active: bool = True
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> User:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            username=str(data["username"]),
            email=data.get("email"),
            permissions=tuple(data.get("permissions") or ()),
            direct=tuple(data.get("direct_permissions") or ()),
            roles=tuple(data.get("roles") or ()),
            plan=str(data.get("plan") or ""),
            is_active=bool(data.get("is_active", True)),
            created_at=moment(data.get("created_at")),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Role:
    """A named set of permissions, which `members` users have."""

    name: str
    permissions: tuple[str, ...] = ()
    description: str = ""
    members: int = 0
    built_in: bool = False
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Role:
        """Read it from an answer."""
        return cls(
            name=str(data["name"]),
            permissions=tuple(data.get("permissions") or ()),
            description=str(data.get("description") or ""),
            members=int(data.get("members") or 0),
            built_in=bool(data.get("built_in")),
            raw=data,
        )


class Users:
    """Accounts. `user` is an id or a name, or `me`; others than oneself are there for admins only."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self, *, active: bool | None = None, limit: int | None = None) -> Sequence[User]:
        """Return users, newest first."""
        wanted = {"active": None if active is None else str(active).lower()}
        return [User.read(item) for item in self._wire.pages(PATH, wanted, limit)]

    def get(self, user: str = "me") -> User:
        """Return one user."""
        return User.read(self._wire.json("GET", _path(user)))

    def register(
        self,
        username: str,
        password: str,
        *,
        email: str | None = None,
        permissions: Sequence[str] | None = None,
        roles: Sequence[str] = (),
        plan: str | None = None,
    ) -> User:
        """Add a user, who may read, download, upload and predict unless permissions or roles say otherwise."""
        body: dict[str, Any] = {
            "username": username,
            "password": password,
            "email": email,
            "permissions": None if permissions is None else [*permissions],
            "roles": [*roles] or None,
            "plan": plan,
        }
        return User.read(self._wire.json("POST", "/api/v1/auth/register", json=given(body)))

    def update(
        self, user: str = "me", *, email: str | None = None, plan: str | None = None, is_active: bool | None = None
    ) -> User:
        """Change what is given: everybody their own `email`, admins the rest too."""
        body = given({"email": email, "plan": plan, "is_active": is_active})
        return User.read(self._wire.json("PATCH", _path(user), json=body))

    def set_rights(
        self, user: str, *, permissions: Sequence[str] | None = None, roles: Sequence[str] | None = None
    ) -> User:
        """Let a user have these permissions and roles from now on; what is not given stays."""
        wanted = {"permissions": permissions, "roles": roles}
        body = {name: [*value] for name, value in wanted.items() if value is not None}
        return User.read(self._wire.json("PUT", f"{_path(user)}/permissions", json=body))

    def change_password(self, old: str, new: str) -> None:
        """Change your own; every bearer token of yours is over then."""
        body = {"old_password": old, "new_password": new}
        self._wire.send("PUT", f"{PATH}/me/password", json=body)

    def reset_password(self, user: str, new: str) -> None:
        """Give a user another password, as an admin."""
        self._wire.send("PUT", f"{_path(user)}/password", json={"new_password": new})

    def delete(self, user: str, *, models: str | None = None) -> None:
        """Delete an account; `models` is `delete` or `to:NAME` where there are any."""
        self._wire.send("DELETE", _path(user), params=given({"models": models}))


class Roles:
    """Roles, for admins."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self) -> Sequence[Role]:
        """Return all roles, by name."""
        return [Role.read(item) for item in self._wire.pages("/api/v1/roles")]

    def put(self, name: str, permissions: Sequence[str], *, description: str = "") -> Role:
        """Make a role, or change one."""
        body = {"permissions": [*permissions], "description": description}
        return Role.read(self._wire.json("PUT", f"/api/v1/roles/{quote(name, safe='')}", json=body))

    def delete(self, name: str) -> None:
        """Delete a role that nobody has."""
        self._wire.send("DELETE", f"/api/v1/roles/{quote(name, safe='')}")


def _path(user: str) -> str:
    return f"{PATH}/{quote(user, safe='')}"
