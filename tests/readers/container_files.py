"""Containers for tests, written by Python's own modules or, for what those cannot write, by small writers here."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.readers import examine

CANARY = Path("/tmp/slipway-canary")

LZ4_TEXT = b"slipway " * 10_000
# Two linked blocks with checksums of the header, the blocks and the content, as the lz4 library writes them.
LZ4_LINKED = (
    bytes.fromhex("04224d185c4080380100000000005a120100008f736c6970776179200800")
    + b"\xff" * 256
    + bytes.fromhex("e05070776179208d8ff64f420000000f0800")
    + b"\xff" * 56
    + bytes.fromhex("a0507077617920ec400f66000000003ea85a66")
)
# `pickle.dumps({"classes": ["cat", "dog"] * 20, "name": "digits"}, 2)` as joblib would have it.
LZ4_PICKLE = base64.b85decode(
    "1R_lsXh4$y000000047N0002+3xEQBaR4Y-2LJ#7V{Bn_b7gaJ0bOwdC|Cm$06}4NaRUkfk7RFWaRg`sXaoQ@@C;>G1ONa4ZeeX@aRpcg0001FX=iD4b8!ZBE&u=k00"
)
LZ4_PICKLE_SIZE = 147


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes | None], kind: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """A tar archive; None makes a folder. `fields` are set on every entry."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(content or b""))
    return buffer.getvalue()


def tar_header(name: bytes, size: int = 0, kind: bytes = b"0", *, changes: dict[int, bytes] | None = None) -> bytes:
    """One ustar header whose checksum is right, whatever else was changed in it."""
    block = bytearray(512)
    for at, content in {
        0: name,
        100: b"0000644\0",
        108: b"0000000\0",
        116: b"0000000\0",
        124: b"%011o\0" % size,
        136: b"00000000000\0",
        148: b" " * 8,
        156: kind,
        257: b"ustar\x0000",
        **(changes or {}),
    }.items():
        block[at : at + len(content)] = content
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_file(
    name: bytes, content: bytes = b"", kind: bytes = b"0", *, changes: dict[int, bytes] | None = None
) -> bytes:
    return tar_header(name, len(content), kind, changes=changes) + content + bytes(-len(content) % 512)


def pax(**records: str) -> bytes:
    """The header that says something of the file behind it."""
    lines = b""
    for key, value in records.items():
        line = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length += 1
        lines += str(length).encode() + line
    return tar_file(b"pax", lines, b"x")


# 7z


def _number(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else b"\xff" + struct.pack("<Q", value)


def _bits(flags: Sequence[bool]) -> bytes:
    text = "".join("1" if one else "0" for one in flags)
    return bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


def _lzma1(content: bytes) -> bytes:
    """LZMA as 7z has it: without a mark at its end, which only `xz --format=lzma` with a known length leaves out."""
    return lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}])


_LZMA2 = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}
_PACKERS: dict[str, tuple[Callable[[bytes], bytes], list[tuple[bytes, bytes]]]] = {
    "copy": (bytes, [(b"\0", b"")]),
    "lzma": (_lzma1, [(b"\x03\x01\x01", b"\x5d" + struct.pack("<L", 1 << 20))]),
    "lzma2": (lambda content: lzma.compress(content, lzma.FORMAT_RAW, filters=[_LZMA2]), [(b"\x21", b"\x10")]),
    "deflate": (lambda content: zlib.compress(content, 1, wbits=-15), [(b"\x04\x01\x08", b"")]),
    "bzip2": (bz2.compress, [(b"\x04\x02\x02", b"")]),
    "bcj": (
        lambda content: lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_X86}, _LZMA2]),
        [(b"\x21", b"\x10"), (b"\x03\x03\x01\x03", b"")],
    ),
    "delta": (
        lambda content: lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_DELTA, "dist": 4}, _LZMA2]),
        [(b"\x21", b"\x10"), (b"\x03", b"\x03")],
    ),
}


def _folder(coders: list[tuple[bytes, bytes]]) -> bytes:
    out = _number(len(coders))
    for name, properties in coders:
        out += bytes([len(name) | (0x20 if properties else 0)]) + name
        out += _number(len(properties)) + properties if properties else b""
    return out + b"".join(_number(index + 1) + _number(index) for index in range(len(coders) - 1))


