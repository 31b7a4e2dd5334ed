"""What admins look at and do: figures of a process, the kept log, the audit trail's seals, users by hand, a reset."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.app import create_app
from api.deps import Services
from registry import audit, logs, people
from registry.audit import Fault
from shared.db import Begin
from shared.logkeeper import Record
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Storage
from shared.tokens import Passwords
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
from workers import admin as by_hand
from workers.relay import Relay

Join = Callable[..., Person]


@pytest.fixture
def admin(join: Join) -> httpx2.Client:
    return join("admin").client


# How it is


def test_an_admin_sees_how_this_process_does_and_others_only_that_it_lives(
    admin: httpx2.Client, join: Join, anonymous: httpx2.Client
) -> None:
    for _ in range(3):
        admin.get(f"/api/v1/models/{uuid4()}")
    detailed = {"detailed": "true"}
    said = admin.get("/health", params=detailed).json()
    figures = said["metrics"]
    assert figures["total_requests"] == figures["successful_requests"] + figures["failed_requests"]
    assert figures["failed_requests"] >= 3
    assert 0 < figures["error_rate_percent"] <= 100
    assert figures["avg_response_time_ms"] > 0
    assert 0 < figures["p95_response_time_ms"] <= figures["p99_response_time_ms"]
    assert all(0 <= figures[f"{what}_percent"] <= 100 for what in ("cpu", "memory", "disk"))
    asked = {each["endpoint"]: each for each in said["top_endpoints"]}["GET /api/v1/models/{model}"]
    assert asked["count"] == asked["errors"] >= 3
    assert len(said["top_endpoints"]) <= 5
    for client in (join().client, anonymous):
        other = client.get("/health", params=detailed).json()
        assert other["components"]["database"]["status"] == "ok"
        assert (other["metrics"], other["top_endpoints"]) == (None, None)
    assert admin.get("/health").json()["metrics"] is None


# The kept log


@pytest.fixture
def keeper(settings: Settings) -> Iterator[logs.LogKeeper]:
    """Everything that is logged from WARNING on is kept, as in a process of ours."""
    before = structlog.get_config()
    kept = logs.keeper(settings.sqlalchemy_url, "test", "WARNING")
    assert kept is not None
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            kept,
            *before["processors"],
        ]
    )
    yield kept
    structlog.configure(**before)
    kept.close()


def test_refused_requests_and_warnings_can_be_read_by_admins(
    keeper: logs.LogKeeper, admin: httpx2.Client, join: Join
) -> None:
    trace = uuid4().hex
    admin.get(f"/api/v1/models/{trace}", headers={"traceparent": f"00-{trace}-{'0' * 15}1-01"})
    structlog.get_logger().error("disk.full", room="staging", password="hunter2", trace_id=trace)
    structlog.get_logger().info("nothing.special", trace_id=trace)
    until = time.monotonic() + 20
    while (found := admin.get("/api/v1/logs", params={"trace_id": trace}).json())["total"] < 2:
        assert time.monotonic() < until, found
        time.sleep(0.1)
    assert found["total"] == 2
    # a request is logged when its answer is on its way, so either may be first
    worse, refused = sorted(found["items"], key=lambda each: str(each["event"]))
    assert (worse["level"], worse["event"]) == ("ERROR", "disk.full")
    assert worse["fields"] == {"room": "staging", "password": "…"}
    assert worse["process"].startswith("test@")
    assert (refused["endpoint"], refused["status_code"]) == ("GET /api/v1/models/{model}", 404)
    assert (refused["error"], refused["level"], refused["trace_id"]) == ("model_not_found", "WARNING", trace)
    only = admin.get("/api/v1/logs", params={"trace_id": trace, "level": "ERROR", "limit": 1}).json()
    assert [each["event"] for each in only["items"]] == ["disk.full"]
    later = {"trace_id": trace, "start_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    assert admin.get("/api/v1/logs", params=later).json()["total"] == 0
    naive = {"trace_id": trace, "start_time": "2025-11-24T00:00:00", "offset": 1}
    assert len(admin.get("/api/v1/logs", params=naive).json()["items"]) == 1
    problem(join().client.get("/api/v1/logs"), 403, "forbidden")
    problem(admin.get("/api/v1/logs", params={"limit": 1001}), 422, "invalid_field")
    problem(admin.get("/api/v1/logs", params={"start_time": "yesterday"}), 422, "invalid_field")


def test_a_log_that_cannot_be_written_down_stops_nobody(settings: Settings) -> None:
    away = logs.keeper("postgresql+psycopg://nobody@127.0.0.1:1/nothing", "test", "INFO")
    assert away is not None
    assert away(None, "info", {"event": "x", "level": "info"})["event"] == "x"
    away.close(0.1)
    assert logs.keeper(settings.sqlalchemy_url, "test", "OFF") is None


# The audit trail


def test_what_was_done_when_can_be_asked_for(admin: httpx2.Client, begin: Begin) -> None:
    name = f"test.{uuid4().hex[:8]}"
    with begin() as session:
        audit.append(session, audit.SLIPWAY, name, "x", {})
    (entry,) = admin.get("/api/v1/audit", params={"action": name}).json()["items"]
    at = datetime.fromisoformat(entry["at"])

    def between(**times: datetime) -> int:
        asked = {"action": name} | {what: time.isoformat() for what, time in times.items()}
        return len(admin.get("/api/v1/audit", params=asked).json()["items"])

    assert between(since=at) == between(since=at - timedelta(1), until=at + timedelta(1)) == 1
    assert between(until=at) == between(since=at + timedelta(microseconds=1)) == 0


def say(begin: Begin, settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = by_hand.carry_out(by_hand.parse(words), begin, settings)
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_trail_names_what_was_changed_removed_cut_off_or_written_anew(
    begin: Begin, settings: Settings, capsys: pytest.CaptureFixture[str], admin: httpx2.Client
) -> None:
    with begin() as session:
        for number in range(6):
            audit.append(session, audit.SLIPWAY, "test.done", f"thing-{number}", {"number": number})
    code, said = say(begin, settings, capsys, "audit", "checkpoint")
    assert (code, said.endswith("is signed.\n")) == (0, True)
    assert say(begin, settings, capsys, "audit", "checkpoint")[1] == "The last entry is signed already.\n"
    with begin() as session:
        audit.append(session, audit.SLIPWAY, "test.done", "after", {})
        whole = audit.verify(session, (Signer(settings.signing_key.get_secret_value()).public_key,))
    last, signed = whole.entries, whole.signed
    assert (whole.faults, signed) == ((), last - 1)
    code, said = say(begin, settings, capsys, "audit")  # as before there was more than one thing to do
    assert (code, said) == (0, f"{last} entries, intact, signed up to {signed}. Head: {whole.head}\n")
    with pytest.raises(DBAPIError, match="only grows"), begin() as session:
        session.execute(text("DELETE FROM audit_checkpoints"))

    class Undo(Exception):
        pass

    def forged(*statements: str, trusted: tuple[str, ...] | None = None) -> tuple[Fault, ...]:
        keys = (Signer(settings.signing_key.get_secret_value()).public_key,) if trusted is None else trusted
        try:
            with begin() as session:
                session.execute(text("ALTER TABLE audit DISABLE TRIGGER append_only"))  # what only its owner can
                for statement in statements:
                    session.execute(text(statement), {"id": last - 3})
                chain = audit.verify(session, keys)
                raise Undo
        except Undo:
            return chain.faults

    def fault(what: str, first: int, last: int | None = None) -> Fault:
        return Fault(what=what, first=first, last=last or first)  # type: ignore[arg-type]

    row = last - 3
    assert forged("UPDATE audit SET actor = 'nobody' WHERE id = :id") == (fault("changed", row),)
    assert forged("UPDATE audit SET hash = 'x' WHERE id = :id") == (fault("changed", row),)
    assert forged("DELETE FROM audit WHERE id = :id") == (fault("removed", row),)
    assert forged("DELETE FROM audit WHERE id IN (:id, :id + 1)") == (fault("removed", row, row + 1),)
    assert forged("DELETE FROM audit WHERE id > :id") == (
        fault("removed", row + 1, last - 1),
    )  # as far as it was signed
    two = ("UPDATE audit SET actor = 'x' WHERE id = :id", "DELETE FROM audit WHERE id = :id - 2")
    assert forged(*two) == (fault("removed", row - 2), fault("changed", row))
    assert fault("unsigned", last - 1) in forged(trusted=())

    with begin() as session:
        rows = session.execute(text("SELECT * FROM audit WHERE id >= :id ORDER BY id"), {"id": row}).all()
        session.execute(text("ALTER TABLE audit DISABLE TRIGGER append_only"))
        previous = rows[0].previous
        for each in rows:  # a forger who knows how the hashes are made, and has no key
            entry = {name: getattr(each, name) for name in audit._SEALED} | {"actor": "nobody"}
            made = audit._hash(previous, entry)
            values = {"previous": previous, "hash": made, "id": each.id}
            session.execute(
                text("UPDATE audit SET actor = 'nobody', previous = :previous, hash = :hash WHERE id = :id"), values
            )
            previous = made
        session.execute(text("ALTER TABLE audit ENABLE TRIGGER append_only"))
    code, said = say(begin, settings, capsys, "audit", "verify")
    assert code == 1
    assert f"to {last - 1}: written anew" in said
    check = admin.get("/api/v1/audit/check").json()
    assert (check["intact"], [each["what"] for each in check["faults"]]) == (False, ["rewritten"])


# By hand


def test_an_admin_is_made_by_hand(
    begin: Begin,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    anonymous: httpx2.Client,
) -> None:
    name = f"root-{uuid4().hex[:8]}"
    code, key = say(begin, settings, capsys, "user", "add", name, "--admin", "--key")
    assert code == 0
    with signed_in(url, key.strip()) as client:
        assert client.get("/api/v1/me").json()["permissions"] == ["admin"]

    def typed(password: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))

    second = f"second-{uuid4().hex[:8]}"
    typed("correct horse battery")
    assert (
        "models:upload"
        in say(begin, settings, capsys, "user", "add", second, "--role", "engineer", "--password-stdin")[1]
    )
    assert say(begin, settings, capsys, "user", "grant-admin", second)[0] == 0
    typed("another horse battery")
    assert say(begin, settings, capsys, "user", "password", second, "--password-stdin")[0] == 0
    token = anonymous.post("/api/v1/auth/login", json={"username": second, "password": "another horse battery"}).json()
    with signed_in(url, token["access_token"]) as client:
        assert "admin" in client.get("/api/v1/me").json()["permissions"]
    typed("short")
    with pytest.raises(SystemExit, match="12 characters"):
        say(begin, settings, capsys, "user", "password", second, "--password-stdin")


# What the relay keeps in order


def test_the_relay_forgets_what_is_over_and_signs_the_trail(begin: Begin, settings: Settings) -> None:
    now = datetime.now(UTC)
    with begin() as session:
        for age in (timedelta(days=15), timedelta(days=13)):
            record = Record(at=now - age, level=logging.WARNING, event="old", trace_id=None, fields={})
            logs.add(session, "test", [record])
        people.revoke_token(session, "over", now - timedelta(seconds=1))
        people.revoke_token(session, "not over", now + timedelta(hours=1))
        audit.append(session, audit.SLIPWAY, "test.done", "x", {})
        newest = session.execute(text("SELECT max(id) FROM audit")).scalar_one()
        session.execute(text("ALTER TABLE audit_checkpoints DISABLE TRIGGER USER"))
        session.execute(text("DELETE FROM audit_checkpoints"))
    relay = Relay(settings)
    relay._tidy_rows()
    with begin() as session:
        audit.append(session, audit.SLIPWAY, "test.done", "y", {})
    relay._tidy_rows()  # not an hour has passed
    relay.close()
    with begin() as session:
        assert logs.count(session, logs.Wanted(event="old")) == 1
        assert session.execute(text("SELECT jti FROM revoked_tokens")).scalars().all() == ["not over"]
        assert session.execute(text("SELECT entry_id FROM audit_checkpoints")).scalars().all() == [newest]


# Back to nothing


def test_a_reset_leaves_admins_with_their_keys_and_the_trail(
    submit: Callable[..., UUID], parts: Services, join: Join, begin: Begin, url: str, storage: Storage
) -> None:
    admin, other = join("admin"), join()
    key = admin.client.post("/api/v1/keys", json={"name": "mine"}).json()["key"]
    run = submit("scan")
    parts.registry.put("model/x", b"bytes")
    reset = {"confirm": "reset"}
    problem(other.client.delete("/api/v1/reset", params=reset), 403, "forbidden")
    problem(admin.client.delete("/api/v1/reset"), 422, "invalid_field")
    problem(admin.client.delete("/api/v1/reset", params={"confirm": "yes"}), 422, "invalid_field")
    assert admin.client.get(f"/api/v1/runs/{run}").status_code == 200
    done = admin.client.delete("/api/v1/reset", params=reset)
    assert done.status_code == 200, done.text
    assert done.json()["models"] >= 1
    assert done.json()["objects"] == 1
    assert list(parts.registry.list()) == []
    problem(admin.client.get(f"/api/v1/runs/{run}"), 404, "run_not_found")
    problem(other.client.get("/api/v1/me"), 401, "unauthenticated")
    with signed_in(url, key) as program:
        assert program.get("/api/v1/audit").json()["items"][0]["action"] == "instance.reset"
        assert program.get("/api/v1/models").json()["items"] == []


def test_in_production_there_is_no_reset(parts: Services, join: Join) -> None:
    settings = parts.settings.model_copy(update={"environment": "production"})
    token = parts.tokens.issue(str(join("admin").id))
    app = create_app(replace(parts, settings=settings, close=lambda: None))
    with serving(app) as running, signed_in(running.url, token) as client:
        problem(client.delete("/api/v1/reset", params={"confirm": "reset"}), 404, "not_found")
