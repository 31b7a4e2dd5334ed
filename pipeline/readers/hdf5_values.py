"""What the datasets and attributes of an HDF5 file store: measured against their shapes, looked at where it is text.

A dataset that claims more than it stores is a bomb; one that is stored elsewhere does not get here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.readers import pickle
from pipeline.readers.hdf5_blocks import (
    ARRAY,
    BITS,
    COMPOUND,
    ENUM,
    FLOAT,
    INTEGER,
    OPAQUE,
    TEXT,
    UNDEFINED,
    VARIABLE,
    Dataspace,
    Datatype,
    Image,
    Message,
)
from pipeline.readers.hdf5_groups import Heaps, read_tree
from pipeline.readers.inspection import Malformed, Severity
from pipeline.readers.source import Cursor, Source, of_bytes

FOREIGN = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x7fELF", b"GGUF", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n")
"""How other formats begin that have no business in the values of an array, or between the blocks of the file."""
DEFLATE, SHUFFLE, FLETCHER = 1, 2, 3
_PLAIN = frozenset({INTEGER, FLOAT, TEXT, BITS, COMPOUND, ENUM, ARRAY})
_UNSTORED = 1 << 20
_LONGEST_TEXTS = 64 << 20
_CONTROLS = frozenset(range(32)) - {9, 10, 13}


@dataclass(kw_only=True)
class Storage:
    """What the header's messages say of one dataset."""

    name: str
    datatype: Datatype | None = None
    dataspace: Dataspace | None = None
    layout: Message | None = None
    filters: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values of one file. `chunked` is half of how many entries a node of a chunk index has."""

    image: Image
    heaps: Heaps
    chunked: int

    def texts(self, raw: bytes, datatype: Datatype, at: int, where: str) -> Iterator[bytes]:
        """The texts in what is stored for an attribute or a dataset; numbers as one piece."""
        if datatype.kind == VARIABLE:
            if not datatype.variable_text:
                raise Malformed("hdf5.datatype", f"{where[:80]!r} holds lists of variable length.", at)
            for start in range(0, len(raw), 16):
                yield self.heaps.value(raw[start : start + 16], at)
        elif datatype.kind not in _PLAIN:
            raise Malformed("hdf5.datatype", f"{where[:80]!r} holds {datatype.name} values.", at)
        elif datatype.kind == TEXT:
            for start in range(0, len(raw), datatype.size):
                yield raw[start : start + datatype.size].rstrip(b"\0")
        else:
            yield raw

    def content(self, value: bytes, at: int, where: str) -> None:
        self.judge(of_bytes(value), at, where)

    def judge(self, value: Source, at: int, where: str) -> None:
        """Values that some loader could take for a program: PyTables and torch wrappers keep pickles in bytes."""
        if _is_live_pickle(value):
            self.image.note(Severity.MALICIOUS, "pickle", at, f"{where[:80]!r} holds a pickle.")
        elif value.head(8).startswith(FOREIGN):
            self.image.note(Severity.UNKNOWN, "foreign", at, f"{where[:80]!r} holds a file of another format.")

    def dataset(self, storage: Storage) -> None:
        """Judge a dataset by its layout message, which it must have."""
        datatype, dataspace, layout, name = storage.datatype, storage.dataspace, storage.layout, storage.name
        if datatype is None or dataspace is None or layout is None:
            raise Malformed("hdf5.dataset", f"Dataset {name[:80]!r} has no type or no shape.")
        # h5py has no bfloat16: Keras' values come out as opaque pairs of bytes.
        half = datatype.kind == OPAQUE and datatype.size == 2
        if datatype.kind not in _PLAIN and not datatype.variable_text and not half:
            raise Malformed("hdf5.datatype", f"{name[:80]!r} holds {datatype.name} values.", layout.at)
        cursor = layout.cursor()
        version, kind = cursor.byte(), cursor.byte()
        if kind == 3 and version == 4:
            raise Malformed(
                "hdf5.virtual", f"{name[:80]!r} is put together from other files.", layout.at, Severity.MALICIOUS
            )
        if version not in (3, 4) or kind > 2 or (version == 4 and kind == 2):
            raise Malformed("hdf5.layout", f"{name[:80]!r} is stored in layout {kind}, version {version}.", layout.at)
        if kind == 2:
            _Chunks(values=self, storage=storage, datatype=datatype, shape=dataspace.shape or (), layout=layout).read(
                cursor, dataspace.elements * datatype.size
            )
        elif storage.filters:
            raise Malformed("hdf5.filter", f"{name[:80]!r} is not chunked and has filters.", layout.at)
        else:
            self.whole(cursor, datatype, dataspace, layout, name, compact=kind == 0)

    def whole(
        self, cursor: Cursor, datatype: Datatype, dataspace: Dataspace, layout: Message, name: str, *, compact: bool
    ) -> None:
        """Values that stand in one piece, in the header or anywhere else."""
        declared = dataspace.elements * datatype.size
        if compact:
            at, size = layout.at + 4, cursor.number(2)
            cursor.skip(size)
        else:
            at, size = cursor.number(8), cursor.number(8)
            if at == UNDEFINED:
                self.unstored(declared, name, layout.at)
                return
            self.image.reserve(at, size)
        if size != declared:
            raise Malformed(
                "hdf5.size", f"{name[:80]!r} has {size:,} bytes where its shape says {declared:,}.", layout.at
            )
        self.look(at, size, datatype, name)

    def look(self, at: int, size: int, datatype: Datatype, name: str) -> None:
        """Texts and single bytes of a dataset may be a program for somebody; numbers are not."""
        if datatype.kind in (TEXT, VARIABLE):
            if size > _LONGEST_TEXTS:
                raise Malformed("hdf5.size", f"{name[:80]!r} holds more text than any real file.", at)
            for value in self.texts(self.image.source.read(at, size), datatype, at, name):
                self.content(value, at, name)
        elif datatype.size == 1 or datatype.kind == OPAQUE:
            self.judge(self.image.source.part(at, size), at, name)

    def unstored(self, declared: int, name: str, at: int) -> None:
        """A reader of the dataset makes up what is not stored: a few bytes can ask for terabytes."""
        if declared > _UNSTORED:
            raise Malformed("hdf5.bomb", f"{name[:80]!r} claims {declared:,} bytes and stores none.", at)


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """A dataset in pieces of equal shape, each of which may be packed."""

    values: Values
    storage: Storage
    datatype: Datatype
    shape: tuple[int, ...]
    layout: Message

    def read(self, cursor: Cursor, declared: int) -> None:
        image, name, at = self.values.image, self.storage.name, self.layout.at
        rank, tree = cursor.byte(), cursor.number(8)
        sides = [cursor.number(4) for _ in range(rank)]
        if (
            rank != len(self.shape) + 1
            or not all(sides)
            or sides[-1] != self.datatype.size
            or self.datatype.kind == VARIABLE
        ):
            raise Malformed("hdf5.layout", f"The chunks of {name[:80]!r} do not fit its shape.", at)
        if tree == UNDEFINED:
            self.values.unstored(declared, name, at)
            return
        stored, seen = 0, set[bytes]()
        for key, address in read_tree(image, tree, 1, 16 + 8 * len(self.shape), 2 * self.values.chunked):
            size, mask, place = int.from_bytes(key[:4], "little"), key[4:8], key[8:]
            if place in seen or any(mask) or not self.fits(place, sides):
                raise Malformed("hdf5.chunk", f"A chunk of {name[:80]!r} is out of its place.", address)
            image.reserve(address, size)
            self.chunk(address, size, math.prod(sides))
            if not seen and not self.storage.filters:
                self.values.look(address, size, self.datatype, name)
            seen.add(place)
            stored += size
        if declared > _UNSTORED + stored * image.inspection.limits.ratio:
            raise Malformed("hdf5.bomb", f"{name[:80]!r} claims {declared:,} bytes and stores {stored:,}.", at)

    def fits(self, place: bytes, sides: list[int]) -> bool:
        offsets = [int.from_bytes(place[at : at + 8], "little") for at in range(0, len(place), 8)]
        inside = zip(offsets[:-1], sides[:-1], self.shape, strict=True)
        return not offsets[-1] and all(offset % side == 0 and offset < end for offset, side, end in inside)

    def chunk(self, at: int, size: int, nominal: int) -> None:
        """One chunk must be as long as its shape says; a packed one is unpacked to see that it is not longer."""
        filters, name, image = self.storage.filters, self.storage.name, self.values.image
        room = nominal + 4 * (FLETCHER in filters)
        if DEFLATE not in filters:
            if size != room:
                raise Malformed("hdf5.chunk", f"A chunk of {name[:80]!r} has {size:,} bytes, not {room:,}.", at)
            return
        if nominal > _UNSTORED + size * image.inspection.limits.ratio:
            raise Malformed("hdf5.bomb", f"A chunk of {name[:80]!r} claims {nominal:,} bytes.", at)
        image.inspection.inflate(nominal)
        outside = filters.index(DEFLATE) < filters.index(FLETCHER) if FLETCHER in filters else False
        packed = image.source.part(at, size - 4 * outside)
        engine, produced = zlib.decompressobj(), 0
        for piece in packed.chunks(step=1 << 16):
            rest = piece
            while rest and not engine.eof and produced <= room:
                try:
                    produced += len(engine.decompress(rest, 1 << 20))
                except zlib.error as error:
                    raise Malformed(
                        "hdf5.chunk", f"A chunk of {name[:80]!r} cannot be unpacked: {error}.", at
                    ) from None
                rest = engine.unconsumed_tail
            image.inspection.tick()
        produced += len(engine.flush(1 << 16))
        if not engine.eof or engine.unused_data or produced != room - 4 * outside:
            raise Malformed("hdf5.chunk", f"A chunk of {name[:80]!r} does not unpack to {nominal:,} bytes.", at)


def _is_live_pickle(source: Source) -> bool:
    """Numbers at random look like a pickle once in a hundred times: it must begin like a real one, too."""
    head = source.head(8)
    begins = head[:1] == b"\x80" and head[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05")
    return (begins or (head.isascii() and not _CONTROLS & set(head))) and pickle.would_act(source)
