"""Users, tokens, keys, roles, grants."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.examples import LATER, USER, WHEN, example

Permission = Literal[
    "models:read",
    "models:download",
    "models:upload",
    "models:delete",
    "models:deploy",
    "models:predict",
    "models:review",
    "admin",
]


Grantable = Literal[
    "models:read", "models:download", "models:upload", "models:delete", "models:deploy", "models:predict"
]

Email = Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", to_lower=True),
    Field(description="kept in lower case; nobody else has the same"),
]
Plan = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="whose limits and quotas count, such as `free`, `premium`"),
]
Password = Annotated[str, Field(min_length=12, max_length=256)]
RoleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class Login(BaseModel):
    username: str = Field(min_length=1, max_length=128)
    password: str = Field(min_length=1, max_length=1024)

    model_config = example(username="ada", password="correct horse battery staple")  # noqa: S106 - an example


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind, no secret
    expires_in: int = Field(description="seconds")
    calls_remaining: int | None = Field(default=None, description="null: a bearer token has no call budget; keys may")

    model_config = example(
        access_token="eyJhbGciOiJIUzI1NiJ9.e30.c2ln",  # noqa: S106 - an example
        token_type="bearer",  # noqa: S106 - a kind, no secret
        expires_in=3600,
        calls_remaining=None,
    )


class NewUser(BaseModel):
    username: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="lower case, so that no two look alike")
    password: Password
    email: Email | None = None
    permissions: list[Permission] | None = Field(default=None, description="default: read, download, upload, predict")
    roles: list[RoleName] = Field(default=[], max_length=20)
    plan: Plan = "free"

    model_config = example(
        username="grace",
        password="correct horse battery staple",  # noqa: S106 - an example
        email="grace@example.org",
        roles=["engineer"],
    )


_USER = {
    "id": USER,
    "username": "grace",
    "email": "grace@example.org",
    "permissions": [
        "models:delete",
        "models:deploy",
        "models:download",
        "models:predict",
        "models:read",
        "models:upload",
    ],
    "direct_permissions": [],
    "roles": ["engineer"],
    "plan": "free",
    "is_active": True,
    "created_at": WHEN,
}


class User(BaseModel):
    id: UUID
    username: str
    email: str | None
    permissions: list[str] = Field(description="all that they may: their own and those of their roles")
    direct_permissions: list[str] = Field(description="those that they have without a role")
    roles: list[str]
    plan: str
    is_active: bool = Field(description="false: switched off by an admin")
    created_at: datetime

    model_config = example(**_USER)


class Users(BaseModel):
    items: list[User]
    next: str | None

    model_config = example(items=[_USER], next=None)


class Me(User):
    permissions: list[str] = Field(description="what this credential may")
    via: Literal["jwt", "key"]
    serving_url: str = Field(description="where models answer: `/v2/models/{owner}/{name}` is below it")

    model_config = example(**_USER, via="key", serving_url="https://serving.example.org")


class ChangedUser(BaseModel):
    """What is not given stays."""

    email: Email | None = None
    plan: Plan | None = None
    is_active: bool | None = None

    model_config = example(email="grace.hopper@example.org")


class Rights(BaseModel):
    """What is not given stays."""

    permissions: list[Permission] | None = Field(default=None, description="those without a role")
    roles: list[RoleName] | None = Field(default=None, max_length=20)

    model_config = example(permissions=["models:deploy"], roles=["engineer"])


class NewPassword(BaseModel):
    new_password: Password

    model_config = example(new_password="correct horse battery staple")  # noqa: S106 - an example


class OwnPassword(NewPassword):
    old_password: str = Field(min_length=1, max_length=1024)

    model_config = example(
        old_password="correct horse battery",  # noqa: S106 - an example
        new_password="correct horse battery staple",  # noqa: S106 - an example
    )


_ROLE = {
    "name": "trainer",
    "permissions": ["models:read", "models:upload"],
    "description": "brings models in",
}


class NewRole(BaseModel):
    permissions: list[Permission]
    description: str = Field(default="", max_length=500)

    model_config = example(permissions=_ROLE["permissions"], description=_ROLE["description"])


class Role(BaseModel):
    name: str
    permissions: list[str]
    description: str
    members: int = Field(description="how many users have it")
    built_in: bool = Field(description="true: comes with Slipway and stays as it is")

    model_config = example(**_ROLE, members=3, built_in=False)


class Roles(BaseModel):
    items: list[Role]
    next: str | None = None

    model_config = example(items=[_ROLE | {"members": 3, "built_in": False}], next=None)


class NewGrant(BaseModel):
    expires_in_days: int | None = Field(default=None, ge=1, le=3650, description="default: until it is taken back")

    model_config = example(expires_in_days=30)


_GRANT = {
    "username": "grace",
    "permission": "models:download",
    "granted_by": "ada",
    "granted_at": WHEN,
    "expires_at": None,
}


class Grant(BaseModel):
    username: str
    permission: str
    granted_by: str
    granted_at: datetime
    expires_at: datetime | None

    model_config = example(**_GRANT)


class Grants(BaseModel):
    items: list[Grant]
    next: str | None = None

    model_config = example(items=[_GRANT], next=None)


class NewKey(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    scopes: list[Permission] | None = Field(default=None, min_length=1, description="default: all that you may now")
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)
    calls: int | None = Field(
        default=None, ge=1, le=10**12, description="good for so many requests; default: any number"
    )

    model_config = example(name="ci", scopes=["models:read", "models:upload"], expires_in_days=90, calls=1000)


class ChangedKey(BaseModel):
    """What is not given stays; null takes an end or a budget away."""

    name: str | None = Field(default=None, min_length=1, max_length=100)
    scopes: list[Permission] | None = Field(default=None, min_length=1)
    expires_in_days: int | None = Field(default=None, ge=1, le=3650, description="from now")
    calls: int | None = Field(default=None, ge=1, le=10**12, description="from now")

    model_config = example(name="ci of digits", scopes=["models:read"], calls=5000)


_KEY = {
    "id": "1679091c-5a88-4faf-8fb5-e6087eb1b2dc",
    "name": "laptop",
    "prefix": "slw_Zk3v9Q",
    "scopes": ["models:read", "models:upload"],
    "calls_remaining": 958,
    "created_at": WHEN,
    "expires_at": "2027-02-18T12:00:00Z",
}


class Key(BaseModel):
    id: UUID
    name: str
    prefix: str = Field(description="the key's first characters, to recognise it by")
    scopes: list[str]
    calls_remaining: int | None = Field(description="null: no budget")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None

    model_config = example(**_KEY, last_used_at=LATER)


class ShownKey(Key):
    key: str = Field(description="the key itself; this is the only time it is shown")

    model_config = example(**_KEY, last_used_at=None, key="slw_Zk3v9QmTn0bE4yXw1sHdU8rJfLcPaVgOiBqKtR7eM2x")


class Keys(BaseModel):
    items: list[Key]
    next: str | None = None

    model_config = example(items=[_KEY | {"last_used_at": LATER}], next=None)
