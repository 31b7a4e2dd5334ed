"""ONNX models: a walk over the protobuf that must know every field, with sizes, paths, domains and depth checked.

Tensors' bytes are skipped, not read; nothing is loaded. What an operator computes is left to the sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.onnx_schema import MESSAGES, Field
from pipeline.readers.source import Cursor, Source, of_bytes

_LONGEST_TEXT = 1 << 20
_KEPT = 300
_KEPT_TEXTS = frozenset({"domain", "op_type", "name", "key", "value"})
_KEPT_NUMBERS = frozenset({"dims", "data_type", "data_location", "ir_version"})
_BLOCK = 2
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_TEXT_TENSOR = 8
_IN_INT32 = frozenset({2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26})
_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"})
_RUNTIME = frozenset({"com.microsoft"})
_REACHING_OUT = frozenset({"EPContext", "PyOp", "PyCustomOpDef", "RestorePath", "ReadFile", "WriteFile"})
_HIGH_BYTES = bytes(range(128, 256))


@dataclass(kw_only=True)
class _Model:
    """What the walk gathered about the whole model."""

    fields: int = 0
    operators: dict[tuple[str, str], int] = field(default_factory=dict)
    functions: set[tuple[str, str]] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class _Seen:
    """What of one message's fields is judged later: few texts and numbers by name, and how many there were of all."""

    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        values = self.numbers.get(name)
        return values[-1] if values else None


def examine(source: Source, path: str, inspection: Inspection) -> None:
    walk = _Walk(path, inspection)
    root = walk.message(source, 0, "ModelProto", 0)
    if "graph" not in root.counts or "ir_version" not in root.numbers:
        raise Malformed("onnx.structure", "The file has no graph or no version: this is no ONNX model.", 0)
    walk.judge_operators()
    inspection.credit("onnx", source.size)


