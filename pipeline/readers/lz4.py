"""LZ4 frames, unpacked by a decoder of our own that believes nothing: bounds, lengths and every checksum are checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Cursor, Source
from pipeline.readers.unpacking import examine_unpacked

_MAGIC = b"\x04\x22\x4d\x18"
_BLOCK_SIZES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_HISTORY = 64 << 10
_STORED = 1 << 31
_U32 = 0xFFFFFFFF
_P1, _P2, _P3, _P4, _P5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393


def examine(source: Source, path: str, inspection: Inspection) -> None:
    examine_unpacked(source, path, inspection, "lz4", _frames(source, inspection))


def _frames(source: Source, inspection: Inspection) -> Iterator[bytes]:
    cursor = Cursor(source)
    while cursor.remaining:
        at = cursor.position
        if cursor.remaining < len(_MAGIC) or cursor.take(len(_MAGIC)) != _MAGIC:
            raise Malformed("lz4.suffix", f"{source.size - at:,} bytes follow the compressed content.", at)
        yield from _frame(cursor, inspection)


@dataclass(frozen=True, kw_only=True)
class _Descriptor:
    """What a frame says of itself: which checksums it has, its length if it tells, the longest block."""

    independent: bool
    checked_blocks: bool
    checked: bool
    size: int | None
    most: int


def _descriptor(cursor: Cursor) -> _Descriptor:
    at = cursor.position
    content = cursor.take(2)
    flags, most = content[0], _BLOCK_SIZES.get(content[1] >> 4)
    if flags >> 6 != 1 or flags & 0b10 or most is None or content[1] & 0b10001111:
        raise Malformed("lz4.header", "The frame is of an unknown version or has unknown flags.", at)
    if flags & 1:
        raise Malformed("lz4.dictionary", "The frame needs a dictionary that is not in it.", at)
    size = cursor.take(8) if flags & 0x08 else b""
    if cursor.byte() != _Hash.of(content + size) >> 8 & 0xFF:
        raise Malformed("lz4.checksum", "The header of the frame does not match its checksum.", at)
    return _Descriptor(
        independent=bool(flags & 0x20),
        checked_blocks=bool(flags & 0x10),
        checked=bool(flags & 0x04),
        size=int.from_bytes(size, "little") if size else None,
        most=most,
    )


def _frame(cursor: Cursor, inspection: Inspection) -> Iterator[bytes]:
    frame = _descriptor(cursor)
    total, history, whole = 0, b"", _Hash()
    while length := cursor.number(4):
        at = cursor.position
        stored, length = bool(length & _STORED), length & ~_STORED
        if length > frame.most:
            raise Malformed("lz4.block", "A block is longer than the frame allows.", at)
        block = cursor.take(length)
        if frame.checked_blocks and cursor.number(4) != _Hash.of(block):
            raise Malformed("lz4.checksum", "A block does not match its checksum.", at)
        content = block if stored else _unpacked(block, b"" if frame.independent else history, frame.most, at)
        history = (history + content)[-_HISTORY:]
        total += len(content)
        if frame.checked:
            whole.update(content)
        inspection.tick()
        yield content
    if frame.checked and cursor.number(4) != whole.digest():
        raise Malformed("lz4.checksum", "The content does not match its checksum.", cursor.position)
    if frame.size not in (None, total):
        raise Malformed("lz4.length", f"The frame unpacks to {total:,} bytes, not {frame.size:,}.", cursor.position)


def _unpacked(block: bytes, history: bytes, most: int, start: int) -> bytes:
    """The content of one block: literals, and copies of what came before them."""
    out, most, at = bytearray(history), most + len(history), 0
    try:
        while True:
            token = block[at]
            length, at = _length(block, at + 1, token >> 4)
            if length > len(block) - at or len(out) + length > most:
                raise Malformed("lz4.block", "Literals are longer than their block.", start + at)
            out += block[at : at + length]
            at += length
            if at == len(block):
                break
            offset = block[at] | block[at + 1] << 8
            length, at = _length(block, at + 2, token & 15)
            length += 4
            source = len(out) - offset
            if offset == 0 or source < 0 or len(out) + length > most:
                raise Malformed("lz4.block", "A copy reaches outside of the content.", start + at)
            out += (
                out[source : source + length] if offset >= length else (out[source:] * (length // offset + 1))[:length]
            )
    except IndexError:
        raise Malformed("lz4.block", "A block ends in the middle of something.", start + at) from None
    return bytes(out[len(history) :])


def _length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """A length of four bits, continued in whole bytes when all four are set; and the offset behind it."""
    if length == 15:
        while True:
            more = block[at]
            at += 1
            length += more
            if more != 0xFF:
                break
    return length, at


class _Hash:
    """xxHash, 32 bits, seed 0."""

    def __init__(self) -> None:
        self._lanes = [_P1 + _P2 & _U32, _P2, 0, -_P1 & _U32]
        self._rest = b""
        self._length = 0

    @classmethod
    def of(cls, content: bytes) -> int:
        one = cls()
        one.update(content)
        return one.digest()

    def update(self, content: bytes) -> None:
        self._length += len(content)
        content = self._rest + content
        whole = len(content) & ~15
        a, b, c, d = self._lanes
        words = memoryview(content[:whole]).cast("I") if whole else ()
        for index in range(0, whole // 4, 4):
            a = a + words[index] * _P2 & _U32
            a = (a << 13 | a >> 19) * _P1 & _U32
            b = b + words[index + 1] * _P2 & _U32
            b = (b << 13 | b >> 19) * _P1 & _U32
            c = c + words[index + 2] * _P2 & _U32
            c = (c << 13 | c >> 19) * _P1 & _U32
            d = d + words[index + 3] * _P2 & _U32
            d = (d << 13 | d >> 19) * _P1 & _U32
        self._lanes = [a, b, c, d]
        self._rest = content[whole:]

    def digest(self) -> int:
        if self._length >= 16:
            value = sum(_turned(lane, by) for lane, by in zip(self._lanes, (1, 7, 12, 18), strict=True))
        else:
            value = _P5
        value = value + self._length & _U32
        rest = self._rest
        while len(rest) >= 4:
            value = _turned(value + int.from_bytes(rest[:4], "little") * _P3 & _U32, 17) * _P4 & _U32
            rest = rest[4:]
        for byte in rest:
            value = _turned(value + byte * _P5 & _U32, 11) * _P1 & _U32
        value = (value ^ value >> 15) * _P2 & _U32
        value = (value ^ value >> 13) * _P3 & _U32
        return value ^ value >> 16


def _turned(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & _U32


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head.startswith(_MAGIC)


READER = Reader(name="lz4", recognises=_recognises, examine=examine)
