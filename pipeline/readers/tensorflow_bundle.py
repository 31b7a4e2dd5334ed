"""TensorFlow checkpoints (`variables.index`, `variables.data-…`): every byte of the data named by one entry of the index.

The index is a table as LevelDB writes it, uncompressed. Values are measured, not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.protobuf import Seen
from pipeline.readers.source import Cursor, Source, of_bytes
from pipeline.readers.tensorflow_graph import TEXT_TENSOR, Graphs, elements_of, width_of

_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER = 48
_LONGEST_BLOCK = 64 << 20
_LONGEST_INDEX = 128 << 20


def examine(index: Source, shards: Mapping[str, Source], prefix: str, path: str, inspection: Inspection) -> None:
    """`shards` are the data files by their whole names; `prefix` is what the names begin with (`…/variables`)."""
    if index.size > _LONGEST_INDEX:
        raise Malformed("limit.fields", "The index is longer than that of any real checkpoint.")
    entries = dict(_read_table(index))
    header = _message(entries.pop(b"", b""), "tensorflow.BundleHeaderProto", path, inspection)
    count = header.number("num_shards") or 1
    names = [f"{prefix}.data-{number:05d}-of-{count:05d}" for number in range(min(count, len(shards) + 1))]
    if set(names) != set(shards) or header.number("endianness"):
        raise Malformed("tensorflow.checkpoint", "The files of the checkpoint are not those its index names.")
    spans: dict[int, list[tuple[int, int]]] = {}
    for key, value in entries.items():
        entry = _message(value, "tensorflow.BundleEntryProto", path, inspection)
        offset, size = entry.number("offset") or 0, entry.number("size") or 0
        dtype, elements = entry.number("dtype") or 0, elements_of(entry.child("shape"))
        width = width_of(dtype)
        if "slices" in entry.counts:
            continue
        if offset < 0 or size < 0 or elements < 0:
            raise Malformed("tensorflow.checkpoint", f"The entry {key[:80]!r} of the index is broken.")
        if (width is None and dtype != TEXT_TENSOR) or (width is not None and size != elements * width):
            inspection.unknown(
                "tensorflow.checkpoint", path, None, f"{key[:80]!r} is not as long as its type and shape say."
            )
        spans.setdefault(entry.number("shard_id") or 0, []).append((offset, offset + size))
        inspection.tick()
    for number, name in enumerate(names):
        end = _end_of(spans.pop(number, []), name)
        if end != shards[name].size:
            raise Malformed(
                "tensorflow.checkpoint", f"{name!r} has {shards[name].size:,} bytes, its index knows {end:,}."
            )
        inspection.credit("tensors", end)
    if spans:
        raise Malformed("tensorflow.checkpoint", "The index names a data file that is not there.")
    inspection.credit("tensorflow", index.size)


def _end_of(spans: list[tuple[int, int]], name: str) -> int:
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise Malformed("tensorflow.checkpoint", f"Entries of {name!r} overlap or leave a hole at {end}.")
        end = stop
    return end


def _message(content: bytes, kind: str, path: str, inspection: Inspection) -> Seen:
    return Graphs(source=of_bytes(content), path=path, inspection=inspection).walk(kind)


def _read_table(source: Source) -> Iterator[tuple[bytes, bytes]]:
    if source.size < _FOOTER or source.read(source.size - 8, 8) != _MAGIC:
        raise Malformed("tensorflow.index", "The index does not end like one.", max(0, source.size - 8))
    footer = Cursor(of_bytes(source.read(source.size - _FOOTER, _FOOTER)))
    meta, index = _handle(footer), _handle(footer)
    taken = [(source.size - _FOOTER, source.size), _extent(meta), _extent(index)]
    if any(footer.take(footer.remaining - 8)) or list(_block(source, meta)):
        raise Malformed("tensorflow.index", "The index carries more than entries.", source.size - _FOOTER)
    last = None
    for _, pointer in _block(source, index):
        handle = _handle(Cursor(of_bytes(pointer)))
        taken.append(_extent(handle))
        for key, value in _block(source, handle):
            if last is not None and key <= last:
                raise Malformed("tensorflow.index", "The entries of the index are not in order.", handle[0])
            last = key
            yield key, value
    end = 0
    for start, stop in sorted(taken):
        if start != end:
            raise Malformed("tensorflow.index", f"Bytes of the index at {end} belong to nothing.", end)
        end = stop


def _extent(handle: tuple[int, int]) -> tuple[int, int]:
    return handle[0], handle[0] + handle[1] + 5


def _handle(cursor: Cursor) -> tuple[int, int]:
    return _varint(cursor), _varint(cursor)


def _block(source: Source, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block: keys share beginnings with the key before them; a list of restarts follows."""
    at, size = handle
    if size > _LONGEST_BLOCK or size < 4:
        raise Malformed("tensorflow.index", "A block of the index is longer than any real one.", at)
    content = source.read(at, size + 5)
    if content[size]:
        raise Malformed("tensorflow.index", "A block of the index is compressed.", at)
    restarts = int.from_bytes(content[size - 4 : size], "little")
    if 4 * restarts + 4 > size:
        raise Malformed("tensorflow.index", "A block of the index is broken.", at)
    cursor, key = Cursor(of_bytes(content[: size - 4 - 4 * restarts])), b""
    while cursor.remaining:
        shared, own, length = _varint(cursor), _varint(cursor), _varint(cursor)
        if shared > len(key):
            raise Malformed("tensorflow.index", "A key of the index is broken.", at)
        key = key[:shared] + cursor.take(own)
        yield key, cursor.take(length)


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = cursor.byte()
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise Malformed("tensorflow.index", "A number of the index is too long.")