class _Walk:
    def __init__(self, path: str, inspection: Inspection) -> None:
        self.path = path
        self.inspection = inspection
        self.model = _Model()

    def message(self, source: Source, base: int, kind: str, depth: int) -> _Seen:
        """Walk one message; `base` is its offset in the file."""
        if depth > self.inspection.limits.nesting:
            raise Malformed("limit.nesting", "Messages are nested deeper than in any real model.", base)
        cursor, seen = Cursor(source), _Seen()
        while cursor.remaining:
            at = base + cursor.position
            self.model.fields += 1
            if self.model.fields > self.inspection.limits.fields:
                raise Malformed("limit.fields", "The model has more fields than any real one.", at)
            if self.model.fields % 4096 == 0:
                self.inspection.tick()
            tag = _varint(cursor, at)
            known = MESSAGES[kind].get(tag >> 3)
            if known is None:
                raise Malformed("onnx.unknown_field", f"Field {tag >> 3} of {kind} is not part of ONNX.", at)
            name, _, repeated = known
            before = seen.counts.get(name, 0)
            if before and not repeated:
                raise Malformed("onnx.repeated_field", f"{kind}.{name} occurs twice.", at)
            if tag & 7 == _BLOCK:
                length = _varint(cursor, at)
                start = cursor.position
                cursor.skip(length)
                count = self.block(source.part(start, length), base + start, known, seen, depth)
            else:
                count = _number(cursor, tag & 7, known, seen, at)
            seen.counts[name] = before + count
        self.judge(kind, seen, base)
        return seen

    def block(self, part: Source, base: int, known: Field, seen: _Seen, depth: int) -> int:
        """A field that is written with its length; returns how many elements it holds."""
        name, kind, _ = known
        match kind:
            case "text":
                text = _text(part, base, name)
                if name in _KEPT_TEXTS:
                    seen.texts[name] = text[:_KEPT]
            case "bytes":
                seen.numbers[f"{name}:size"] = [part.size]
            case "int":
                return self.packed_integers(part, base, name, seen)
            case "float" | "double":
                width = 4 if kind == "float" else 8
                if part.size % width:
                    raise Malformed("onnx.packed", f"{name} is cut in the middle of a number.", base)
                return part.size // width
            case _:
                child = self.message(part, base, kind, depth + 1)
                if name == "external_data":
                    seen.external[child.texts.get("key", "")] = child.texts.get("value", "")
                elif name == "metadata_props" and child.texts.get("key", "").startswith("ort_config"):
                    self.inspection.unknown(
                        "onnx.session_options", self.path, base, "The model brings its own session options."
                    )
        return 1

    def packed_integers(self, part: Source, base: int, name: str, seen: _Seen) -> int:
        count, last = 0, 0
        for chunk in part.chunks():
            count += len(chunk.translate(None, _HIGH_BYTES))
            last = chunk[-1]
            self.inspection.tick()
        if last & 0x80:
            raise Malformed("onnx.packed", f"{name} is cut in the middle of a number.", base)
        if name == "dims":
            if part.size > 1024:
                raise Malformed("onnx.tensor", "A tensor has more dimensions than any real one.", base)
            cursor = Cursor(of_bytes(part.read(0, part.size)))
            while cursor.remaining:
                seen.numbers.setdefault(name, []).append(_signed(_varint(cursor, base)))
        return count

    def judge(self, kind: str, seen: _Seen, at: int) -> None:
        match kind:
            case "NodeProto":
                operator = (seen.texts.get("domain", ""), seen.texts.get("op_type", ""))
                self.model.operators.setdefault(operator, at)
            case "FunctionProto":
                self.model.functions.add((seen.texts.get("domain", ""), seen.texts.get("name", "")))
            case "TensorProto":
                self.judge_tensor(seen, at)

    def judge_tensor(self, seen: _Seen, at: int) -> None:
        if "external_data" in seen.counts or seen.number("data_location"):
            self.judge_external(seen, at)
            return
        dims = seen.numbers.get("dims", [])
        kind = seen.number("data_type") or 0
        if any(side < 0 for side in dims):
            raise Malformed("onnx.tensor", f"Tensor {_called(seen)} has a negative size.", at)
        elements = math.prod(dims)
        found = {name: seen.counts[name] for name in _DATA if name in seen.counts and name != "raw_data"}
        raw = seen.numbers.get("raw_data:size")
        if "segment" in seen.counts or len(found) + (raw is not None) > 1:
            raise Malformed("onnx.tensor", f"Tensor {_called(seen)} holds its data twice or in segments.", at)
        if kind != _TEXT_TENSOR and kind not in _BITS:
            raise Malformed("onnx.tensor", f"Tensor {_called(seen)} has the unknown type {kind}.", at)
        if raw is not None:
            if kind == _TEXT_TENSOR or raw[-1] != (elements * _BITS[kind] + 7) // 8:
                self.inspection.unknown(
                    "onnx.tensor_size", self.path, at, f"Tensor {_called(seen)} is not as long as its shape says."
                )
            return
        for name, count in found.items():
            if name not in _field_for(kind) or count != _count(kind, name, elements):
                self.inspection.unknown(
                    "onnx.tensor_size", self.path, at, f"Tensor {_called(seen)} holds {count} values in {name}."
                )
        if not found and elements:
            self.inspection.unknown(
                "onnx.tensor_size", self.path, at, f"Tensor {_called(seen)} has a shape and no data."
            )

    def judge_external(self, seen: _Seen, at: int) -> None:
        """An uploaded `.onnx` stands alone: there is no file beside it that its data could be in."""
        location = seen.external.get("location", "")
        # "*/" begins ONNX Runtime's names for raw addresses in its own memory.
        escapes = location.startswith(("/", "\\", "~", "*")) or ".." in location or ":" in location or "\0" in location
        self.inspection.note(
            Severity.MALICIOUS if escapes else Severity.UNKNOWN,
            "onnx.external_path" if escapes else "onnx.external_data",
            self.path,
            at,
            f"Tensor {_called(seen)} is read from the file {location[:120]!r}.",
            advice=None if escapes else "Save the model as one file (`save_as_external_data=False`).",
        )

    def judge_operators(self) -> None:
        for (domain, name), at in self.model.operators.items():
            if name in _REACHING_OUT and domain not in _STANDARD:
                self.inspection.malicious(
                    "onnx.operator", self.path, at, f"The operator {domain}::{name} runs code or reads files."
                )
            elif domain not in _STANDARD | _RUNTIME and (domain, name) not in self.model.functions:
                self.inspection.unknown(
                    "onnx.custom_operator",
                    self.path,
                    at,
                    f"The operator {domain[:80]}::{name[:80]} is not part of ONNX.",
                    "Export with standard operators only.",
                )
            elif domain in _STANDARD | _RUNTIME:
                self.inspection.saw("onnx", f"{domain}::{name}", self.path)
        for domain, name in sorted(self.model.functions):
            self.inspection.note(
                Severity.INFO,
                "onnx.function",
                self.path,
                None,
                f"The model defines the function {domain[:80]}::{name[:80]}.",
            )


