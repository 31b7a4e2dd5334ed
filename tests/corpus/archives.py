"""Archives that explode, climb out, overlap, contradict themselves, or are two things at once."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.corpus import COMMAND, Sample
from tests.corpus.assembler import PAYLOAD
from tests.corpus.containers import lz4_frame, seven_zip, zipped

_ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHLQQQLHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 0, 64, 0, 0)
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00\x3a\x7e\x9b\x55\x00\x00\x00\x0aIDAT\x78\x9c\x63\x60\x00\x00\x00\x02\x00\x01\x48\xaf\xa4\x71\x00\x00\x00\x00IEND\xae\x42\x60\x82"
_TEXT = b"A model card, nothing more.\n"
_ANTIVIRUS_TEST = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}" + b"$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


def samples() -> Iterator[Sample]:
    for attack, rows in (("archive", _zips()), ("archive", _tars()), ("bomb", _bombs()), ("polyglot", _polyglots())):
        for name, filename, make, why in rows:
            yield Sample(name=f"{attack}: {name}", attack=attack, why=why, make=make, filename=filename)


_Rows = Iterator[tuple[str, str, Callable[[], bytes], str]]


def _entry(name: str, mode: int, data: bytes | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.create_system, entry.external_attr = 3, mode << 16
        archive.writestr(entry, data)
    return buffer.getvalue()


def _patched(content: bytes, signature: bytes, field: int, fmt: str, value: int, *, last: bool = True) -> bytes:
    at = content.rindex(signature) if last else content.index(signature)
    changed = bytearray(content)
    struct.pack_into(fmt, changed, at + field, value)
    return bytes(changed)


def _zips() -> _Rows:
    plain = zipped({"a.txt": _TEXT, "b.txt": _TEXT})
    central, local, end = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
    yield (
        "payload in a package",
        "model.zip",
        lambda: zipped({"README.md": _TEXT, "m/model.pkl": PAYLOAD}),
        "the plain attack",
    )
    yield "payload by a harmless name", "model.zip", lambda: zipped({"README.md": PAYLOAD}), "a name is not a type"
    yield "payload five archives deep", "model.zip", lambda: _nest(PAYLOAD, 5), "nested archives"
    yield (
        "payload in a gzip in a tar in a zip",
        "model.zip",
        lambda: zipped({"x.tar.gz": gzip.compress(tarred({"x.pkl": PAYLOAD}))}),
        "every coat another",
    )
    yield "path that climbs out", "model.zip", lambda: zipped({"../../x": _TEXT}), "zip slip"
    yield "path that climbs out, back slashes", "model.zip", lambda: zipped({"..\\..\\x": _TEXT}), "zip slip on Windows"
    yield "absolute path", "model.zip", lambda: zipped({"/etc/x": _TEXT}), "zip slip"
    yield "drive", "model.zip", lambda: zipped({"C:/x": _TEXT}), "zip slip on Windows"
    yield "dots inside a path", "model.zip", lambda: zipped({"a/../../b": _TEXT}), "zip slip, normalised late"
    yield "name with a NUL", "model.zip", lambda: zipped({"a.txt\x00.pkl": _TEXT}), "names that some cut"
    yield "name with a line break", "model.zip", lambda: zipped({"a\nb.txt": _TEXT}), "names that forge a log"
    yield "name that turns round", "model.zip", lambda: zipped({"model\u202elkp.txt": _TEXT}), "a name shown backwards"
    yield "empty name", "model.zip", lambda: zipped({"": _TEXT}), "no name"
    yield "very long name", "model.zip", lambda: zipped({"a" * 60_000: _TEXT}), "a name no disk takes"
    yield "symbolic link", "model.zip", lambda: _entry("weights", 0o120777, "/etc/passwd"), "a link"
    yield "device", "model.zip", lambda: _entry("weights", 0o020666, b""), "a device"
    yield "set-uid program", "model.zip", lambda: _entry("run", 0o104755, _ELF), "a program with rights"
    yield (
        "file and folder of one name",
        "model.zip",
        lambda: zipped([("a", _TEXT), ("a/b.pkl", PAYLOAD)]),
        "which wins?",
    )
    yield "one name twice", "model.zip", lambda: zipped([("a.pkl", b"N."), ("a.pkl", PAYLOAD)]), "which is read?"
    yield (
        "names that differ in case",
        "model.zip",
        lambda: zipped([("a.pkl", b"N."), ("A.PKL", PAYLOAD)]),
        "one file on some disks",
    )
    yield (
        "names that differ in form",
        "model.zip",
        lambda: zipped([("\u00e9.txt", _TEXT), ("e\u0301.txt", _TEXT)]),
        "one file on some disks",
    )
    yield (
        "encrypted",
        "model.zip",
        lambda: _patched(_patched(plain, central, 8, "<H", 1), local, 6, "<H", 1),
        "nobody can look",
    )
    yield "checksum lies", "model.zip", lambda: _patched(plain, central, 16, "<L", 1), "CVE-2025-10156"
    yield "size lies", "model.zip", lambda: _patched(plain, central, 24, "<L", 5), "declared against real size"
    yield "offset lies", "model.zip", lambda: _patched(plain, central, 42, "<L", 3), "a member elsewhere"
    yield "count lies", "model.zip", lambda: _patched(plain, end, 10, "<H", 1), "a member that is not counted"
    yield "disk lies", "model.zip", lambda: _patched(plain, end, 4, "<H", 1), "an archive of several disks"
    yield "directory offset lies", "model.zip", lambda: _patched(plain, end, 16, "<L", 1), "a directory elsewhere"
    yield "members that overlap", "model.zip", _overlapping, "two names for the same bytes"
    yield "member in no directory", "model.zip", _uncounted, "streaming readers see it, others do not"
    yield (
        "second directory",
        "model.zip",
        lambda: zipped({"a.txt": _TEXT}) + zipped({"b.pkl": PAYLOAD}),
        "which end is the end?",
    )
    yield (
        "bytes in front",
        "model.zip",
        lambda: b"#!/bin/sh\n" + COMMAND.encode() + b"\nexit\n" + plain,
        "a script that is an archive",
    )
    yield "bytes behind", "model.zip", lambda: plain + PAYLOAD, "bytes that belong to nothing"
    yield (
        "comment with a payload",
        "model.zip",
        lambda: plain[:-2] + struct.pack("<H", len(PAYLOAD)) + PAYLOAD,
        "a comment holds anything",
    )
    yield "cut", "model.zip", lambda: plain[:-30], "no end"
    yield "lzma member", "model.zip", lambda: zipped({"x.pkl": PAYLOAD}, zipfile.ZIP_LZMA), "a method that few read"
    yield "bzip2 member", "model.zip", lambda: zipped({"x.pkl": PAYLOAD}, zipfile.ZIP_BZIP2), "a method that few read"
    yield "deflate with bytes behind its end", "model.zip", _deflate_tail, "room inside a member"
    yield "7z with a payload", "model.7z", lambda: seven_zip("x.pkl", PAYLOAD), "CVE-class of nullifAI"
    yield "lz4 with a payload", "model.lz4", lambda: lz4_frame(PAYLOAD), "a compression that few read"
    yield (
        "zstd",
        "model.zst",
        lambda: b"\x28\xb5\x2f\xfd\x20" + bytes([len(_TEXT)]) + struct.pack("<L", len(_TEXT) << 3 | 1)[:3] + _TEXT,
        "a compression nobody can open here",
    )
    yield "rar", "model.rar", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(60), "an archive nobody can open here"
    yield "cab", "model.cab", lambda: b"MSCF" + bytes(60), "an archive nobody can open here"
    yield (
        "antivirus test in a member",
        "model.zip",
        lambda: zipped({"README.md": _TEXT, "eicar.bin": _ANTIVIRUS_TEST + b"\x00"}),
        "what the antivirus is there for",
    )
    yield "program in a package", "model.zip", lambda: zipped({"model/libcustom.so": _ELF}), "native code"


def _nest(content: bytes, times: int) -> bytes:
    name = "x.pkl"
    for number in range(times):
        content = zipped({name: content})
        name = f"{number}.zip"
    return content


def _overlapping() -> bytes:
    one = zipped({"a": b"x" * 100})
    start = one.index(b"PK\x01\x02")
    entry = one[start : one.index(b"PK\x05\x06")]
    return (
        one[:start]
        + entry
        + entry.replace(b"a", b"b")
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), start, 0)
    )


def _uncounted() -> bytes:
    """A local member between the last counted one and the directory."""
    hidden = zipped({"x.pkl": PAYLOAD})
    hidden = hidden[: hidden.index(b"PK\x01\x02")]
    content = zipped({"a.txt": _TEXT})
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    tail = bytearray(content[end:])
    struct.pack_into("<L", tail, 16, start + len(hidden))
    return content[:start] + hidden + content[start:end] + bytes(tail)


def _deflate_tail() -> bytes:
    squeezed = zlib.compress(_TEXT, 9)[2:-4] + PAYLOAD
    content = bytearray(zipped({"a.txt": squeezed}))
    for signature, method, crc, size in ((b"PK\x03\x04", 8, 14, 22), (b"PK\x01\x02", 10, 16, 24)):
        at = content.index(signature)
        struct.pack_into("<H", content, at + method, 8)
        struct.pack_into("<L", content, at + crc, zlib.crc32(_TEXT))
        struct.pack_into("<L", content, at + size, len(_TEXT))
    return bytes(content)


def tarred(found: dict[str, bytes], **more: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=more.get("format", tarfile.PAX_FORMAT)) as archive:
        for name, data in found.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.type, entry.linkname = more.get("type", tarfile.REGTYPE), more.get("linkname", "")
            if entry.type != tarfile.REGTYPE:
                entry.size = 0
            entry.pax_headers = more.get("pax", {})
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _tars() -> _Rows:
    plain = tarred({"a.txt": _TEXT})
    yield "tar with a payload", "model.tar", lambda: tarred({"a.txt": _TEXT, "x.pkl": PAYLOAD}), "the plain attack"
    yield (
        "tar, gzipped, with a payload",
        "model.tar.gz",
        lambda: gzip.compress(tarred({"x.pkl": PAYLOAD})),
        "the plain attack",
    )
    yield (
        "tar, xz, with a payload",
        "model.tar.xz",
        lambda: lzma.compress(tarred({"x.pkl": PAYLOAD})),
        "the plain attack",
    )
    yield "tar that climbs out", "model.tar", lambda: tarred({"../../x": _TEXT}), "CVE-2007-4559"
    yield "tar with an absolute path", "model.tar", lambda: tarred({"/etc/x": _TEXT}), "CVE-2007-4559"
    yield (
        "tar with a symbolic link",
        "model.tar",
        lambda: tarred({"x": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "CVE-2025-4517 and kin",
    )
    yield (
        "tar with a link and a file through it",
        "model.tar",
        _through,
        "CVE-2025-12638: a link first, then a file behind it",
    )
    yield (
        "tar with a hard link",
        "model.tar",
        lambda: tarred({"x": b""}, type=tarfile.LNKTYPE, linkname="../../etc/passwd"),
        "keras #22973",
    )
    yield "tar with a device", "model.tar", lambda: tarred({"x": b""}, type=tarfile.CHRTYPE), "a device"
    yield (
        "tar with a pipe",
        "model.tar",
        lambda: tarred({"x": b""}, type=tarfile.FIFOTYPE),
        "a pipe: the reader waits for ever",
    )
    yield (
        "tar whose long name climbs out",
        "model.tar",
        lambda: tarred({"a/" * 80 + "../" * 90 + "x": _TEXT}, format=tarfile.GNU_FORMAT),
        "a GNU long name",
    )
    yield (
        "tar with a renaming header",
        "model.tar",
        lambda: tarred({"a.txt": _TEXT}, pax={"path": "../../x"}),
        "a PAX path",
    )
    yield (
        "tar with a sizing header",
        "model.tar",
        lambda: tarred({"a.txt": _TEXT}, pax={"size": "99999999999"}),
        "a PAX size",
    )
    yield (
        "tar with one name twice",
        "model.tar",
        lambda: _both([("a.pkl", b"N."), ("a.pkl", PAYLOAD)]),
        "which is read?",
    )
    yield (
        "tar with a wrong checksum",
        "model.tar",
        lambda: plain[:148] + b"000000\x00 " + plain[156:],
        "a header that is none",
    )
    yield "tar with bytes behind its end", "model.tar", lambda: plain + PAYLOAD.ljust(512, b"\x00"), "behind the zeros"
    yield "tar cut", "model.tar", lambda: plain[:700], "half an archive"
    yield "tar with a negative size", "model.tar", lambda: _sized(b"\xff" * 12), "a binary size of minus one"
    yield "tar with a huge size", "model.tar", lambda: _sized(b"77777777777\x00"), "8 GiB that are not there"
    yield "sparse tar", "model.tar", _sparse, "a small file that claims a terabyte of holes"


def _both(pairs: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in pairs:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _through() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("escape")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        archive.addfile(link)
        entry = tarfile.TarInfo("escape/x.pkl")
        entry.size = len(PAYLOAD)
        archive.addfile(entry, io.BytesIO(PAYLOAD))
    return buffer.getvalue()


def _checked(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}".encode() + b"\x00 "
    return bytes(header)


def _sized(size: bytes) -> bytes:
    content = tarred({"a.txt": _TEXT})
    header = bytearray(content[:512])
    header[124:136] = size
    return _checked(header) + content[512:]


def _sparse() -> bytes:
    header = bytearray(tarred({"a.bin": b""}, format=tarfile.GNU_FORMAT)[:512])
    header[156:157] = b"S"
    header[257:265] = b"ustar  \x00"
    header[386:410] = b"00000000000\x0000000000000\x00"
    header[482:483] = b"\x00"
    header[483:495] = b"\x80\x00\x00\x00" + struct.pack(">Q", 1 << 40)
    return _checked(header) + bytes(1024)


def _bombs() -> _Rows:
    zeros = bytes(48 << 20)
    yield "zip of zeros", "model.zip", lambda: zipped({"x.txt": zeros}, zipfile.ZIP_DEFLATED), "a thousandfold"
    yield (
        "zip of zips of zeros",
        "model.zip",
        lambda: zipped(
            {f"{n}.zip": zipped({"x.txt": zeros}, zipfile.ZIP_DEFLATED) for n in range(8)}, zipfile.ZIP_DEFLATED
        ),
        "42.zip",
    )
    yield "zip of overlapping zeros", "model.zip", _fifield, "one kernel of zeros under many names"
    yield (
        "zip of very many members",
        "model.zip",
        lambda: zipped({f"{n:06}.txt": b"" for n in range(120_000)}),
        "a member costs time",
    )
    yield "gzip of zeros", "model.gz", lambda: gzip.compress(zeros), "a thousandfold"
    yield (
        "gzip of gzips of zeros",
        "model.gz",
        lambda: gzip.compress(gzip.compress(gzip.compress(zeros))),
        "coats that shrink each other",
    )
    yield "bzip2 of zeros", "model.bz2", lambda: bz2.compress(zeros), "a millionfold"
    yield "xz of zeros", "model.xz", lambda: lzma.compress(zeros), "seven thousandfold"
    yield "xz with a huge dictionary", "model.xz", _big_dictionary, "the decoder allocates the dictionary first"
    yield "zlib of zeros", "model.joblib", lambda: zlib.compress(zeros), "a thousandfold"
    yield "lz4 of zeros", "model.lz4", _lz4_zeros, "255-fold"
    yield "gzip in gzip in gzip", "model.gz", lambda: _coats(20), "twenty coats"
    yield "tar in tar in tar", "model.tar", lambda: _tar_coats(12), "twelve coats"
    yield "archive that holds itself, nearly", "model.zip", lambda: _nest(_TEXT, 30), "thirty coats"
    yield "JSON of brackets", "config.json", lambda: b"[" * 3_000_000, "a parser that recurses"
    yield "JSON of a huge number", "config.json", lambda: b'{"a": 1' + b"0" * 2_000_000 + b"}", "quadratic conversion"
    yield (
        "YAML of laughs",
        "config.yaml",
        lambda: b"".join(
            [b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n"]
            + [f"a{n}: &a{n} [{','.join(['*a' + str(n - 1)] * 9)}]\n".encode() for n in range(1, 12)]
        ),
        "a billion laughs by aliases",
    )


def _fifield() -> bytes:
    """One local member that sixty-four names share."""
    one = zipped({"a000": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    start = one.index(b"PK\x01\x02")
    entry = one[start : one.index(b"PK\x05\x06")]
    entries = b"".join(entry.replace(b"a000", f"a{n:03}".encode()) for n in range(64))
    return one[:start] + entries + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 64, 64, len(entries), start, 0)


def _big_dictionary() -> bytes:
    """LZMA-alone: its header asks for four gigabytes of dictionary."""
    return b"\x5d\xff\xff\xff\xff" + b"\xff" * 8 + lzma.compress(_TEXT, lzma.FORMAT_ALONE)[13:]


def _lz4_zeros() -> bytes:
    """Compressed blocks of one literal and a very long match each."""
    length = 4 << 20
    rest = length - 19 - 1
    block = b"\x1f\x00\x01\x00" + b"\xff" * (rest // 255) + bytes([rest % 255]) + b"\x50" + bytes(5)
    return b"\x04\x22\x4d\x18\x60\x70\x73" + (struct.pack("<L", len(block)) + block) * 12 + bytes(4)


def _coats(times: int) -> bytes:
    content = PAYLOAD
    for _ in range(times):
        content = gzip.compress(content)
    return content


def _tar_coats(times: int) -> bytes:
    content = PAYLOAD
    for _ in range(times):
        content = tarred({"x": content})
    return content


def _polyglots() -> _Rows:
    package = zipped({"a.txt": _TEXT})
    yield "program and archive", "model.zip", lambda: _ELF + package, "ELF in front, zip behind"
    yield "picture and archive", "model.zip", lambda: _PNG + package, "PNG in front, zip behind"
    yield "picture and pickle", "model.pkl", lambda: _PNG + PAYLOAD, "PNG in front, pickle behind"
    yield "picture alone", "model.png", lambda: _PNG + b"<script>", "PNG with a tail"
    yield (
        "GIF and Java",
        "model.gif",
        lambda: b"GIF89a\x01\x00\x01\x00\x00\x00\x00;" + zipped({"A.class": b"\xca\xfe\xba\xbe" + bytes(20)}),
        "GIFAR",
    )
    yield (
        "PDF and archive",
        "model.pdf",
        lambda: b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n" + package,
        "PDF in front, zip behind",
    )
    yield "text and pickle", "README.md", lambda: _TEXT + PAYLOAD, "text in front, binary behind"
    yield (
        "text that is a pickle",
        "README.md",
        lambda: b"cposix\nsystem\n(V" + COMMAND.encode() + b"\ntR.",
        "letters only",
    )
    yield (
        "page with a script",
        "README.html",
        lambda: b"<!doctype html><html><script>alert(1)</script></html>\n" + PAYLOAD,
        "HTML in front",
    )
    yield "script", "run.sh", lambda: b"#!/bin/sh\n" + COMMAND.encode() + b"\n", "a script is no model"
    yield "script of Python", "model.txt", lambda: b"#!/usr/bin/env python3\nimport os\n", "a script is no model"
    yield "batch file", "model.txt", lambda: b"@echo off\r\nstart calc.exe\r\n\x00", "a script with a tail"
    yield "tar and zip", "model.tar", lambda: tarred({"a.txt": _TEXT}) + package, "tar in front, zip behind"
    yield "zip and tar", "model.zip", lambda: package + tarred({"x.pkl": PAYLOAD}), "zip in front, tar behind"
    yield "gzip and zip", "model.gz", lambda: gzip.compress(_TEXT) + package, "gzip in front, zip behind"
    yield "gzip with a name and a comment", "model.gz", _gzip_extras, "a header that holds anything"
    yield (
        "numpy and zip",
        "model.npy",
        lambda: (
            b"\x93NUMPY\x01\x00\x46\x00"
            + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(69)
            + b"\n"
            + bytes(8)
            + package
        ),
        "npy in front, zip behind",
    )
    yield "zeros", "model.bin", lambda: bytes(4096), "no format"
    yield "noise", "model.bin", lambda: __import__("random").Random(7).randbytes(4096), "no format"
    yield (
        "GGUF with a template",
        "model.gguf",
        lambda: (
            b"GGUF\x03\x00\x00\x00"
            + bytes(16)
            + struct.pack("<Q", 23)
            + b"tokenizer.chat_template"
            + struct.pack("<LQ", 8, 40)
            + b"{{ cycler.__init__.__globals__.os.popen }}"[:40]
        ),
        "CVE-2024-34359: a template in the metadata",
    )
    yield (
        "R data",
        "model.rds",
        lambda: gzip.compress(b"X\n\x00\x00\x00\x03" + bytes(40)),
        "CVE-2024-27322: R evaluates promises",
    )
    yield "Java objects", "model.ser", lambda: b"\xac\xed\x00\x05sr" + bytes(40), "Java's pickle"
    yield "PHP archive", "model.phar", lambda: b"<?php __HALT_COMPILER(); ?>" + bytes(40), "PHP's pickle"


def _gzip_extras() -> bytes:
    body = gzip.compress(_TEXT, mtime=0)
    extra = struct.pack("<H", len(PAYLOAD)) + PAYLOAD
    return body[:3] + b"\x1c" + body[4:10] + extra + b"../../x\x00" + b"comment\x00" + body[10:]
