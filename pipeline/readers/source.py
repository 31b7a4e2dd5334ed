"""A range of bytes that is read piece by piece. Knows offsets and nothing of what the bytes mean."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 1 << 20


class Truncated(Exception):
    """The bytes end before the thing that they began."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the bytes end early, at offset {offset}")
        self.offset = offset


@dataclass(frozen=True, kw_only=True)
class Source:
    """`size` bytes of `file` from `start` on; offsets count from `start`. The file is never held in memory."""

    file: BinaryIO
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, or `Truncated`."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Truncated(min(max(offset, 0), self.size))
        self.file.seek(self.start + offset)
        pieces = bytearray()
        while len(pieces) < length:
            piece = self.file.read(length - len(pieces))
            if not piece:
                raise Truncated(offset + len(pieces))
            if len(piece) == length:
                return piece
            pieces += piece
        return bytes(pieces)

    def head(self, length: int) -> bytes:
        return self.read(0, min(length, self.size))

    def chunks(self, offset: int = 0, length: int | None = None, *, step: int = CHUNK) -> Iterator[bytes]:
        end = self.size if length is None else offset + length
        while offset < end:
            piece = self.read(offset, min(step, end - offset))
            yield piece
            offset += len(piece)

    def part(self, offset: int, size: int) -> Source:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise Truncated(min(max(offset, 0), self.size))
        return Source(file=self.file, start=self.start + offset, size=size)


def of_bytes(content: bytes) -> Source:
    return Source(file=io.BytesIO(content), start=0, size=len(content))


class Cursor:
    """Reads a source from front to back through a small window.

    `start` is where the last `begin` was called: the offset of the thing that is being read.
    """

    WINDOW = 1 << 16

    def __init__(self, source: Source, offset: int = 0) -> None:
        self._source = source
        self._window = b""
        self._base = offset
        self._at = 0
        self.start = offset

    @property
    def position(self) -> int:
        return self._base + self._at

    @property
    def remaining(self) -> int:
        return self._source.size - self.position

    def _fill(self, need: int) -> None:
        rest = self._window[self._at :]
        begin = self._base + len(self._window)
        missing = need - len(rest)
        if missing > self._source.size - begin:
            raise Truncated(self._source.size)
        more = min(max(missing, self.WINDOW), self._source.size - begin)
        self._base += self._at
        self._window = rest + self._source.read(begin, more)
        self._at = 0

    def begin(self) -> int:
        """The first byte of the next thing."""
        at = self._at
        self.start = self._base + at
        if at >= len(self._window):
            self._fill(1)
            at = 0
        self._at = at + 1
        return self._window[at]

    def byte(self) -> int:
        at = self._at
        if at >= len(self._window):
            self._fill(1)
            at = 0
        self._at = at + 1
        return self._window[at]

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._window):
            self._fill(length)
            end = length
        piece = self._window[self._at : end]
        self._at = end
        return piece

    def number(self, length: int) -> int:
        """A little-endian unsigned number."""
        return int.from_bytes(self.take(length), "little")

    def line(self, limit: int) -> bytes:
        """Up to and without the next newline; `Truncated` when there is none within `limit` bytes."""
        while True:
            end = self._window.find(b"\n", self._at, self._at + limit + 1)
            if end >= 0:
                piece = self._window[self._at : end]
                self._at = end + 1
                return piece
            have = len(self._window) - self._at
            if have > limit or self._base + len(self._window) >= self._source.size:
                raise Truncated(self.position + min(have, limit))
            self._fill(min(2 * have, self.remaining) if have else 1)

    def skip(self, length: int) -> None:
        if length > self.remaining:
            raise Truncated(self._source.size)
        inside = len(self._window) - self._at
        if length <= inside:
            self._at += length
        else:
            self._base = self.position + length
            self._window = b""
            self._at = 0
