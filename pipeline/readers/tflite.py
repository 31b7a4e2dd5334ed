"""TensorFlow Lite models: a flatbuffer in which every index and every size is checked, and every operator is a built-in.

The interpreter trusts what it reads: an index out of range is memory corruption there. Custom operators are native
code that the file does not bring along, so they are named and left to a reviewer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from pipeline.readers import lists, pickle, zip_archive
from pipeline.readers.flatbuffer import Numbers, Slot, Walk
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.source import Source
from pipeline.readers.zip_directory import ends_as_archive

_MAGIC = b"TFL3"
_CUSTOM, _DELEGATE, _PLACEHOLDER = 32, 51, 127
_BITS = {
    0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32, 16: 16, 17: 4, 18: 16,
    19: 2, 20: 4,
}  # fmt: skip
_TEXT, _RESOURCE, _VARIANT = 5, 13, 14
_MADE_UP = 8 << 30
_MOST_DIMENSIONS = 32


@cache
def _schema() -> tuple[dict[str, dict[int, Slot]], dict[str, dict[int, str]], dict[int, str]]:
    tables: dict[str, dict[int, Slot]] = {}
    unions: dict[str, dict[int, str]] = {}
    operators: dict[int, str] = {}
    for line in lists.read("tflite_schema"):
        match line.split(" "):
            case "table", name, slot, label, kind, argument:
                tables.setdefault(name, {})[int(slot)] = (label, kind, argument)
            case "union", name, value, table:
                unions.setdefault(name, {})[int(value)] = table
                tables.setdefault(table, {})
            case "operator", value, name:
                operators[int(value)] = name
            case _:
                raise ValueError(line)
    return tables, unions, operators


def examine(source: Source, path: str, inspection: Inspection) -> None:
    tables, unions, _ = _schema()
    walk = Walk(source=source, schema=tables, unions=unions, format="tflite", inspection=inspection)
    model = walk.root("Model")
    reading = _Reading(walk, model, path, inspection)
    reading.run()
    end = walk.settle()
    rest = source.size - end
    if source.read(end, min(rest, 4)) == b"PK\x03\x04":
        _associated(source, end, path, inspection)
        return
    if rest > 64 or any(source.read(end, rest)):
        raise Malformed("tflite.trailing", f"{rest:,} bytes follow the model.", end)
    if ends_as_archive(source) or pickle.would_act(source):
        raise Malformed("tflite.polyglot", "The file is one of another kind, too.", 0, Severity.MALICIOUS)
    inspection.credit("tflite", source.size)


def _associated(source: Source, begin: int, path: str, inspection: Inspection) -> None:
    """The archive of label files that TensorFlow Lite's metadata writer appends to a model."""
    files = zip_archive.read(source, path, inspection, begin)
    inspection.credit("tflite", begin)
    for name in files.members:
        inspection.examine(files.open(name), files.path_of(name))


