"""API keys over HTTP: one's own, for programs. A key never may more than its owner, and a narrow one cannot widen itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

from fastapi import APIRouter

from api.deps import Manager, Principal, Problem, Transaction
from api.errors import documented, invalid
from api.idempotency import IdempotentRoute
from api.schemas.people import ChangedKey, Key, Keys, NewKey, ShownKey
from registry import audit, keys
from shared import tokens

router = APIRouter(prefix="/keys", tags=["people"], route_class=IdempotentRoute)


@router.post(
    "",
    summary="Make an API key",
    status_code=HTTPStatus.CREATED,
    responses=documented("unauthenticated", "forbidden", "invalid_field"),
)
def create_key(wish: NewKey, asking: Manager, session: Transaction) -> ShownKey:
    """The key is in this answer and never shown again; we keep only its SHA-256.

    With `calls` it is good for so many requests, refused ones too; each answer says how many are left, as
    `RateLimit: "calls";r=…`. After the last one every answer is 429 `budget_exhausted`.
    """
    fresh = tokens.new_key()
    key = keys.add(
        session,
        user_id=asking.user_id,
        name=wish.name,
        prefix=fresh.prefix,
        digest=fresh.digest,
        scopes=_within(asking, asking.permissions if wish.scopes is None else wish.scopes),
        expires_at=_end(wish.expires_in_days),
        calls=wish.calls,
    )
    told = {"name": key.name, "prefix": key.prefix, "scopes": list(key.scopes), "calls": wish.calls}
    audit.append(session, asking.actor, "key.created", str(key.id), told)
    return ShownKey(**_fields(key), key=fresh.text)


@router.get("", summary="List my API keys", responses=documented("unauthenticated", "forbidden"))
def list_keys(asking: Manager, session: Transaction) -> Keys:
    """Newest first, without those that were revoked."""
    return Keys(items=[Key(**_fields(key)) for key in keys.of_user(session, asking.user_id)])


@router.patch(
    "/{key_id}",
    summary="Change an API key",
    responses=documented("unauthenticated", "forbidden", "key_not_found", "invalid_field"),
)
def change_key(key_id: UUID, wish: ChangedKey, asking: Manager, session: Transaction) -> Key:
    """Rename it, narrow or widen it, give it another end or another number of calls; the key itself stays the same."""
    given = wish.model_fields_set
    if empty := sorted(name for name in ("name", "scopes") if name in given and getattr(wish, name) is None):
        raise invalid({f"body.{name}": "cannot be null" for name in empty})
    changes: dict[str, Any] = {}
    if wish.name is not None:
        changes["name"] = wish.name
    if wish.scopes is not None:
        changes["scopes"] = _within(asking, wish.scopes)
    if "expires_in_days" in given:
        changes["expires_at"] = _end(wish.expires_in_days)
    if "calls" in given:
        changes["calls_remaining"] = wish.calls
    if not changes:
        raise invalid({"body": "names nothing to change"})
    key = keys.change(session, user_id=asking.user_id, key_id=key_id, changes=changes)
    told = {"scopes": list(key.scopes), "calls": key.calls_remaining, "changed": sorted(given)}
    audit.append(session, asking.actor, "key.changed", str(key.id), told)
    return Key(**_fields(key))


@router.delete(
    "/{key_id}",
    summary="Revoke an API key",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("unauthenticated", "forbidden", "key_not_found"),
)
def revoke_key(key_id: UUID, asking: Manager, session: Transaction) -> None:
    """The key is worthless from now on."""
    key = keys.revoke(session, user_id=asking.user_id, key_id=key_id)
    audit.append(session, asking.actor, "key.revoked", str(key.id), {"name": key.name, "prefix": key.prefix})


def _within(asking: Principal, wanted: Sequence[str] | frozenset[str]) -> list[str]:
    scopes = sorted(set(wanted))
    if beyond := [scope for scope in scopes if not asking.may(scope)]:
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", f"A key cannot have what you have not: {', '.join(beyond)}.")
    return scopes


def _end(days: int | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def _fields(key: keys.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "calls_remaining": key.calls_remaining,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
