"""Signing in and out, and how an account is made. Guessing is slow from where it is done, and locks nobody else out."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request

from api.deps import Credentials, Manager, Parts, Principal, Problem, Services, Transaction, principal
from api.errors import documented, unauthenticated
from api.schemas.people import Login, NewUser, Token, User
from api.users import HASHING_AT_ONCE, shown
from registry import audit, people
from registry.audit import Actor

log = structlog.get_logger()

router = APIRouter(prefix="/auth", tags=["people"])

TOLD = 600
"""Failed sign-ins an hour that are written into the audit trail; the others are only logged."""
REGISTRATIONS = 20
"""An hour and address, where strangers may register."""

NOBODY = Actor(id=None, name="anonymous")


def checked(login: Login, request: Request, parts: Parts) -> people.User:
    """The user whose password this is. As slow for a name that nobody has, and refused as soon."""
    counters = _counters(parts, login.username, _address(request))
    refused = [found for key, most in counters if not (found := parts.limiter.look(key, most, alone=True)).allowed]
    if refused:
        log.warning("login.throttled", address=_address(request))
        detail = "Too many sign-ins have failed; wait, or use an API key."
        headers = {"Retry-After": str(max(each.reset_seconds for each in refused))}
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too_many_sign_ins", detail, headers=headers)
    with parts.begin() as session:
        user = people.by_name(session, login.username)
    if not parts.passwords.matches(user.password_hash if user else None, login.password) or user is None:
        for key, most in counters:
            parts.limiter.allow(key, most, alone=True)
        _tell_of_failure(parts, user, _address(request))
        raise unauthenticated("User name or password is wrong.", code="bad_credentials")
    parts.limiter.forget(*counters[0])
    return user


def hashed(new: NewUser, parts: Parts) -> tuple[NewUser, str]:
    return new, parts.passwords.hash(new.password)


def registrar(request: Request, parts: Parts, credentials: Credentials) -> Principal | None:
    """An admin, or nobody in particular where the installation is open to all."""
    if credentials is None and parts.settings.open_registration:
        decision = parts.limiter.allow(f"register:{_address(request)}", REGISTRATIONS, alone=True)
        if not decision.allowed:
            detail = "Too many accounts were made from your address."
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail, headers=decision.headers)
        return None
    asking = principal(request, parts, credentials)
    if not asking.may("admin"):
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Only admins add users here.")
    return asking


@router.post("/login", summary="Sign in", responses=documented("bad_credentials", "invalid_field", "too_many_sign_ins"))
def login(user: Annotated[people.User, Depends(checked, max_concurrency=HASHING_AT_ONCE)], parts: Parts) -> Token:
    """Exchange a user name and a password for a short-lived bearer token, which has no call budget.

    Failed attempts are counted for the name and your address together, and much more generously for either alone.
    """
    with parts.begin() as session:
        audit.append(session, Actor(id=user.id, name=user.username), "login.succeeded", str(user.id), {})
    return Token(access_token=parts.tokens.issue(str(user.id)), expires_in=parts.tokens.lifetime)


@router.post(
    "/logout",
    summary="Sign out",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("unauthenticated", "forbidden", "invalid_field", "not_a_token"),
)
def logout(
    asking: Manager,
    session: Transaction,
    *,
    everywhere: Annotated[bool, Query(description="end every bearer token of yours, on every computer")] = False,
) -> None:
    """End the bearer token that you came with, from now on. API keys stay; revoke them one by one."""
    if everywhere:
        people.end_sessions(session, asking.user_id)
    elif asking.token is None:
        detail = "You came with an API key: revoke it, or sign out with everywhere=true."
        raise Problem(HTTPStatus.CONFLICT, "not_a_token", detail)
    else:
        people.revoke_token(session, asking.token.id, asking.token.expires_at)
    audit.append(session, asking.actor, "logout", str(asking.user_id), {"everywhere": everywhere})


@router.post(
    "/register",
    summary="Add a user",
    status_code=HTTPStatus.CREATED,
    responses=documented(
        "unauthenticated", "forbidden", "username_taken", "email_taken", "invalid_field", "rate_limited"
    ),
)
def register(
    asking: Annotated[Principal | None, Depends(registrar)],
    new: Annotated[tuple[NewUser, str], Depends(hashed, max_concurrency=HASHING_AT_ONCE)],
    session: Transaction,
) -> User:
    """For admins, and with `OPEN_REGISTRATION` for everybody, who then chooses no rights.

    Without `permissions` and `roles` the user may read, download, upload and predict.
    """
    wish, password_hash = new
    if asking is None and wish.model_fields_set & {"permissions", "roles", "plan"}:
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Only admins decide about permissions, roles and plans.")
    everyday = wish.permissions is None and not wish.roles
    user = people.register(
        session,
        username=wish.username,
        password_hash=password_hash,
        permissions=sorted(people.EVERYDAY if everyday else set(wish.permissions or ())),
        roles=wish.roles,
        email=wish.email,
        plan=wish.plan,
    )
    told = {"username": user.username, "permissions": list(user.direct), "roles": list(user.roles)}
    actor = Actor(id=user.id, name=user.username) if asking is None else asking.actor
    audit.append(session, actor, "user.registered", str(user.id), told)
    return shown(user)


def _counters(parts: Services, username: str, address: str) -> list[tuple[str, int]]:
    """What a failure counts for, with how much an hour is too much: first the one that a success clears.

    A name alone is counted last and generously: or anybody could keep its owner out from anywhere.
    """
    most = parts.settings.login_rate_limit
    name = hashlib.sha256(username.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return [
        (f"login:{name}:{address}", most),
        (f"login-from:{address}", 10 * most),
        (f"login-as:{name}", 100 * most),
    ]


def _address(request: Request) -> str:
    """Where the request comes from. Of IPv6 the network: whoever has one address there has all of them."""
    host = request.client.host if request.client else "unknown"
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((found, 64), strict=False).network_address)
    return host


def _tell_of_failure(parts: Services, user: people.User | None, address: str) -> None:
    """Without the name that was tried, where nobody has it: people type passwords into that field."""
    known = parts.limiter.allow("login-failures-told", TOLD, alone=True)
    log.info("login.failed", address=address, user_id=str(user.id) if user else None)
    if known.allowed:
        with parts.begin() as session:
            audit.append(session, NOBODY, "login.failed", str(user.id) if user else "nobody", {"address": address})
