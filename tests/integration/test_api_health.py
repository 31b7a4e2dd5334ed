"""What the process says of itself and of what it depends on."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import redis
from sqlalchemy import text

from api import health
from api.app import create_app
from api.deps import Services
from api.schemas.health import Component
from shared.db import Begin
from shared.storage import Storage
from tests.integration.api_fixtures import anonymous, app, parts, served, serving, url


@contextmanager
def client_of(parts: Services) -> Iterator[httpx2.Client]:
    with serving(create_app(parts)) as running, httpx2.Client(base_url=running.url, timeout=20) as client:
        yield client


def states(answer: httpx2.Response) -> dict[str, str]:
    return {name: component["status"] for name, component in answer.json()["components"].items()}


def test_with_everything_there_it_is_ready(anonymous: httpx2.Client) -> None:
    assert anonymous.get("/livez").json() == {"status": "ok"}
    answer = anonymous.get("/readyz")
    assert answer.status_code == 200
    found = states(answer)
    assert set(found) == {"database", "migrations", "redis", "storage", "antivirus", "sandbox"}
    assert {found[name] for name in ("database", "migrations", "redis", "storage")} == {"ok"}


def test_details_are_told_on_request(anonymous: httpx2.Client) -> None:
    assert anonymous.get("/health").json()["components"] is None
    assert "database" in anonymous.get("/health", params={"detailed": "true"}).json()["components"]


def test_the_version_says_what_can_be_taken_in(anonymous: httpx2.Client) -> None:
    said = anonymous.get("/version").json()
    assert (said["name"], said["api"]) == ("slipway", "v1")
    assert {"onnx", "torchscript", "pt2", "safetensors"} <= set(said["formats"])
    assert said["stages"][-1] == "promote"


def test_without_redis_it_still_takes_work(parts: Services) -> None:
    nobody = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
    with client_of(replace(parts, redis=nobody)) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert states(answer)["redis"] == "degraded"


def test_without_storage_it_takes_none_and_tells_no_address(parts: Services) -> None:
    storage = Storage(endpoint_url="http://127.0.0.1:1", access_key="a", secret_key="b", region="us-east-1")
    with client_of(replace(parts, staging=storage.bucket("x"))) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
        assert states(answer)["storage"] == "down"
        assert "127.0.0.1" not in answer.text


def test_a_database_behind_the_program_is_not_ready(parts: Services, begin: Begin, anonymous: httpx2.Client) -> None:
    with begin() as session:
        head = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        session.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    try:
        answer = anonymous.get("/readyz")
        assert answer.status_code == 503
        assert "old" in answer.json()["components"]["migrations"]["detail"]
    finally:
        with begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head})


@pytest.mark.parametrize(
    ("mode", "clamd_url", "status", "said"),
    [
        ("production", "tcp://127.0.0.1:1", 503, "down"),
        ("development", "tcp://127.0.0.1:1", 200, "degraded"),
        ("development", None, 200, "off"),
    ],
)
def test_a_missing_antivirus_stops_production_and_shows_in_development(
    parts: Services, mode: Any, clamd_url: str | None, status: int, said: str
) -> None:
    settings = parts.settings.model_copy(update={"environment": mode, "clamd_url": clamd_url})
    with client_of(replace(parts, settings=settings)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == status
        assert states(answer)["antivirus"] == said


@contextmanager
def daemon(version: str, stream: str) -> Iterator[str]:
    """A clamd that says one thing to VERSION and another to every stream; yields its URL."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                asked = peer.recv(4096)
                while b"INSTREAM" in asked and not asked.endswith(b"\0\0\0\0"):
                    asked += peer.recv(4096)
                peer.sendall((version if b"VERSION" in asked else stream).encode() + b"\0")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


FOUND = "stream: Eicar-Signature FOUND"


