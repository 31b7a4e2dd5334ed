"""The blocks an HDF5 file is made of: object headers with their messages, types, shapes, and where they lie in the file.

Knows what h5py writes by default (file format of HDF5 1.8 and before) and names whatever else it meets. Every block
that is read is entered in a ledger, so that what no block covers can be told afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipeline.readers.inspection import Inspection, Malformed, Severity
from pipeline.readers.source import Cursor, Source, Truncated, of_bytes

UNDEFINED = (1 << 64) - 1
_LARGEST_BLOCK = 64 << 20
_MOST_BLOCKS = 2_000_000
_MOST_MESSAGES = 65_536
_MOST_CONTINUATIONS = 10_000
_MOST_DIMENSIONS = 32
_SHARED = 2
_HARMLESS_MESSAGE_FLAGS = 0b11111101
CONTINUATION, NIL = 0x10, 0x00

INTEGER, FLOAT, TIME, TEXT, BITS, OPAQUE, COMPOUND, REFERENCE, ENUM, VARIABLE, ARRAY = range(11)
_CLASSES = (
    "integer", "float", "time", "text", "bit field", "opaque", "compound", "reference", "enumeration",
    "variable-length", "array",
)  # fmt: skip


@dataclass(kw_only=True)
class Image:
    """The file and the ledger of its blocks; `slack` are parts of blocks that nothing refers to."""

    source: Source
    path: str
    inspection: Inspection
    blocks: list[tuple[int, int]] = field(default_factory=list)
    slack: list[tuple[int, int]] = field(default_factory=list)

    def reserve(self, at: int, length: int) -> None:
        if at < 0 or length < 0 or at + length > self.source.size:
            raise Truncated(min(max(at, 0), self.source.size))
        if length:
            self.blocks.append((at, at + length))
        if len(self.blocks) > _MOST_BLOCKS:
            raise Malformed("limit.fields", "The file has more blocks than any real one.", at)
        if len(self.blocks) % 1024 == 0:
            self.inspection.tick()

    def take(self, at: int, length: int) -> bytes:
        """Enter a block in the ledger and read it."""
        if length > _LARGEST_BLOCK:
            raise Malformed("hdf5.block", f"A block of {length:,} bytes is larger than any real one.", at)
        self.reserve(at, length)
        if length > 1 << 20:
            self.inspection.tick()
        return self.source.read(at, length)

    def unused(self, at: int, length: int) -> None:
        if length > 0:
            self.slack.append((at, at + length))

    def note(self, severity: Severity, rule: str, at: int | None, message: str) -> None:
        self.inspection.note(severity, f"hdf5.{rule}", self.path, at, message)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of an object's header; `at` is where its content stands in the file."""

    kind: int
    content: bytes
    at: int

    def cursor(self) -> Cursor:
        return Cursor(of_bytes(self.content))


@dataclass(frozen=True, kw_only=True)
class Datatype:
    """`size` is what one element takes in the dataset; a variable-length one takes 16 that point into a heap."""

    kind: int
    size: int
    variable_text: bool = False

    @property
    def name(self) -> str:
        return _CLASSES[self.kind]


@dataclass(frozen=True, kw_only=True)
class Dataspace:
    """`shape` is None for the null dataspace, which has no element at all."""

    shape: tuple[int, ...] | None

    @property
    def elements(self) -> int:
        return 0 if self.shape is None else math.prod(self.shape)


def read_header(image: Image, at: int) -> list[Message]:
    """All messages of the object whose header stands at `at`, from all its blocks."""
    first = image.source.read(at, 4)
    if first == b"OHDR":
        return _read_new_header(image, at)
    if first[0] != 1:
        raise Malformed("hdf5.header", f"No object header stands at {at}.", at)
    head = Cursor(of_bytes(image.take(at, 16)))
    head.skip(2)
    announced = head.number(2)
    head.skip(4)
    blocks = [(at + 16, head.number(4))]
    messages: list[Message] = []
    for start, length in blocks:  # grows while it is read
        content = image.take(start, length)
        cursor = Cursor(of_bytes(content))
        while cursor.remaining >= 8:
            kind, size, flags = cursor.number(2), cursor.number(2), cursor.byte()
            cursor.skip(3)
            message = Message(kind=kind, at=start + cursor.position, content=cursor.take(size))
            _admit(image, message, flags, messages, blocks)
        image.unused(start + cursor.position, cursor.remaining)
    if len(messages) != announced:
        raise Malformed("hdf5.header", f"The header announces {announced} messages and has {len(messages)}.", at)
    return messages


