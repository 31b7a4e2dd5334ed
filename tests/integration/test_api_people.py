"""Signing in, users, API keys: who gets in, who does not, and what a key may."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx2
import jwt
import pytest
from sqlalchemy import text

from api.deps import Services
from registry import people
from registry.access import granted
from shared.db import Begin
from shared.tokens import Tokens, digest
from tests.integration.api_fixtures import (
    Person,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    signed_in,
    url,
)

PASSWORD = "correct horse battery"
Join = Callable[..., Person]


@pytest.fixture
def grace(join: Join) -> str:
    """The name of somebody who signs in with PASSWORD."""
    name = f"grace-{uuid4().hex[:8]}"
    answer = join("admin").client.post("/api/v1/auth/register", json={"username": name, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    assert answer.json()["permissions"] == sorted(people.EVERYDAY)
    return name


def test_a_password_buys_a_token_that_says_who_one_is(anonymous: httpx2.Client, grace: str, url: str) -> None:
    answer = anonymous.post("/api/v1/auth/login", json={"username": grace, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    token = answer.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", 3600)
    with signed_in(url, token["access_token"]) as client:
        me = client.get("/api/v1/me").json()
    assert (me["username"], me["via"], me["permissions"]) == (grace, "jwt", sorted(people.EVERYDAY))


def test_a_wrong_password_and_an_unknown_name_look_the_same_and_take_as_long(
    anonymous: httpx2.Client, grace: str
) -> None:
    def attempt(name: str) -> tuple[dict[str, object], float]:
        began = time.perf_counter()
        answer = anonymous.post("/api/v1/auth/login", json={"username": name, "password": "wrong"})
        seconds = time.perf_counter() - began
        body = problem(answer, 401, "bad_credentials")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        return {key: value for key, value in body.items() if key not in ("timestamp", "trace_id")}, seconds

    known, unknown = [attempt(grace) for _ in range(3)], [attempt("nobody") for _ in range(3)]
    assert known[0][0] == unknown[0][0]
    # argon2 takes tens of milliseconds; without the dummy hash an unknown name would be answered in two.
    assert min(seconds for _, seconds in unknown) > min(seconds for _, seconds in known) / 2


@pytest.mark.parametrize("claims", [{}, {"exp": 1}, {"exp": 4102444800, "sub": "not-a-uuid"}])
def test_a_token_without_a_future_expiry_or_a_user_is_refused(
    parts: Services, url: str, claims: dict[str, object]
) -> None:
    secret = parts.settings.jwt_secret.get_secret_value()
    token = jwt.encode({"sub": str(uuid4()), "iat": 1} | claims, secret, algorithm="HS256")
    with signed_in(url, token) as client:
        problem(client.get("/api/v1/me"), 401, "unauthenticated")


def test_a_token_signed_by_somebody_else_or_by_nobody_is_refused(join: Join, url: str) -> None:
    user = join().id
    forged = Tokens("x" * 32, lifetime=60).issue(str(user))
    unsigned = jwt.encode({"sub": str(user), "iat": 1, "exp": 4102444800}, "", algorithm="none")
    for token in (forged, unsigned, "slw_" + "a" * 43, "garbage"):
        with signed_in(url, token) as client:
            problem(client.get("/api/v1/me"), 401, "unauthenticated")


def test_a_secret_that_can_be_guessed_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens("short", lifetime=60)


def test_a_user_who_was_switched_off_is_out_at_once(join: Join, begin: Begin) -> None:
    leaver = join()
    assert leaver.client.get("/api/v1/me").status_code == 200
    with begin() as session:
        session.execute(text("UPDATE users SET is_active = false WHERE id = :id"), {"id": leaver.id})
    problem(leaver.client.get("/api/v1/me"), 401, "unauthenticated")


def test_only_admins_add_users_and_a_name_is_taken_once(join: Join, grace: str) -> None:
    new = {"username": grace, "password": PASSWORD}
    problem(join().client.post("/api/v1/auth/register", json=new), 403, "forbidden")
    problem(join("admin").client.post("/api/v1/auth/register", json=new), 409, "username_taken")


def test_invalid_fields_are_listed(join: Join) -> None:
    answer = join("admin").client.post("/api/v1/auth/register", json={"username": "Ada!", "password": "short"})
    details = problem(answer, 422, "invalid_field")["details"]
    assert [each["field"] for each in details] == ["body.username", "body.password"]
    assert "short" not in answer.text  # what was sent is not sent back


def test_a_key_is_shown_once_kept_as_a_digest_and_good_until_revoked(join: Join, begin: Begin, url: str) -> None:
    owner = join()
    made = owner.client.post("/api/v1/keys", json={"name": "laptop", "expires_in_days": 2})
    assert made.status_code == 201, made.text
    key = made.json()
    assert key["key"].startswith("slw_")
    assert len(key["key"]) == 47
    assert key["scopes"] == sorted(people.EVERYDAY)
    assert datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC) < timedelta(days=2)
    with begin() as session:
        kept = session.execute(text("SELECT digest, prefix FROM api_keys WHERE id = :id"), {"id": key["id"]}).one()
    assert kept.digest == digest(key["key"])
    assert key["key"].startswith(kept.prefix)
    assert len(kept.prefix) == 10

    with signed_in(url, key["key"]) as client:
        assert client.get("/api/v1/me").json()["via"] == "key"
        listed = client.get("/api/v1/keys").json()["items"]
        assert [each["id"] for each in listed] == [key["id"]]
        assert "key" not in listed[0]
        assert listed[0]["last_used_at"]
        assert client.delete(f"/api/v1/keys/{key['id']}").status_code == 204
        problem(client.get("/api/v1/me"), 401, "unauthenticated")
    problem(owner.client.delete(f"/api/v1/keys/{key['id']}"), 404, "key_not_found")


def test_an_expired_key_is_refused(join: Join, begin: Begin, url: str) -> None:
    key = join().client.post("/api/v1/keys", json={"name": "old", "expires_in_days": 1}).json()
    with begin() as session:
        session.execute(
            text("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = :id"), {"id": key["id"]}
        )
    with signed_in(url, key["key"]) as client:
        problem(client.get("/api/v1/me"), 401, "unauthenticated")


def test_a_key_with_few_scopes_may_little_and_cannot_outgrow_itself(join: Join, url: str) -> None:
    key = join("admin").client.post("/api/v1/keys", json={"name": "ci", "scopes": ["models:read"]}).json()
    with signed_in(url, key["key"]) as client:
        assert client.get("/api/v1/me").json()["permissions"] == ["models:read"]
        assert client.get("/api/v1/runs").status_code == 200
        problem(client.post(f"/api/v1/runs/{uuid4()}/cancel"), 403, "forbidden")
        problem(client.post("/api/v1/keys", json={"name": "more"}), 403, "forbidden")
        problem(client.get("/api/v1/keys"), 403, "forbidden")
        problem(client.delete(f"/api/v1/keys/{key['id']}"), 403, "forbidden")


def test_nobody_makes_a_key_with_rights_they_have_not(join: Join) -> None:
    answer = join().client.post("/api/v1/keys", json={"name": "up", "scopes": ["models:read", "admin"]})
    assert "admin" in str(problem(answer, 403, "forbidden")["detail"])


def test_a_key_never_grants_more_than_its_owner_has_today() -> None:
    everyday = frozenset({"models:read", "models:upload"})
    assert granted(frozenset({"admin"}), everyday) == everyday
    assert granted(frozenset({"models:read"}), everyday) == {"models:read"}
    assert granted(everyday, frozenset({"admin"})) == everyday  # once an admin's key, now somebody else's
    assert granted(everyday, frozenset()) == frozenset()


def test_hashing_passwords_is_refused_to_strangers_before_it_costs_anything(anonymous: httpx2.Client) -> None:
    new = {"username": "mallory", "password": PASSWORD}
    problem(anonymous.post("/api/v1/auth/register", json=new), 401, "unauthenticated")
