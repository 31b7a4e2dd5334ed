"""A multipart upload that never holds a file in memory and whose length is known before its first byte.

The server can therefore refuse by `Content-Length` alone; when it does, the sending stops and its answer is shown.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import secrets
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpcore2  # httpx2's own transport layer; its WriteError is how a request body is broken off without a failure
import httpx2

from slipway.errors import InvalidRequest, SlipwayError
from slipway.transport import IDEMPOTENCY_KEY, Wire, checked, unreachable

WIRE_CHUNK = 1 << 16
FINISHING_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far something is: `phase` is `hashing`, `uploading`, `finishing`, `queued`; `checking`, `downloading`."""

    phase: str
    done: int
    total: int


Listener = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Listen to nothing."""


def digest_of(path: Path, listen: Listener = ignore, *, phase: str = "hashing", size: int | None = None) -> str:
    """Return the hex SHA-256 of a file, telling how far it is; `size` where only that many bytes are to be read."""
    total = path.stat().st_size if size is None else size
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while done < total and (chunk := file.read(min(1 << 20, total - done))):
            digest.update(chunk)
            done += len(chunk)
            listen(Progress(phase=phase, done=done, total=total))
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Form:
    """Fields and files of one upload, and its exact length in bytes."""

    boundary: str
    pieces: tuple[bytes | Path, ...]
    sizes: Mapping[Path, int]

    @property
    def content_type(self) -> str:
        """What the `Content-Type` header says."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """What the `Content-Length` header says."""
        return sum(len(piece) if isinstance(piece, bytes) else self.sizes[piece] for piece in self.pieces)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body; raise InvalidRequest where a file became shorter meanwhile."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            left = self.sizes[piece]
            with piece.open("rb") as file:
                while left and (chunk := file.read(min(WIRE_CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
            if left:
                raise InvalidRequest(
                    "file_changed", f"{piece} became shorter while it was sent.", hint="Wait until it is written."
                )


def form(fields: Mapping[str, Any], files: Mapping[str, Path]) -> Form:
    """Lay out an upload: fields first, so that the server can judge them before the bytes come.

    Values are JSON where they are not text, and left out where they are None.
    """
    boundary = "slipway-" + secrets.token_hex(16)
    sizes = {path: _readable_size(path) for path in files.values()}
    pieces: list[bytes | Path] = []
    for name, value in fields.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            pieces.append(head.encode() + text.encode() + b"\r\n")
    for name, path in files.items():
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{_quoted(path.name)}"\r\n'
            f"Content-Type: {media_type}\r\n\r\n"
        )
        pieces += [head.encode(), path, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return Form(boundary=boundary, pieces=tuple(pieces), sizes=sizes)


def _quoted(filename: str) -> str:
    """Escape a file name as browsers do (WHATWG)."""
    return filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _readable_size(path: Path) -> int:
    try:
        if not path.is_file():
            raise InvalidRequest("no_such_file", f"{path} is not a file.", hint="Name the model file itself.")
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InvalidRequest("unreadable_file", f"{path} cannot be read: {error.strerror}.") from error


def send(wire: Wire, path: str, body: Form, listen: Listener = ignore) -> httpx2.Response:
    """Send an upload, once more where that may help, and return the server's answer, be it early.

    Its key has the server take it in once, even where an answer was lost. Progress counts the bytes handed to the network; `finishing` begins when all are, and the server has the word.
    """
    key = str(uuid4())
    return wire.persist(lambda: _send(wire, path, body, listen, key))


def _send(wire: Wire, path: str, body: Form, listen: Listener, key: str) -> httpx2.Response:
    about = {"Content-Type": body.content_type, "Content-Length": str(body.length), IDEMPOTENCY_KEY: key}
    headers = wire.headers() | about
    line = _Line(write_seconds=wire.timeout)
    timeout = httpx2.Timeout(wire.timeout, read=max(wire.timeout, FINISHING_SECONDS))
    total = body.length

    def content() -> Iterator[bytes]:
        done = 0
        for chunk in body.chunks():
            line.wait_for_room()
            yield chunk
            done += len(chunk)
            listen(Progress(phase="uploading", done=done, total=total))
        listen(Progress(phase="finishing", done=total, total=total))

    listen(Progress(phase="uploading", done=0, total=total))
    try:
        # A pool of its own: the connection must be fresh for `line` to see it, and a refusal leaves it unusable.
        with wire.pool() as pool:
            answer = pool.post(
                wire.url + path,
                content=content(),
                headers=headers,
                timeout=timeout,
                extensions={"trace": line.watch},
            )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _broken_off(wire.url, error) from error
    return checked(answer)


def _broken_off(url: str, error: Exception) -> SlipwayError:
    failure = unreachable(url, error)
    if not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL)):
        failure.hint = "See whether it arrived before you push again: slipway runs"
    return failure


class _Line:
    """Sees the socket of an upload, to notice an answer that comes while the body is still being sent.

    Only without TLS: under TLS a readable socket may hold no more than a session ticket. There the write error that
    follows when the server hangs up leads to the same answer, later.
    """

    def __init__(self, *, write_seconds: float) -> None:
        self._socket: socket.socket | None = None
        self._write_seconds = write_seconds

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Take the connection from httpx2's trace."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")
        elif event.endswith("start_tls.complete"):
            self._socket = None

    def wait_for_room(self) -> None:
        """Return when more may be sent; end the body where the server has answered or hung up already."""
        if self._socket is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            ready = selector.select(self._write_seconds)
        if not ready:
            raise httpcore2.WriteTimeout("The server takes no more bytes.")
        if ready[0][1] & selectors.EVENT_READ:
            raise httpcore2.WriteError("The server has answered before the body was sent.")