def _read_new_header(image: Image, at: int) -> list[Message]:
    """A header of version 2, as h5py writes it where the order of creation is tracked."""
    head = Cursor(image.source, at + 4)
    version, flags = head.byte(), head.byte()
    if version != 2 or flags & 0xC0:
        raise Malformed("hdf5.version", f"Version {version} of the object header is unknown.", at)
    head.skip((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    size = head.number(1 << (flags & 3))
    prefix = head.position - at
    image.reserve(at, prefix)
    messages: list[Message] = []
    blocks = [(at + prefix, size + 4)]
    for index, (start, length) in enumerate(blocks):
        cursor = Cursor(of_bytes(image.take(start, length)))
        if index and cursor.take(4) != b"OCHK":
            raise Malformed("hdf5.header", f"No continuation of the object header stands at {start}.", start)
        ordered = 2 if flags & 4 else 0
        while cursor.remaining - 4 >= 4 + ordered:
            kind, width, message_flags = cursor.byte(), cursor.number(2), cursor.byte()
            cursor.skip(ordered)
            message = Message(kind=kind, at=start + cursor.position, content=cursor.take(width))
            _admit(image, message, message_flags, messages, blocks)
        if cursor.remaining < 4:
            raise Malformed("hdf5.header", "A message runs into the checksum of its header.", start)
    return messages


def _admit(image: Image, message: Message, flags: int, messages: list[Message], blocks: list[tuple[int, int]]) -> None:
    if flags & _SHARED:
        raise Malformed("hdf5.shared", "A committed type or another shared message is used.", message.at)
    if len(messages) >= _MOST_MESSAGES:
        raise Malformed("limit.fields", "An object has more messages than any real one.", message.at)
    if message.kind == CONTINUATION:
        cursor = message.cursor()
        start, length = cursor.number(8), cursor.number(8)
        if any(start == known for known, _ in blocks) or len(blocks) >= _MOST_CONTINUATIONS:
            raise Malformed("hdf5.header", "The blocks of an object header run in a circle.", message.at)
        blocks.append((start, length))
    elif message.kind == NIL:
        image.unused(message.at, len(message.content))
    messages.append(message)


def read_datatype(  # noqa: C901 - one line for each class of types
    cursor: Cursor, at: int, depth: int = 0
) -> Datatype:
    """One type with everything nested in it; leaves the cursor behind it."""
    if depth > 8:
        raise Malformed("hdf5.datatype", "Types are nested deeper than in any real file.", at)
    first = cursor.byte()
    kind, version = first & 15, first >> 4
    bits, size = cursor.number(3), cursor.number(4)
    if kind > ARRAY or not 1 <= version <= 3 or not 0 < size <= 1 << 31:
        raise Malformed("hdf5.datatype", f"Version {version} of type {kind} is unknown.", at)
    variable_text = False
    match kind:
        case 0 | 4:
            cursor.skip(4)
        case 1:
            cursor.skip(12)
        case 2:
            cursor.skip(2)
        case 5:
            cursor.skip(bits & 0xFF)
        case 6:
            _read_members(cursor, at, bits & 0xFFFF, version, size, depth)
        case 8:
            _read_enumeration(cursor, at, bits & 0xFFFF, version, depth)
        case 9:
            base = read_datatype(cursor, at, depth + 1)
            variable_text = bits & 15 == 1 and base.size == 1 and size == 16
        case 10:
            _read_array(cursor, at, version, size, depth)
        case _:
            pass
    return Datatype(kind=kind, size=size, variable_text=variable_text)


def _read_name(cursor: Cursor, at: int, *, padded: bool) -> None:
    length = 0
    while cursor.byte():
        length += 1
        if length > 1024:
            raise Malformed("hdf5.datatype", "The name of a member is longer than in any real file.", at)
    if padded:
        cursor.skip(-(length + 1) % 8)


def _read_members(  # noqa: PLR0917 - read_datatype's own variables
    cursor: Cursor, at: int, count: int, version: int, size: int, depth: int
) -> None:
    for _ in range(count):
        _read_name(cursor, at, padded=version < 3)
        offset = cursor.number(4 if version < 3 else max(1, (size.bit_length() + 7) // 8))
        if version == 1:
            cursor.skip(28)
        member = read_datatype(cursor, at, depth + 1)
        if member.kind not in (INTEGER, FLOAT, BITS, ENUM, TEXT, ARRAY) or offset + member.size > size:
            raise Malformed("hdf5.datatype", f"A compound holds {member.name} values.", at)


def _read_enumeration(cursor: Cursor, at: int, count: int, version: int, depth: int) -> None:
    base = read_datatype(cursor, at, depth + 1)
    if base.kind != INTEGER:
        raise Malformed("hdf5.datatype", "An enumeration is not made of integers.", at)
    for _ in range(count):
        _read_name(cursor, at, padded=version < 3)
    cursor.skip(count * base.size)


def _read_array(cursor: Cursor, at: int, version: int, size: int, depth: int) -> None:
    rank = cursor.byte()
    if version < 3:
        cursor.skip(3)
    shape = [cursor.number(4) for _ in range(rank)]
    if version < 3:
        cursor.skip(4 * rank)
    base = read_datatype(cursor, at, depth + 1)
    if base.kind not in (INTEGER, FLOAT, BITS, ENUM, TEXT) or math.prod(shape) * base.size != size:
        raise Malformed("hdf5.datatype", f"An array of {base.name} values does not have the size it says.", at)


def read_dataspace(cursor: Cursor, at: int) -> Dataspace:
    version, rank, flags = cursor.byte(), cursor.byte(), cursor.byte()
    if version not in (1, 2) or rank > _MOST_DIMENSIONS or flags > 1:
        raise Malformed("hdf5.dataspace", f"Version {version} of a dataspace with {rank} dimensions is unknown.", at)
    kind = cursor.byte()
    if version == 1:
        cursor.skip(4)
    shape = tuple(cursor.number(8) for _ in range(rank))
    if flags:
        cursor.skip(8 * rank)
    if version == 2 and kind > 2:
        raise Malformed("hdf5.dataspace", f"A dataspace of kind {kind} is unknown.", at)
    return Dataspace(shape=None if version == 2 and kind == 2 else shape)
