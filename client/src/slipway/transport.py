"""One HTTP exchange with the server, and the only place that tries one again. Knows problems, not runs or models.

Tried again are requests that change nothing (GET, HEAD), whose second time changes nothing (DELETE), or that the server
does once for their `Idempotency-Key` (POST), when the connection broke, the server said 502, 503 or 504, or it said 429; where it asks for a pause, if that is short.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import islice
from typing import Any, Literal
from uuid import uuid4

import httpx2

from slipway.errors import InvalidRequest, RateLimited, SlipwayError, Unreachable, kind_of

SAFE_TWICE = frozenset({"GET", "HEAD", "DELETE"})
IDEMPOTENCY_KEY = "Idempotency-Key"
PASSING = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
CONNECT_SECONDS = 10.0
PAGE = 100


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and how patiently: full jitter below a doubling bound, in seconds.

    `longest_pause` is the longest `Retry-After` worth sitting out; `patience` is how long an event stream may stay
    away before it is given up.
    """

    attempts: int = 4
    first: float = 0.3
    most: float = 8.0
    longest_pause: float = 20.0
    patience: float = 120.0

    def pause(self, tries: int) -> float:
        """Return how long to wait after that many failures (1, 2, …)."""
        bound = min(self.most, self.first * 2.0 ** min(tries - 1, 16))
        return random.uniform(bound / 4, bound)  # noqa: S311 - spreads clients, guards nothing


