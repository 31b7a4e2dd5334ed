"""Tar archives (ustar, pax, GNU and the oldest), from the first header to the last zero byte.

Two programs that unpack such an archive must see the same files: what one of them might read otherwise, or not at all
(links, devices, sparse files, numbers and names with something behind them), is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from pipeline.readers.archive import Archive, Member, Names, judge
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.source import Source

_BLOCK = 512
_LONGEST_EXTENSION = 1 << 20
_LONGEST_PADDING = 4 << 20  # writers fill their last record; nobody's records are longer
_WIDEST_OCTAL = 8**11
_NUMBER = re.compile(rb"\0*| *([0-7]+)[ \0]*")
_CHECKSUM = slice(148, 156)
_USTAR, _GNU, _OLDEST = b"ustar\x0000", b"ustar  \x00", bytes(8)

_FILES, _FOLDER = (b"0", b"\0"), b"5"
_EXTENDED, _GLOBAL, _LONG_NAME = b"x", b"g", b"L"
_REFUSED = {
    b"1": ("tar.link", "a hard link", Severity.MALICIOUS),
    b"2": ("tar.link", "a symbolic link", Severity.MALICIOUS),
    b"K": ("tar.link", "the long name of a link", Severity.MALICIOUS),
    b"3": ("tar.device", "a device", Severity.MALICIOUS),
    b"4": ("tar.device", "a device", Severity.MALICIOUS),
    b"6": ("tar.device", "a named pipe", Severity.MALICIOUS),
    b"S": ("tar.sparse", "a sparse file", Severity.UNKNOWN),
    b"M": ("tar.volume", "the rest of a file from another volume", Severity.UNKNOWN),
}
_RECORD = re.compile(rb"([1-9][0-9]{0,7}) ([^=\n]{1,200})=")
_HARMLESS_RECORDS = re.compile(
    r"[acm]time|[ug]id|[ug]name|comment|SCHILY\.(?:dev|ino|nlink|fflags)|LIBARCHIVE\.creationtime"
)
_LONGEST_RECORD = 256


@dataclass(frozen=True, kw_only=True)
class _Header:
    """One header block that adds up. `name` still without what an extension says."""

    at: int
    type: bytes
    name: bytes
    size: int


@dataclass(kw_only=True)
class _Extension:
    """What stands before a file's header and changes how it is read."""

    records: Mapping[str, bytes] = field(default_factory=dict)
    name: bytes | None = None
    at: int | None = None


def examine(source: Source, path: str, inspection: Inspection) -> None:
    judge(read(source, path, inspection), inspection)


def read(source: Source, path: str, inspection: Inspection) -> Archive:
    """Check the whole archive and return its members; raises `Malformed` where it cannot be trusted at all."""
    members: dict[str, Member] = {}
    names = Names(kind="tar", path=path, inspection=inspection)
    extension = _Extension()
    at, content = 0, 0
    while any(block := _block(source, at)):
        header = _header(block, at)
        at += _BLOCK
        if header.type in (_EXTENDED, _GLOBAL, _LONG_NAME):
            _extend(extension, header, _extension_text(source, header))
            at = _behind(source, at, header.size)
            continue
        size = _size(header, extension)
        name = _name(header, extension)
        if name:
            names.admit(name, header.at)
            members[name] = Member(name=name, size=size, content=partial(source.part, at, size))
        at = _behind(source, at, size)
        content += size
        extension = _Extension()
        inspection.tick()
    if extension.at is not None:
        raise Malformed("tar.extension", "An extension header belongs to no file.", extension.at)
    _check_end(source, at)
    inspection.credit("tar", source.size - content)
    return Archive(kind="tar", path=path, members=members)


def _block(source: Source, at: int) -> bytes:
    if at == source.size:
        raise Malformed("tar.end", "The archive does not end in two empty blocks.", at)
    return source.read(at, _BLOCK)


def _behind(source: Source, at: int, size: int) -> int:
    """Where the next header stands; between it and the content are zeros only."""
    padding = -size % _BLOCK
    if any(source.read(at + size, padding)):
        raise Malformed("tar.padding", "Bytes stand between a file and the next header.", at + size)
    return at + size + padding


