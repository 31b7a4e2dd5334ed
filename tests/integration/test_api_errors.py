"""Every error is a problem, whoever raised it; slow and large requests are refused; commits come before answers."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import func, select, text
from structlog.testing import capture_logs

from api import envelope
from api.app import create_app
from api.deps import Services, Transaction
from pipeline.errors import Rejected, Unavailable
from shared.db import Begin, connect, readings, transactions
from shared.errors import DependencyUnavailable
from shared.patience import PatientProtocol
from shared.settings import Settings
from tests.integration.api_fixtures import (
    Person,
    anonymous,
    app,
    join,
    parts,
    problem,
    served,
    serving,
    url,
)

Join = Callable[..., Person]


@pytest.fixture(scope="module")
def odd(parts: Services) -> Iterator[str]:
    """An API with a few more routes that go wrong, and little patience."""
    router = APIRouter()

    @router.get("/bug")
    def bug() -> None:
        raise RuntimeError("a secret detail")

    @router.get("/rejected")
    def rejected() -> None:
        raise Rejected("content_mismatch", "It is not what it says.", expected=["ONNX"])

    @router.get("/away")
    def away() -> None:
        raise Unavailable("broker_unavailable", "Somebody is away.")

    @router.get("/full")
    def full() -> None:
        raise DependencyUnavailable("storage_full", "Storage is full.")

    @router.post("/save/{row}")
    def save(row: UUID, session: Transaction) -> str:
        session.execute(text("INSERT INTO users (id, username) VALUES (:id, :name)"), {"id": row, "name": str(row)})
        return "saved"

    @router.post("/save-and-fail/{row}")
    def save_and_fail(row: UUID, session: Transaction) -> str:
        save(row, session)
        raise Rejected("too_bad", "No.")

    @router.post("/late/{row}")
    def late(row: UUID, session: Transaction) -> str:
        """Fails at commit."""
        session.execute(
            text("CREATE TEMP TABLE late (id uuid PRIMARY KEY DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP")
        )
        session.execute(text("INSERT INTO late VALUES (:id), (:id)"), {"id": row})
        return "saved"

    app = create_app(parts)
    app.include_router(router)
    for layer in app.user_middleware:
        if layer.cls is envelope.Envelope:
            layer.kwargs["seconds"] = 1.0
    with serving(app) as running:
        yield running.url


@pytest.fixture
def client(odd: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=odd, timeout=20) as client:
        yield client


def test_unknown_addresses_and_methods_are_problems(client: httpx2.Client) -> None:
    problem(client.get("/nowhere"), 404, "not_found")
    problem(client.get("/api/v1/runs/"), 404, "not_found")
    wrong = client.put("/livez")
    problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


def test_our_bug_is_a_500_without_its_secrets_and_with_a_trace_into_the_log(client: httpx2.Client) -> None:
    trace = uuid4().hex
    with capture_logs() as logs:
        answer = client.get("/bug", headers={"traceparent": f"00-{trace}-{'0' * 15}1-01"})
    body = problem(answer, 500, "internal")
    assert body["trace_id"] == trace
    assert "secret" not in answer.text
    failed = [line for line in logs if line["event"] == "http.failed"]
    assert isinstance(failed[0]["exc_info"], RuntimeError)
    told = [line for line in logs if line["event"] == "http.request"]
    assert (told[0]["method"], told[0]["path"], told[0]["status"]) == ("GET", "/bug", 500)


def test_errors_of_the_rooms_below_have_the_status_of_their_fault(client: httpx2.Client) -> None:
    assert problem(client.get("/rejected"), 400, "content_mismatch")["details"] == {"expected": ["ONNX"]}
    for path, code in (("/away", "broker_unavailable"), ("/full", "storage_full")):
        answer = client.get(path)
        problem(answer, 503, code)
        assert int(answer.headers["retry-after"]) > 0


def test_malformed_json_is_400_and_text_that_no_database_takes_is_422(anonymous: httpx2.Client, join: Join) -> None:
    sent = anonymous.post("/api/v1/auth/login", content=b"{nope", headers={"Content-Type": "application/json"})
    problem(sent, 400, "malformed_json")
    reader = join().client
    problem(reader.get("/api/v1/models", params={"search": "a\0b"}), 422, "invalid_field")
    surrogate = b'{"username": "\\ud800", "password": "x"}'
    sent = anonymous.post("/api/v1/auth/login", content=surrogate, headers={"Content-Type": "application/json"})
    problem(sent, 422, "invalid_field")
    problem(reader.get("/api/v1/models", params={"cursor": "bm90IG91cnM"}), 400, "invalid_cursor")
    problem(reader.get("/api/v1/runs/not-a-uuid"), 404, "not_found")


def test_every_answer_carries_a_trace_and_forbids_sniffing(client: httpx2.Client) -> None:
    answer = client.get("/livez")
    assert len(answer.headers["x-trace-id"]) == 32
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/livez", headers={"traceparent": "00-broken"}).headers["x-trace-id"] != "broken"


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_refused_whether_it_says_so_or_not(client: httpx2.Client, declared: bool) -> None:
    body = b'"' + b"x" * (2 << 20) + b'"'
    content: Any = body if declared else iter([body[start : start + 65536] for start in range(0, len(body), 65536)])
    sent = client.post("/api/v1/auth/login", content=content, headers={"Content-Type": "application/json"})
    problem(sent, 413, "too_large")


def _raw(url: str, sent: bytes, patience: float = 10.0) -> tuple[bytes, float]:
    """What the server says to these bytes and nothing more, and after how long it has hung up."""
    host, port = url.removeprefix("http://").split(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        connection.sendall(sent)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
    return said, time.monotonic() - began


def test_a_body_that_does_not_come_is_given_up(odd: str) -> None:
    head = (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    said, seconds = _raw(odd, head, patience=20)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in said
    assert seconds < 12


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: "])
def test_headers_that_do_not_come_are_given_up(odd: str, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientProtocol, "header_seconds", 0.5)
    said, seconds = _raw(odd, sent)
    assert said == b""
    assert 0.4 < seconds < 5


def test_headers_of_a_second_request_that_do_not_come_are_given_up(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientProtocol, "header_seconds", 0.5)
    host, port = odd.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /livez HTT")
        while connection.recv(65536):
            pass


def test_what_an_answer_says_is_committed_before_the_answer_leaves(client: httpx2.Client, begin: Begin) -> None:
    def saved(row: UUID) -> bool:
        with begin() as session:
            return session.execute(text("SELECT 1 FROM users WHERE id = :id"), {"id": row}).first() is not None

    for _ in range(20):  # a commit behind the answer would lose this race sooner or later
        row = uuid4()
        assert client.post(f"/save/{row}").status_code == 200
        assert saved(row)
    row = uuid4()
    problem(client.post(f"/save-and-fail/{row}"), 400, "too_bad")
    assert not saved(row)
    with capture_logs():
        answer = client.post(f"/late/{uuid4()}")
    problem(answer, 500, "internal")  # behind the answer it would have been a 200


def test_a_database_that_is_away_is_a_503(parts: Services) -> None:
    nobody = connect("postgresql+psycopg://nobody@127.0.0.1:1/none")
    away = {"begin": transactions(nobody), "reading": readings(nobody)}
    app = create_app(replace(parts, **away, close=nobody.dispose))
    with serving(app) as running, httpx2.Client(base_url=running.url) as client:
        answer = client.get("/api/v1/me", headers={"Authorization": "Bearer slw_x"})
        problem(answer, 503, "database_unavailable")
        assert answer.headers["retry-after"]
        assert client.get("/livez").status_code == 200


def test_connections_that_the_server_has_closed_cost_nobody_an_error(settings: Settings) -> None:
    database, reads = connect(settings.sqlalchemy_url), connect(settings.sqlalchemy_url, autocommit=True)
    mine = select(func.pg_backend_pid())
    with transactions(database)() as session, readings(reads)() as other:
        before = {each.execute(mine).scalar_one() for each in (session, other)}
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as operator:
        for pid in before:
            operator.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with (
        transactions(database)() as session,
        readings(reads)() as other,
    ):  # at once: nobody has waited for them to rest
        assert before.isdisjoint(each.execute(mine).scalar_one() for each in (session, other))
    database.dispose()
    reads.dispose()