@pytest.mark.parametrize(
    ("days", "stream", "mode", "status", "said"),
    [
        (4, FOUND, "production", "ok", "ClamAV 1.4.3, signatures of {date}, 4 days old"),
        (1, FOUND, "production", "ok", "ClamAV 1.4.3, signatures of {date}, 1 day old"),
        (-1, FOUND, "production", "ok", "ClamAV 1.4.3, signatures of {date}, 0 days old"),
        (8, FOUND, "production", "degraded", "{date}, 8 days old: stale"),
        (None, FOUND, "development", "degraded", "only our own test signatures, no virus database: not protection"),
        (4, "stream: OK", "production", "down", "does not find the EICAR test virus"),
        (4, "stream: OK", "development", "degraded", "does not find the EICAR test virus"),
        (4, "INSTREAM size limit exceeded. ERROR", "production", "down", "does not find the EICAR test virus"),
        (4, "stream: broken ERROR", "production", "down", "does not answer"),
    ],
)
def test_an_antivirus_says_how_old_its_signatures_are_and_whether_it_finds_the_test_virus(
    parts: Services, days: int | None, stream: str, mode: Any, status: str, said: str
) -> None:
    made = datetime.now(UTC) - timedelta(days=days or 0, minutes=1)
    version = "ClamAV 1.4.3" if days is None else f"ClamAV 1.4.3/27468/{made:%a %b %e %H:%M:%S %Y}"
    with daemon(version, stream) as url:
        settings = parts.settings.model_copy(update={"environment": mode, "clamd_url": url})
        found = health.checks(replace(parts, settings=settings))["antivirus"]()
    assert found.status == status
    assert said.format(date=f"{made:%Y-%m-%d}") in found.detail


def test_the_embedded_antivirus_is_not_called_protection_while_it_knows_our_test_signatures_only(
    anonymous: httpx2.Client, services: None
) -> None:
    """Where freshclam has fetched a database, it names its day."""
    from stack.clamd import has_real_signatures, program

    found = anonymous.get("/readyz").json()["components"]["antivirus"]
    if program() is None:
        assert found["status"] == "off"
    elif has_real_signatures():
        assert "signatures of 20" in found["detail"]
    else:
        assert (found["status"], "not protection" in found["detail"]) == ("degraded", True)


def test_the_demo_calls_an_antivirus_without_a_database_missing(
    parts: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    from slipway import Client

    from examples.demo import show_missing

    with daemon("ClamAV 1.4.3", FOUND) as clamd:
        settings = parts.settings.model_copy(update={"environment": "development", "clamd_url": clamd})
        with serving(create_app(replace(parts, settings=settings))) as running, Client(running.url) as client:
            show_missing(client)
    (said,) = [line.split() for line in capsys.readouterr().out.splitlines() if " antivirus " in line]
    assert said[:2] == ["MISSING", "antivirus"]
    assert {"virus", "database:", "protection"} <= set(said)


def test_a_dependency_that_hangs_is_down_in_time_and_asked_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    asked = []
    gate = threading.Event()

    def hang() -> Component:
        asked.append(1)
        gate.wait(10)
        return health.OK

    vitals = health.Vitals({"slow": hang, "quick": lambda: health.OK})
    began = time.monotonic()
    taken = [vitals.take() for _ in range(3)]
    assert time.monotonic() - began < 2
    assert [(each["slow"].status, each["quick"].status) for each in taken] == [("down", "ok")] * 3
    assert len(asked) == 1
    gate.set()
    monkeypatch.setattr(health, "PATIENCE", 5.0)
    assert vitals.take()["slow"].status == "ok"
    vitals.close()


def test_a_redis_that_takes_connections_and_says_nothing_does_not_hold_it_up(parts: Services) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = redis.Redis(
            host="127.0.0.1", port=silent.getsockname()[1], socket_timeout=0.5, socket_connect_timeout=1
        )
        with client_of(replace(parts, redis=client)) as api:
            began = time.monotonic()
            assert states(api.get("/readyz"))["redis"] == "degraded"
            assert time.monotonic() - began < health.PATIENCE + 1
        client.close()
