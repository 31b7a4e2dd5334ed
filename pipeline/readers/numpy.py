"""NumPy arrays (`.npy`): a literal header and raw numbers, never pickled objects."""

from __future__ import annotations

import ast
import math
import re

from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader
from pipeline.readers.source import Source

_MAGIC = b"\x93NUMPY"
_PLAIN = re.compile(r"[<>|=]?[biufcSUVmM](\d{1,6})(\[\w{1,10}\])?|\?")
_LONGEST_HEADER = 1 << 16


def examine(source: Source, path: str, inspection: Inspection) -> None:
    major = source.read(6, 1)[0]
    width = 2 if major == 1 else 4
    if major not in (1, 2, 3):
        raise Malformed("numpy.version", f"Version {major} of the format is unknown.", 6)
    length = int.from_bytes(source.read(8, width), "little")
    start = 8 + width + length
    if length > _LONGEST_HEADER:
        raise Malformed("numpy.header", f"The header claims {length:,} bytes.", 8)
    try:
        header = ast.literal_eval(source.read(8 + width, length).decode("latin-1").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise Malformed("numpy.header", "The header is not a literal.", 8) from None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise Malformed("numpy.header", "The header does not have the three keys of an array.", 8)
    match = _PLAIN.fullmatch(header["descr"]) if isinstance(header["descr"], str) else None
    if match is None:
        inspection.unknown(
            "numpy.objects",
            path,
            8,
            f"The array holds {str(header['descr'])[:80]!r}, not plain numbers: objects are pickled.",
            "Save numbers only (`allow_pickle=False`).",
        )
        return
    shape = header["shape"]
    if not isinstance(shape, tuple) or any(type(side) is not int or side < 0 for side in shape):
        raise Malformed("numpy.header", "The shape is not a tuple of sizes.", 8)
    item = int(match.group(1) or 1) * (4 if "U" in header["descr"] else 1)
    if math.prod(shape) * item != source.size - start:
        raise Malformed("numpy.length", f"The array has {source.size - start:,} bytes, not what its shape says.", start)
    inspection.credit("numpy", source.size)


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head.startswith(_MAGIC)


READER = Reader(name="numpy", recognises=_recognises, examine=examine)
