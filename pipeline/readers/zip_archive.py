"""Zip archives, with every byte accounted for: two readers of the same archive must see the same members.

Knows the zip format and nothing of what the members mean: layouts (`Layout`) and the other readers judge those.
Written for archives that lie: local against central headers, flag bits, checksums, gaps, overlaps, bombs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from struct import Struct

from pipeline.readers.archive import Archive, Member, Names, judge, keep
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.source import CHUNK, Source
from pipeline.readers.zip_directory import (
    DEFLATED,
    HAS_DESCRIPTOR,
    STORED,
    UTF8,
    ZIP64,
    Central,
    ends_as_archive,
    find_directory,
    read_directory,
    read_extras,
    widen,
)

_LOCAL = Struct("<4s5H3L2H")
_RATIO_FROM = 16 << 20


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One entry on which both headers agree. `offset` and `packed` bound its data inside the archive."""

    name: str
    offset: int
    packed: int
    size: int
    crc: int
    method: int

    def content(self, source: Source) -> Source:
        packed = source.part(self.offset, self.packed)
        return packed if self.method == STORED else keep(_inflated(packed, self))


def examine(source: Source, path: str, inspection: Inspection) -> None:
    judge(read(source, path, inspection), inspection)


def read(source: Source, path: str, inspection: Inspection, begin: int = 0) -> Archive:
    """Check the whole archive and return its members; raises `Malformed` where it cannot be trusted at all.

    `begin` is where the first entry must stand; what comes before, the caller has understood.
    """
    start, end, count = find_directory(source, path, inspection)
    entries = read_directory(source, start, end, count, inspection)
    members: dict[str, Member] = {}
    names = Names(kind="zip", path=path, inspection=inspection)
    expected = begin
    structure = source.size - start
    for entry in sorted(entries, key=lambda entry: entry.header):
        if entry.header != expected:
            kind = "overlap" if entry.header < expected else "gap"
            raise Malformed(
                f"zip.{kind}",
                f"Entry {entry.raw_name[:80]!r} starts at {entry.header}, but the entry before it ends at {expected}.",
                expected,
                Severity.MALICIOUS if kind == "overlap" else Severity.UNKNOWN,
            )
        name = _name(entry, path, inspection)
        names.admit(name, entry.header)
        data = _local(source, entry, inspection)
        one = _Entry(name=name, offset=data, packed=entry.packed, size=entry.size, crc=entry.crc, method=entry.method)
        _check_content(source, one, inspection)
        members[name] = Member(name=name, size=one.size, content=partial(one.content, source))
        expected = _after(source, entry, data)
        structure += expected - entry.header - (entry.packed if entry.method == STORED else 0)
        inspection.tick()
    if expected != start:
        raise Malformed(
            "zip.gap", f"{start - expected:,} bytes before the central directory belong to nothing.", expected
        )
    inspection.credit("zip", structure)
    return Archive(kind="zip", path=path, members=members)


