"""What binds the objects of an HDF5 file together: symbol tables, links, and the heaps in which names and texts lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.readers.hdf5_blocks import UNDEFINED, Image, Message
from pipeline.readers.inspection import Malformed, Severity
from pipeline.readers.source import Cursor, of_bytes

_LONGEST_NAME = 1024
_LONGEST_VALUE = 64 << 20
_HARD, _SOFT, _EXTERNAL = 0, 1, 64
_NO_CACHE, _GROUP_CACHE, _SOFT_CACHE = 0, 1, 2
_HIGHEST_TREE = 8
_FREE_END = 1


def read_tree(image: Image, at: int, kind: int, key: int, fanout: int) -> Iterator[tuple[bytes, int]]:
    """The leaves' entries of a version 1 B-tree, as (key, address). `fanout` is the most entries a node can have."""
    yield from _Tree(image=image, kind=kind, key=key, fanout=fanout).read(at, _HIGHEST_TREE)


@dataclass(frozen=True, kw_only=True)
class _Tree:
    image: Image
    kind: int
    key: int
    fanout: int

    def read(self, at: int, level: int) -> Iterator[tuple[bytes, int]]:
        size = 24 + self.fanout * 8 + (self.fanout + 1) * self.key
        node = Cursor(of_bytes(self.image.take(at, size)))
        magic, found, own, used = node.take(4), node.byte(), node.byte(), node.number(2)
        if magic != b"TREE" or found != self.kind or used > self.fanout or own > level:
            raise Malformed("hdf5.tree", f"No B-tree node of the right kind and level stands at {at}.", at)
        node.skip(16)
        entries = [(node.take(self.key), node.number(8)) for _ in range(used)]
        self.image.unused(at + node.position + self.key, size - node.position - self.key)
        for first, child in entries:
            if own:
                yield from self.read(child, own - 1)
            else:
                yield first, child


def read_symbols(image: Image, message: Message, leaf: int, internal: int) -> Iterator[tuple[str, int]]:
    """The members of an old-style group, as (name, address of its object header)."""
    cursor = message.cursor()
    tree, heap = cursor.number(8), cursor.number(8)
    names = _Names(image, heap)
    for _, node in read_tree(image, tree, 0, 8, 2 * internal):
        size = 8 + 2 * leaf * 40
        table = Cursor(of_bytes(image.take(node, size)))
        magic, version, _, count = table.take(4), table.byte(), table.byte(), table.number(2)
        if magic != b"SNOD" or version != 1 or count > 2 * leaf:
            raise Malformed("hdf5.symbols", f"No symbol table stands at {node}.", node)
        for _ in range(count):
            offset, address, cached = table.number(8), table.number(8), table.number(4)
            table.skip(20)
            name = names.at(offset)
            if cached == _SOFT_CACHE:
                image.note(Severity.UNKNOWN, "link", node, f"{name[:80]!r} is a soft link.")
            elif cached not in (_NO_CACHE, _GROUP_CACHE):
                raise Malformed("hdf5.symbols", f"Entry {name[:80]!r} is of the unknown kind {cached}.", node)
            else:
                yield name, address
        image.unused(node + table.position, table.remaining)
    names.finish()


