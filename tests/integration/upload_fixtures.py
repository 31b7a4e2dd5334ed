"""Forms, model files and a bare socket: what tests of uploads send."""

from __future__ import annotations

import io
import json
import socket
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from pipeline.staging import sweep_staging
from registry import models, store
from registry.lookup import Viewer
from shared.db import Begin
from shared.settings import Settings
from shared.storage import Bucket, Storage

BOUNDARY = "frontier"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
NOW = timedelta(seconds=-60)
"""An age that everything has, whatever the storage's clock says."""
END = f"--{BOUNDARY}--\r\n".encode()


def safetensors(size: int) -> bytes:
    """A safetensors file of exactly `size` bytes, which are not all the same."""
    return b"".join(safetensors_chunks(size))


def safetensors_chunks(size: int) -> Iterator[bytes]:
    header = _safetensors_header(size)
    yield header
    pattern = bytes(range(251)) * 4177  # a prime number of different bytes, so that no two parts are alike
    left = size - len(header)
    while left:
        yield pattern[:left]
        left -= min(left, len(pattern))


def _safetensors_header(size: int) -> bytes:
    described = 512
    count = size - 8 - described
    text = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return described.to_bytes(8, "little") + text.ljust(described)


def onnx(padding: int = 0) -> bytes:
    """The outside of an ONNX file: an IR version, a producer's name and an empty graph."""
    name = b"p" * padding
    return b"\x08\x09" + b"\x12" + _varint(len(name)) + name + b"\x3a\x00"


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def archive(*members: str, padding: int = 0) -> bytes:
    """A zip archive with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for member in members:
            made.writestr(f"archive/{member}", bytes(padding))
    return buffer.getvalue()


SCRIPT = ("data.pkl", "constants.pkl", "code/__torch__.py")


def text(name: str, value: str) -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file(name: str, filename: str, content: bytes, *headers: str) -> bytes:
    return file_head(name, filename, *headers) + content + b"\r\n"


def file_head(name: str, filename: str, *headers: str) -> bytes:
    lines = (f'Content-Disposition: form-data; name="{name}"; filename="{filename}"', *headers)
    return "\r\n".join((f"--{BOUNDARY}", *lines, "", "")).encode()


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + END


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, object]


@pytest.fixture
def staging(storage: Storage, settings: Settings) -> Bucket:
    """The staging bucket, empty at first."""
    bucket = storage.bucket(settings.bucket("staging"))
    sweep_staging(bucket, lambda _: set(), NOW)
    assert left_in(bucket) == []
    return bucket


def left_in(bucket: Bucket) -> list[str]:
    """Keys of all objects and all unfinished transfers."""
    return [stored.key for stored in bucket.list()] + [unfinished.key for unfinished in bucket.multiparts()]


def versions_of(begin: Begin, owner: UUID) -> int:
    """How many versions somebody's models have."""
    with begin() as session:
        found = models.listed(session, Viewer(user_id=owner), models.Wanted())
        return sum(len(store.list_versions(session, model.id)) for model in found)


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


class Wire:
    """One connection on which a test decides when which byte goes out."""

    def __init__(self, url: str, token: str) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self.socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self._token = token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self, *, length: int | None, content_type: str = CONTENT_TYPE, **headers: str) -> None:
        lines = [
            "POST /api/v1/models/upload HTTP/1.1",
            "Host: slipway",
            f"Authorization: Bearer {self._token}",
            f"Content-Type: {content_type}",
            "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_chunk(self, data: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def send_all(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> Answer:
        """The whole answer. Fails where the connection is reset before it is here."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self._more()
        return Answer(status=int(first.split()[1]), headers=headers, body=json.loads(body) if body else {})

    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        assert data, "the connection was closed before the answer was whole"
        return data