def _streams(packs: list[int], at: int, coders: list[tuple[bytes, bytes]], groups: list[list[bytes]]) -> bytes:
    sizes = [sum(map(len, group)) for group in groups]
    out = b"\x06" + _number(at) + _number(len(packs)) + b"\x09" + b"".join(map(_number, packs)) + b"\0"
    out += b"\x07\x0b" + _number(len(groups)) + b"\0" + _folder(coders) * len(groups)
    out += b"\x0c" + b"".join(_number(size) * len(coders) for size in sizes) + b"\0"
    out += b"\x08\x0d" + b"".join(_number(len(group)) for group in groups) + b"\x09"
    out += b"".join(_number(len(content)) for group in groups for content in group[:-1])
    checksums = b"".join(struct.pack("<L", zlib.crc32(content)) for group in groups for content in group)
    return out + b"\x0a\x01" + checksums + b"\0\0"


def packed_7z(
    files: dict[str, bytes | None],
    packer: str = "lzma2",
    *,
    solid: bool = True,
    packed_header: bool = False,
    coders: list[tuple[bytes, bytes]] | None = None,
    attributes: Sequence[int] = (),
    anti: bool = False,
    gap: bytes = b"",
    minor: int = 4,
    change: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """A 7z archive; None makes a folder. The rest is there to lie: `coders` in place of the true ones, `change` of the tables."""
    pack, true_coders = _PACKERS[packer]
    contents = [content for content in files.values() if content]
    groups = ([contents] if solid else [[content] for content in contents]) if contents else []
    packs = [pack(b"".join(group)) for group in groups]
    header = b"\x01"
    if groups:
        header += b"\x04" + _streams([len(one) for one in packs], len(gap), coders or true_coders, groups)
    empty = [not content for content in files.values()]
    tables = {0x0E: _bits(empty), 0x0F: _bits([content is not None for content in files.values() if not content])}
    if anti:
        tables[0x10] = _bits([True] * sum(empty))
    tables[0x11] = b"\0" + "".join(f"{name}\0" for name in files).encode("utf-16-le")
    if attributes:
        tables[0x15] = b"\x01\0" + b"".join(struct.pack("<L", one) for one in attributes)
    header += b"\x05" + _number(len(files))
    header += b"".join(
        bytes([part]) + _number(len(content)) + content for part, content in tables.items() if any(empty) or part > 0x10
    )
    header = change(header + b"\0\0")
    body = gap + b"".join(packs)
    if packed_header:
        packed = _lzma1(header)
        streams = b"\x06" + _number(len(body)) + b"\x01\x09" + _number(len(packed)) + b"\0"
        streams += b"\x07\x0b\x01\0" + _folder(_PACKERS["lzma"][1]) + b"\x0c" + _number(len(header))
        streams += b"\x0a\x01" + struct.pack("<L", zlib.crc32(header)) + b"\0\0"
        body, header = body + packed, b"\x17" + streams
    start = struct.pack("<QQL", len(body), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c" + bytes([0, minor]) + struct.pack("<L", zlib.crc32(start)) + start + body + header


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
}


# Judging


class Payload:
    """Would create the canary if anything unpickled it."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


DATA = pickle.dumps({"classes": ["cat", "dog"] * 20, "name": "digits"}, 4)
HOSTILE = pickle.dumps(Payload())
FILES: dict[str, bytes | None] = {
    "README.md": b"# Digits\n" * 40,
    "data": None,
    "data/weights.pkl": DATA,
    "data/empty.txt": b"",
}


def judge(content: bytes, name: str = "model.bin", unpack_to: Path | None = None, **limits: float) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        answer = examine(file.name, name, limits, str(unpack_to) if unpack_to else None)
    json.dumps(answer, allow_nan=False)
    assert not CANARY.exists()
    return answer


def rules(answer: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in answer["findings"]}


def flipped(content: bytes, at: int, value: bytes) -> bytes:
    at %= len(content)
    return content[:at] + value + content[at + len(value) :]


def tar_with(*files: bytes) -> bytes:
    return b"".join(files) + bytes(1024)
