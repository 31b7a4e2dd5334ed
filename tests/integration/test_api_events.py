"""Event streams: every event once and in order, whatever dies in between."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import fastapi.routing
import httpx2
import pytest
from sqlalchemy import text

from api.app import assemble, create_app
from api.deps import Services
from api.news import LOOK_ANYWAY
from pipeline import engine
from pipeline.run import Cancel, Retry
from pipeline.store import NEWS
from shared.db import Begin
from shared.settings import Settings
from tests.integration.api_fixtures import (
    Served,
    ada,
    app,
    parts,
    problem,
    served,
    serving,
    signed_in,
    url,
)
from tests.integration.test_api_runs import finish, move

Submit = Callable[..., UUID]
ROOT = Path(__file__).parents[2]


class Stream:
    """Reads an event stream in a thread, so that a test can do something meanwhile."""

    def __init__(self, client: httpx2.Client, run_id: UUID, last: int | str | None = None) -> None:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        self.opened = threading.Event()
        self.lines: list[str] = []
        self._told: queue.Queue[tuple[str, str, dict[str, Any]] | None] = queue.Queue()
        self._request = client.stream("GET", f"/api/v1/runs/{run_id}/events", headers=headers)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.opened.wait(10)

    def _read(self) -> None:
        try:
            with self._request as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                self.opened.set()
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    self.lines.append(line)
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
                    elif "data" in fields:
                        self._told.put((fields["id"], fields["event"], json.loads(fields["data"])))
                        fields = {}
        except httpx2.HTTPError:
            pass
        self._told.put(None)

    def next(self, timeout: float = 5.0) -> tuple[str, str, dict[str, Any]] | None:
        """The next event, or None when the stream has ended."""
        return self._told.get(timeout=timeout)

    def rest(self, timeout: float = 5.0) -> list[tuple[str, str]]:
        """Ids and kinds of all that follows until the stream ends."""
        return [(event[0], event[1]) for event in iter(lambda: self.next(timeout), None)]


def listening(served: Served, app: Any) -> None:
    until = time.monotonic() + 10
    while not app.state.services.hub.listening:
        assert time.monotonic() < until
        time.sleep(0.01)


WHOLE = [("0", "submitted"), ("1", "claimed"), ("2", "passed"), ("3", "claimed"), ("4", "passed")]


def test_a_run_is_followed_from_submit_to_its_end(
    ada: httpx2.Client, served: Served, app: Any, submit: Submit, begin: Begin
) -> None:
    listening(served, app)
    run_id = submit()
    stream = Stream(ada, run_id)
    first = stream.next()
    assert first
    assert (first[0], first[1]) == ("0", "submitted")
    assert {key: first[2][key] for key in ("run", "seq", "kind", "status", "stage", "attempt", "terminal")} == {
        "run": str(run_id),
        "seq": 0,
        "kind": "submitted",
        "status": "queued",
        "stage": "scan",
        "attempt": 1,
        "terminal": False,
    }
    assert first[2]["at"]
    began = time.monotonic()
    move(begin, run_id, "scan")
    second = stream.next()
    assert second
    assert (second[1], second[2]["worker"]) == ("claimed", "w")
    assert time.monotonic() - began < LOOK_ANYWAY / 2  # by NOTIFY: unrung, the next look is that far away
    with begin() as session:
        engine.send(session, run_id, Cancel())
    last = stream.next()
    assert last
    assert (last[1], last[2]["terminal"], last[2]["status"]) == ("cancelled", True, "cancelled")
    assert stream.next() is None


def test_a_run_that_is_over_tells_what_was_missed_and_closes(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    run_id = submit()
    finish(begin, run_id)
    assert Stream(ada, run_id).rest() == WHOLE
    assert Stream(ada, run_id, last=1).rest() == WHOLE[2:]
    assert Stream(ada, run_id, last=4).rest() == []
    with ada.stream("GET", f"/api/v1/runs/{run_id}/events", params={"last_event_id": "3"}) as answer:
        assert [line for line in answer.iter_lines() if line.startswith("id:")] == ["id: 4"]


@pytest.mark.parametrize("garbage", ["x", "-1", "5", "1.0", "9" * 99, "\u00b2"])
def test_an_event_id_that_is_none_of_the_run_s_is_refused(
    ada: httpx2.Client, submit: Submit, begin: Begin, garbage: str
) -> None:
    run_id = submit()
    finish(begin, run_id)
    path = f"/api/v1/runs/{run_id}/events"
    problem(ada.get(path, params={"last_event_id": garbage}), 400, "invalid_event_id")
    if garbage.isascii():
        problem(ada.get(path, headers={"Last-Event-ID": garbage}), 400, "invalid_event_id")


def test_a_retry_goes_on_behind_the_old_end(ada: httpx2.Client, submit: Submit, begin: Begin) -> None:
    run_id = submit()
    with begin() as session:
        engine.send(session, run_id, Cancel())
        engine.send(session, run_id, Retry())
    stream = Stream(ada, run_id, last=0)
    move(begin, run_id, "scan", {"facts": {"verdict": "clean"}, "files": []}, attempt=2)
    move(begin, run_id, "promote", {"facts": {"published": []}, "files": []})
    assert [kind for _, kind in stream.rest()] == ["cancelled", "retried", "claimed", "passed", "claimed", "passed"]


def test_a_listener_that_is_cut_off_comes_back_and_nothing_is_missed(
    ada: httpx2.Client, served: Served, app: Any, submit: Submit, begin: Begin
) -> None:
    listening(served, app)
    run_id = submit()
    stream = Stream(ada, run_id)
    assert stream.next()
    with begin() as session:
        cut = session.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE query LIKE :listen AND datname = current_database() AND pid <> pg_backend_pid()"
            ),
            {"listen": f"LISTEN {NEWS}%"},
        ).scalar_one()
    assert cut == 1
    finish(begin, run_id)
    assert stream.rest() == WHOLE[1:]
    listening(served, app)


def test_without_a_listener_streams_poll(
    settings: Settings, storage: object, ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    parts = assemble(settings)
    parts.hub._url = "postgresql://nobody@127.0.0.1:1/none"
    with serving(create_app(parts)) as running, httpx2.Client(base_url=running.url, headers=ada.headers) as client:
        run_id = submit()
        stream = Stream(client, run_id)
        assert stream.next()
        finish(begin, run_id)
        assert stream.rest() == WHOLE[1:]
        assert not parts.hub.listening


def test_silence_is_filled_with_comments(
    ada: httpx2.Client, submit: Submit, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fastapi.routing._PING_INTERVAL == 15.0
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.2)
    run_id = submit()
    stream = Stream(ada, run_id)
    time.sleep(1)
    with begin() as session:
        engine.send(session, run_id, Cancel())
    stream.rest()
    assert len([line for line in stream.lines if line.startswith(":")]) >= 3


def test_a_stream_that_nobody_reads_any_more_is_forgotten(
    ada: httpx2.Client, app: Any, submit: Submit, parts: Services
) -> None:
    before = parts.hub.subscribers
    with ada.stream("GET", f"/api/v1/runs/{submit()}/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        assert parts.hub.subscribers == before + 1
    until = time.monotonic() + 5
    while parts.hub.subscribers > before:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_stopping_the_server_ends_its_streams_at_once(settings: Settings, ada: httpx2.Client, submit: Submit) -> None:
    run_id = submit()
    with serving(create_app(assemble(settings))) as running:
        client = httpx2.Client(base_url=running.url, headers=ada.headers)
        stream = Stream(client, run_id)
        assert stream.next()
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert stream.next() is None
    client.close()


def test_many_streams_of_many_runs_each_hear_their_own(
    ada: httpx2.Client, submit: Submit, begin: Begin, url: str
) -> None:
    runs = [submit() for _ in range(5)]
    with httpx2.Client(base_url=url, headers=ada.headers, limits=httpx2.Limits(max_connections=50)) as client:
        streams = [(run_id, Stream(client, run_id)) for run_id in runs for _ in range(4)]
        for run_id in runs:
            finish(begin, run_id)
        for run_id, stream in streams:
            events = list(iter(stream.next, None))
            assert [(event[0], event[1]) for event in events] == WHOLE
            assert {event[2]["run"] for event in events} == {str(run_id)}


@contextmanager
def process(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m api` as it is run in earnest."""
    started = subprocess.Popen(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env={**environment, "SLIPWAY_PORT": str(port), "LOG_LEVEL": "WARNING"},
    )
    try:
        until = time.monotonic() + 30
        while True:
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                    break
            except httpx2.HTTPError:
                assert started.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        yield started
    finally:
        started.kill()
        started.wait()


