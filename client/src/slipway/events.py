"""The events of one run, in order, each exactly once, over as many connections as it takes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from slipway.errors import SlipwayError, TimedOut, Unreachable
from slipway.records import FINISHED, Event
from slipway.transport import Retry, Wire, again_after, as_object, checked, unreachable

SILENCE_SECONDS = 45.0
"""Three missed keep-alives: the connection is dead, whatever TCP believes."""
CONFIRM_SECONDS = 3.0
"""How long to listen for more after the end of a run that is over; a server closes such a stream at once."""


def follow(
    wire: Wire, run_id: str, *, last_event_id: int | None = None, timeout: float | None = None
) -> Iterator[Event]:
    """Yield every event after `last_event_id` (None: from the first one) until the run is over.

    A connection that drops is opened again with `Last-Event-ID`; events seen already are skipped, should the server
    repeat one. Raises TimedOut after `timeout` seconds, whatever the connection is doing, and the last failure once
    the server has been away for as long as the retry policy is patient.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    at = _Position(last=last_event_id, ended=last_event_id is not None)
    while True:
        confirming = at.ended and at.over
        until = _earlier(deadline, time.monotonic() + CONFIRM_SECONDS) if confirming else deadline
        at.news = False
        error: SlipwayError | None = None
        try:
            yield from _listen(wire, run_id, at, until)
            if at.news or not confirming:
                at.over = _is_over(wire, run_id, deadline)
        except SlipwayError as failure:
            error = failure
        if confirming and not at.news and (error is None or (until is not None and time.monotonic() >= until)):
            return
        if at.over and not at.news and time.monotonic() - at.last_news > wire.retry.patience:
            return  # the run is over and the server has no end to tell
        _still_time(run_id, deadline, timeout)
        time.sleep(_at_most(_pause(error, at, wire.retry), deadline))
        _still_time(run_id, deadline, timeout)


@dataclass
class _Position:
    """Where a reader of events is.

    A run that was retried has old ends in its history, so an end is the last event only when a connection that was
    opened after the run was known to be `over` has nothing to add. Whoever resumes may be at the end already.
    """

    last: int | None
    ended: bool
    over: bool = False
    news: bool = False
    failures: int = 0
    last_contact: float = field(default_factory=time.monotonic)
    last_news: float = field(default_factory=time.monotonic)


def _listen(wire: Wire, run_id: str, at: _Position, until: float | None) -> Iterator[Event]:
    """Yield what one connection has to say that was not heard before, up to the end of the run or the connection."""
    with contextlib.closing(_one_connection(wire, run_id, at.last, until)) as connection:
        for event in connection:
            at.last_contact = time.monotonic()
            if event is None or (at.last is not None and event.seq <= at.last):
                continue
            at.last, at.ended, at.news = event.seq, event.terminal, True
            at.failures, at.last_news = 0, at.last_contact
            yield event
            if event.terminal:
                return


def _pause(error: SlipwayError | None, at: _Position, retry: Retry) -> float:
    """Return how long to wait before the next connection, or raise what makes it pointless."""
    if error is None and at.ended and at.over and at.news:
        return 0.0
    at.failures += 1
    if error is None:
        return retry.pause(at.failures)
    pause = again_after(error, at.failures, retry)
    if pause is None or time.monotonic() - at.last_contact > retry.patience:
        raise error
    return pause


def _earlier(deadline: float | None, other: float) -> float:
    return other if deadline is None else min(deadline, other)


def _is_over(wire: Wire, run_id: str, deadline: float | None) -> bool:
    answer = wire.once("GET", _path(run_id), timeout=_at_most(wire.timeout, deadline))
    return as_object(answer).get("status") in FINISHED


def _at_most(seconds: float, deadline: float | None) -> float:
    return seconds if deadline is None else max(0.001, min(seconds, deadline - time.monotonic()))


def _path(run_id: str) -> str:
    return f"/api/v1/runs/{run_id}"


def _still_time(run_id: str, deadline: float | None, timeout: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimedOut(
            "timeout",
            f"The run was not over after {timeout:g} s. It goes on.",
            hint=f"Come back to it: slipway watch {run_id}",
        )


def _one_connection(wire: Wire, run_id: str, last: int | None, deadline: float | None) -> Generator[Event | None]:
    """Yield None once the server has answered, then what it says until the connection ends."""
    headers = wire.headers() | {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    timeout = httpx2.Timeout(_at_most(wire.timeout, deadline), read=_at_most(SILENCE_SECONDS, deadline))
    url = wire.url + _path(run_id) + "/events"
    try:
        # A pool of its own: a watcher must not hold a connection that other requests wait for.
        with wire.pool() as pool, pool.stream("GET", url, headers=headers, timeout=timeout) as answer:
            if not answer.is_success:
                answer.read()
                checked(answer)
            yield None
            with _alarm(answer, deadline):
                for message in httpx2.EventSource(answer):
                    data = _data(message.data)
                    if data is not None:
                        yield Event.read({"kind": message.event, "seq": message.id or -1, "run": run_id} | data)
    except httpx2.SSEError as error:
        raise Unreachable(
            "not_slipway", f"{url} does not answer with events: {error}", hint="Check SLIPWAY_URL and proxies."
        ) from error
    except httpx2.HTTPError as error:
        raise unreachable(wire.url, error) from error


def _data(text: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return None


@contextlib.contextmanager
def _alarm(answer: httpx2.Response, deadline: float | None) -> Iterator[None]:
    """End a blocking read at the deadline: keep-alive comments would hold off any read timeout."""
    if deadline is None:
        yield
        return
    stream = answer.extensions["network_stream"]
    connection: socket.socket = stream.get_extra_info("socket")

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # SSLSocket's own would pull its state away

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
