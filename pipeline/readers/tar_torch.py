"""The oldest files of `torch.save`: a tar archive with storages, tensors that are views of them, and a pickle.

Both tables are rows of small pickles, each followed by raw numbers that are exactly as long as the pickle says.
"""

from __future__ import annotations

from functools import partial

from pipeline.readers import pickle
from pipeline.readers.allowed import PLAIN, TENSORS, Allowed, full_modules
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.inspection import Inspection, Malformed
from pipeline.readers.source import Source
from pipeline.readers.symbols import Global, Items
from pipeline.readers.tensors import STORAGE_BYTES

_MEMBERS = frozenset({"sys_info", "pickle", "storages", "tensors"})
_MOST_DIMENSIONS = 64


def examine(archive: Archive, inspection: Inspection) -> None:
    storages: set[str] = set()
    tensors: set[str] = set()
    for name, work in (
        ("storages", partial(_storages, storages)),
        ("tensors", partial(_tensors, storages, tensors)),
        ("pickle", partial(_data, tensors)),
        ("sys_info", _system),
    ):
        path = archive.path_of(name)
        inspection.guarded(path, partial(work, archive.open(name), path, inspection))


class _Rows:
    """Pickles and numbers in turns."""

    def __init__(self, source: Source, path: str, inspection: Inspection, allowed: Allowed) -> None:
        self.source = source
        self.path = path
        self.inspection = inspection
        self.allowed = allowed
        self.at = 0

    def pickle(self) -> object:
        walk = pickle.walk(self.source, self.path, self.inspection, self.allowed, offset=self.at)
        self.at = walk.end
        return walk.value

    def count(self) -> int:
        found = self.pickle()
        if type(found) is not int or not 0 <= found <= self.inspection.limits.members:
            raise Malformed("torch.tar", "A table does not begin with the number of its rows.", self.at)
        return found

    def row(self) -> tuple[object, object, object]:
        found = self.pickle()
        if not isinstance(found, tuple) or len(found) != 3:
            raise Malformed("torch.tar", "A row of a table is not three values.", self.at)
        return found

    def number(self) -> int:
        self.at += 8
        return int.from_bytes(self.source.read(self.at - 8, 8), "little", signed=True)

    def skip(self, length: int) -> None:
        self.source.part(self.at, length)
        self.at += length

    def end(self) -> None:
        if self.at != self.source.size:
            raise Malformed("torch.trailing", f"{self.source.size - self.at:,} bytes follow the table.", self.at)
        self.inspection.credit("tensors", self.source.size)


def _storages(found: set[str], source: Source, path: str, inspection: Inspection) -> None:
    rows = _Rows(source, path, inspection, TENSORS)
    for _ in range(rows.count()):
        key, _place, kind = rows.row()
        width = STORAGE_BYTES.get(kind.name) if isinstance(kind, Global) else None
        count = rows.number()
        if width is None or count < 0:
            raise Malformed("torch.record", "Nobody knows how long a storage is.", rows.at)
        rows.skip(count * width)
        found.add(str(key))
    views = rows.pickle()
    if not isinstance(views, Items) or views.what != "list":
        raise Malformed("torch.tar", "No list of views stands behind the storages.", rows.at)
    found.update(str(view[0]) for view in views.values if isinstance(view, tuple) and view)
    rows.end()


def _tensors(storages: set[str], found: set[str], source: Source, path: str, inspection: Inspection) -> None:
    rows = _Rows(source, path, inspection, full_modules())
    for _ in range(rows.count()):
        key, storage, _kind = rows.row()
        dimensions = rows.number() & 0xFFFFFFFF  # four bytes, and four that mean nothing
        if str(storage) not in storages or dimensions > _MOST_DIMENSIONS:
            raise Malformed("torch.record", f"Tensor {str(key)[:40]!r} belongs to no storage.", rows.at)
        rows.skip(8 * (2 * dimensions + 1))
        found.add(str(key))
    rows.end()


def _data(tensors: set[str], source: Source, path: str, inspection: Inspection) -> None:
    walk = pickle.walk(source, path, inspection, full_modules(tensors=True))
    if walk.end != source.size:
        raise Malformed("pickle.trailing", f"{source.size - walk.end:,} bytes follow the pickle.", walk.end)
    for tensor in walk.storages:
        if tensor.key not in tensors:
            inspection.unknown("torch.record", path, tensor.offset, f"Tensor {tensor.key[:40]!r} is not there.")
    inspection.credit("pickle", source.size)


def _system(source: Source, path: str, inspection: Inspection) -> None:
    pickle.examine(source, path, inspection, PLAIN)


def _recognises(names: frozenset[str]) -> bool:
    return names == _MEMBERS


LAYOUTS = (Layout(name="tar_checkpoint", recognises=_recognises, examine=examine, containers=frozenset({"tar"})),)
