"""Who may do what: sessions that end, passwords that are not guessed, roles, grants, keys with a budget, and how people leave."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr
from slipway import Client, NotAllowed
from slipway.cli import app as command_line
from sqlalchemy import text
from typer.testing import CliRunner

from api import sessions
from api.app import assemble, create_app
from api.deps import Services
from pipeline import store
from registry import people
from registry import store as registry
from registry.lookup import Viewer
from registry.store import Artifact
from shared.db import Begin
from shared.settings import Settings
from tests.integration.api_fixtures import (
    Person,
    ada,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    serving,
    signed_in,
    url,
)

PASSWORD = "correct horse battery"
Join = Callable[..., Person]


@pytest.fixture(scope="module")
def hashed(parts: Services) -> str:
    return parts.passwords.hash(PASSWORD)


@pytest.fixture
def grace(begin: Begin, hashed: str) -> people.User:
    """Somebody who signs in with PASSWORD."""
    with begin() as session:
        name = f"grace-{uuid4().hex[:8]}"
        return people.register(session, username=name, password_hash=hashed, permissions=people.EVERYDAY)


def login(client: httpx2.Client, name: str, password: str = PASSWORD, **headers: str) -> httpx2.Response:
    return client.post("/api/v1/auth/login", json={"username": name, "password": password}, headers=headers)


@pytest.fixture
def another(url: str, anonymous: httpx2.Client, grace: people.User) -> Iterator[Callable[[], httpx2.Client]]:
    """Sign grace in on one computer more."""
    clients: list[httpx2.Client] = []

    def another() -> httpx2.Client:
        token = login(anonymous, grace.username).json()
        assert token["calls_remaining"] is None
        clients.append(signed_in(url, token["access_token"]))
        return clients[-1]

    yield another
    for client in clients:
        client.close()


def trail(join: Join, subject: object) -> list[str]:
    """What the audit trail says was done to somebody or something, newest first."""
    entries = join("admin").client.get("/api/v1/audit", params={"subject": str(subject)}).json()["items"]
    return [entry["action"] for entry in entries]


# Sessions


def test_signing_out_ends_one_token_everywhere_ends_all_and_keys_stay(
    another: Callable[[], httpx2.Client], url: str, grace: people.User, join: Join
) -> None:
    here, there = another(), another()
    key = here.post("/api/v1/keys", json={"name": "ci"}).json()["key"]
    assert here.post("/api/v1/auth/logout").status_code == 204
    problem(here.get("/api/v1/me"), 401, "unauthenticated")
    assert there.get("/api/v1/me").status_code == 200
    with signed_in(url, key) as program:
        problem(program.post("/api/v1/auth/logout"), 409, "not_a_token")
        assert program.post("/api/v1/auth/logout", params={"everywhere": "true"}).status_code == 204
        problem(there.get("/api/v1/me"), 401, "unauthenticated")
        assert program.get("/api/v1/me").status_code == 200
    assert another().get("/api/v1/me").status_code == 200  # who signs in again is in, in the same second
    assert trail(join, grace.id).count("logout") == 2


def test_another_password_ends_what_the_old_one_opened(
    another: Callable[[], httpx2.Client], anonymous: httpx2.Client, grace: people.User, join: Join
) -> None:
    client = another()
    fresh = {"new_password": PASSWORD + " staple"}
    problem(client.put("/api/v1/users/me/password", json=fresh | {"old_password": "wrong"}), 403, "wrong_password")
    changed = client.put("/api/v1/users/me/password", json=fresh | {"old_password": PASSWORD})
    assert changed.status_code == 204, changed.text
    problem(client.get("/api/v1/me"), 401, "unauthenticated")
    problem(login(anonymous, grace.username), 401, "bad_credentials")
    assert login(anonymous, grace.username, PASSWORD + " staple").status_code == 200
    reset = join("admin").client.put(f"/api/v1/users/{grace.username}/password", json={"new_password": PASSWORD})
    assert reset.status_code == 204, reset.text
    assert login(anonymous, grace.username).status_code == 200
    assert {"user.password_changed", "user.password_reset", "login.succeeded", "login.failed"} <= set(
        trail(join, grace.id)
    )


@pytest.fixture(scope="module")
def strict(parts: Services) -> Iterator[str]:
    """An API that is open to all and takes two wrong passwords an hour."""
    settings = parts.settings.model_copy(update={"login_rate_limit": 2, "open_registration": True})
    with serving(create_app(replace(parts, settings=settings, close=lambda: None))) as running:
        yield running.url


THIEF = {"X-Forwarded-For": "203.0.113.7"}


def test_guessing_is_stopped_where_it_is_done_and_keeps_nobody_else_out(strict: str, grace: people.User) -> None:
    with httpx2.Client(base_url=strict, timeout=60) as client:
        for name in (grace.username, f"nobody-{uuid4()}"):
            for _ in range(2):
                problem(login(client, name, "guess", **THIEF), 401, "bad_credentials")
            refused = login(client, name, "guess", **THIEF)
            problem(refused, 429, "too_many_sign_ins")
            assert 0 < int(refused.headers["retry-after"]) <= 3600
        problem(login(client, grace.username, **THIEF), 429, "too_many_sign_ins")  # not even with the right one
        # her own mistakes are forgotten once she is in
        problem(login(client, grace.username, "oops"), 401, "bad_credentials")
        assert login(client, grace.username).status_code == 200
        problem(login(client, grace.username, "oops"), 401, "bad_credentials")
        assert login(client, grace.username).status_code == 200


def test_of_ipv6_a_whole_network_is_one_place(parts: Services) -> None:
    def place(host: str) -> str:
        return sessions._address(Request({"type": "http", "client": (host, 1)}))

    assert place("2001:db8::1") == place("2001:db8::ffff:1") != place("2001:db8:0:1::1")
    assert place("192.0.2.1") != place("192.0.2.2")


def test_without_redis_passwords_are_guarded_by_each_process_alone(settings: Settings) -> None:
    parts = assemble(settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    key = f"login:{uuid4()}"
    assert [parts.limiter.allow(key, 2, alone=True).allowed for _ in range(3)] == [True, True, False]
    assert not parts.limiter.look(key, 2, alone=True).allowed
    parts.limiter.forget(key, 2)
    assert parts.limiter.look(key, 2, alone=True).allowed
    parts.close()


def test_an_open_installation_takes_strangers_who_choose_no_rights(strict: str) -> None:
    with httpx2.Client(base_url=strict, timeout=60) as client:
        new = {"username": f"new-{uuid4().hex[:8]}", "password": PASSWORD}
        for wish in ({"permissions": ["admin"]}, {"roles": ["admin"]}, {"plan": "premium"}):
            problem(client.post("/api/v1/auth/register", json=new | wish), 403, "forbidden")
        for name in ("me", str(uuid4()), uuid4().hex):  # in an address they would be somebody else
            problem(client.post("/api/v1/auth/register", json=new | {"username": name}), 409, "username_taken")
        made = client.post("/api/v1/auth/register", json=new)
        assert made.status_code == 201, made.text
        assert made.json()["permissions"] == sorted(people.EVERYDAY)


# Users, roles


def test_everybody_sees_themselves_and_admins_see_everybody(join: Join) -> None:
    admin, one, other = join("admin"), join(), join()
    address = f"{uuid4().hex[:8]}@Example.org"
    mine = one.client.patch("/api/v1/users/me", json={"email": address})
    assert mine.json()["email"] == address.lower()
    problem(other.client.patch("/api/v1/users/me", json={"email": address.upper()}), 409, "email_taken")
    assert one.client.get(f"/api/v1/users/{one.username}").json() == mine.json()
    problem(other.client.get(f"/api/v1/users/{one.username}"), 404, "user_not_found")
    problem(one.client.patch("/api/v1/users/me", json={"plan": "premium"}), 403, "forbidden")
    problem(one.client.get("/api/v1/users"), 403, "forbidden")
    first = admin.client.get("/api/v1/users", params={"limit": 2}).json()
    rest = admin.client.get("/api/v1/users", params={"limit": 100, "cursor": first["next"]}).json()["items"]
    listed = [user["username"] for user in (*first["items"], *rest)]
    assert len(listed) == len(set(listed))
    assert {admin.username, one.username, other.username} <= set(listed)

    off = admin.client.patch(f"/api/v1/users/{one.id}", json={"is_active": False, "plan": "premium"})
    assert (off.json()["is_active"], off.json()["plan"]) == (False, "premium")
    problem(one.client.get("/api/v1/me"), 401, "unauthenticated")
    assert one.username in [
        user["username"] for user in admin.client.get("/api/v1/users", params={"active": "false"}).json()["items"]
    ]
    admin.client.patch(f"/api/v1/users/{one.id}", json={"is_active": True})
    assert one.client.get("/api/v1/me").status_code == 200


def test_a_role_gives_what_it_says_today(join: Join) -> None:
    admin, member = join("admin").client, join("models:predict")
    role = f"role-{uuid4().hex[:8]}"
    problem(member.client.get("/api/v1/models"), 403, "forbidden")
    made = admin.put(f"/api/v1/roles/{role}", json={"permissions": ["models:read"]})
    assert (made.status_code, made.json()["members"]) == (200, 0)
    given = admin.put(f"/api/v1/users/{member.id}/permissions", json={"roles": [role]})
    assert given.json()["permissions"] == ["models:predict", "models:read"]
    assert given.json()["direct_permissions"] == ["models:predict"]
    assert member.client.get("/api/v1/models").status_code == 200
    problem(admin.delete(f"/api/v1/roles/{role}"), 409, "role_in_use")
    admin.put(f"/api/v1/roles/{role}", json={"permissions": ["models:upload"]})
    problem(member.client.get("/api/v1/models"), 403, "forbidden")
    admin.put(f"/api/v1/users/{member.id}/permissions", json={"permissions": [], "roles": []})
    assert member.client.get("/api/v1/me").json()["permissions"] == []
    assert admin.delete(f"/api/v1/roles/{role}").status_code == 204
    problem(admin.get(f"/api/v1/roles/{role}"), 404, "role_not_found")
    problem(admin.put(f"/api/v1/users/{member.id}/permissions", json={"roles": [role]}), 422, "unknown_role")
    problem(admin.put("/api/v1/roles/admin", json={"permissions": []}), 409, "built_in_role")
    assert {"reader", "engineer", "reviewer", "admin"} <= {
        each["name"] for each in admin.get("/api/v1/roles").json()["items"]
    }
    assert trail(join, role) == ["role.deleted", "role.set", "role.set"]


def test_two_admins_who_switch_each_other_off_leave_one(join: Join, begin: Begin) -> None:
    with begin() as session:
        session.execute(text("UPDATE users SET is_active = false"))
    pair = [join("admin"), join("models:read")]
    with begin() as session:  # the second one by role
        session.execute(text("UPDATE users SET roles = '{admin}' WHERE id = :id"), {"id": pair[1].id})
    gate = threading.Barrier(2)

    def switch_off(me: Person, other: Person) -> int:
        gate.wait()
        return me.client.patch(f"/api/v1/users/{other.id}", json={"is_active": False}).status_code

    with ThreadPoolExecutor(2) as pool:
        codes = sorted(pool.map(switch_off, pair, reversed(pair)))
    assert codes in ([200, 401], [200, 409])
    (left,) = [each for each in pair if each.client.get("/api/v1/me").status_code == 200]
    problem(
        left.client.put(f"/api/v1/users/{left.id}/permissions", json={"permissions": [], "roles": []}),
        409,
        "last_admin",
    )
    problem(left.client.delete("/api/v1/users/me"), 409, "last_admin")
    with begin() as session:
        session.execute(text("UPDATE users SET is_active = deleted_at IS NULL"))


# Keys


def test_a_budget_is_spent_to_the_last_call_however_many_ask_at_once(join: Join, url: str) -> None:
    owner = join()
    made = owner.client.post("/api/v1/keys", json={"name": "ci", "calls": 5}).json()
    assert made["calls_remaining"] == 5
    with signed_in(url, made["key"]) as program:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: program.get("/api/v1/me"), range(8)))
        assert sorted(each.status_code for each in answers) == [200] * 5 + [429] * 3
        left = sorted(each.headers["ratelimit"] for each in answers if each.status_code == 200)
        assert left == [f'"calls";r={number}' for number in range(5)]
        refused = next(each for each in answers if each.status_code == 429)
        assert "PATCH" in str(problem(refused, 429, "budget_exhausted")["hint"])
        assert owner.client.get("/api/v1/keys").json()["items"][0]["calls_remaining"] == 0
        more = owner.client.patch(f"/api/v1/keys/{made['id']}", json={"calls": 2, "name": "ci of digits"})
        assert (more.json()["calls_remaining"], more.json()["name"]) == (2, "ci of digits")
        assert program.get("/nowhere").status_code == 404  # no business of anybody's, so not counted
        assert [program.get("/api/v1/me").status_code for _ in range(3)] == [200, 200, 429]
        owner.client.patch(f"/api/v1/keys/{made['id']}", json={"calls": None, "scopes": ["models:read"]})
        assert program.get("/api/v1/me").json()["permissions"] == ["models:read"]
    problem(owner.client.patch(f"/api/v1/keys/{made['id']}", json={"scopes": ["admin"]}), 403, "forbidden")
    problem(owner.client.patch(f"/api/v1/keys/{made['id']}", json={}), 422, "invalid_field")
    assert set(trail(join, made["id"])) == {"key.created", "key.changed"}


# Grants


@pytest.fixture
def shared_model(submit: Callable[..., UUID], begin: Begin, owner: UUID) -> str:
    """A clean, published version of ada's: the model's id."""
    run_id = submit("scan")
    with begin() as session:
        row, _ = store.find(session, Viewer(user_id=owner), run_id)
        session.execute(text("UPDATE versions SET verdict = 'clean' WHERE id = :id"), {"id": row.version_id})
        variant = Artifact(
            name="onnx-fp32", role="canonical", key="k.onnx", sha256="0" * 64, size=3, media_type="x/y", meta={}
        )
        registry.publish(session, row.version_id, [variant])
        return str(row.model_id)


def test_whoever_was_granted_something_may_that_and_no_more_until_it_is_taken_back(
    shared_model: str, ada: httpx2.Client, join: Join, begin: Begin
) -> None:
    friend, other = join(), join()
    model = f"/api/v1/models/{shared_model}"
    grant = f"{model}/grants/{friend.username}"
    problem(friend.client.get(model), 404, "model_not_found")
    given = ada.put(f"{grant}/models:read", json={"expires_in_days": 7})
    assert given.status_code == 200, given.text
    assert given.json()["expires_at"]
    assert friend.client.get(model).status_code == 200
    problem(friend.client.get(f"{model}/versions/1.0.0/download"), 403, "not_granted")
    problem(other.client.get(model), 404, "model_not_found")
    assert ada.put(f"{grant}/models:download").status_code == 200
    assert friend.client.get(f"{model}/versions/1.0.0/download").status_code == 200
    problem(friend.client.get(f"{model}/versions/1.0.0/download?artifact=source"), 404, "artifact_not_found")
    assert [(each["permission"], each["username"]) for each in ada.get(f"{model}/grants").json()["items"]] == [
        ("models:download", friend.username),
        ("models:read", friend.username),
    ]
    # who was let in lets nobody else in
    problem(friend.client.put(f"{model}/grants/{other.username}/models:read"), 403, "not_owner")
    problem(friend.client.get(f"{model}/grants"), 403, "not_owner")
    assert ada.delete(f"{grant}/models:download").status_code == 204
    problem(friend.client.get(f"{model}/versions/1.0.0/download"), 403, "not_granted")
    problem(ada.delete(f"{grant}/models:download"), 404, "grant_not_found")
    with begin() as session:
        session.execute(text("UPDATE grants SET expires_at = now() - interval '1 s'"))
    problem(friend.client.get(model), 404, "model_not_found")
    assert ada.get(f"{model}/grants").json()["items"] == []
    assert trail(join, shared_model) == ["grant.revoked", "grant.given", "grant.given"]


def test_grants_are_given_by_owners_to_others_and_by_whole_credentials(
    shared_model: str, ada: httpx2.Client, join: Join, url: str
) -> None:
    model = f"/api/v1/models/{shared_model}"
    me = ada.get("/api/v1/me").json()["username"]
    problem(ada.put(f"{model}/grants/{me}/models:read"), 409, "grant_to_owner")
    problem(ada.put(f"{model}/grants/nobody-at-all/models:read"), 404, "user_not_found")
    problem(ada.put(f"{model}/grants/{me}/admin"), 404, "not_found")
    narrow = ada.post("/api/v1/keys", json={"name": "ci", "scopes": ["models:upload", "models:read"]}).json()["key"]
    friend = join()
    with signed_in(url, narrow) as program:
        problem(program.put(f"{model}/grants/{friend.username}/models:read"), 403, "forbidden")
    assert join("admin").client.put(f"{model}/grants/{friend.username}/models:read").status_code == 200


def test_what_is_public_everybody_downloads_who_may_download(shared_model: str, begin: Begin, join: Join) -> None:
    with begin() as session:
        session.execute(text("UPDATE models SET visibility = 'public' WHERE id = :id"), {"id": UUID(shared_model)})
    download = f"/api/v1/models/{shared_model}/versions/1.0.0/download"
    assert join().client.get(download).status_code == 200
    problem(join("models:read").client.get(download), 403, "forbidden")


# Leaving


def test_whoever_leaves_says_what_becomes_of_their_models_and_cannot_be_impersonated(
    shared_model: str, ada: httpx2.Client, join: Join, begin: Begin
) -> None:
    me = ada.get("/api/v1/me").json()
    key = ada.post("/api/v1/keys", json={"name": "ci"}).json()["key"]
    heir = join()
    owned = problem(ada.delete("/api/v1/users/me"), 409, "owns_models")["details"]
    assert len(owned) == 1
    assert ada.delete("/api/v1/users/me", params={"models": f"to:{heir.username}"}).status_code == 204
    problem(ada.get("/api/v1/me"), 401, "unauthenticated")
    with signed_in(str(ada.base_url), key) as program:
        problem(program.get("/api/v1/me"), 401, "unauthenticated")
    assert heir.client.get(f"/api/v1/models/{owned[0]}").json()["owner"] == heir.username
    assert [run["model"] for run in heir.client.get("/api/v1/runs").json()["items"]] == owned
    admin = join("admin").client
    again = {"username": me["username"], "password": PASSWORD}
    problem(admin.post("/api/v1/auth/register", json=again), 409, "username_taken")
    problem(admin.get(f"/api/v1/users/{me['id']}"), 404, "user_not_found")
    assert trail(join, me["id"])[0] == "user.deleted"


def test_models_go_with_their_owner_unless_they_are_deployed_or_would_collide(
    submit: Callable[..., UUID], owner: UUID, ada: httpx2.Client, join: Join, begin: Begin
) -> None:
    run_id = submit("scan", model="digits")
    admin, heir = join("admin"), join()
    with begin() as session:
        row, _ = store.find(session, Viewer(user_id=owner), run_id)
        ids = {"model": row.model_id, "version": row.version_id, "by": owner, "heir": heir.id}
        session.execute(
            text(
                "INSERT INTO deployments (model_id, version_id, target, deployed_by) "
                "VALUES (:model, :version, 'production', :by)"
            ),
            ids,
        )
        session.execute(text("INSERT INTO models (owner_id, name) VALUES (:heir, 'digits')"), ids)
    address = f"/api/v1/users/{owner}"
    taken = problem(admin.client.delete(address, params={"models": f"to:{heir.username}"}), 409, "model_names_taken")
    assert taken["details"] == ["digits"]
    live = problem(admin.client.delete(address, params={"models": "delete"}), 409, "model_deployed")
    assert live["details"] == [{"model": "digits", "target": "production"}]
    problem(admin.client.delete(address, params={"models": "to:nobody-at-all"}), 404, "user_not_found")
    with begin() as session:
        session.execute(text("UPDATE deployments SET status = 'ended', ended_at = now() WHERE model_id = :model"), ids)
    assert admin.client.delete(address, params={"models": "delete"}).status_code == 204
    with begin() as session:
        gone = session.execute(text("SELECT deleted_at FROM models WHERE id = :model"), ids).scalar_one()
    assert gone is not None


# The client, against the real thing


def test_the_sdk_and_the_commands_look_after_people(
    shared_model: str, url: str, join: Join, ada: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = join("admin").client.post("/api/v1/keys", json={"name": "sdk"}).json()["key"]
    name = f"new-{uuid4().hex[:8]}"
    with Client(url, admin) as client:
        assert client.roles.put("trainer", ["models:upload", "models:read"], description="brings in").members == 0
        made = client.users.register(name, PASSWORD, roles=["trainer"])
        assert (made.permissions, made.direct, made.roles) == (("models:read", "models:upload"), (), ("trainer",))
        assert client.users.set_rights(name, roles=["trainer", "reader"]).roles == ("reader", "trainer")
        assert client.users.update(name, email="new@example.org").email == "new@example.org"
        assert name in [user.username for user in client.users.list()]
        grant = client.grants.give(shared_model, name, "models:download", expires_in_days=3)
        assert [grant] == list(client.grants.list(shared_model))
        assert client.audit.list(subject=made.id)[0].action == "user.changed"
        assert client.audit.check().intact
        assert client.create_key("few", calls=3).calls_remaining == 3
        with Client(url) as fresh:
            fresh.login(name, PASSWORD)
            assert fresh.model(shared_model).name
            fresh.logout()
            with pytest.raises(NotAllowed):
                fresh.me()

    monkeypatch.setenv("SLIPWAY_URL", url)
    monkeypatch.setenv("SLIPWAY_TOKEN", admin)
    monkeypatch.setenv("NO_COLOR", "1")

    def slipway(*words: str, code: int = 0, said: str | None = None) -> str:
        done = CliRunner().invoke(command_line, words, input=said)
        assert done.exit_code == code, done.output
        # the server runs in this process too, and its log goes to the same stream
        return "".join(line for line in done.stdout.splitlines(keepends=True) if "http.request" not in line)

    second = f"second-{uuid4().hex[:8]}"
    assert slipway("users", "add", second, "--password-stdin", "-q", said=f"{PASSWORD}\n") == f"{second}\n"
    assert json.loads(slipway("users", "set", second, "--role", "engineer", "--permission", "", "--json"))["roles"] == [
        "engineer"
    ]
    assert second in slipway("users", "list")
    slipway("users", "password", second, "--password-stdin", said=f"{PASSWORD} two\n")
    assert "trainer" in slipway("roles", "list")
    slipway("grant", shared_model, second, "download", "--days", "2")
    assert f"{second} models:download" in slipway("grants", shared_model, "-q")
    slipway("revoke", shared_model, second, "download")
    slipway("revoke", shared_model, second, "download", code=5)
    slipway("users", "delete", second)
    assert "user.deleted" in slipway("audit", "--since", "1h")
    assert "intact" in slipway("audit", "--check")
