"""The two tables at the end of a zip archive: its end records and its central directory. Reads no member."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from pipeline.readers.inspection import Inspection, Malformed, Severity
from pipeline.readers.source import Source

_CENTRAL = Struct("<4s6H3L5H2L")
_END = Struct("<4s4H2LH")
_END64 = Struct("<4sQ2H2L4Q")
_LOCATOR64 = Struct("<4sLQL")

STORED, DEFLATED = 0, 8
HAS_DESCRIPTOR, UTF8 = 1 << 3, 1 << 11
ZIP64 = 0x0001
_HARMLESS_FLAGS = HAS_DESCRIPTOR | UTF8 | 0b110  # bits 1 and 2 record the compression level
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_LONGEST_EXTRA = 40
_PADDING = 0x4246  # "FB": torch aligns its records with this field
_HARMLESS_EXTRAS = {ZIP64, _PADDING, 0x5455, 0x7875, 0x000A}  # times and owners
_NEWEST = 63  # the last version of the format
_UNIX, _FOLDER, _FILE = 3, 0o4, 0o10
_U32 = 0xFFFFFFFF
_U16 = 0xFFFF


@dataclass(frozen=True, kw_only=True)
class Central:
    """What the central directory says of one entry; `raw_name` as written."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int
    linked: bool


def find_directory(  # noqa: C901 - each way to lie has its own line
    source: Source, path: str, inspection: Inspection
) -> tuple[int, int, int]:
    """Start and end of the central directory and its number of entries."""
    at = source.size - _END.size
    if source.size < _END.size or source.read(at, 4) != b"PK\x05\x06":
        raise _suffix(source)
    _, disk, first_disk, here, total, size, start, comment = _END.unpack(source.read(at, _END.size))
    end = at
    if comment:
        raise Malformed("zip.suffix", "The archive announces a comment that is not there.", at)
    if at >= _LOCATOR64.size and source.read(at - _LOCATOR64.size, 4) == b"PK\x06\x07":
        end, wide = _wide_end(source, at)
        for short, full, limit in zip((here, total, size, start), wide, (_U16, _U16, _U32, _U32), strict=True):
            if short not in (full, limit):
                raise Malformed("zip.end64", "The two ends of the archive disagree.", end, Severity.MALICIOUS)
        here, total, size, start = wide
    elif _U16 in (here, total) or _U32 in (size, start):
        raise Malformed("zip.end64", "The archive announces a zip64 end that is not there.", at)
    if disk or first_disk or here != total:
        raise Malformed("zip.disks", "The archive claims to be spread over several disks.", at)
    if start + size != end:
        raise Malformed("zip.directory", "The central directory is not where the archive says.", at, Severity.MALICIOUS)
    if total > inspection.limits.members:
        raise Malformed("limit.members", f"The archive has more than {inspection.limits.members:,} members.", at)
    if total * _CENTRAL.size > size:
        raise Malformed("zip.directory", f"{total:,} entries do not fit into the central directory of {path}.", at)
    return start, end, total


def _suffix(source: Source) -> Malformed:
    """What to say of an archive that does not end in its end."""
    length = min(source.size, _U16 + _END.size)
    where = source.read(source.size - length, length).rfind(b"PK\x05\x06")
    if where < 0:
        return Malformed("zip.no_directory", "The archive has no central directory, or bytes were appended to it.")
    behind = max(0, length - where - _END.size)
    return Malformed(
        "zip.suffix", f"{behind:,} bytes follow the end of the archive or are its comment.", source.size - behind
    )


def ends_as_archive(source: Source) -> bool:
    """Whether a zip reader, which begins at the end, would take these bytes for an archive of its own."""
    length = min(source.size, _U16 + _END.size)
    tail = source.read(source.size - length, length)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + _END.size <= length and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") <= length:
            return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


def _wide_end(source: Source, at: int) -> tuple[int, tuple[int, int, int, int]]:
    """Where the zip64 end record stands, and its entries here, entries in all, size and start of the directory."""
    _, disk, start, disks = _LOCATOR64.unpack(source.read(at - _LOCATOR64.size, _LOCATOR64.size))
    magic, length, _, needed, this, first, *wide = _END64.unpack(source.read(start, _END64.size))
    if (
        magic != b"PK\x06\x06"
        or start + _END64.size != at - _LOCATOR64.size
        or length != _END64.size - 12
        or needed > _NEWEST
        or (disk, this, first, disks) != (0, 0, 0, 1)
    ):
        raise Malformed("zip.end64", "The zip64 end of the archive contradicts itself.", start, Severity.MALICIOUS)
    here, total, size, directory = wide
    return start, (here, total, size, directory)


