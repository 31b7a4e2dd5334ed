"""NumPy arrays (`.npy`): a literal header and raw numbers. Pickled objects are judged, and stay unknown all the same."""

from __future__ import annotations

import ast
import math

from pipeline.readers import pickle
from pipeline.readers.arrays import Element, element_of_text
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Source

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_DEEPEST = 8


def examine(source: Source, path: str, inspection: Inspection) -> None:
    major, minor = source.read(6, 2)
    width = 2 if major == 1 else 4
    if major not in (1, 2, 3) or minor:
        raise Malformed("numpy.version", f"Version {major}.{minor} of the format is unknown.", 6)
    length = int.from_bytes(source.read(8, width), "little")
    start = 8 + width + length
    if length > _LONGEST_HEADER:
        raise Malformed("numpy.header", f"The header claims {length:,} bytes.", 8)
    header = _header(source.read(8 + width, length))
    shape = header["shape"]
    if not isinstance(shape, tuple) or any(type(side) is not int or side < 0 for side in shape):
        raise Malformed("numpy.header", "The shape is not a tuple of sizes.", 8)
    if type(header["fortran_order"]) is not bool:
        raise Malformed("numpy.header", "The order of the array is not yes or no.", 8)
    element = _element(header["descr"])
    if element is None:
        raise Malformed("numpy.type", f"Nobody knows how long {str(header['descr'])[:80]!r} is.", 8)
    if element[1]:
        inspection.unknown(
            "numpy.objects",
            path,
            8,
            f"The array holds {str(header['descr'])[:80]!r}, not plain numbers: objects are pickled.",
            "Save numbers only (`allow_pickle=False`).",
        )
        pickle.examine(source.part(start, source.size - start), f"{path}@{start}", inspection)
        inspection.credit("numpy", start)
        return
    if math.prod(shape) * element[0] != source.size - start:
        raise Malformed("numpy.length", f"The array has {source.size - start:,} bytes, not what its shape says.", start)
    inspection.credit("numpy", source.size)


def _header(raw: bytes) -> dict[str, object]:
    try:
        header = ast.literal_eval(raw.decode("utf-8").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise Malformed("numpy.header", "The header is not a literal.", 8) from None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise Malformed("numpy.header", "The header does not have the three keys of an array.", 8)
    return header


def _element(descr: object, depth: int = 0) -> Element | None:
    """What one element is: a type, or a list of `(name, type[, shape])`."""
    if isinstance(descr, str):
        return element_of_text(descr)
    if not isinstance(descr, list) or depth > _DEEPEST:
        return None
    size, objects = 0, False
    for field in descr:
        if not isinstance(field, tuple) or len(field) not in (2, 3):
            return None
        part = _element(field[1], depth + 1)
        times = field[2] if len(field) == 3 else ()
        if part is None or not isinstance(times, tuple) or any(type(side) is not int or side < 0 for side in times):
            return None
        size += part[0] * math.prod(times)
        objects = objects or part[1]
    return size, objects


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head.startswith(_MAGIC)


READER = Reader(name="numpy", recognises=_recognises, examine=examine, version=2)
