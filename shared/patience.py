"""A uvicorn connection that gives up on slow, endless and ambiguous requests before an app hears of them. Knows no edge."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
from dataclasses import dataclass
from http import HTTPStatus

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()

MAX_URL = 8 << 10
MAX_HEAD = 32 << 10
MAX_HEADERS = 100
"""What comes before the body: bytes of the address, bytes of everything together, number of headers."""
MOST_FILES = 1 << 16

_BODY = (b"content-length", b"transfer-encoding")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:[0-9]{0,5})?")
"""`uri-host [ ":" port ]` (RFC 9110 §7.2); empty where the address has no authority."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is no request that an app could answer."""

    status: HTTPStatus
    code: str
    detail: str


class PatientProtocol(HttpToolsProtocol):
    """One connection. uvicorn alone waits for ever, for headers of any length and for answers to be read.

    An edge says in `rendered` how it words a refusal.
    """

    header_seconds = 20.0
    reading_seconds = 60.0
    """How long a client may leave its answer lying."""
    most_connections = 2000
    """Open at once. One more, and the one that has been idle longest is closed."""

    idle_since: float | None = None
    """Since when no request is under way, by the loop's clock."""

    _giving_up: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _refusal: Refusal | None = None
    _in_head = False
    _heads = 0
    _head = 0
    _pending = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # The kernel's part of `reading_seconds`: what is left when the answer is complete and nobody takes it.
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.reading_seconds * 1000)
        )
        self.idle_since = self.loop.time()
        self._wait_for_headers()
        if len(self.connections) > self.most_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self._giving_up is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_headers()
        head = self._heads if self._in_head else None
        super().data_received(data)
        # Of a header that has not ended the parser tells nothing: count what it was fed.
        self._pending = self._pending + len(data) if self._in_head and self._heads == head else 0
        if self._pending > MAX_HEAD and not self.transport.is_closing():
            self._refusal = _too_long()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0
        self._heads += 1

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL:
            detail = f"The address is longer than {MAX_URL >> 10} KiB."
            raise self._refuse(Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "url_too_long", detail))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value)
        if self._head > MAX_HEAD or len(self.headers) >= MAX_HEADERS:
            raise self._refuse(_too_long())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        hosts = [value for name, value in self.headers if name == b"host"]
        old = self.parser.get_http_version() == "1.0" and not hosts
        if not old and (len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None):
            detail = "A request has one Host header, with a name and perhaps a port."
            raise self._refuse(Refusal(HTTPStatus.BAD_REQUEST, "invalid_host", detail))
        # After a wish to upgrade the parser takes what follows for another protocol and drops it, bodies too.
        upgrade = self.parser.should_upgrade()
        if upgrade and any(name in _BODY and value != b"0" for name, value in self.headers):
            detail = "No other protocol is spoken here, and a request that asks for one cannot have a body."
            raise self._refuse(Refusal(HTTPStatus.BAD_REQUEST, "upgrade_refused", detail))
        self.idle_since = None
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not upgrade

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # and not another one waiting behind it
            self.idle_since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_writing_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_writing_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are the same for every fault
        """Say what is wrong with the request and hang up; only hang up where an earlier answer is still being sent."""
        refusal = self._refusal or Refusal(HTTPStatus.BAD_REQUEST, "malformed_request", "This is no HTTP request.")
        log.info("http.refused", code=refusal.code)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(self.rendered(refusal))
        self.transport.close()

    def _refuse(self, refusal: Refusal) -> httptools.HttpParserError:
        """What to raise inside the parser, so that it stops and uvicorn asks for the answer."""
        self._refusal = refusal
        return httptools.HttpParserError(refusal.code)

    def _make_room(self) -> None:
        idle = {
            each: each.idle_since  # we are one of them ourselves
            for each in self.connections
            if isinstance(each, PatientProtocol) and each.idle_since is not None
        }
        oldest = min(idle, key=lambda each: idle[each])
        log.warning("http.crowded", connections=len(self.connections))
        oldest.idle_since = None  # so that the next one to come does not choose it again before it is gone
        oldest.transport.abort()

    def _wait_for_headers(self) -> None:
        self._giving_up = self.loop.call_later(self.header_seconds, self.transport.close)

    def _wait_for_reader(self) -> None:
        """Hang up where nothing is taken for so long; slowly is well enough."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._wait_for_reader()
            else:
                self.transport.abort()

        self._unread = self.loop.call_later(self.reading_seconds, look)

    def _stop_waiting(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _stop_writing_timer(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def rendered(self, refusal: Refusal) -> bytes:
        """The bytes of an answer that no app gives; the connection is closed behind it."""
        raise NotImplementedError


def allow_open_files() -> None:
    """Raise this process's soft limit, which is often 1024: a full table of connections must not starve the database."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _too_long() -> Refusal:
    detail = f"The request's headers are more than {MAX_HEADERS}, or longer than {MAX_HEAD >> 10} KiB together."
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail)
