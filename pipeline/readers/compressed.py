"""Files that are one compressed stream: gzip, bzip2, xz, lzma and zlib, the last as joblib writes it, old and new.

Every stream and every byte between and behind them counts; what they unpack to is judged by what it is.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator

from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Cursor, Source
from pipeline.readers.unpacking import MEMORY, Inflate, Stream, examine_unpacked

_GZIP, _BZIP2, _XZ = b"\x1f\x8b\x08", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), b"\xfd7zXZ\0"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
_GZIP_FLAGS = 0b11111
_LONGEST_NAME = 255
_OLD_JOBLIB = re.compile(rb"ZF(?=.{19}x)0x([0-9a-f]{1,16})L? *", re.DOTALL)
_OLD_JOBLIB_HEADER = 21
_KNOWN_CHECKS = (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256)
_LZMA_HEADER = 13
_UNKNOWN_SIZE = (1 << 64) - 1
_PLAUSIBLE_SIZE = 1 << 38


def _gzip(source: Source) -> Iterator[bytes]:
    at = 0
    while at < source.size:
        if source.read(at, min(3, source.size - at)) != _GZIP:
            raise Malformed("gzip.suffix", f"{source.size - at:,} bytes follow the compressed content.", at)
        stream = Stream(source, _gzip_header(source, at), Inflate(-zlib.MAX_WBITS), "gzip")
        crc = size = 0
        for piece in stream:
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            yield piece
        trailer = Cursor(source, stream.end)
        if (trailer.number(4), trailer.number(4)) != (crc, size & 0xFFFFFFFF):
            raise Malformed("gzip.checksum", "The content does not match its checksum or its length.", stream.end)
        at = trailer.position


def _gzip_header(source: Source, at: int) -> int:
    """Where the packed data begins; the header may name the file, and nothing else."""
    cursor = Cursor(source, at + 3)
    flags = cursor.number(1)
    cursor.skip(6)  # time, level, system
    if flags & ~_GZIP_FLAGS:
        raise Malformed("gzip.flags", f"The header has unknown flags, {flags:#04x}.", at + 3)
    if flags & (_EXTRA | _COMMENT):
        raise Malformed("gzip.extra", "The header carries extra fields or a comment.", at)
    if flags & _NAME:
        start = cursor.position
        name, end, _ = source.read(start, min(_LONGEST_NAME + 1, source.size - start)).partition(b"\0")
        if not end or not name.decode("latin-1").isprintable() or re.search(rb"[/\\:]|^\.\.$", name):
            raise Malformed("gzip.name", f"The header names the file {name[:80]!r}.", start)
        cursor.skip(len(name) + 1)
    if flags & _HEADER_CRC:
        wanted = zlib.crc32(source.read(at, cursor.position - at)) & 0xFFFF
        if cursor.number(2) != wanted:
            raise Malformed("gzip.checksum", "The header does not match its checksum.", at)
    return cursor.position


def _bzip2(source: Source) -> Iterator[bytes]:
    at = 0
    while at < source.size:
        if _BZIP2.match(source.read(at, min(10, source.size - at))) is None:
            raise Malformed("bzip2.suffix", f"{source.size - at:,} bytes follow the compressed content.", at)
        stream = Stream(source, at, bz2.BZ2Decompressor(), "bzip2")
        yield from stream
        at = stream.end


def _xz(source: Source) -> Iterator[bytes]:
    at = 0
    while at < source.size:
        word = source.read(at, min(4, source.size - at))
        if at and word == bytes(4):  # between and behind streams the format allows zeros, in fours
            at += 4
            continue
        if source.read(at, min(6, source.size - at)) != _XZ:
            raise Malformed("xz.suffix", f"{source.size - at:,} bytes follow the compressed content.", at)
        engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
        stream = Stream(source, at, engine, "xz")
        yield from stream
        if engine.check not in _KNOWN_CHECKS:
            raise Malformed("xz.check", f"The stream is checked by the unknown method {engine.check}.", at)
        at = stream.end


def _lzma(source: Source) -> Iterator[bytes]:
    announced = int.from_bytes(source.read(5, 8), "little")
    stream = Stream(source, 0, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MEMORY), "lzma")
    size = 0
    for piece in stream:
        size += len(piece)
        yield piece
    if announced not in (_UNKNOWN_SIZE, size):
        raise Malformed("lzma.length", f"It unpacks to {size:,} bytes, not {announced:,}.", 5)
    _check_end(source, stream.end, "lzma")


def _zlib(source: Source) -> Iterator[bytes]:
    stream = Stream(source, 0, Inflate(zlib.MAX_WBITS), "zlib")
    yield from stream
    _check_end(source, stream.end, "zlib")


def _old_joblib(source: Source) -> Iterator[bytes]:
    """Joblib before 0.9.3: the length in letters, then a zlib stream."""
    match = _OLD_JOBLIB.match(source.head(_OLD_JOBLIB_HEADER + 1))
    if match is None or match.end() != _OLD_JOBLIB_HEADER:
        raise Malformed("joblib.header", "The header of old joblib files is broken.", 0)
    stream = Stream(source, _OLD_JOBLIB_HEADER, Inflate(zlib.MAX_WBITS), "joblib")
    size = 0
    for piece in stream:
        size += len(piece)
        yield piece
    if size != int(match[1], 16):
        raise Malformed("joblib.length", f"It unpacks to {size:,} bytes, not {int(match[1], 16):,}.", 0)
    _check_end(source, stream.end, "joblib")


def _check_end(source: Source, end: int, kind: str) -> None:
    if end != source.size:
        raise Malformed(f"{kind}.suffix", f"{source.size - end:,} bytes follow the compressed content.", end)


def _is_lzma(glimpse: Glimpse) -> bool:
    """The format has no magic: believed when properties, dictionary and length are such as programs write."""
    head = glimpse.head
    if len(head) < _LZMA_HEADER or head[0] >= 225:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    high = 1 << dictionary.bit_length() >> 1
    plausible = size == _UNKNOWN_SIZE or size < _PLAUSIBLE_SIZE
    return plausible and dictionary >= 1 << 12 and dictionary in (high, high | high >> 1, 0xFFFFFFFF)


def _is_zlib(glimpse: Glimpse) -> bool:
    """By its two first bytes; those of them that are letters begin texts as well, which then do not unpack."""
    head = glimpse.head
    if head[:2] != b"x^":
        return head[:2] in (b"x\x01", b"x\x9c", b"x\xda")
    engine = zlib.decompressobj()
    try:
        engine.decompress(head)
    except zlib.error:
        return False
    return engine.eof or glimpse.size > len(head)


def _reader(
    name: str,
    recognises: Callable[[Glimpse], bool],
    pieces: Callable[[Source], Iterator[bytes]],
    rank: int = 0,
) -> Reader:
    def examine(source: Source, path: str, inspection: Inspection) -> None:
        examine_unpacked(source, path, inspection, name, pieces(source))

    return Reader(name=name, recognises=recognises, examine=examine, rank=rank)


READERS = (
    _reader("gzip", lambda glimpse: glimpse.head.startswith(_GZIP), _gzip),
    _reader("bzip2", lambda glimpse: _BZIP2.match(glimpse.head) is not None, _bzip2),
    _reader("xz", lambda glimpse: glimpse.head.startswith(_XZ), _xz),
    _reader("joblib-zf", lambda glimpse: _OLD_JOBLIB.match(glimpse.head) is not None, _old_joblib),
    _reader("lzma", _is_lzma, _lzma, rank=3),
    _reader("zlib", _is_zlib, _zlib, rank=3),
)