class _Names:
    """A local heap."""

    def __init__(self, image: Image, at: int) -> None:
        self._image = image
        head = Cursor(of_bytes(image.take(at, 32)))
        magic, version = head.take(4), head.byte()
        if magic != b"HEAP" or version:
            raise Malformed("hdf5.heap", f"No local heap stands at {at}.", at)
        head.skip(3)
        self._size, self._free, self._start = head.number(8), head.number(8), head.number(8)
        self._content = image.take(self._start, self._size)
        self._used: set[tuple[int, int]] = {(0, 8)}

    def at(self, offset: int) -> str:
        end = self._content.find(b"\0", offset)
        if not 0 <= offset < self._size or end < 0 or end - offset > _LONGEST_NAME:
            raise Malformed("hdf5.name", "A name is not in its heap or longer than any real one.", self._start)
        self._used.add((offset, (end + 8) // 8 * 8))
        return decode_name(self._content[offset:end], self._start + offset)

    def finish(self) -> None:
        """Hand over what holds no name: only the list of free blocks may stand there."""
        free, links, steps = self._free, bytearray(self._content), 0
        while free not in (_FREE_END, UNDEFINED):
            if free + 16 > self._size or steps > self._size // 16:
                raise Malformed("hdf5.heap", "The list of free blocks of a heap is broken.", self._start)
            following = int.from_bytes(self._content[free : free + 8], "little")
            links[free : free + 16] = bytes(16)
            free, steps = following, steps + 1
        for start, end in self._used:
            links[start:end] = bytes(max(0, min(end, len(links)) - start))
        if any(links):
            first = next(index for index, byte in enumerate(links) if byte)
            self._image.unused(self._start + first, len(links.rstrip(b"\0")) - first)


def decode_name(raw: bytes, at: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("hdf5.name", "A name is not text.", at) from None


def read_link(image: Image, message: Message) -> tuple[str, int] | None:
    """A link message: a hard link as (name, address); any other is a finding."""
    cursor = message.cursor()
    version, flags = cursor.byte(), cursor.byte()
    kind = cursor.byte() if flags & 8 else _HARD
    cursor.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    length = cursor.number(1 << (flags & 3))
    if version != 1 or flags & 0xE0 or length > _LONGEST_NAME:
        raise Malformed("hdf5.link", f"Version {version} of a link is unknown.", message.at)
    name = decode_name(cursor.take(length), message.at)
    if kind == _HARD:
        return name, cursor.number(8)
    if kind == _EXTERNAL:
        image.note(Severity.MALICIOUS, "external_link", message.at, f"{name[:80]!r} is read from another file.")
    else:
        what = "a soft link" if kind == _SOFT else f"a link of the user-defined kind {kind}"
        image.note(Severity.UNKNOWN, "link", message.at, f"{name[:80]!r} is {what}.")
    return None


class Heaps:
    """The global heaps, in which values of variable length lie."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._collections: dict[int, dict[int, tuple[int, int]]] = {}
        self._referred: set[tuple[int, int]] = set()

    def value(self, pointer: bytes, at: int) -> bytes:
        """What a 16-byte pointer points to: length, address of the collection, index in it."""
        length, address = int.from_bytes(pointer[:4], "little"), int.from_bytes(pointer[4:12], "little")
        index = int.from_bytes(pointer[12:16], "little")
        if address in (0, UNDEFINED):
            return b""
        entries = self._collections.get(address)
        if entries is None:
            entries = self._collections[address] = self._read(address)
        self._image.inspection.tick()
        if index not in entries:
            raise Malformed("hdf5.heap", f"There is no object {index} in the heap at {address}.", at)
        start, size = entries[index]
        if length > min(size, _LONGEST_VALUE):
            raise Malformed(
                "hdf5.heap", f"Object {index} of the heap at {address} is shorter than {length:,} or too long.", at
            )
        self._referred.add((address, index))
        return self._image.source.read(start, length)

    def _read(self, address: int) -> dict[int, tuple[int, int]]:
        source = self._image.source
        head = source.read(address, 16)
        size = int.from_bytes(head[8:], "little")
        if head[:5] != b"GCOL\x01" or size < 16:
            raise Malformed("hdf5.heap", f"No global heap stands at {address}.", address)
        self._image.reserve(address, size)
        entries: dict[int, tuple[int, int]] = {}
        cursor = Cursor(source, address + 16)
        end = address + size
        while end - cursor.position >= 16:
            start = cursor.position
            index, _, _, length = cursor.number(2), cursor.number(2), cursor.number(4), cursor.number(8)
            if index == 0:
                self._image.unused(start + 16, end - start - 16)
                return entries
            room = (length + 7) // 8 * 8
            if index in entries or cursor.position + room > end:
                raise Malformed("hdf5.heap", f"Object {index} of the heap at {address} is broken.", start)
            entries[index] = (cursor.position, length)
            cursor.skip(room)
        self._image.unused(cursor.position, end - cursor.position)
        return entries

    def finish(self) -> None:
        """Hand over the values that nothing points to."""
        for address, entries in self._collections.items():
            for index, (start, size) in entries.items():
                if (address, index) not in self._referred:
                    self._image.unused(start, size)
