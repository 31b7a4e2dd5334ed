"""safetensors files: a JSON header that must describe every byte behind it exactly once."""

from __future__ import annotations

import math
from typing import Any

from pipeline.readers import pickle, strict_json
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.source import Source
from pipeline.readers.zip_directory import ends_as_archive

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_LONGEST_HEADER = 32 << 20


def examine(source: Source, path: str, inspection: Inspection) -> None:
    length = int.from_bytes(source.read(0, 8), "little")
    if length > min(source.size - 8, _LONGEST_HEADER):
        raise Malformed("safetensors.header", f"The header claims {length:,} bytes.", 0)
    raw = source.read(8, length)
    header = strict_json.parse(raw.rstrip(b" "))
    if not isinstance(header, dict):
        raise Malformed("safetensors.header", "The header is not an object.", 8)
    _check_metadata(header.pop("__metadata__", {}), path, inspection)
    spans = sorted(_span(name, entry) for name, entry in header.items())
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            kind = "overlap" if begin < end else "hole"
            raise Malformed(
                f"safetensors.{kind}",
                f"Tensor {name[:80]!r} begins at {begin}, the one before it ends at {end}.",
                begin,
            )
        end = stop
    rest = source.size - 8 - length
    if end != rest:
        raise Malformed(
            "safetensors.length", f"The tensors take {end:,} bytes, the file has {rest:,}.", 8 + length + end
        )
    if ends_as_archive(source) or pickle.would_act(source):
        raise Malformed("safetensors.polyglot", "The file is one of another kind, too.", 0, Severity.MALICIOUS)
    inspection.credit("safetensors", source.size)


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Malformed("safetensors.tensor", f"Tensor {name[:80]!r} is not described by dtype, shape, data_offsets.")
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers) or len(offsets) != 2:
        raise Malformed("safetensors.tensor", f"Tensor {name[:80]!r} has a broken shape or offsets.")
    bits = _BITS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    begin, end = offsets
    if bits is None or len(shape) > 64 or math.prod(shape) * bits != (end - begin) * 8:
        raise Malformed("safetensors.size", f"Tensor {name[:80]!r} is not as long as its dtype and shape say.")
    return begin, end, name


def _check_metadata(metadata: Any, path: str, inspection: Inspection) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        inspection.unknown("safetensors.metadata", path, 8, "The metadata is not a map from text to text.")


def _recognises(glimpse: Glimpse) -> bool:
    length = int.from_bytes(glimpse.head[:8], "little")
    return glimpse.head[8:9] == b"{" and 2 <= length < 1 << 40


READER = Reader(name="safetensors", recognises=_recognises, examine=examine, version=2)