def _check_end(source: Source, at: int) -> None:
    rest = source.size - at
    if rest < 2 * _BLOCK:
        raise Malformed("tar.end", "The archive does not end in two empty blocks.", at)
    if rest > _LONGEST_PADDING or any(any(piece) for piece in source.chunks(at)):
        raise Malformed("tar.suffix", f"Something stands in the {rest:,} bytes behind the end of the archive.", at)


def _header(block: bytes, at: int) -> _Header:
    if not _adds_up(block):
        raise Malformed("tar.checksum", "A header does not match its checksum, or this is no header.", at)
    kind, magic = block[156:157], block[257:265]
    if magic not in (_USTAR, _GNU, _OLDEST) or (magic == _OLDEST and any(block[257:])):
        raise Malformed("tar.version", f"The header is of an unknown kind of tar, {magic!r}.", at)
    _check_type(kind, block[:100], at)
    for start, width in ((100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)):
        _number(block[start : start + width], at)
    name, target, *_ = (_text(block[start:end], at) for start, end in ((0, 100), (157, 257), (265, 297), (297, 329)))
    if target:
        raise Malformed("tar.link", "A file that is no link has the target of a link.", at)
    if magic == _USTAR:
        prefix = _text(block[345:500], at)
        name = prefix + b"/" + name if prefix else name
    elif magic == _GNU:  # two times that only incremental backups have; then parts of sparse files
        _number(block[345:357], at)
        _number(block[357:369], at)
        if any(block[369:500]):
            raise Malformed("tar.header", "The header uses fields of sparse files or of other volumes.", at)
    if any(block[500:]):
        raise Malformed("tar.header", "The header has bytes behind its last field.", at)
    size = _number(block[124:136], at)
    if size < 0:
        raise Malformed("tar.number", "A file has a negative size.", at)
    return _Header(at=at, type=kind, name=name, size=size)


def _check_type(kind: bytes, raw_name: bytes, at: int) -> None:
    name = repr(raw_name.partition(b"\0")[0].decode("utf-8", "replace"))
    if kind in _REFUSED:
        rule, what, severity = _REFUSED[kind]
        raise Malformed(rule, f"{name} is {what}, not a file.", at, severity)
    if kind not in (*_FILES, _FOLDER, _EXTENDED, _GLOBAL, _LONG_NAME):
        raise Malformed("tar.type", f"{name} is of the unknown type {kind!r}.", at)