def _name(entry: Central, path: str, inspection: Inspection) -> str:
    try:
        name = entry.raw_name.decode("utf-8" if entry.flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        raise Malformed("zip.name", f"The name {entry.raw_name[:80]!r} is not plain text.", entry.header) from None
    if entry.linked:
        inspection.malicious("zip.link", path, entry.header, f"{name[:200]!r} is a link or a device, not a file.")
    if name.endswith("/") and entry.size:
        inspection.unknown("zip.folder", path, entry.header, f"The folder {name[:200]!r} has content.")
    return name


def _local(source: Source, entry: Central, inspection: Inspection) -> int:
    """Compare the local header with the central one; returns where the data begins."""
    at = entry.header
    magic, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(source.read(at, _LOCAL.size))
    raw_name = source.read(at + _LOCAL.size, names)
    if magic != b"PK\x03\x04" or (raw_name, flags, method) != (entry.raw_name, entry.flags, entry.method):
        raise Malformed(
            "zip.mismatch",
            f"The local and the central header of {entry.raw_name[:80]!r} disagree.",
            at,
            Severity.MALICIOUS,
        )
    extra = read_extras(source.read(at + _LOCAL.size + names, extras), at, raw_name)
    size, packed, _, _ = widen(extra.get(ZIP64), (size, packed, 0), 0, at)
    announced = (crc, packed, size)
    deferred = bool(flags & HAS_DESCRIPTOR) and announced == (0, 0, 0)
    if not deferred and announced != (entry.crc, entry.packed, entry.size):
        raise Malformed(
            "zip.mismatch",
            f"The two headers of {entry.raw_name[:80]!r} give different sizes or checksums.",
            at,
            Severity.MALICIOUS,
        )
    if entry.method == DEFLATED:
        inspection.inflate(entry.size)
        inspection.expect(entry.size)
    if entry.size > _RATIO_FROM and entry.size > entry.packed * inspection.limits.ratio:
        raise Malformed(
            "limit.ratio", f"{entry.raw_name[:80]!r} unpacks to more than {inspection.limits.ratio} times its size.", at
        )
    return at + _LOCAL.size + len(raw_name) + int(extras)


def _after(source: Source, entry: Central, data: int) -> int:
    """Where the next entry must begin: behind the data and its descriptor."""
    at = data + entry.packed
    if not entry.flags & HAS_DESCRIPTOR:
        return at
    for width in (4, 8):
        wanted = b"".join(
            (
                b"PK\x07\x08",
                entry.crc.to_bytes(4, "little"),
                *(
                    number.to_bytes(width, "little")
                    for number in (entry.packed, entry.size)
                    if number >> 8 * width == 0
                ),
            )
        )
        length = 8 + 2 * width
        # A 32-bit descriptor of an empty member is a prefix of the 64-bit one: what follows decides.
        if at + length + 4 <= source.size and source.read(at, length + 2) == wanted + b"PK":
            return at + length
    raise Malformed("zip.descriptor", f"The descriptor behind {entry.raw_name[:80]!r} is wrong.", at)


def _check_content(source: Source, entry: _Entry, inspection: Inspection) -> None:
    packed = source.part(entry.offset, entry.packed)
    crc = 0
    copy = inspection.unpacked_file() if entry.method == DEFLATED else None
    with copy or nullcontext():
        for piece in packed.chunks() if entry.method == STORED else _inflated(packed, entry):
            crc = zlib.crc32(piece, crc)
            if copy is not None:
                copy.write(piece)
            inspection.tick()
    if crc != entry.crc:
        raise Malformed("zip.checksum", f"The content of {entry.name!r} does not match its checksum.", entry.offset)


def _inflated(packed: Source, entry: _Entry) -> Iterator[bytes]:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    produced = 0
    for chunk in packed.chunks(step=CHUNK // 4):
        feed = chunk
        while feed and not engine.eof:
            try:
                piece = engine.decompress(feed, CHUNK)
            except zlib.error as error:
                raise Malformed("zip.deflate", f"{entry.name!r} cannot be unpacked: {error}.", entry.offset) from None
            produced += len(piece)
            if produced > entry.size:
                raise Malformed("zip.deflate", f"{entry.name!r} unpacks to more than it announces.", entry.offset)
            yield piece
            feed = engine.unconsumed_tail
        if engine.eof and (engine.unused_data or feed):
            raise Malformed("zip.deflate", f"Bytes follow the packed content of {entry.name!r}.", entry.offset)
    if not engine.eof:
        tail = engine.flush()
        produced += len(tail)
        yield tail
    if not engine.eof or produced != entry.size:
        raise Malformed(
            "zip.deflate", f"{entry.name!r} unpacks to {produced:,} bytes, not {entry.size:,}.", entry.offset
        )


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


READER = Reader(name="zip", recognises=_recognises, examine=examine, hides=ends_as_archive, container=True)
