"""Files of `torch.save` before torch 1.6, and of every later torch that is asked for them.

Five pickles in a row – magic number, version, machine, the data, the keys of its storages – and then the storages,
each with its number of elements in front. Every key must be named by the data and every storage be as long as it says.
"""

from __future__ import annotations

from pipeline.readers import pickle
from pipeline.readers.allowed import PLAIN, full_modules
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.machine import Storage, Walk
from pipeline.readers.nested import TORCH_HEAD, TORCH_MAGIC
from pipeline.readers.source import Source
from pipeline.readers.symbols import Items, Table
from pipeline.readers.tensors import STORAGE_BYTES

_VERSION = 1001


def examine(source: Source, path: str, inspection: Inspection) -> None:
    magic = pickle.walk(source, path, inspection, PLAIN)
    version = pickle.walk(source, path, inspection, PLAIN, offset=magic.end)
    machine = pickle.walk(source, path, inspection, PLAIN, offset=version.end)
    if magic.value != TORCH_MAGIC or version.value != _VERSION or not isinstance(machine.value, Table):
        raise Malformed("torch.legacy", "The file does not begin as torch's legacy files do.", version.end)
    data = pickle.walk(source, path, inspection, full_modules(), offset=machine.end)
    keys = pickle.walk(source, path, inspection, PLAIN, offset=data.end)
    inspection.credit("pickle", keys.end)
    end = _storages(source, _named(data), _listed(keys), keys.end, inspection)
    if end != source.size:
        raise Malformed("torch.trailing", f"{source.size - end:,} bytes follow the last storage.", end)


def _named(data: Walk) -> dict[str, Storage]:
    """The storages that the data names, by key."""
    named: dict[str, Storage] = {}
    for storage in data.storages:
        known = named.setdefault(storage.key, storage)
        if (known.kind, known.count) != (storage.kind, storage.count):
            raise Malformed("torch.record", f"Storage {storage.key[:40]!r} is named in two ways.", storage.offset)
    return named


def _listed(keys: Walk) -> list[str]:
    """The keys in the order in which the storages follow."""
    value = keys.value
    if not isinstance(value, Items) or value.what != "list" or not value.whole:
        raise Malformed("torch.legacy", "No list of keys stands before the storages.", keys.end)
    listed = [key for key in value.values if isinstance(key, str)]
    if len(listed) != len(value.values) or len(set(listed)) != len(listed):
        raise Malformed("torch.legacy", "The keys of the storages are not different texts.", keys.end)
    return listed


def _storages(source: Source, named: dict[str, Storage], listed: list[str], at: int, inspection: Inspection) -> int:
    """Step over the storages; returns where the last one ends."""
    if set(named) != set(listed):
        raise Malformed("torch.orphan", "The data names other storages than the file holds.", at)
    for key in listed:
        storage = named[key]
        width = STORAGE_BYTES.get(storage.kind)
        if width is None:
            raise Malformed("torch.record", f"Nobody knows how long a {storage.kind[:40]} is.", at)
        count = int.from_bytes(source.read(at, 8), "little")
        length = 8 + count * width
        if count != storage.count or at + length > source.size:
            raise Malformed("torch.record", f"Storage {key[:40]!r} is not as long as the data says.", at)
        inspection.credit("tensors", length)
        at += length
    return at


def _recognises(glimpse: Glimpse) -> bool:
    return TORCH_HEAD.match(glimpse.head) is not None


READER = Reader(name="legacy_torch", recognises=_recognises, examine=examine)
