"""7z archives, with every byte accounted for and every checksum checked. Knows the container, not what its files mean.

Reads what the standard library can unpack (LZMA, LZMA2, Deflate, bzip2, stored, and the common filters); encrypted
archives and other methods are named and stay unknown.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from struct import Struct

from pipeline.readers.archive import Archive, Member, Names, judge, keep
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.seven_zip_header import Coder, Entry, Folder, Streams, name_of, read_header
from pipeline.readers.source import CHUNK, Source, of_bytes
from pipeline.readers.unpacking import MEMORY, Engine, Inflate, decompress, metered

_MAGIC = b"7z\xbc\xaf\x27\x1c"
_START = Struct("<6sBBLQQL")
_NEWEST_MINOR = 4
_LONGEST_HEADER = 16 << 20
_MOST_PACKED_HEADERS = 4
_COPY, _LZMA, _LZMA2, _DEFLATE, _BZIP2 = b"\0", b"\x03\x01\x01", b"\x21", b"\x04\x01\x08", b"\x04\x02\x02"
_DELTA, _AES = b"\x03", b"\x06\xf1\x07\x01"
_FILTERS = {
    _DELTA: lzma.FILTER_DELTA,
    b"\x04": lzma.FILTER_X86,
    b"\x05": lzma.FILTER_POWERPC,
    b"\x06": lzma.FILTER_IA64,
    b"\x07": lzma.FILTER_ARM,
    b"\x08": lzma.FILTER_ARMTHUMB,
    b"\x09": lzma.FILTER_SPARC,
    b"\x03\x03\x01\x03": lzma.FILTER_X86,
    b"\x03\x03\x02\x05": lzma.FILTER_POWERPC,
    b"\x03\x03\x04\x01": lzma.FILTER_IA64,
    b"\x03\x03\x05\x01": lzma.FILTER_ARM,
    b"\x03\x03\x07\x01": lzma.FILTER_ARMTHUMB,
    b"\x03\x03\x08\x05": lzma.FILTER_SPARC,
}


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """What an archive says of itself. `spans` are the parts of the file behind its first header that it accounts for."""

    streams: Streams
    entries: tuple[Entry, ...]
    spans: tuple[tuple[int, int], ...]


def examine(source: Source, path: str, inspection: Inspection) -> None:
    judge(read(source, path, inspection), inspection)


def read(source: Source, path: str, inspection: Inspection) -> Archive:
    """Check the whole archive and return its members; raises `Malformed` where it cannot be trusted at all."""
    tables = _tables(source, inspection)
    _check_spans(source, tables.spans)
    packs = _Packs(source=source, streams=tables.streams, inspection=inspection)
    names = Names(kind="7z", path=path, inspection=inspection)
    members: dict[str, Member] = {}
    places = packs.check()
    for entry in tables.entries:
        name = f"{entry.name}/" if entry.folder else entry.name
        names.admit(name, None)
        if entry.linked:
            inspection.malicious("7z.link", path, None, f"{name[:200]!r} is a link or a device, not a file.")
        place = next(places, None) if entry.has_stream else _Place(folder=-1, at=0, size=0)
        if place is None:
            raise Malformed("7z.header", "There are more files than contents.")
        members[name] = Member(name=name, size=place.size, content=partial(packs.open, place))
    if next(places, None) is not None:
        raise Malformed("7z.header", "There are contents that belong to no file.")
    inspection.credit("7z", source.size - packs.stored)
    return Archive(kind="7z", path=path, members=members)


def _tables(source: Source, inspection: Inspection) -> _Tables:
    _, major, minor, start_crc, offset, size, crc = _START.unpack(source.read(0, _START.size))
    if major or minor > _NEWEST_MINOR:
        raise Malformed("7z.version", f"Version {major}.{minor} of the format is unknown.", 6)
    if zlib.crc32(source.read(12, 20)) != start_crc:
        raise Malformed("7z.checksum", "The start of the archive does not match its checksum.", 8)
    at = _START.size + offset
    if at + size > source.size:
        raise Malformed("7z.truncated", "The archive ends before its tables; the rest may be in another volume.", 12)
    spans = [(at, size)]
    streams = Streams(packs=(), folders=(), files=())
    if size > _LONGEST_HEADER:
        raise Malformed("7z.header", f"The tables take {size:,} bytes.", at)
    if size == 0:
        return _Tables(streams=streams, entries=(), spans=tuple(spans))
    table = source.part(at, size)
    for _ in range(_MOST_PACKED_HEADERS):
        if crc not in (None, zlib.crc32(table.read(0, table.size))):
            raise Malformed("7z.checksum", "The tables of the archive do not match their checksum.", at)
        streams, entries = read_header(table, inspection)
        if entries is not None:
            return _Tables(streams=streams, entries=entries, spans=(*spans, *_spans(streams)))
        [folder], [(packed_at, packed_size)] = streams.folders, _spans(streams)
        if folder.size > _LONGEST_HEADER:
            raise Malformed("7z.header", f"The tables take {folder.size:,} bytes.", packed_at)
        packed = source.part(packed_at, packed_size)
        # Not every program gives packed tables a checksum.
        table, crc = keep(_unpacked(packed, folder)), folder.crc
        spans.append((packed_at, packed_size))
    raise Malformed("7z.header", "The tables are packed again and again.", at)


def _spans(streams: Streams) -> list[tuple[int, int]]:
    return [(_START.size + at, size) for at, size in streams.packs]


def _check_spans(source: Source, spans: Iterable[tuple[int, int]]) -> None:
    expected = _START.size
    for start, size in (*sorted(spans), (source.size, 0)):
        if start == source.size and expected < start:
            raise Malformed("7z.suffix", f"{start - expected:,} bytes follow the end of the archive.", expected)
        if start != expected:
            kind = "overlap" if start < expected else "gap"
            raise Malformed(
                f"7z.{kind}",
                f"A part of the archive starts at {start:,}, the one before it ends at {expected:,}.",
                min(start, expected),
                Severity.MALICIOUS if kind == "overlap" else Severity.UNKNOWN,
            )
        expected = start + size


# Contents


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a file's content stands inside what its folder unpacks to."""

    folder: int
    at: int
    size: int


