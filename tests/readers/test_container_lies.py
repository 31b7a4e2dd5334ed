"""What containers hide, repeat or announce falsely, what is two things at once and what has no business here is stopped."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib

import pytest

from tests.readers.container_files import (
    COMPRESSORS,
    DATA,
    FILES,
    HOSTILE,
    LZ4_LINKED,
    LZ4_PICKLE,
    flipped,
    judge,
    packed_7z,
    pax,
    rules,
    tar_file,
    tar_with,
    tarred,
    zipped,
)

# What lies


A = tar_file(b"a", b"text")
HOSTILE_TARS: dict[str, tuple[bytes, str]] = {
    "symbolic link": (tarred({"a": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "tar.link"),
    "hard link": (tarred({"a": b""}, type=tarfile.LNKTYPE, linkname="b"), "tar.link"),
    "link with a long target": (tarred({"a": b""}, tarfile.GNU_FORMAT, type=tarfile.SYMTYPE, linkname="x" * 200), "tar.link"),
    "file with the target of a link": (tar_with(tar_file(b"a", changes={157: b"/etc/passwd"})), "tar.link"),
    "target in an extension": (tar_with(pax(linkpath="/etc/passwd"), A), "tar.link"),
    "device": (tarred({"a": b""}, type=tarfile.CHRTYPE), "tar.device"),
    "named pipe": (tarred({"a": b""}, type=tarfile.FIFOTYPE), "tar.device"),
    "sparse file": (tar_with(tar_file(b"a", kind=b"S")), "tar.sparse"),
    "sparse file in pax": (tar_with(pax(GNU__sparse__major="1"), A), "tar.sparse"),
    "unknown type": (tar_with(tar_file(b"a", kind=b"Z")), "tar.type"),
    "climbing path": (tarred({"../a": b"text"}), "tar.traversal"),
    "climbing path in an extension": (tar_with(pax(path="b/../../a"), A), "tar.traversal"),
    "climbing path by a prefix": (tar_with(tar_file(b"a", changes={345: b"../../etc"})), "tar.traversal"),
    "absolute path": (tar_with(tar_file(b"/etc/cron.d/x", b"text")), "tar.traversal"),
    "path of Windows": (tar_with(tar_file(b"c:\\a", b"text")), "tar.traversal"),
    "same name twice": (tar_with(A, A), "tar.duplicate"),
    "same name in capitals": (tar_with(A, tar_file(b"A", b"text")), "tar.duplicate"),
    "file that is a folder, too": (tar_with(A, tar_file(b"a/b", b"text")), "tar.duplicate"),
    "folder that is a file, too": (tar_with(tar_file(b"a/b", b"text"), A), "tar.duplicate"),
    "first checksum lies": (flipped(tar_with(A), 100, b"0000755"), "tar.checksum"),
    "checksum lies": (tar_with(A, flipped(A, 100, b"0000755")), "tar.checksum"),
    "bytes between files": (tar_with(flipped(A, 1000, b"x"), tar_file(b"b")), "tar.padding"),
    "bytes behind the end": (tar_with(A) + b"x" + bytes(511), "tar.suffix"),
    "second archive behind the end": (tar_with(A) + tar_with(tar_file(b"b", HOSTILE)), "tar.suffix"),
    "zip archive behind the end": (tar_with(A) + zipped({"b": HOSTILE}), "tar.suffix"),
    "no end": (A, "tar.end"),
    "half an end": (A + bytes(512), "tar.end"),
    "cut off": (tarred({"a": b"x" * 5000})[:3000], "content.truncated"),
    "bytes behind a name": (tar_with(tar_file(b"a\0hidden", b"text")), "tar.header"),
    "bytes behind the last field": (tar_with(tar_file(b"a", b"text", changes={505: b"hidden"})), "tar.header"),
    "prefix in the fields of gnu": (tar_with(tar_file(b"a", changes={257: b"ustar  \0", 400: b"x"})), "tar.header"),
    "number with a tail": (tar_with(tar_file(b"a", changes={124: b"0000000\0 7\0"})), "tar.number"),
    "binary number that is small": (tar_with(tar_file(b"a", changes={124: b"\x80" + bytes(11)})), "tar.number"),
    "negative size": (tar_with(tar_file(b"a", changes={124: b"\xff" * 12})), "tar.number"),
    "two sizes": (tar_with(pax(size="2"), A), "tar.mismatch"),
    "two extensions": (tar_with(pax(path="b"), pax(path="c"), A), "tar.extension"),
    "two long names": (tar_with(pax(path="b"), tar_file(b"././@LongLink", b"c\0", b"L"), A), "tar.extension"),
    "extension that says a thing twice": (tar_with(tar_file(b"x", b"9 path=b\n9 path=c\n", b"x"), A), "tar.extension"),
    "extension nobody has vetted": (tar_with(pax(SCHILY__xattr__user="x"), A), "tar.extension"),
    "extension for all files": (tar_with(tar_file(b"g", b"9 path=b\n", b"g"), A), "tar.extension"),
    "extension of nothing": (tar_with(A, pax(path="b")), "tar.extension"),
    "broken extension": (tar_with(tar_file(b"x", b"999 path=b\n", b"x"), A), "tar.extension"),
    "folder with content": (tar_with(tar_file(b"a", b"text", b"5")), "tar.folder"),
    "file named like a folder": (tar_with(tar_file(b"a/", b"text")), "tar.name"),
    "unknown version": (tar_with(tar_file(b"a", b"text", changes={257: b"ustar\x0001"})), "tar.version"),
    "name that is no text": (tar_with(tar_file(b"a\xff", b"text")), "tar.name"),
    "name with a control character": (tar_with(tar_file(b"a\n", b"text")), "tar.name"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_tar_that_could_be_read_in_two_ways_is_stopped(name: str) -> None:
    assert judge(tar_with(pax(path="d/b", mtime="1.5"), A, tar_file(b"d", kind=b"5")))["verdict"] == "clean"
    content, rule = HOSTILE_TARS[name]
    answer = judge(content)
    assert answer["verdict"] != "clean"
    assert rule in rules(answer), answer["findings"]


AES, PPMD, ZSTD = b"\x06\xf1\x07\x01", b"\x03\x04\x01", b"\x04\xf7\x11\x01"
SOLID = packed_7z(FILES)
HOSTILE_7Z: dict[str, tuple[bytes, str]] = {
    "encrypted": (packed_7z(FILES, coders=[(AES, b"\x13\0"), (b"\x21", b"\x10")]), "7z.encrypted"),
    "PPMd": (packed_7z(FILES, coders=[(PPMD, b"\x06\0\0\0\x01")]), "7z.coder"),
    "Zstandard": (packed_7z(FILES, coders=[(ZSTD, b"\1\5\3\0\0")]), "7z.coder"),
    "unknown method": (packed_7z(FILES, coders=[(b"\x7f", b"")]), "7z.coder"),
    "wrong method": (packed_7z(FILES, coders=[(b"\x04\x01\x08", b"")]), "7z.broken"),
    "enormous dictionary": (packed_7z(FILES, "lzma", coders=[(b"\x03\x01\x01", b"\x5d\xff\xff\xff\xff")]), "7z.broken"),
    "entry that deletes": (packed_7z(FILES, anti=True), "7z.anti"),
    "symbolic link": (packed_7z({"a": b"/etc/passwd"}, attributes=[0xA1FF8020]), "7z.link"),
    "reparse point": (packed_7z({"a": b"/etc/passwd"}, attributes=[0x420]), "7z.link"),
    "climbing path": (packed_7z({"../a": b"text"}), "7z.traversal"),
    "absolute path": (packed_7z({"/a": b"text"}), "7z.traversal"),
    "same name in capitals": (packed_7z({"a": b"text", "A": b"text"}), "7z.duplicate"),
    "bytes before the content": (packed_7z(FILES, gap=b"hidden"), "7z.gap"),
    "bytes behind the end": (SOLID + b"hidden", "7z.suffix"),
    "bytes behind the tables": (packed_7z(FILES, change=lambda header: header + b"x"), "7z.header"),
    "start lies": (flipped(SOLID, 14, b"\x01"), "7z.checksum"),
    "tables lie": (flipped(SOLID, -3, b"\x01"), "7z.checksum"),
    "file lies": (packed_7z({"a": b"text"}, "copy").replace(b"text", b"tixt", 1), "7z.checksum"),
    "version of the future": (packed_7z(FILES, minor=9), "7z.version"),
    "cut off": (SOLID[:-1], "7z.truncated"),
    "fewer names than files": (packed_7z(FILES, change=lambda h: h.replace("README.md\0".encode("utf-16-le"), "READMEEEE.".encode("utf-16-le"))), "7z.header"),
    "native code": (packed_7z({"a.so": b"\x7fELF" + bytes(60)}), "content.native_code"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_7Z)
def test_7z_that_lies_or_cannot_be_read_is_stopped(name: str) -> None:
    content, rule = HOSTILE_7Z[name]
    answer = judge(content)
    assert answer["verdict"] != "clean"
    assert rule in rules(answer), answer["findings"]


def test_7z_says_what_it_cannot_read() -> None:
    for name, word in (
        ("encrypted", "encrypted"),
        ("PPMd", "PPMd"),
        ("Zstandard", "Zstandard"),
        ("unknown method", "7f"),
    ):
        [finding] = judge(HOSTILE_7Z[name][0])["findings"]
        assert word in finding["message"]


def gzip_header(flags: int, behind: bytes) -> bytes:
    return (
        b"\x1f\x8b\x08"
        + bytes([flags])
        + bytes(6)
        + behind
        + zlib.compress(DATA, wbits=-15)
        + struct.pack("<LL", zlib.crc32(DATA), len(DATA))
    )


HOSTILE_STREAMS: dict[str, tuple[bytes, str]] = {
    **{f"bytes behind {name}": (compress(DATA) + b"hidden", f"{name}.suffix") for name, compress in COMPRESSORS.items()},
    **{f"{name} cut off": (compress(DATA)[:-20], f"{name}.truncated") for name, compress in COMPRESSORS.items()},
    **{f"zeros behind {name}": (COMPRESSORS[name](DATA) + bytes(64), f"{name}.suffix") for name in ("gzip", "bzip2", "zlib")},
    "gzip checksum lies": (flipped(gzip.compress(DATA), -8, b"\0"), "gzip.checksum"),
    "gzip length lies": (flipped(gzip.compress(DATA), -1, b"\1"), "gzip.checksum"),
    "gzip extra field": (gzip_header(4, b"\x02\0xx"), "gzip.extra"),
    "gzip comment": (gzip_header(16, b"hi\0"), "gzip.extra"),
    "gzip flags of the future": (gzip_header(64, b""), "gzip.flags"),
    "gzip name that climbs": (gzip_header(8, b"../../x\0"), "gzip.name"),
    "gzip name without end": (gzip_header(8, b"x" * 400), "gzip.name"),
    "bzip2 broken": (flipped(bz2.compress(DATA), -20, b"\0\0\0"), "bzip2.broken"),
    "xz broken": (flipped(lzma.compress(DATA), -40, b"\0\0\0"), "xz.broken"),
    "xz padded crookedly": (lzma.compress(DATA) + bytes(3), "xz.suffix"),
    "xz with an unknown check": (flipped(flipped(lzma.compress(DATA), 7, b"\x05"), 8, struct.pack("<L", zlib.crc32(b"\0\x05"))), "xz.broken"),
    "lzma length lies": (flipped(lzma.compress(DATA, lzma.FORMAT_ALONE), 5, struct.pack("<Q", len(DATA) - 1)), "lzma"),
    "lzma with an enormous dictionary": (flipped(lzma.compress(DATA, lzma.FORMAT_ALONE), 1, b"\xff" * 4), "lzma.broken"),
    "zlib checksum lies": (flipped(zlib.compress(DATA), -1, b"\0\0"), "zlib.broken"),
    "old joblib length lies": (b"ZF" + hex(7).ljust(19).encode() + zlib.compress(DATA), "joblib.length"),
    "old joblib header broken": (b"ZF0x12   x                " + zlib.compress(DATA), "content.unrecognised"),
    "lz4 header lies": (flipped(LZ4_LINKED, 14, b"\0"), "lz4.checksum"),
    "lz4 block lies": (flipped(LZ4_LINKED, 30, b"x"), "lz4.checksum"),
    "lz4 content lies": (flipped(LZ4_LINKED, -1, b"\0"), "lz4.checksum"),
    "bytes behind lz4": (LZ4_PICKLE + b"hidden", "lz4.suffix"),
    "lz4 cut off": (LZ4_PICKLE[:-6], "content.truncated"),
    "lz4 copy from before the beginning": (b"\x04\x22\x4d\x18\x60\x40\x82\x04\0\0\0\x10a\xff\xff\0\0\0\0", "lz4.block"),
    "Zstandard": (b"\x28\xb5\x2f\xfd\x04\x00" + bytes(20), "content.unreadable"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_STREAMS)
def test_compressed_stream_that_lies_is_stopped(name: str) -> None:
    content, rule = HOSTILE_STREAMS[name]
    answer = judge(content)
    assert answer["verdict"] != "clean"
    assert any(found.startswith(rule) for found in rules(answer)), answer["findings"]


# Two things at once, and things that have no business here


ZIP = zipped({"model/data.pkl": HOSTILE}, zipfile.ZIP_STORED)


def numpy_array(content: bytes) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(content)},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + content


def safetensors(content: bytes) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    return struct.pack("<Q", len(header)) + header + content


def safetensors_and_tar() -> bytes:
    """Python opens it as a tar archive of the oldest kind, with a sum of signed bytes written its own way."""
    tail = tar_with(tar_file(b"a", b"text"))
    start = struct.pack("<Q", 504) + b'{"__metadata__":{"a":"'
    names = f'"}},"a":{{"dtype":"U8","shape":[{len(tail)}],"data_offsets":[0,{len(tail)}]}}}}'.encode()
    block = bytearray(start + "é".encode() * 35 + b"0" * 48 + b" " * 8 + b"0" + names).ljust(512)
    total = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = f"0o{total:o}".rjust(8).encode()
    content = bytes(block) + tail
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames()[-1] == "a"
    return content


POLYGLOTS: dict[str, tuple[bytes, str]] = {
    "zip behind a pickle": (DATA + ZIP, "content.polyglot"),
    "zip in the numbers of an array": (numpy_array(ZIP), "content.polyglot"),
    "zip in the weights": (safetensors(bytes(100) + ZIP), "content.polyglot"),
    "zip in the weights, with some behind it": (safetensors(bytes(100) + ZIP + bytes(100)), "content.polyglot"),
    "zip behind a gzip stream": (gzip.compress(DATA) + ZIP, "content.polyglot"),
    "zip behind a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50) + ZIP, "content.polyglot"),
    "zip behind a script": (b"#!/bin/sh\nid\n" + ZIP, "content.polyglot"),
    "zip behind a program": (b"\x7fELF" + bytes(60) + ZIP, "content.polyglot"),
    "zip behind nonsense": (bytes(range(128, 256)) + ZIP, "content.prefix"),
    "zip behind a zip": (zipped({"a": b"text"}) + ZIP, "zip.directory"),
    "zip behind a 7z": (packed_7z({"a": b"text"}) + ZIP, "7z.suffix"),
    "pickle behind a zip": (zipped({"a": b"text"}) + HOSTILE, "zip.suffix"),
    "tar that begins as a pickle": (tar_with(tar_file(b"\x80\x02cos\nsystem\n)R.", b"text")), "tar.name"),
    "tar that begins as weights": (safetensors_and_tar(), "content.polyglot"),
    "tar that begins as a zip": (tar_with(tar_file(b"PK\x03\x04", b"text")), "content.polyglot"),
    "tar that begins as a gzip stream": (tar_with(tar_file(b"\x1f\x8b\x08", b"text")), "content.polyglot"),
}  # fmt: skip


@pytest.mark.parametrize("name", POLYGLOTS)
def test_bytes_that_are_two_things_at_once_are_stopped(name: str) -> None:
    content, rule = POLYGLOTS[name]
    answer = judge(content)
    assert answer["verdict"] != "clean"
    assert rule in rules(answer), answer["findings"]


def test_arrays_without_an_archive_inside_stay_clean() -> None:
    assert judge(numpy_array(bytes(range(256)) * 300))["verdict"] == "clean"
    assert judge(safetensors(b"PK\x03\x04" + bytes(100_000)))["verdict"] == "clean"


NAMED: dict[str, tuple[bytes, str, str]] = {
    "Linux": (b"\x7fELF\x02\x01\x01" + bytes(60), "malicious", "ELF"),
    "Windows": (b"MZ".ljust(60, b"\0") + struct.pack("<L", 64) + b"PE\0\0" + bytes(20), "malicious", "PE"),
    "DOS": (b"MZ" + bytes(100), "unknown", "DOS"),
    "macOS": (b"\xcf\xfa\xed\xfe\x07\0\0\x01" + bytes(60), "malicious", "Mach-O"),
    "macOS, several processors": (b"\xca\xfe\xba\xbe\0\0\0\x02" + bytes(60), "malicious", "Mach-O"),
    "Java": (b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(60), "unknown", "Java"),
    "WebAssembly": (b"\0asm\x01\0\0\0" + bytes(60), "malicious", "WebAssembly"),
    "static library": (b"!<arch>\nlib.o/          ", "malicious", "ar"),
    "Android": (b"dex\n035\0" + bytes(60), "malicious", "DEX"),
    "Python": (b"\xa7\x0d\r\n\0\0\0\0" + bytes(8) + b"\xe3", "unknown", "Python"),
    "script": (b"#!/usr/bin/env python3\nprint(1)\n", "unknown", "script"),
    "PHP": (b"<?php system('id'); ?>", "unknown", "PHP"),
    "RAR": (b"Rar!\x1a\x07\x01\0" + bytes(30), "unknown", "RAR"),
    "cabinet": (b"MSCF\0\0\0\0" + bytes(30), "unknown", "cabinet"),
    "encrypted": (b"-----BEGIN PGP MESSAGE-----\n", "unknown", "encrypted"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(20), "unknown", "picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_findings_say_plainly_what_a_file_is(name: str) -> None:
    content, verdict, word = NAMED[name]
    for answer in (judge(content), judge(zipped({"lib/x": content}))):
        assert answer["verdict"] == verdict
        assert word in answer["findings"][0]["message"]


def test_text_that_begins_like_something_else_is_text() -> None:
    for text in (
        b"MZ is not a program\n",
        b"x^2 + y^2\n",
        b"BZh9 is a magic\n",
        b"ID3 tags\n",
        b"PK\n",
        b"7z x file\n",
        b"ZF0x\n",
    ):
        assert judge(text, "notes.txt")["verdict"] == "clean", text