class _Reading:
    def __init__(self, walk: Walk, model: Mapping[str, Any], path: str, inspection: Inspection) -> None:
        self.walk = walk
        self.model = model
        self.path = path
        self.inspection = inspection
        self.buffers: list[Mapping[str, Any]] = model.get("Buffers", [])
        self.named: set[int] = {0}

    def run(self) -> None:
        if self.model.get("Version") != 3:
            raise Malformed("tflite.version", f"Version {self.model.get('Version', 0)} of the format is unknown.", 0)
        if self.model.get("ExternalBuffers") or self.model.get("ExternalBufferGroups"):
            raise Malformed("tflite.external", "The weights are read from other files.", 0)
        for number, buffer in enumerate(self.buffers):
            self.buffer(number, buffer)
        codes = self.model.get("OperatorCodes", [])
        for code in codes:
            self.operator_code(code)
        for graph in self.model.get("Subgraphs", []):
            self.graph(graph, len(codes))
        for entry in self.model.get("Metadata", []):
            self.refer(entry.get("Buffer", 0))
        for number in self.walk.integers(self.model.get("MetadataBuffer")):
            self.refer(number)
        self.signatures()
        for number, buffer in enumerate(self.buffers):
            if number not in self.named and buffer.get("Data") is not None and buffer["Data"].count:
                self.inspection.note(
                    Severity.WARNING,
                    "tflite.orphan",
                    self.path,
                    buffer["Data"].at,
                    f"Nothing refers to buffer {number}.",
                )

    def buffer(self, number: int, buffer: Mapping[str, Any]) -> None:
        """Data of models beyond 2 GB stand behind the flatbuffer, at an offset from its beginning."""
        offset, size = buffer.get("Offset", 0), buffer.get("Size", 0)
        if offset > 1:
            if buffer.get("Data") is not None:
                raise Malformed("tflite.buffer", f"Buffer {number} holds its data twice.", offset)
            self.walk.claim(offset, size, f"buffer {number}")

    def refer(self, number: int) -> None:
        if not 0 <= number < len(self.buffers):
            raise Malformed("tflite.index", f"There is no buffer {number}.")
        self.named.add(number)

    def operator_code(self, code: Mapping[str, Any]) -> None:
        _, _, operators = _schema()
        old = code.get("DeprecatedBuiltinCode", 0)
        number = max(old - 256 if old > 127 else old, code.get("BuiltinCode", 0))
        name = code.get("CustomCode")
        if number == _CUSTOM or (name and number != _CUSTOM):
            shown = name or ""
            what = "an operator of TensorFlow itself" if shown.startswith("Flex") else "no built-in operator"
            self.inspection.unknown(
                "tflite.custom_operator",
                self.path,
                None,
                f"The operator {shown[:80]!r} is {what}.",
                "Convert the model with built-in operators only.",
            )
        elif number not in operators or number in (_DELEGATE, _PLACEHOLDER):
            self.inspection.unknown("tflite.operator", self.path, None, f"The operator {number} is unknown.")

    def graph(self, graph: Mapping[str, Any], codes: int) -> None:
        tensors = graph.get("Tensors", [])
        for tensor in tensors:
            self.tensor(tensor)
        for label in ("Inputs", "Outputs"):
            self.indices(graph.get(label), len(tensors), lowest=0)
        for operator in graph.get("Operators", []):
            if operator.get("OpcodeIndex", 0) >= codes:
                raise Malformed("tflite.index", f"There is no operator code {operator['OpcodeIndex']}.")
            for label in ("Inputs", "Outputs", "Intermediates"):
                self.indices(operator.get(label), len(tensors), lowest=-1)
            if operator.get("LargeCustomOptionsOffset", 0) > 1:
                raise Malformed("tflite.custom_options", "An operator has options behind the model.")
            self.inspection.tick()

    def indices(self, numbers: Numbers | None, count: int, *, lowest: int) -> None:
        if any(not lowest <= index < count for index in self.walk.integers(numbers)):
            raise Malformed(
                "tflite.index", "An index leads out of the list of tensors.", numbers.at if numbers else None
            )

    def tensor(self, tensor: Mapping[str, Any]) -> None:
        number, kind = tensor.get("Buffer", 0), tensor.get("Type", 0)
        name = tensor.get("Name", "")
        self.refer(number)
        shape = self.walk.integers(tensor.get("Shape"))
        if len(shape) > _MOST_DIMENSIONS or any(side < 0 for side in shape):
            raise Malformed("tflite.tensor", f"Tensor {name[:80]!r} has no plain shape.")
        if kind not in _BITS and kind not in (_TEXT, _RESOURCE, _VARIANT):
            raise Malformed("tflite.tensor", f"Tensor {name[:80]!r} is of the unknown type {kind}.")
        if tensor.get("ExternalBuffer"):
            raise Malformed("tflite.external", f"Tensor {name[:80]!r} is read from another file.")
        self.quantization(tensor.get("Quantization", {}), shape, name)
        needed = (math.prod(shape) * _BITS.get(kind, 0) + 7) // 8
        if needed > _MADE_UP:
            raise Malformed("tflite.bomb", f"Tensor {name[:80]!r} claims {needed:,} bytes.")
        buffer = self.buffers[number]
        data: Numbers | None = buffer.get("Data")
        size = data.count if data is not None else buffer.get("Size", 0)
        if size and number and kind in _BITS and "Sparsity" not in tensor and size != needed:
            self.inspection.unknown(
                "tflite.tensor_size",
                self.path,
                data.at if data else None,
                f"Tensor {name[:80]!r} has {size:,} bytes where its shape says {needed:,}.",
            )

    def quantization(self, quantization: Mapping[str, Any], shape: list[int], name: str) -> None:
        scales: Numbers | None = quantization.get("Scale")
        axis = quantization.get("QuantizedDimension", 0)
        if scales is not None and scales.count > 1 and not (axis < len(shape) and scales.count == shape[axis]):
            raise Malformed("tflite.quantization", f"Tensor {name[:80]!r} is not quantised along one of its sides.")

    def signatures(self) -> None:
        graphs = self.model.get("Subgraphs", [])
        for signature in self.model.get("SignatureDefs", []):
            number = signature.get("SubgraphIndex", 0)
            if number >= len(graphs):
                raise Malformed("tflite.index", f"There is no graph {number}.")
            count = len(graphs[number].get("Tensors", []))
            for entry in (*signature.get("Inputs", []), *signature.get("Outputs", [])):
                if entry.get("TensorIndex", 0) >= count:
                    raise Malformed("tflite.index", f"There is no tensor {entry['TensorIndex']}.")


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.head[4:8] == _MAGIC


READER = Reader(name="tflite", recognises=_recognises, examine=examine, container=True)
