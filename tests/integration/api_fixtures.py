"""The API as clients meet it: a real uvicorn in a thread of its own, over real Postgres, Valkey and S3."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import FastAPI

from api.app import assemble, create_app
from api.deps import Services
from api.server import Server, server
from registry import people
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with an account, and a client that speaks for them."""

    id: UUID
    username: str
    client: httpx2.Client


@dataclass(frozen=True, kw_only=True)
class Served:
    url: str
    server: Server


@contextmanager
def serving(app: FastAPI) -> Iterator[Served]:
    """Serve an app until the block ends; its shutdown must not hang."""
    made = server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not made.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < until, "the server did not start in time"
        time.sleep(0.01)
    port = made.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(url=f"http://127.0.0.1:{port}", server=made)
    finally:
        made.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def parts(settings: Settings, storage: Storage) -> Services:
    return assemble(settings)


@pytest.fixture(scope="module")
def app(parts: Services) -> FastAPI:
    return create_app(parts)


@pytest.fixture(scope="module")
def served(app: FastAPI) -> Iterator[Served]:
    with serving(app) as running:
        yield running


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    return served.url


@pytest.fixture
def anonymous(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture
def join(begin: Begin, parts: Services, url: str) -> Iterator[Callable[..., Person]]:
    """Make a user with some permissions (everyday ones unless named) and a client that is signed in as them."""
    clients: list[httpx2.Client] = []

    def join(*permissions: str) -> Person:
        name = f"user-{uuid4().hex[:8]}"
        with begin() as session:
            user = people.register(
                session, username=name, password_hash=None, permissions=permissions or people.EVERYDAY
            )
        client = signed_in(url, parts.tokens.issue(str(user.id)))
        clients.append(client)
        return Person(id=user.id, username=name, client=client)

    yield join
    for client in clients:
        client.close()


@pytest.fixture
def ada(owner: UUID, parts: Services, url: str) -> Iterator[httpx2.Client]:
    """A client of the user who owns what `submit` makes."""
    with signed_in(url, parts.tokens.issue(str(owner))) as client:
        yield client


def signed_in(url: str, token: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, object]:
    """The problem that an answer must be."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, object] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:problem-type:slipway:{code}"
    assert body["trace_id"] == answer.headers["x-trace-id"]
    assert body["title"]
    assert body["detail"]
    assert body["timestamp"]
    return body