def read_directory(source: Source, at: int, end: int, count: int, inspection: Inspection) -> list[Central]:
    entries: list[Central] = []
    for _ in range(count):
        fields = _CENTRAL.unpack(source.read(at, _CENTRAL.size))
        (
            magic,
            made_by,
            needed,
            flags,
            method,
            _,
            _,
            crc,
            packed,
            size,
            names,
            extras,
            comments,
            disk,
            _,
            mode,
            header,
        ) = fields
        if magic != b"PK\x01\x02" or at + _CENTRAL.size + names + extras + comments > end:
            raise Malformed("zip.directory", "The central directory is broken.", at)
        raw_name = source.read(at + _CENTRAL.size, names)
        extra = read_extras(source.read(at + _CENTRAL.size + names, extras), at, raw_name)
        size, packed, header, disk = widen(extra.get(ZIP64), (size, packed, header), disk, at)
        if comments or disk:
            raise Malformed("zip.comment", f"Entry {raw_name[:80]!r} carries a comment or a disk number.", at)
        if needed & 0xFF > 63:
            raise Malformed("zip.version", f"Entry {raw_name[:80]!r} needs an unknown zip version.", at)
        _check_method(raw_name, flags, method, stored_whole=packed == size, at=at)
        kind = mode >> 28 if made_by >> 8 == _UNIX else 0
        entries.append(
            Central(
                raw_name=raw_name,
                flags=flags,
                method=method,
                crc=crc,
                packed=packed,
                size=size,
                header=header,
                linked=kind not in (0, _FILE, _FOLDER),
            )
        )
        at += _CENTRAL.size + names + extras + comments
        if len(entries) % 4096 == 0:
            inspection.tick()
    if at != end:
        raise Malformed("zip.gap", f"{end - at:,} bytes of the central directory belong to nothing.", at)
    return entries


def _check_method(raw_name: bytes, flags: int, method: int, *, stored_whole: bool, at: int) -> None:
    if flags & _ENCRYPTED:
        raise Malformed("zip.encrypted", f"Entry {raw_name[:80]!r} is encrypted: nobody can look inside.", at)
    if flags & ~_HARMLESS_FLAGS:
        raise Malformed("zip.flags", f"Entry {raw_name[:80]!r} has unknown flag bits {flags:#06x}.", at)
    if method not in (STORED, DEFLATED):
        raise Malformed("zip.method", f"Entry {raw_name[:80]!r} uses compression method {method}.", at)
    if method == STORED and not stored_whole:
        raise Malformed("zip.mismatch", f"Entry {raw_name[:80]!r} is stored and has two sizes.", at)


def read_extras(content: bytes, at: int, raw_name: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    while content:
        tag, length = int.from_bytes(content[:2], "little"), int.from_bytes(content[2:4], "little")
        value, rest = content[4 : 4 + length], content[4 + length :]
        if len(content) < 4 or len(value) < length or tag in fields:
            raise Malformed("zip.extra", f"The extra fields of {raw_name[:80]!r} are broken.", at)
        if tag not in _HARMLESS_EXTRAS or (value.strip(b"Z") if tag == _PADDING else length > _LONGEST_EXTRA):
            raise Malformed("zip.extra", f"Entry {raw_name[:80]!r} has an unknown extra field {tag:#06x}.", at)
        fields[tag] = value
        content = rest
    return fields


def widen(extra: bytes | None, short: tuple[int, int, int], disk: int, at: int) -> tuple[int, int, int, int]:
    """Replace the 32-bit numbers that stand for "see the zip64 field"; the field must hold those and no others."""
    wide = list(short)
    rest = extra or b""
    for index, value in enumerate(short):
        if value == _U32 and extra is not None:
            wide[index], rest = int.from_bytes(rest[:8], "little"), rest[8:] if len(rest) >= 8 else b"?"
    if disk == _U16 and len(rest) == 4:
        disk, rest = int.from_bytes(rest, "little"), b""
    if rest:
        raise Malformed("zip.zip64", "A zip64 field holds numbers nobody asked for.", at, Severity.MALICIOUS)
    return wide[0], wide[1], wide[2], disk