def test_a_killed_api_costs_no_event(
    environment: dict[str, str], settings: Settings, ada: httpx2.Client, submit: Submit, begin: Begin
) -> None:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    run_id = submit("scan", "promote")
    token = ada.headers["authorization"].removeprefix("Bearer ")
    seen: list[tuple[str, str]] = []

    def read(count: int) -> None:
        with signed_in(f"http://127.0.0.1:{port}", token) as client:
            stream = Stream(client, run_id, last=seen[-1][0] if seen else None)
            seen.extend((event[0], event[1]) for event in itertools.islice(iter(stream.next, None), count))

    with process(environment, port) as api:
        move(begin, run_id, "scan")
        read(2)
        os.kill(api.pid, signal.SIGKILL)
        api.wait()
    move_on = {"facts": {"verdict": "clean"}, "files": []}
    with begin() as session:
        engine.send(session, run_id, engine.Passed(stage="scan", attempt=1, report=move_on))
    with process(environment, port) as api:
        threading.Timer(0.3, lambda: move(begin, run_id, "promote", {"facts": {"published": []}, "files": []})).start()
        read(99)
        assert seen == WHOLE
        api.send_signal(signal.SIGTERM)
        assert api.wait(timeout=10) == -signal.SIGTERM  # uvicorn shuts down well, then dies of the signal it was sent
