"""The tables of a 7z archive: which packed streams there are, how folders unpack them, which files they make.

Knows the grammar and refuses what it does not allow; unpacks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.source import Cursor, Source

_END, _HEADER, _ARCHIVE_PROPERTIES, _MORE_STREAMS, _STREAMS, _FILES = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05
_PACKS, _FOLDERS, _SUBSTREAMS, _SIZE, _CRC = 0x06, 0x07, 0x08, 0x09, 0x0A
_FOLDER, _UNPACK_SIZES, _COUNTS, _EMPTY_STREAM, _EMPTY_FILE, _ANTI, _NAMES = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11
_TIMES, _ATTRIBUTES, _DUMMY = (0x12, 0x13, 0x14), 0x15, 0x19
_TABLES = (_EMPTY_STREAM, _EMPTY_FILE, _ANTI, _NAMES, *_TIMES, _ATTRIBUTES)
_PACKED_HEADER = 0x17
_MOST_CODERS = 4
_IS_UNIX, _REPARSE_POINT, _DIRECTORY = 0x8000, 0x400, 0x10
_UNIX_KINDS = (0, 0o4, 0o10)  # not said, folder, file


@dataclass(frozen=True, kw_only=True)
class Coder:
    """One step of unpacking."""

    id: bytes
    properties: bytes
    size: int


@dataclass(frozen=True, kw_only=True)
class Folder:
    """One packed stream and what it takes to unpack it; `coders` in the order in which they unpack."""

    coders: tuple[Coder, ...]
    crc: int | None

    @property
    def size(self) -> int:
        return self.coders[-1].size


@dataclass(frozen=True, kw_only=True)
class Streams:
    """`packs` bound the packed streams, one for each folder; `files` the files that each folder holds one after the other."""

    packs: tuple[tuple[int, int], ...]
    folders: tuple[Folder, ...]
    files: tuple[tuple[tuple[int, int | None], ...], ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file or folder; `has_stream` when it takes the next file of the streams."""

    name: str
    has_stream: bool
    folder: bool
    linked: bool


def read_header(source: Source, inspection: Inspection) -> tuple[Streams, tuple[Entry, ...] | None]:
    """The streams and the files; or, where the tables are packed themselves, the one stream that they are packed in."""
    table = _Table(source, inspection)
    kind = table.byte()
    if kind == _PACKED_HEADER:
        streams = table.streams()
        if len(streams.folders) != 1:
            raise table.broken("The packed header is not one stream.")
        table.end()
        return streams, None
    if kind != _HEADER:
        raise table.broken("The header is of an unknown kind.")
    streams, entries, part = Streams(packs=(), folders=(), files=()), tuple[Entry, ...](), table.byte()
    if part in (_ARCHIVE_PROPERTIES, _MORE_STREAMS):
        raise table.broken("The archive has properties or streams that no common tool writes.")
    if part == _STREAMS:
        streams, part = table.streams(), table.byte()
    if part == _FILES:
        entries, part = table.entries(), table.byte()
    if part != _END:
        raise table.broken(f"The header has an unknown part {part:#04x}.")
    table.end()
    return streams, entries


