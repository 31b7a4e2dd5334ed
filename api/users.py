"""Users over HTTP: admins look after everybody, everybody after themselves. Somebody else's account does not exist."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api.deps import Asking, Manager, Parts, Principal, Problem, Transaction, require
from api.errors import documented, invalid
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.people import ChangedUser, Me, NewPassword, OwnPassword, Rights, User, Users
from pipeline import store as runs
from registry import audit, leaving, people
from registry.errors import Missing

router = APIRouter(tags=["people"])

Admin = Annotated[Principal, Depends(require("admin"))]
HASHING_AT_ONCE = 4
"""argon2 takes 64 MiB and a core each time; whoever comes later waits without holding a thread."""
_ABOUT_ONE = ("unauthenticated", "user_not_found")
_HEIR = "to:"

Models = Annotated[
    str | None,
    Query(
        max_length=70,
        pattern=r"^(delete|to:[a-z0-9][a-z0-9._-]{0,62})$",
        description="what becomes of the user's models: `delete`, or `to:NAME` for whoever has them from then on",
        examples=["to:grace"],
    ),
]


@router.get("/me", summary="Who am I", responses=documented("unauthenticated"))
def me(asking: Asking, session: Transaction, parts: Parts) -> Me:
    """Who the server takes you for, what this credential may, and where predictions are asked for."""
    user = people.find(session, str(asking.user_id))
    return Me(
        **(_fields(user) | {"permissions": sorted(asking.permissions)}),
        via=asking.via,
        serving_url=parts.settings.serving_address,
    )


@router.get(
    "/users",
    summary="List users",
    responses=documented("invalid_cursor", "unauthenticated", "forbidden", "invalid_field"),
)
def list_users(
    request: Request,
    response: Response,
    _: Admin,
    session: Transaction,
    *,
    active: Annotated[bool | None, Query(description="only those who can, or cannot, sign in")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Users:
    """Newest first, without those who were deleted."""
    found = people.find_many(session, active=active, after=decode(cursor), limit=limit + 1)
    following = next_page(request, response, found, limit)
    return Users(items=[shown(user) for user in found], next=following)


@router.get("/users/{user}", summary="Read a user", responses=documented(*_ABOUT_ONE))
def read_user(user: str, asking: Asking, session: Transaction) -> User:
    """By id or name, `me` for yourself; others are there for admins only."""
    return shown(_reachable(session, asking, user))


@router.patch(
    "/users/{user}",
    summary="Change a user",
    responses=documented(*_ABOUT_ONE, "forbidden", "email_taken", "last_admin", "invalid_field"),
)
def change_user(user: str, wish: ChangedUser, asking: Manager, session: Transaction) -> User:
    """Everybody their own `email`; admins also `plan` and `is_active`, of anybody.

    Who is switched off is out at once, with every token and key, and can be switched on again.
    """
    found = _reachable(session, asking, user, lock=True)
    changes = wish.model_dump(include=wish.model_fields_set)
    if empty := sorted(name for name in ("plan", "is_active") if name in changes and changes[name] is None):
        raise invalid({f"body.{name}": "cannot be null" for name in empty})
    if changes.keys() - {"email"} and not asking.may("admin"):
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Only admins change more than an email address.")
    changed = people.change(session, found, changes)
    told = {name: value for name, value in changes.items() if name != "email"}
    if "email" in changes:
        told["email"] = "changed"
    audit.append(session, asking.actor, "user.changed", str(found.id), told)
    return shown(changed)


@router.put(
    "/users/{user}/permissions",
    summary="Set what a user may",
    responses=documented(*_ABOUT_ONE, "forbidden", "unknown_role", "last_admin", "invalid_field"),
)
def set_rights(user: str, wish: Rights, asking: Admin, session: Transaction) -> User:
    """`permissions` and `roles` add up; what is not given stays. Counts from the user's next request on."""
    found = people.find(session, _named(asking, user), lock=True)
    changed = people.set_rights(session, found, permissions=wish.permissions, roles=wish.roles)
    told = {
        "before": {"permissions": list(found.direct), "roles": list(found.roles)},
        "after": {"permissions": list(changed.direct), "roles": list(changed.roles)},
    }
    audit.append(session, asking.actor, "user.rights_set", str(found.id), told)
    return shown(changed)


