"""HDF5 files as h5py writes them (Keras `.h5`): nothing outside of the file, no plug-in, no bomb, every byte accounted for.

Weights are not read, only measured. Symbol-table groups and compact link messages are understood, indexes of HDF5 1.10
and later are named and left to a reviewer. What the model's configuration in the attributes means, Keras' walker says.
"""

from __future__ import annotations

from pipeline.readers import keras_config
from pipeline.readers.hdf5_blocks import (
    TEXT,
    UNDEFINED,
    VARIABLE,
    Image,
    Message,
    read_dataspace,
    read_datatype,
    read_header,
)
from pipeline.readers.hdf5_groups import Heaps, decode_name, read_link, read_symbols
from pipeline.readers.hdf5_values import DEFLATE, FLETCHER, FOREIGN, SHUFFLE, Storage, Values
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.source import Cursor, Source, of_bytes
from pipeline.readers.zip_directory import ends_as_archive

MAGIC = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 64
_MOST_OBJECTS = 200_000
_MOST_IDLE, _IDLE_SHARE, _MOST_IDLE_AT_ALL = 64 << 10, 20, 4 << 20
_FOREIGN_AT_START = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"MZ", b"#!", b"\x1f\x8b", b"<?php")
_CONFIGURATIONS = frozenset({"model_config", "training_config"})


def examine(source: Source, path: str, inspection: Inspection) -> None:
    image = Image(source=source, path=path, inspection=inspection)
    reading = _Reading(image)
    reading.run()
    inspection.credit("hdf5", source.size - reading.configured)
    if reading.configured:
        inspection.credit("keras", reading.configured)


