"""ONNX files: how to know one without a magic number, and how to open one in a sandbox child."""

from __future__ import annotations

from pipeline.formats import Format, Glimpse

_VARINT, _BYTES = 0, 2
_MODEL_FIELDS = {1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _VARINT, 6: _BYTES, 7: _BYTES, 8: _BYTES}
_MODEL_FIELDS |= {14: _BYTES, 20: _BYTES, 25: _BYTES, 26: _BYTES}
_IR_VERSION, _GRAPH = 1, 7


def _recognises(glimpse: Glimpse) -> bool:
    """Walk the top-level protobuf fields as far as the head reaches: all must be ModelProto's, IR version among them.

    A file that ends within the head must also hold a graph.
    """
    head, position, versions, graph = glimpse.head, 0, 0, False
    while position < len(head):
        tag, position = _varint(head, position)
        value, position = _varint(head, position)
        if tag < 0 or value < 0:
            return versions == 1 and glimpse.size > len(head)
        wire = _MODEL_FIELDS.get(tag >> 3)
        if wire is None or wire != tag & 7:
            return False
        if wire == _BYTES:
            if position + value > glimpse.size:
                return False
            graph |= tag >> 3 == _GRAPH
            position += value
        elif tag >> 3 == _IR_VERSION:
            if not 1 <= value <= 1000:
                return False
            versions += 1
    return versions == 1 and (graph or glimpse.size > len(head)) and position <= glimpse.size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    return -1, len(data)


FORMAT = Format(
    name="onnx",
    title="ONNX",
    extensions=(".onnx",),
    recognises=_recognises,
    exporters=("opset18", "unchanged"),
)