def _adds_up(block: bytes) -> bool:
    match = _NUMBER.fullmatch(block[_CHECKSUM])
    if match is None or match[1] is None:
        return False
    return int(match[1], 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _number(content: bytes, at: int) -> int:
    """An octal number, or a binary one where the octal one would not have fitted."""
    if content[0] == 0xFF:
        return int.from_bytes(content, "big", signed=True)
    if content[0] == 0x80:
        number = int.from_bytes(content[1:], "big")
        if number >= 8 ** (len(content) - 1):
            return number
        raise Malformed("tar.number", "A small number is written as if it were large.", at)
    match = _NUMBER.fullmatch(content)
    if match is None:
        raise Malformed("tar.number", f"{content!r} is not an octal number.", at)
    return int(match[1] or b"0", 8)


def _text(content: bytes, at: int) -> bytes:
    text, _, rest = content.partition(b"\0")
    if any(rest):
        raise Malformed("tar.header", "Bytes are hidden behind the end of a text in the header.", at)
    return text


# Extensions


def _extension_text(source: Source, header: _Header) -> bytes:
    if header.size > _LONGEST_EXTENSION:
        raise Malformed("tar.extension", f"An extension header has {header.size:,} bytes.", header.at)
    return source.read(header.at + _BLOCK, header.size)


def _extend(extension: _Extension, header: _Header, content: bytes) -> None:
    extension.at = header.at
    if header.type == _LONG_NAME:
        name = _text(content, header.at)
        if extension.name is not None or not name or len(content) > len(name) + 1:
            raise Malformed("tar.extension", "A file has two long names, or a broken one.", header.at)
        extension.name = name
        return
    records = _records(content, header.at)
    if header.type == _GLOBAL:
        if not set(records) <= {"comment"}:
            raise Malformed("tar.extension", "A global header changes how all files behind it are read.", header.at)
        extension.at = None
        return
    if extension.records:
        raise Malformed("tar.extension", "A file has two extension headers.", header.at)
    extension.records = records


def _records(content: bytes, at: int) -> dict[str, bytes]:
    """The records of a pax header: `length key=value`, one a line."""
    records: dict[str, bytes] = {}
    while content:
        match = _RECORD.match(content)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(content) or content[length - 1] != 0x0A:
            raise Malformed("tar.extension", "An extension header is broken.", at)
        key, value = match[2].decode("utf-8", "replace"), content[match.end() : length - 1]
        if key in records:
            raise Malformed("tar.extension", f"An extension header says {key[:80]!r} twice.", at, Severity.MALICIOUS)
        if key.startswith("GNU.sparse."):
            raise Malformed("tar.sparse", "The archive has a sparse file, which unpackers read differently.", at)
        if key == "linkpath":
            raise Malformed("tar.link", "An extension header names the target of a link.", at, Severity.MALICIOUS)
        harmless = _HARMLESS_RECORDS.fullmatch(key) and len(value) <= _LONGEST_RECORD
        if key not in ("path", "size") and not (
            harmless or (key == "hdrcharset" and value == b"ISO-IR 10646 2000 UTF-8")
        ):
            raise Malformed("tar.extension", f"An extension header says {key[:80]!r}, which nobody has vetted.", at)
        records[key] = value
        content = content[length:]
    return records


def _size(header: _Header, extension: _Extension) -> int:
    """The size of the file: an extension may give the one that the header cannot, and no other."""
    size = header.size
    if "size" in extension.records:
        text = extension.records["size"]
        size = int(text) if re.fullmatch(rb"[0-9]{1,18}", text) else -1
        if size != header.size and not (header.size == 0 and size >= _WIDEST_OCTAL):
            raise Malformed(
                "tar.mismatch", "The header and its extension give different sizes.", header.at, Severity.MALICIOUS
            )
    if header.type == _FOLDER and size:
        raise Malformed("tar.folder", "A folder has content.", header.at)
    return size


def _name(header: _Header, extension: _Extension) -> str:
    """The member's name, a folder's with a slash at its end; empty for the folder that the archive was made of."""
    named = [one for one in (extension.name, extension.records.get("path")) if one is not None]
    if len(named) > 1:
        raise Malformed("tar.extension", "A file has two long names.", header.at, Severity.MALICIOUS)
    try:
        name = (named[0] if named else header.name).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("tar.name", f"The name {header.name[:80]!r} is not plain text.", header.at) from None
    bare = name.removeprefix("./")
    folder = header.type == _FOLDER or (header.type == b"\0" and bare.endswith("/"))
    if folder and bare in ("", ".", "/"):
        return ""
    if bare.endswith("/") and not folder:
        raise Malformed("tar.name", f"The file {name[:200]!r} is named like a folder.", header.at)
    if folder and header.size:
        raise Malformed("tar.folder", "A folder has content.", header.at)
    return f"{bare.removesuffix('/')}/" if folder else bare


def _recognises(glimpse: Glimpse) -> bool:
    """Whatever Python's tarfile would open, and what says by its magic that it is one: stricter comes later."""
    block = glimpse.head[:_BLOCK]
    return len(block) == _BLOCK and (block[257:262] == b"ustar" or _may_add_up(block))


def _may_add_up(block: bytes) -> bool:
    """By either of the two sums in use (bytes were once signed), however their number is written."""
    content = block[_CHECKSUM]
    try:
        binary = content[0] in (0x80, 0xFF)
        number = int.from_bytes(content[1:], "big") if binary else int(content.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return False
    rest = block[:148] + block[156:]
    total = sum(rest) + 8 * 0x20
    return number in (total, total - 0x100 * sum(byte > 0x7F for byte in rest))


READER = Reader(name="tar", recognises=_recognises, examine=examine, container=True)
