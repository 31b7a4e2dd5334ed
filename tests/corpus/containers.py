"""Archives written byte by byte, or by the standard library where it lets one lie."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes] | Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    pairs = content.items() if isinstance(content, Mapping) else content
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice is what some of these are for
        for name, data in pairs:
            entry = zipfile.ZipInfo(name)
            entry.filename = name  # ZipInfo cuts at NUL and turns back slashes round
            entry.compress_type = method
            archive.writestr(entry, data)
    return buffer.getvalue()


def seven_zip(name: str, data: bytes) -> bytes:
    """A 7z archive of one stored file."""

    def number(value: int) -> bytes:
        return b"\xff" + struct.pack("<Q", value)

    streams = b"\x04\x06" + number(0) + b"\x01\x09" + number(len(data)) + b"\x00"
    streams += (
        b"\x07\x0b\x01\x00\x01\x01\x00\x0c"
        + number(len(data))
        + b"\x0a\x01"
        + struct.pack("<L", zlib.crc32(data))
        + b"\x00\x00"
    )
    encoded = name.encode("utf-16-le") + b"\x00\x00"
    files = b"\x05\x01\x11" + number(len(encoded) + 1) + b"\x00" + encoded + b"\x00"
    header = b"\x01" + streams + files + b"\x00"
    start = struct.pack("<QQL", len(data), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<L", zlib.crc32(start)) + start + data + header


def lz4_frame(data: bytes) -> bytes:
    """An LZ4 frame of stored blocks; the header checksum of these flags is a constant."""
    blocks = b"".join(
        struct.pack("<L", len(data[at : at + 65536]) | 0x80000000) + data[at : at + 65536]
        for at in range(0, len(data), 65536)
    )
    return b"\x04\x22\x4d\x18\x60\x40\x82" + blocks + bytes(4)
