"""What GitHub says of a repository's licence. Goes to the configured host and to no other, whatever it is told there.

The address comes from a user, so nothing of it reaches the wire but an owner's and a repository's name. The host's own
address is looked up once, judged, and connected to; a redirect may only lead to the same host; an answer has a deadline as
a whole and a largest size.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from shared.errors import AdapterError, DependencyUnavailable

LARGEST = 1 << 20
"""Bytes that an answer may have."""
_REDIRECTS = 3
_ADDRESS = re.compile(
    r"(?:https?://)?(?P<host>[A-Za-z0-9.-]+)/(?P<owner>[A-Za-z0-9][A-Za-z0-9-]{0,38})/(?P<name>[A-Za-z0-9._-]{1,100}?)(?:\.git)?/?"
    r"(?:[/?#].*)?"
)
_GITHUB = frozenset({"github.com", "www.github.com"})


class RepositoryUnknown(AdapterError):
    """GitHub answered, and has no such repository, or none whose licence it shows us."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """`spdx_id` is None where GitHub does not recognise the licence; `text` is the licence file's, where it came along."""

    spdx_id: str | None
    text: str | None


class GitHub:
    """`api_url` is the endpoint's, such as https://api.github.com; `timeout` (seconds) bounds a whole look-up.

    `private`: whether the endpoint may lie at an address that is not public, as a GitHub Enterprise server's may.
    """

    def __init__(self, api_url: str, *, token: str = "", timeout: float = 10.0, private: bool = False) -> None:
        parts = urlsplit(api_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query:
            raise ValueError(f"GITHUB_API_URL is no address of an endpoint: {api_url!r}")
        if parts.scheme == "http" and token:
            raise ValueError(
                "GITHUB_API_URL has to be https where there is a GITHUB_TOKEN: it would go over the wire bare"
            )
        self._base = api_url.rstrip("/")
        self._origin = _origin(api_url)
        self._token = token
        self._timeout = timeout
        self._private = private

    def repository(self, address: str) -> Repository:
        """The repository that an address such as `https://github.com/owner/name` is of. Raises `ValueError`.

        A GitHub Enterprise server's own addresses do too where it is the one that is asked.
        """
        found = _ADDRESS.fullmatch(address.strip())
        if found is None or found["host"].lower() not in {*_GITHUB, self._origin[1].removeprefix("api.")}:
            raise ValueError("is not the address of a GitHub repository, such as https://github.com/owner/name")
        if found["name"] in (".", ".."):
            raise ValueError("is not the address of a repository")
        return Repository(owner=found["owner"], name=found["name"])

    def licence(self, of: Repository) -> Found:
        """Raises `RepositoryUnknown`, and `DependencyUnavailable` where GitHub cannot be asked or makes no sense."""
        address = f"{self._base}/repos/{of.owner}/{of.name}/license"
        call = _Call(self._timeout)
        with call:
            for _ in range(_REDIRECTS + 1):
                status, headers, body = self._get(call, address)
                if status not in (301, 302, 307, 308):
                    return _read(of, status, body)
                address = self._followed(address, headers.get("location", ""))
        raise _unavailable("GitHub sends us from one address to the next.")

    def _followed(self, address: str, location: str) -> str:
        try:
            target = urljoin(address, location)
            there = _origin(target)
        except ValueError as error:
            raise _unavailable("GitHub sends us to what is no address.") from error
        if not location or there != self._origin:
            raise _unavailable("GitHub sends us to another host, where we do not go.")
        return target

    def _get(self, call: _Call, address: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = urlsplit(address)
        headers = {"Host": parts.netloc, "Accept": "application/vnd.github+json", "User-Agent": "slipway"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        _, host, port = self._origin
        connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        try:
            connection.sock = self._connect(call)
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as answer:
                body = answer.read(LARGEST + 1)
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = "in time" if call.over else f"as it should ({type(error).__name__})"
            raise _unavailable(f"GitHub does not answer {why}.") from error
        finally:
            connection.close()
        if len(body) > LARGEST:
            raise _unavailable(f"GitHub's answer exceeds {LARGEST:,} bytes.")
        if call.over:
            raise _unavailable("GitHub does not answer in time.")
        return answer.status, answer.headers, body

    def _connect(self, call: _Call) -> socket.socket:
        """A connection to an address that was judged: looking the name up again could give another one."""
        scheme, host, port = self._origin
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not self._private and not _is_public(str(place[0])):
            raise _unavailable(f"{host} has an address that is not public; GITHUB_PRIVATE=true allows it.")
        connection = socket.socket(family, kind, protocol)
        try:
            call.watch(connection)
            connection.settimeout(self._timeout)
            connection.connect(place)
            if scheme == "https":
                secured = ssl.create_default_context()
                connection = secured.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
                call.watch(connection)
                connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        return connection


class _Call:
    """The deadline of everything that one look-up does: it cuts the connection, so that no trickle can outlast it."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        with self._lock:
            self._socket = connection
            if self.over:
                connection.close()

    def _cut(self) -> None:
        with self._lock:
            self.over = True
            if self._socket is not None:
                try:
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    return  # it is not connected (yet, any more): its own timeout ends it


def _origin(address: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises `ValueError`."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_global
    return found.is_global


def _read(of: Repository, status: int, body: bytes) -> Found:
    if status == 404:
        raise RepositoryUnknown(
            "repository_unknown",
            f"GitHub shows us no repository {of}, or none with a licence; give the licence as text.",
        )
    if status in (403, 429):
        raise _unavailable("GitHub takes no more questions from us for now.")
    if status != 200:
        raise _unavailable(f"GitHub answers with status {status}.")
    try:
        said: Any = json.loads(body)
        licence = said["license"]
        spdx_id = None if licence is None else licence["spdx_id"]
        content = said.get("content") if said.get("encoding") == "base64" else None
        text = None if content is None else base64.b64decode(content).decode("utf-8", errors="replace")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unavailable("GitHub's answer is not what its documentation says.") from error
    if spdx_id is not None and not isinstance(spdx_id, str):
        raise _unavailable("GitHub's answer is not what its documentation says.")
    return Found(spdx_id=None if spdx_id in (None, "", "NOASSERTION", "NONE") else spdx_id, text=text)


def _unavailable(message: str) -> DependencyUnavailable:
    return DependencyUnavailable("github_unavailable", message)
