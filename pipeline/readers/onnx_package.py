"""Archives with ONNX models whose tensors stand in files beside them: every byte of those files named by one tensor."""

from __future__ import annotations

from functools import partial

from pipeline.readers import onnx
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.inspection import Glimpse, Inspection, Malformed
from pipeline.readers.onnx import External
from pipeline.readers.source import Source

_LONGEST_PADDING = 64 << 10


def examine(archive: Archive, inspection: Inspection) -> None:
    models = sorted(name for name in archive.members if name.lower().endswith(".onnx"))
    spans: dict[str, list[External]] = {}
    for name in models:
        path = archive.path_of(name)
        source = archive.open(name)
        if not onnx.READER.recognises(Glimpse(head=source.head(4096), size=source.size)):
            inspection.examine(source, path)
            continue

        def work(name: str = name, path: str = path) -> None:
            for external in onnx.read(archive.open(name), path, inspection):
                folder = name.rpartition("/")[0]
                where = f"{folder}/{external.location}" if folder else external.location
                if where not in archive.members or where in models:
                    raise Malformed(
                        "onnx.external_data", f"{external.location[:120]!r} is not in the archive.", external.at
                    )
                spans.setdefault(where, []).append(external)

        inspection.guarded(path, work)
    for name, member in archive.members.items():
        path = archive.path_of(name)
        if name in spans:
            inspection.guarded(path, partial(_data, archive, name, spans[name], inspection))
        elif name not in models and (not name.endswith("/") or member.size):
            inspection.examine(archive.open(name), path)


def _data(archive: Archive, name: str, externals: list[External], inspection: Inspection) -> None:
    """Tensors may share a range, not overlap; between them there is padding and nothing else."""
    source = archive.open(name)
    end = 0
    for start, size in sorted({(external.offset, external.size) for external in externals}):
        if start < end:
            raise Malformed("onnx.external_overlap", "Two tensors overlap in the file.", start)
        _check_padding(source, end, start)
        end = start + size
        if end > source.size:
            raise Malformed("onnx.external_data", f"A tensor ends at {end:,}, the file at {source.size:,}.", start)
    _check_padding(source, end, source.size)
    inspection.credit("tensors", source.size)


def _check_padding(source: Source, start: int, end: int) -> None:
    if end - start > _LONGEST_PADDING or any(source.read(start, min(end, source.size) - start)):
        raise Malformed("onnx.external_hole", f"{end - start:,} bytes belong to no tensor.", start)


def _is_package(names: frozenset[str]) -> bool:
    return any(name.lower().endswith(".onnx") for name in names)


LAYOUTS = (Layout(name="onnx_package", recognises=_is_package, examine=examine),)