class _Reading:
    """One file while its objects are visited, each once, from the root on."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.heaps = Heaps(image)
        self.visited: set[int] = set()
        self.configured = 0
        self.leaf, self.internal, self.chunked = 4, 16, 32

    def run(self) -> None:
        root = self.superblock()
        pending = [(root, "", 0)]
        while pending:
            address, name, depth = pending.pop()
            if address in self.visited:
                continue
            self.visited.add(address)
            if depth > _DEEPEST or len(self.visited) > _MOST_OBJECTS:
                raise Malformed("limit.nesting", "The groups are deeper or more than in any real file.", address)
            pending.extend((where, f"{name}/{child}", depth + 1) for child, where in self.visit(address, name))
        self.heaps.finish()
        self.settle()

    def superblock(self) -> int:
        """Check the file's first block; returns where the root group's header stands."""
        version = self.image.source.read(8, 1)[0]
        if version > 3:
            raise Malformed("hdf5.version", f"Version {version} of the superblock is unknown.", 8)
        start = {0: 24, 1: 28}.get(version, 12)
        head = self.image.take(0, start + (72 if version < 2 else 36))
        sizes = head[13:15] if version < 2 else head[9:11]
        parts = Cursor(of_bytes(head), start)
        base, extension, end, driver = (parts.number(8) for _ in range(4))
        if version >= 2:  # the driver's place holds the root's address
            driver, root = UNDEFINED, driver
        else:
            parts.skip(8)
            root = parts.number(8)
            self.leaf, self.internal = (int.from_bytes(head[at : at + 2], "little") for at in (16, 18))
            if version == 1:
                self.chunked = int.from_bytes(head[24:26], "little")
        if sizes != b"\x08\x08" or base or not (self.leaf and self.internal and self.chunked):
            raise Malformed("hdf5.superblock", "The file does not begin the way h5py writes it.", 8)
        if max(self.leaf, self.internal, self.chunked) > 1 << 12:
            raise Malformed("hdf5.superblock", "The nodes of the indexes are larger than in any real file.", 16)
        if (extension, driver) != (UNDEFINED, UNDEFINED):
            raise Malformed("hdf5.superblock", "The file uses a driver or an extension of its own.", start)
        if end != self.image.source.size:
            raise Malformed(
                "hdf5.trailing" if end < self.image.source.size else "content.truncated",
                f"The file ends at {end:,} by its own account; it has {self.image.source.size:,} bytes.",
                min(end, self.image.source.size),
            )
        return root

    def visit(  # noqa: C901, PLR0912 - one line for each kind of message
        self, address: int, name: str
    ) -> list[tuple[str, int]]:
        """Judge one object; returns the members it has if it is a group."""
        members: list[tuple[str, int]] = []
        storage = Storage(name=name)
        for message in read_header(self.image, address):
            match message.kind:
                case 0x01:
                    storage.dataspace = read_dataspace(message.cursor(), message.at)
                case 0x03:
                    storage.datatype = read_datatype(message.cursor(), message.at)
                case 0x06:
                    link = read_link(self.image, message)
                    members += [link] if link else []
                case 0x07:
                    self.image.note(
                        Severity.MALICIOUS, "external_storage", message.at, f"{name[:80]!r} is read from other files."
                    )
                case 0x08:
                    storage.layout = message
                case 0x0B:
                    storage.filters = self.filters(message)
                case 0x0C:
                    self.attribute(message, name)
                case 0x11:
                    members += read_symbols(self.image, message, self.leaf, self.internal)
                case 0x02 | 0x15:
                    self.index(message)
                case 0x00 | 0x04 | 0x05 | 0x0A | 0x0E | 0x10 | 0x12 | 0x16:  # fill values, times, counts
                    pass
                case kind:
                    raise Malformed("hdf5.message", f"A message of the unknown kind {kind:#04x} is used.", message.at)
        if storage.layout is not None:
            Values(image=self.image, heaps=self.heaps, chunked=self.chunked).dataset(storage)
        elif not members and storage.datatype is not None:
            raise Malformed("hdf5.committed_type", f"{name[:80]!r} is a committed type.", address)
        return members

    def index(self, message: Message) -> None:
        """Link info or attribute info: large groups have indexes of their own, which only newer files use."""
        cursor = message.cursor()
        cursor.skip(1)
        flags = cursor.byte()
        if flags & 1:
            cursor.skip(8 if message.kind == 0x02 else 2)
        if cursor.number(8) != UNDEFINED:
            raise Malformed(
                "hdf5.dense", "A group keeps its members in an index of HDF5 1.8 or later (track_order).", message.at
            )

    def filters(self, message: Message) -> list[int]:
        cursor = message.cursor()
        version, count = cursor.byte(), cursor.byte()
        if version not in (1, 2):
            raise Malformed("hdf5.filter", f"Version {version} of the filters is unknown.", message.at)
        cursor.skip(6 if version == 1 else 0)
        found = []
        for _ in range(count):
            kind = cursor.number(2)
            length = cursor.number(2) if version == 1 or kind >= 256 else 0
            cursor.skip(2)
            values = cursor.number(2)
            cursor.skip(length + 4 * values + (4 if version == 1 and values % 2 else 0))
            if kind not in (DEFLATE, SHUFFLE, FLETCHER):
                raise Malformed("hdf5.filter", f"Filter {kind} needs a plug-in: native code.", message.at)
            found.append(kind)
        if len(set(found)) != len(found):
            raise Malformed("hdf5.filter", "A filter is applied twice.", message.at)
        return found

    def attribute(self, message: Message, owner: str) -> None:
        cursor = message.cursor()
        version, flags = cursor.byte(), cursor.byte()
        sizes = [cursor.number(2) for _ in range(3)]
        if version not in (1, 2, 3) or (flags and version > 1):
            raise Malformed("hdf5.attribute", f"Version {version} of an attribute is unknown.", message.at)
        cursor.skip(1 if version == 3 else 0)
        parts = []
        for size in sizes:
            parts.append(cursor.take(size))
            cursor.skip(-size % 8 if version == 1 else 0)
        name = decode_name(parts[0].split(b"\0")[0], message.at)
        datatype = read_datatype(Cursor(of_bytes(parts[1])), message.at)
        dataspace = read_dataspace(Cursor(of_bytes(parts[2])), message.at)
        needed = dataspace.elements * datatype.size
        if needed > cursor.remaining:
            raise Malformed("hdf5.attribute", f"Attribute {name[:80]!r} is shorter than its shape says.", message.at)
        where = f"{owner or '/'}@{name}"
        values = Values(image=self.image, heaps=self.heaps, chunked=self.chunked)
        for value in values.texts(cursor.take(needed), datatype, message.at, where):
            if datatype.kind in (TEXT, VARIABLE) or datatype.size == 1:
                values.content(value, message.at, where)
            if name in _CONFIGURATIONS:
                self.configured += len(value)
                keras_config.check(keras_config.parse(value), f"{self.image.path}!@{name}", self.image.inspection)
        if owner == "" and name.startswith("PYTABLES"):
            self.image.note(
                Severity.UNKNOWN,
                "pytables",
                message.at,
                "The file is one of PyTables, which pickles what it cannot store.",
            )

    def settle(self) -> None:
        """What no block covers must be little, and nothing that another program would take for its own."""
        end, idle = 0, list(self.image.slack)
        for start, stop in sorted(self.image.blocks):
            if start < end:
                raise Malformed("hdf5.overlap", f"Two blocks of the file share the bytes from {start} on.", start)
            idle += [(end, start)] if start > end else []
            end = stop
        size, left = self.image.source.size, 0
        idle += [(end, size)] if size > end else []
        for start, stop in idle:
            left += self.leftover(start, stop)
        if left > max(_MOST_IDLE, min(size // _IDLE_SHARE, _MOST_IDLE_AT_ALL)):
            self.image.note(Severity.UNKNOWN, "gap", None, f"{left:,} bytes of the file belong to nothing.")
        if ends_as_archive(self.image.source):
            self.image.note(Severity.MALICIOUS, "polyglot", size - 22, "The file is a zip archive, too.")

    def leftover(self, start: int, stop: int) -> int:
        """How many bytes of a range are not zero, first to last; a foreign format in it is a finding."""
        count, carry = 0, b""
        for piece in self.image.source.chunks(start, stop - start):
            text = carry + piece
            found = next((magic for magic in FOREIGN if magic in text), None)
            if found is not None or (not count and piece.lstrip(b"\0").startswith(_FOREIGN_AT_START)):
                self.image.note(
                    Severity.UNKNOWN, "gap", start, "Bytes that belong to nothing look like a file of another format."
                )
            count += len(piece) if count else len(piece.lstrip(b"\0"))
            carry = text[-8:]
            self.image.inspection.tick()
        return count


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head.startswith(MAGIC)


READER = Reader(name="hdf5", recognises=_recognises, examine=examine)