class Wire:
    """A connection pool to one server, with the credential that goes to that server only."""

    def __init__(self, url: str, token: str | None, *, timeout: float, retry: Retry, agent: str) -> None:
        self.url = url
        self.token = token
        self.timeout = timeout
        self.retry = retry
        self._agent = agent
        self._trust = httpx2.create_ssl_context()  # reading the certificate store takes longer than most requests
        self._pool = self.pool()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def pool(self) -> httpx2.Client:
        """Return a fresh pool with our limits and no credential."""
        timeout = httpx2.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        return httpx2.Client(timeout=timeout, headers={"User-Agent": self._agent}, verify=self._trust)

    def to(self, url: str) -> Wire:
        """Return a connection to another server of the same installation, with the same credential and patience."""
        return Wire(url, self.token, timeout=self.timeout, retry=self.retry, agent=self._agent)

    def headers(self) -> dict[str, str]:
        """Return what proves who is asking."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def once(self, method: str, path: str, **parts: Any) -> httpx2.Response:
        """Send one request a single time; raise what its answer or its failure means."""
        return checked(self._exchange(method, path, **parts))

    def _exchange(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **parts: Any
    ) -> httpx2.Response:
        try:
            return self._pool.request(method, self.url + path, headers={**self.headers(), **(headers or {})}, **parts)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(self.url, error) from error

    def probe(self, path: str) -> httpx2.Response:
        """Return the answer to a GET whatever its status; try again only where there is none."""
        return self.persist(lambda: self._exchange("GET", path))

    def send(self, method: str, path: str, **parts: Any) -> httpx2.Response:
        """Send one request, again where that is safe and may help. A POST is, by its key: the server does it once."""
        if method == "POST":
            headers = {**(parts.pop("headers", None) or {}), IDEMPOTENCY_KEY: str(uuid4())}
            return self.persist(lambda: self.once(method, path, headers=headers, **parts))
        if method not in SAFE_TWICE:
            return self.once(method, path, **parts)
        return self.persist(lambda: self.once(method, path, **parts))

    def persist(self, act: Callable[[], httpx2.Response], *, until: float | None = None) -> httpx2.Response:
        """Do something that may be done twice until it works or is refused.

        It has failed for good after as many attempts as the policy has, or at `until` (monotonic) where given.
        """
        tries = 0
        while True:
            try:
                return act()
            except SlipwayError as error:
                tries += 1
                pause = again_after(error, tries, self.retry)
                given_up = tries >= self.retry.attempts if until is None else time.monotonic() >= until
                if pause is None or given_up:
                    raise
                time.sleep(pause)

    def stream(self, path: str, **parts: Any) -> Iterator[bytes]:
        """Yield the bytes that a GET answers with, on a connection of their own."""
        try:
            with self.pool() as pool, pool.stream("GET", self.url + path, headers=self.headers(), **parts) as answer:
                if answer.status_code != HTTPStatus.OK:
                    answer.read()
                    raise problem(answer)
                yield from answer.iter_raw()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(self.url, error) from error

    def json(self, method: str, path: str, **parts: Any) -> dict[str, Any]:
        """Send one request and return the object it answers with."""
        return as_object(self.send(method, path, **parts))

    def pages(
        self,
        path: str,
        wanted: Mapping[str, Any] | None = None,
        limit: int | None = None,
        *,
        by: Literal["cursor", "before"] = "cursor",
    ) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page after page, `limit` at most; `by` is how it asks for the next one.

        What is None in `wanted` is not asked for.
        """
        return islice(self._all(path, wanted or {}, limit, by), limit)

    def _all(self, path: str, wanted: Mapping[str, Any], limit: int | None, by: str) -> Iterator[dict[str, Any]]:
        cursor: Any = None
        while True:
            page = {**wanted, by: cursor, "limit": min(PAGE, limit) if limit else PAGE}
            said = self.json("GET", path, params=given(page))
            yield from said.get("items") or ()
            cursor, before = said.get("next"), cursor
            if not cursor:
                return
            if cursor == before:
                raise Unreachable("endless_list", f"{path} gives the same page again and again.")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not None."""
    return {key: value for key, value in values.items() if value is not None}


def again_after(error: SlipwayError, tries: int, retry: Retry) -> float | None:
    """Return how long to wait before the same request may work, or None where it will not."""
    if error.code == "budget_exhausted":
        return None  # a key's calls do not grow again
    if error.code == "idempotency_in_flight":
        return error.retry_after
    passing = isinstance(error, Unreachable) and (error.status is None or error.status in PASSING)
    if not isinstance(error, RateLimited) and (not passing or error.code in {"not_slipway", "bad_url"}):
        return None
    asked = error.retry_after if error.retry_after is not None else retry.pause(tries)
    return asked if asked <= retry.longest_pause else None


def checked(answer: httpx2.Response) -> httpx2.Response:
    """Return a good answer; raise what any other one means. Its body must have been read."""
    if answer.is_success or answer.status_code == HTTPStatus.NOT_MODIFIED:
        return answer
    raise problem(answer)


def problem(answer: httpx2.Response) -> SlipwayError:
    """Return the error that an answer means, with all that the server said about it."""
    status = answer.status_code
    if answer.is_redirect:
        where = answer.headers.get("location", "elsewhere")
        return InvalidRequest("redirected", f"The server points to {where}.", hint="Set SLIPWAY_URL to that address.")
    try:
        said = answer.json()
    except ValueError:
        said = None
    body: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    phrase = answer.reason_phrase or f"status {status}"
    known: dict[str, Any] = {
        "status": status,
        "hint": body.get("hint") or _hint(status),
        "details": body.get("details"),
        "trace_id": body.get("trace_id"),
    }
    code = str(body.get("code") or phrase.lower().replace(" ", "_").replace("-", "_"))
    said = body.get("detail") or body.get("title") or body.get("error")  # the last is the Open Inference Protocol's
    known["retry_after"] = pause_asked(answer.headers.get("retry-after"))
    kind = RateLimited if status == HTTPStatus.TOO_MANY_REQUESTS else kind_of(status, code)
    return kind(code, str(said or f"The server answered {status} {phrase}."), **known)


def _hint(status: int) -> str | None:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return "Sign in: slipway login (or set SLIPWAY_TOKEN)."
        case HTTPStatus.FORBIDDEN:
            return "Ask an admin for the right, or use a key that has it: slipway keys list"
        case HTTPStatus.NOT_FOUND:
            return "See what there is: slipway models, slipway runs"
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "See what is wrong: slipway doctor"
        case _:
            return None


def pause_asked(value: str | None) -> float | None:
    """Read `Retry-After`: seconds, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def unreachable(url: str, error: Exception) -> SlipwayError:
    """Return what a broken exchange means."""
    look = "Is it the right address (SLIPWAY_URL), and does the server run? slipway doctor looks closer."
    match error:
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return InvalidRequest("bad_url", f"{url} is no server address: {error}", hint="Set SLIPWAY_URL.")
        case httpx2.ConnectTimeout():
            return Unreachable("no_connection", f"{url} did not take the connection in time.", hint=look)
        case httpx2.ConnectError():
            return Unreachable("no_connection", f"Nobody answers at {url} ({error}).", hint=look)
        case httpx2.TimeoutException():
            return Unreachable("no_answer", f"{url} took the connection but did not answer in time.", hint=look)
        case _:
            said = str(error) or type(error).__name__
            return Unreachable("connection_broke", f"The connection to {url} broke: {said}", hint=look)


def as_object(answer: httpx2.Response) -> dict[str, Any]:
    """Return the JSON object in an answer; anything else means that this is no Slipway server."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Unreachable(
            "not_slipway",
            f"What answers at {answer.url} does not speak like a Slipway server.",
            hint="Check SLIPWAY_URL: another service, or a proxy, may be listening there.",
        )
    return said
