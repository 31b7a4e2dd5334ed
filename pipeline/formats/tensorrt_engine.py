"""TensorRT engines: native code for one kind of GPU. The header is read here, by our own code; nothing deserialises one.

The header tells versions only. For which GPU (SM) an engine is, its opaque part knows; the precision is known where
ultralytics wrote it.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import Rejected
from pipeline.formats import Format, Glimpse
from pipeline.signature import Inspection, in_form
from pipeline.stage import Json

_MAGIC = b"ftrt"
_HEADER = 32
_SERIALISATION, _LIBRARY = 8, 24  # where the two versions stand; https://github.com/NVIDIA/TensorRT/issues/3073
_LONGEST_DESCRIPTION = 4000
_PRECISIONS = (("int8", "int8"), ("half", "fp16"))
_SAID = ("task", "stride", "imgsz", "batch", "date", "description", "license")


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Read the versions, and the description that ultralytics puts before the engine."""
    with Path(model).open("rb") as stream:
        head = stream.read(4 + _LONGEST_DESCRIPTION + _HEADER)
    start = _start(head)
    if start is None or len(head) < start + _HEADER:
        raise Rejected("not_loadable", "The file does not begin with the whole header of a TensorRT engine.")
    header = head[start : start + _HEADER]
    description = _description(head[4:start]) if start else {}
    notes = {
        "tensorrt": ".".join(str(part) for part in header[_LIBRARY : _LIBRARY + 4]),
        "serialisation": str(int.from_bytes(header[_SERIALISATION : _SERIALISATION + 4], "little")),
    }
    options = description.get("args")
    if isinstance(options, dict):
        notes["precision"] = next((name for key, name in _PRECISIONS if options.get(key) is True), "fp32")
    notes |= {key: _said(description[key]) for key in _SAID if key in description}
    return Inspection(classes=_classes(description), notes=notes, producer=_producer(description, notes)).model_dump()


def _start(head: bytes) -> int | None:
    """Where the engine begins: at once, or after the length of a JSON text and the text."""
    if head[:4] == _MAGIC:
        return 0
    start = 4 + int.from_bytes(head[:4], "little")
    described = head[4:5] == b"{" and start <= _LONGEST_DESCRIPTION and head[start : start + 4] == _MAGIC
    return start if described else None


def _description(text: bytes) -> dict[str, Json]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("not_loadable", f"What stands before the engine is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Rejected("not_loadable", "What stands before the engine is no JSON object.")
    return found


def _classes(description: dict[str, Json]) -> list[str]:
    """Names by their number, where they are numbered from 0 without a gap."""
    names = description.get("names")
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))}:
        return []
    return [str(names[str(number)])[:1000] for number in range(len(names))]


def _said(value: Json) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:1000]


def _producer(description: dict[str, Json], notes: dict[str, str]) -> str:
    version = description.get("version")
    by = f" by ultralytics {version[:50]}" if isinstance(version, str) else ""
    return f"TensorRT {notes['tensorrt']}{by}"


def _recognises(glimpse: Glimpse) -> bool:
    return _start(glimpse.head) is not None


FORMAT = Format(
    name="tensorrt_engine",
    title="TensorRT engine",
    extensions=(".engine", ".plan", ".trt"),
    recognises=_recognises,
    unservable=(
        "A TensorRT engine is native code for one kind of GPU: it is stored and described from its header, never loaded "
        "or served. To serve the model, upload the .onnx file that the engine was built from: engines are built here."
    ),
)
