"""TensorRT engines: magic, versions, and not one byte more. What follows is native code, which no scan can judge.

So the finding is a warning, not a refusal: an engine is stored and described, and never deserialised or served; what
is served is built here from the ONNX model. A header that is none, or a file that is something else as well, is unknown.
"""

from __future__ import annotations

from pipeline.readers import pickle, strict_json
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.source import Source
from pipeline.readers.zip_directory import ends_as_archive

_MAGIC = b"ftrt"
_HEADER = 32
_SERIALISATION, _LIBRARY = 8, 24  # where the two versions stand; https://github.com/NVIDIA/TensorRT/issues/3073
_SERIALISATIONS = range(100, 1000)
_MAJORS = range(7, 20)
_LONGEST_METADATA = 4000


def examine(source: Source, path: str, inspection: Inspection) -> None:
    start = 0
    if source.head(4) != _MAGIC:  # ultralytics puts the length of a JSON text and the text before the engine
        start = 4 + int.from_bytes(source.head(4), "little")
        if not isinstance(strict_json.parse(source.read(4, start - 4)), dict):
            raise Malformed("tensorrt.metadata", "What stands before the engine is no description of it.", 4)
    header = source.read(start, _HEADER)
    serialisation = int.from_bytes(header[_SERIALISATION : _SERIALISATION + 4], "little")
    major, minor, patch, build = header[_LIBRARY : _LIBRARY + 4]
    if serialisation not in _SERIALISATIONS or major not in _MAJORS:
        raise Malformed("tensorrt.header", "The header is not that of any engine known here.", start)
    if ends_as_archive(source) or pickle.would_act(source):
        raise Malformed("tensorrt.polyglot", "The engine is a file of another kind, too.", start, Severity.MALICIOUS)
    inspection.note(
        Severity.WARNING,
        "tensorrt.native_code",
        path,
        start,
        f"An engine of TensorRT {major}.{minor}.{patch}.{build} (serialisation {serialisation}) is native code: "
        "it is kept and described, never loaded.",
        advice="Upload the ONNX model: engines are built from it here.",
    )
    inspection.credit("tensorrt", start + _HEADER)
    inspection.credit("native", source.size - start - _HEADER)


def _recognises(glimpse: Glimpse) -> bool:
    head = glimpse.head
    start = 4 + int.from_bytes(head[:4], "little")
    return head[:4] == _MAGIC or (
        head[4:5] == b"{" and start <= _LONGEST_METADATA and head[start : start + 4] == _MAGIC
    )


READER = Reader(name="tensorrt", recognises=_recognises, examine=examine)