@dataclass(kw_only=True)
class _Packs:
    """The packed streams. Only the folder used last is kept unpacked: files of one folder follow each other."""

    source: Source
    streams: Streams
    inspection: Inspection
    stored: int = 0
    _last: tuple[int, Source] = field(default=(-1, of_bytes(b"")))

    def check(self) -> Iterator[_Place]:
        """Unpack every folder once, compare all checksums, and yield the files' places one by one."""
        for index, (folder, files) in enumerate(zip(self.streams.folders, self.streams.files, strict=True)):
            content = self.unpack(index, first=True)
            is_stored = _is_stored(folder)
            if is_stored:
                self.stored += content.size
            else:
                self.inspection.expect(content.size)
            at, whole = 0, 0
            for size, wanted in files:
                crc = 0
                copy = None if is_stored else self.inspection.unpacked_file()
                with copy or nullcontext():
                    for piece in content.part(at, size).chunks():
                        crc, whole = zlib.crc32(piece, crc), zlib.crc32(piece, whole)
                        if copy is not None:
                            copy.write(piece)
                        self.inspection.tick()
                if crc != wanted:
                    raise Malformed("7z.checksum", "A file has no checksum or does not match it.", None)
                yield _Place(folder=index, at=at, size=size)
                at += size
            if folder.crc not in (None, whole):
                raise Malformed("7z.checksum", "A folder does not match its checksum.", None)

    def open(self, place: _Place) -> Source:
        return self.unpack(place.folder).part(place.at, place.size) if place.size else of_bytes(b"")

    def unpack(self, index: int, *, first: bool = False) -> Source:
        if self._last[0] != index:
            folder, (at, size) = self.streams.folders[index], _spans(self.streams)[index]
            packed = self.source.part(at, size)
            if _is_stored(folder) and folder.size == size:
                content = packed
            else:
                pieces = _unpacked(packed, folder)
                content = keep(metered(pieces, size, self.inspection) if first else self.ticking(pieces))
            self._last = index, content
        return self._last[1]

    def ticking(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.inspection.tick()
            yield piece


def _is_stored(folder: Folder) -> bool:
    return [coder.id for coder in folder.coders] == [_COPY]


def _unpacked(packed: Source, folder: Folder) -> Iterator[bytes]:
    pieces: Iterable[bytes] = packed.chunks(step=CHUNK // 4)
    for coder in folder.coders:
        pieces = _through(coder, pieces)
    yield from pieces


def _through(coder: Coder, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What a coder makes of the pieces: exactly as much as the archive says."""
    produced = 0
    for piece in _decoded(coder, pieces):
        produced += len(piece)
        if produced > coder.size:
            break
        yield piece
    if produced != coder.size:
        raise Malformed("7z.length", f"A packed stream does not unpack to the {coder.size:,} bytes it announces.")


def _decoded(coder: Coder, pieces: Iterable[bytes]) -> Iterator[bytes]:
    if coder.id == _COPY:
        yield from pieces
        return
    engine, prefix = _engine(coder)
    feeds = _as_lzma2(pieces) if coder.id in _FILTERS else chain((prefix,), pieces)
    for feed in chain(feeds, (b"",)):
        rest = feed
        while not engine.eof:
            piece = decompress(engine, rest, "7z")
            yield piece
            if not piece and (engine.needs_input or not rest):
                break
            rest = b""
        else:
            if rest or engine.unused_data:
                raise Malformed("7z.suffix", "Bytes stand behind the end of a packed stream.")
    if not engine.eof:
        raise Malformed("7z.truncated", "A packed stream ends early.")


def _engine(coder: Coder) -> tuple[Engine, bytes]:
    """A decompressor for the coder, and what it has to be fed first."""
    properties = coder.properties
    if coder.id == _LZMA and len(properties) == 5:
        # As a .lzma file, for only its decoder stops at a given length and says what it has left over.
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MEMORY), properties + coder.size.to_bytes(8, "little")
    if coder.id == _LZMA2 and len(properties) == 1 and properties[0] <= 40:
        # A dictionary longer than the content makes no difference but in memory.
        bits = properties[0]
        size = max(min((2 | bits & 1) << bits // 2 + 11, coder.size), 1 << 12)
        if size > MEMORY:
            raise Malformed("7z.dictionary", f"Unpacking needs a dictionary of {size:,} bytes.")
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": size}]), b""
    if coder.id == _DEFLATE and not properties:
        return Inflate(-zlib.MAX_WBITS), b""
    if coder.id == _BZIP2 and not properties:
        return bz2.BZ2Decompressor(), b""
    if coder.id in _FILTERS and len(properties) == (1 if coder.id == _DELTA else 0):
        one = {"id": _FILTERS[coder.id], **({"dist": properties[0] + 1} if properties else {})}
        return lzma.LZMADecompressor(
            lzma.FORMAT_RAW, filters=[one, {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
        ), b""
    if coder.id == _AES:
        raise Malformed("7z.encrypted", "The archive is encrypted: nobody can look inside.")
    raise Malformed("7z.coder", f"The archive is packed by {name_of(coder.id)}, which nobody here can read.")


def _as_lzma2(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces as an LZMA2 stream that stores them: the form in which the library filters something already unpacked."""
    control = b"\x01"
    for piece in pieces:
        for at in range(0, len(piece), 1 << 16):
            part = piece[at : at + (1 << 16)]
            yield control + (len(part) - 1).to_bytes(2, "big") + part
            control = b"\x02"
    yield b"\0"


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head.startswith(_MAGIC)


READER = Reader(name="7z", recognises=_recognises, examine=examine, container=True)