class _Table:
    """A header while it is read."""

    def __init__(self, source: Source, inspection: Inspection) -> None:
        self.source = source
        self.cursor = Cursor(source)
        self.most = inspection.limits.members
        self.inspection = inspection

    def byte(self) -> int:
        return self.cursor.byte()

    def broken(self, message: str) -> Malformed:
        return Malformed("7z.header", message, self.cursor.position)

    def expect(self, part: int) -> None:
        if self.byte() != part:
            raise self.broken("The header is broken.")

    def end(self) -> None:
        if self.cursor.remaining:
            raise self.broken(f"{self.cursor.remaining:,} bytes follow the header.")

    def number(self) -> int:
        """A number of 1 to 9 bytes: the first one's leading bits tell how many follow."""
        first = self.byte()
        value, mask = 0, 0x80
        for index in range(8):
            if not first & mask:
                return value | (first & mask - 1) << 8 * index
            value |= self.byte() << 8 * index
            mask >>= 1
        return value

    def count(self) -> int:
        """A number of things that are listed; never more than there may be members."""
        value = self.number()
        if value > self.most:
            raise Malformed("limit.members", f"The archive has more than {self.most:,} members.", self.cursor.position)
        return value

    def bits(self, count: int) -> list[bool]:
        content = self.cursor.take((count + 7) // 8)
        if count % 8 and content[-1] & (0xFF >> count % 8):
            raise self.broken("Bits are set that stand for nothing.")
        return [bool(content[index // 8] & 0x80 >> index % 8) for index in range(count)]

    def optional_bits(self, count: int) -> list[bool]:
        all_set = self.byte()
        if all_set > 1:
            raise self.broken("A table is neither full nor says where it is.")
        return [True] * count if all_set else self.bits(count)

    def checksums(self, count: int) -> list[int | None]:
        return [self.cursor.number(4) if defined else None for defined in self.optional_bits(count)]

    def internal(self) -> None:
        if self.byte():
            raise self.broken("A table stands outside of the header.")

    # Streams

    def streams(self) -> Streams:
        part = self.byte()
        packs, folders = list[tuple[int, int]](), list[Folder]()
        if part == _PACKS:
            packs, part = self.packs(), self.byte()
        if part == _FOLDERS:
            folders, part = self.folders(), self.byte()
        files: list[tuple[tuple[int, int | None], ...]] = [((folder.size, folder.crc),) for folder in folders]
        if part == _SUBSTREAMS:
            files, part = self.substreams(folders), self.byte()
        if part != _END:
            raise self.broken("The table of streams is broken.")
        if len(packs) != len(folders):
            raise self.broken(f"There are {len(packs):,} packed streams for {len(folders):,} folders.")
        return Streams(packs=tuple(packs), folders=tuple(folders), files=tuple(files))

    def packs(self) -> list[tuple[int, int]]:
        at, count = self.number(), self.count()
        part = self.byte()
        sizes = list[int]()
        if part == _SIZE:
            sizes, part = [self.number() for _ in range(count)], self.byte()
        if part == _CRC:
            self.checksums(count)
            part = self.byte()
        if part != _END or len(sizes) != count:
            raise self.broken("The table of packed streams is broken.")
        packs = []
        for size in sizes:
            packs.append((at, size))
            at += size
        return packs

    def folders(self) -> list[Folder]:
        self.expect(_FOLDER)
        count = self.count()
        self.internal()
        chains = [self.chain() for _ in range(count)]
        self.expect(_UNPACK_SIZES)
        sizes = [[self.number() for _ in order] for _, order in chains]
        part = self.byte()
        checksums: list[int | None] = [None] * count
        if part == _CRC:
            checksums, part = self.checksums(count), self.byte()
        if part != _END:
            raise self.broken("The table of folders is broken.")
        return [
            Folder(
                coders=tuple(Coder(id=coders[one][0], properties=coders[one][1], size=each[one]) for one in order),
                crc=crc,
            )
            for (coders, order), each, crc in zip(chains, sizes, checksums, strict=True)
        ]

    def chain(self) -> tuple[list[tuple[bytes, bytes]], list[int]]:
        """The coders of one folder as they are listed, and the order in which they unpack."""
        count = self.number()
        if not 0 < count <= _MOST_CODERS:
            raise self.broken(f"A folder has {count:,} coders.")
        coders = []
        for _ in range(count):
            flags = self.byte()
            if flags & 0xC0 or not flags & 0x0F:
                raise self.broken("A coder has unknown flags.")
            coder = self.cursor.take(flags & 0x0F)
            if flags & 0x10 and (self.number(), self.number()) != (1, 1):
                raise Malformed("7z.coder", f"The archive is packed by {name_of(coder)}, which nobody here can read.")
            size = self.number() if flags & 0x20 else 0
            if size > 256:
                raise self.broken("The properties of a coder are too long.")
            coders.append((coder, self.cursor.take(size)))
        fed_by = {}
        for _ in range(count - 1):
            receiver, giver = self.number(), self.number()
            fed_by[receiver] = giver
        order = [one for one in range(count) if one not in fed_by]
        gives_to = {giver: receiver for receiver, giver in fed_by.items()}
        if len(order) != 1 or len(gives_to) != count - 1:
            raise self.broken("The coders of a folder form no chain.")
        while order[-1] in gives_to and len(order) <= count:
            order.append(gives_to[order[-1]])
        if sorted(order) != list(range(count)):
            raise self.broken("The coders of a folder form no chain.")
        return coders, order

    def substreams(self, folders: list[Folder]) -> list[tuple[tuple[int, int | None], ...]]:
        counts, part = [1] * len(folders), self.byte()
        if part == _COUNTS:
            counts, part = [self.count() for _ in folders], self.byte()
        if sum(counts) > self.most:
            raise Malformed("limit.members", f"The archive has more than {self.most:,} members.", self.cursor.position)
        given: list[list[int]] = [[] for _ in folders]
        if part == _SIZE:
            given, part = [[self.number() for _ in range(count - 1)] for count in counts], self.byte()
        sizes = [self.file_sizes(*one) for one in zip(folders, counts, given, strict=True)]
        inherited = [count == 1 and folder.crc is not None for folder, count in zip(folders, counts, strict=True)]
        checksums = list[int | None]()
        if part == _CRC:
            missing = sum(0 if skip else count for skip, count in zip(inherited, counts, strict=True))
            checksums, part = self.checksums(missing), self.byte()
        if part != _END:
            raise self.broken("The table of files in folders is broken.")
        waiting = iter(checksums)
        return [
            tuple((size, folder.crc if skip else next(waiting, None)) for size in each)
            for folder, skip, each in zip(folders, inherited, sizes, strict=True)
        ]

    def file_sizes(self, folder: Folder, count: int, given: list[int]) -> list[int]:
        """All but the last size are given; the last file takes what is left of the folder."""
        left = folder.size - sum(given)
        if len(given) != max(count - 1, 0) or left < 0 or (not count and folder.size):
            raise self.broken("The files of a folder do not add up.")
        return [*given, left] if count else []

    # Files

    def entries(self) -> tuple[Entry, ...]:
        count = self.count()
        found: dict[int, Source] = {}
        while part := self.number():
            size = self.number()
            content = self.source.part(self.cursor.position, size)
            self.cursor.skip(size)
            if part == _DUMMY:
                if any(any(piece) for piece in content.chunks()):
                    raise self.broken("The padding of the header is not empty.")
            elif part in found or part not in _TABLES:
                raise self.broken(f"The table of files {part:#04x} is unknown or there twice.")
            else:
                found[part] = content
            self.inspection.tick()
        parts = {part: _Table(content, self.inspection) for part, content in found.items()}
        empty = parts[_EMPTY_STREAM].bits(count) if _EMPTY_STREAM in parts else [False] * count
        empty_files = parts[_EMPTY_FILE].bits(sum(empty)) if _EMPTY_FILE in parts else [False] * sum(empty)
        if _ANTI in parts and any(parts[_ANTI].bits(sum(empty))):
            raise Malformed("7z.anti", "The archive has entries that tell an unpacker to delete files.")
        names = parts[_NAMES].names(count) if _NAMES in parts else []
        attributes = parts[_ATTRIBUTES].values(count, 4) if _ATTRIBUTES in parts else [0] * count
        for part in _TIMES:
            if part in parts:
                parts[part].values(count, 8)
        for table in parts.values():
            table.end()
        if len(names) != count:
            raise self.broken("Not every file has a name.")
        is_file = iter(empty_files)
        return tuple(
            _entry(name, has_stream=not one, folder=one and not next(is_file), attributes=bits)
            for name, one, bits in zip(names, empty, attributes, strict=True)
        )

    def values(self, count: int, width: int) -> list[int]:
        defined = self.optional_bits(count)
        self.internal()
        return [self.cursor.number(width) if one else 0 for one in defined]

    def names(self, count: int) -> list[str]:
        self.internal()
        content = self.cursor.take(self.cursor.remaining)
        try:
            names = content.decode("utf-16-le").split("\0")
        except UnicodeDecodeError:
            raise Malformed("7z.name", "A name is not text.") from None
        if names.pop() or len(names) != count:
            raise self.broken("There are not as many names as files.")
        return names


def _entry(name: str, *, has_stream: bool, folder: bool, attributes: int) -> Entry:
    kind = attributes >> 28 if attributes & _IS_UNIX else 0
    linked = bool(attributes & _REPARSE_POINT) or kind not in _UNIX_KINDS
    if bool(attributes & _DIRECTORY) != folder and attributes & _DIRECTORY:
        raise Malformed("7z.folder", f"The folder {name[:200]!r} has content.")
    return Entry(name=name, has_stream=has_stream, folder=folder, linked=linked)


def name_of(coder: bytes) -> str:
    """The method as people call it."""
    return _METHODS.get(coder, f"the unknown method {coder.hex()}")


_METHODS = {
    b"\x03\x03\x01\x1b": "BCJ2",
    b"\x03\x04\x01": "PPMd",
    b"\x04\x01\x09": "Deflate64",
    b"\x04\xf7\x11\x01": "Zstandard",
    b"\x04\xf7\x11\x02": "Brotli",
    b"\x04\xf7\x11\x04": "LZ4",
    b"\x04\xf7\x11\x05": "LZ5",
    b"\x04\xf7\x11\x06": "Lizard",
    b"\x0a": "the ARM64 filter",
    b"\x0b": "the RISC-V filter",
    b"\x06\xf1\x07\x01": "AES encryption",
}
