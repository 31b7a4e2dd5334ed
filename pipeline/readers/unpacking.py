"""Runs decompressors over foreign bytes, in pieces and under the inspection's limits. Knows no format."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from pipeline.readers.archive import keep
from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.source import CHUNK, Source, Truncated

MEMORY = 384 << 20
"""What a decompressor may want for its dictionary; no common tool writes more by itself."""
RATIO_FROM = 16 << 20
"""Below this many bytes nothing is a bomb."""
_FED = CHUNK // 4
_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".lz4", ".z", ".zlib")


class Engine(Protocol):
    """A decompressor of the standard library's shape."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Inflate:
    """zlib's decompressor in the shape of the others'."""

    def __init__(self, wbits: int) -> None:
        self._engine = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def needs_input(self) -> bool:
        return not self._engine.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._engine.decompress(self._engine.unconsumed_tail + data, max(max_length, 0))


def decompress(engine: Engine, data: bytes, kind: str, at: int | None = None) -> bytes:
    """One piece of what the data unpacks to."""
    try:
        return engine.decompress(data, CHUNK)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise Malformed(f"{kind}.broken", f"The content cannot be unpacked: {error}.", at) from None


class Stream:
    """One compressed stream inside a source: iterate to unpack it, then `end` is the offset behind it."""

    def __init__(self, source: Source, at: int, engine: Engine, kind: str) -> None:
        self.source = source
        self.end = at
        self._engine = engine
        self._kind = kind

    def __iter__(self) -> Iterator[bytes]:
        engine, start = self._engine, self.end
        while not engine.eof:
            feed = b""
            if engine.needs_input:
                feed = self.source.read(self.end, min(_FED, self.source.size - self.end))
                self.end += len(feed)
            piece = decompress(engine, feed, self._kind, start)
            if not piece and not feed and not engine.eof:
                raise Malformed(f"{self._kind}.truncated", "The compressed content ends early.", self.end)
            yield piece
        self.end -= len(engine.unused_data)


def metered(pieces: Iterable[bytes], packed: int, inspection: Inspection) -> Iterator[bytes]:
    """The pieces, until they are more than the limits allow for `packed` bytes."""
    produced = 0
    for piece in pieces:
        produced += len(piece)
        if produced > RATIO_FROM and produced > packed * inspection.limits.ratio:
            raise Malformed("limit.ratio", f"It unpacks to more than {inspection.limits.ratio} times its size.")
        inspection.inflate(len(piece))
        inspection.tick()
        yield piece


def examine_unpacked(source: Source, path: str, inspection: Inspection, kind: str, pieces: Iterable[bytes]) -> None:
    """Judge what a source unpacks to; of a broken one, what comes out before it breaks."""
    broken = False

    def until_broken() -> Iterator[bytes]:
        nonlocal broken
        try:
            yield from pieces
        except Malformed as stop:
            broken = True
            inspection.note(stop.severity, stop.rule, path, stop.offset, stop.message)
        except Truncated as stop:
            broken = True
            inspection.unknown("content.truncated", path, stop.offset, "The content ends in the middle of something.")

    content = keep(metered(until_broken(), source.size, inspection), inspection.unpacked_file())
    inspection.expect(content.size)
    if not broken:
        inspection.credit(kind, source.size)
    inspection.examine(content, f"{path}!{_inner_name(path)}")


def _inner_name(path: str) -> str:
    name = path.rsplit("/", 1)[-1].rsplit("!", 1)[-1]
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return f"{name[:-4]}.tar" if name.lower().endswith(".tgz") else "content"