_DATA = ("float_data", "int32_data", "string_data", "int64_data", "raw_data", "double_data", "uint64_data")


def _field_for(kind: int) -> tuple[str, ...]:
    special: Mapping[int, tuple[str, ...]] = {
        1: ("float_data",), 14: ("float_data",), 7: ("int64_data",), 8: ("string_data",), 11: ("double_data",),
        15: ("double_data",), 12: ("uint64_data",), 13: ("uint64_data",),
    }  # fmt: skip
    return special.get(kind, ("int32_data",) if kind in _IN_INT32 else ())


def _count(kind: int, name: str, elements: int) -> int:
    """How many numbers of a typed field hold so many elements: complex ones take two, small ones share one."""
    if kind in (14, 15):
        return 2 * elements
    if name == "int32_data" and _BITS[kind] < 8:
        per_number = 8 // _BITS[kind]
        return -(-elements // per_number)
    return elements


def _called(seen: _Seen) -> str:
    return repr(seen.texts.get("name", "")[:80])


def _number(cursor: Cursor, wire: int, known: Field, seen: _Seen, at: int) -> int:
    """A field that is one number."""
    name, kind, _ = known
    match wire, kind:
        case 0, "int":
            value = _signed(_varint(cursor, at))
            if name in _KEPT_NUMBERS:
                seen.numbers.setdefault(name, []).append(value)
        case 5, "float":
            cursor.skip(4)
        case 1, "double":
            cursor.skip(8)
        case _:
            raise Malformed("onnx.wire_type", f"Field {name} is written in a way its type does not allow.", at)
    return 1


def _text(part: Source, base: int, name: str) -> str:
    if part.size > _LONGEST_TEXT:
        raise Malformed("onnx.text", f"{name} is a text of {part.size:,} bytes.", base)
    try:
        return part.read(0, part.size).decode()
    except UnicodeDecodeError:
        raise Malformed("onnx.text", f"{name} is not text.", base) from None


def _varint(cursor: Cursor, at: int) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.byte()
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value
    raise Malformed("onnx.varint", "A number is longer than 64 bits.", at)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _recognises(glimpse: Glimpse) -> bool:
    """Begins with a field of ModelProto written as its type demands, and not with a magic of another format."""
    head = glimpse.head
    if len(head) < 4 or head[:4] == b"PK\x03\x04":
        return False
    known = MESSAGES["ModelProto"].get(head[0] >> 3)
    if known is None or head[0] & 7 != (0 if known[1] == "int" else 2):
        return False
    return (head[0] == 0x08 and 0 < head[1] < 0x80) or _is_probably_model(head)


def _is_probably_model(head: bytes) -> bool:
    """Another field first: then the length it gives must lead to another known field."""
    length = head[1]
    follows = 2 + length
    if head[0] & 7 != 2 or length >= 0x80 or follows >= len(head):
        return False
    return head[follows] >> 3 in MESSAGES["ModelProto"] and b"\x08" in head


def _recall(name: str) -> Severity | None:
    """Of `domain::operator`, once allowed: what reaches out, or comes from a domain that is on no list any more."""
    domain, _, operator = name.partition("::")
    if operator in _REACHING_OUT and domain not in _STANDARD:
        return Severity.MALICIOUS
    return None if domain in _STANDARD | _RUNTIME else Severity.UNKNOWN


READER = Reader(name="onnx", recognises=_recognises, examine=examine, rank=2, recall=_recall)