def own_hash(new: OwnPassword, asking: Manager, parts: Parts) -> str:
    """The new password's, once the old one was right. Wrong ones count as failed sign-ins do for the limit's size."""
    key, most = f"password:{asking.user_id}", parts.settings.login_rate_limit
    decision = parts.limiter.look(key, most, alone=True)
    if not decision.allowed:
        detail = "The old password was wrong too often; wait."
        headers = {"Retry-After": str(decision.reset_seconds)}
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_sign_ins", detail, headers=headers)
    with parts.begin() as session:
        user = people.find(session, str(asking.user_id))
    if not parts.passwords.matches(user.password_hash, new.old_password):
        parts.limiter.allow(key, most, alone=True)
        raise Problem(HTTPStatus.FORBIDDEN, "wrong_password", "The old password is wrong.")
    return parts.passwords.hash(new.new_password)


def new_hash(new: NewPassword, _: Admin, parts: Parts) -> str:
    return parts.passwords.hash(new.new_password)


@router.put(
    "/users/me/password",
    summary="Change my password",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("unauthenticated", "forbidden", "wrong_password", "too_many_sign_ins", "invalid_field"),
)
def change_password(
    asking: Manager,
    password_hash: Annotated[str, Depends(own_hash, max_concurrency=HASHING_AT_ONCE)],
    session: Transaction,
) -> None:
    """Ends every bearer token of yours, this one too: sign in again. API keys stay.

    Who has no password yet, because an admin made the account without one, gets the first one from an admin.
    """
    people.set_password(session, asking.user_id, password_hash)
    audit.append(session, asking.actor, "user.password_changed", str(asking.user_id), {})


@router.put(
    "/users/{user}/password",
    summary="Give a user another password",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(*_ABOUT_ONE, "forbidden", "invalid_field"),
)
def reset_password(
    user: str,
    asking: Admin,
    password_hash: Annotated[str, Depends(new_hash, max_concurrency=HASHING_AT_ONCE)],
    session: Transaction,
) -> None:
    """For those who have forgotten theirs. Ends every bearer token of theirs."""
    found = people.find(session, _named(asking, user), lock=True)
    people.set_password(session, found.id, password_hash)
    audit.append(session, asking.actor, "user.password_reset", str(found.id), {})


@router.delete(
    "/users/{user}",
    summary="Delete a user",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(
        *_ABOUT_ONE, "forbidden", "owns_models", "model_deployed", "model_names_taken", "last_admin", "invalid_field"
    ),
)
def delete_user(user: str, asking: Manager, session: Transaction, *, models: Models = None) -> None:
    """Yourself, or as an admin anybody. The name stays taken, so that nobody can come back as somebody else.

    Tokens, keys and grants count no longer, and the email address is forgotten. Whoever owns models must say with
    `models` what becomes of them; what is deleted can be restored by an admin as long as any other model.
    """
    found = _reachable(session, asking, user, lock=True)
    told: dict[str, Any] = {"username": found.username}
    if models == "delete":
        told["models_deleted"] = leaving.delete_models(session, found)
    elif models is not None:
        heir = _heir(session, models.removeprefix(_HEIR), found)
        given = leaving.hand_over(session, found, heir)
        runs.hand_over(session, given, heir.id)
        told |= {"models_given": len(given), "to": str(heir.id)}
    leaving.close_account(session, found)
    audit.append(session, asking.actor, "user.deleted", str(found.id), told)


def shown(user: people.User) -> User:
    return User(**_fields(user))


def _fields(user: people.User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "permissions": list(user.permissions),
        "direct_permissions": list(user.direct),
        "roles": list(user.roles),
        "plan": user.plan,
        "is_active": user.is_active,
        "created_at": user.created_at,
    }


def _reachable(session: Session, asking: Principal, reference: str, *, lock: bool = False) -> people.User:
    """Oneself, or anybody for an admin. Raises `Missing`, which says the same of those who are there."""
    named = _named(asking, reference)
    if named != str(asking.user_id) and not asking.may("admin"):
        raise Missing("user_not_found", f"There is no user {reference!r}.")
    return people.find(session, named, lock=lock)


def _named(asking: Principal, reference: str) -> str:
    """Oneself always by id: what else a name may mean is no matter then."""
    return str(asking.user_id) if reference in (people.MYSELF, asking.username) else reference


def _heir(session: Session, name: str, user: people.User) -> people.User:
    heir = people.find(session, name)
    if not heir.is_active or heir.id == user.id:
        raise invalid({"query.models": f"{name} cannot take them over"})
    return heir
