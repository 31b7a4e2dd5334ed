"""Users, tokens, keys."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

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


class Login(BaseModel):
    username: str = Field(min_length=1, max_length=128)
    password: str = Field(min_length=1, max_length=1024)

    model_config = example(username="ada", password="correct horse battery staple")  # noqa: S106 - an example


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind, no secret
    expires_in: int = Field(description="seconds")

    model_config = example(
        access_token="eyJhbGciOiJIUzI1NiJ9.e30.c2ln",  # noqa: S106 - an example
        token_type="bearer",  # noqa: S106 - a kind, no secret
        expires_in=3600,
    )


class NewUser(BaseModel):
    username: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="lower case, so that no two look alike")
    password: str = Field(min_length=12, max_length=256)
    permissions: list[Permission] | None = Field(default=None, description="default: read, download, upload, predict")

    model_config = example(
        username="grace",
        password="correct horse battery staple",  # noqa: S106 - an example
        permissions=["models:read"],
    )


class User(BaseModel):
    id: UUID
    username: str
    permissions: list[str]

    model_config = example(id=USER, username="grace", permissions=["models:read"])


class Me(User):
    via: Literal["jwt", "key"]

    model_config = example(id=USER, username="ada", permissions=["models:read", "models:upload"], via="key")


class NewKey(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    scopes: list[Permission] | None = Field(default=None, min_length=1, description="default: all that you may now")
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)

    model_config = example(name="laptop", scopes=["models:read", "models:upload"], expires_in_days=90)


_KEY = {
    "id": "1679091c-5a88-4faf-8fb5-e6087eb1b2dc",
    "name": "laptop",
    "prefix": "slw_Zk3v9Q",
    "scopes": ["models:read", "models:upload"],
    "created_at": WHEN,
    "expires_at": "2027-02-18T12:00:00Z",
}


class Key(BaseModel):
    id: UUID
    name: str
    prefix: str = Field(description="the key's first characters, to recognise it by")
    scopes: list[str]
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
