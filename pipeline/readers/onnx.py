"""ONNX models: a walk over the protobuf that must know every field, with sizes, paths, domains and depth checked.

Tensors' bytes are skipped, not read; nothing is loaded. What an operator computes is left to the sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.readers import lists
from pipeline.readers.inspection import Glimpse, Inspection, Malformed, Reader, Severity
from pipeline.readers.onnx_schema import MESSAGES
from pipeline.readers.protobuf import Seen, Walk, taken
from pipeline.readers.source import Source

_KEPT = frozenset(
    {
        "domain",
        "op_type",
        "name",
        "key",
        "value",
        "dims",
        "data_type",
        "data_location",
        "ir_version",
        "raw_data",
        "external_data",
    }
)
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_TEXT_TENSOR = 8
_IN_INT32 = frozenset({2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26})
_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"})
_RUNTIME = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_MOST_DIMENSIONS = 1024
_MOST_NODES = 2_000_000
Operator = tuple[str, str]
"""Domain and name."""
_REACHING_OUT = frozenset({"EPContext", "PyOp", "PyCustomOpDef", "RestorePath", "ReadFile", "WriteFile"})


@dataclass(frozen=True, kw_only=True)
class External:
    """One tensor whose data stand in another file: `size` bytes by its type and shape, from `offset` on there."""

    name: str
    location: str
    offset: int
    size: int
    at: int


def examine(source: Source, path: str, inspection: Inspection) -> None:
    """A model on its own: there is no file beside it that its data could be in."""
    for external in read(source, path, inspection):
        inspection.unknown(
            "onnx.external_data",
            path,
            external.at,
            f"Tensor {external.name!r} is read from the file {external.location[:120]!r}.",
            "Save the model as one file (`save_as_external_data=False`), or upload model and data in one zip.",
        )


def read(source: Source, path: str, inspection: Inspection) -> list[External]:
    """Judge all of a model but the data it keeps in other files, which are returned."""
    reading = _Reading(path, inspection)
    walk = Walk(format="onnx", schema=MESSAGES, keep=_KEPT, judge=reading.judge, path=path, inspection=inspection)
    root = walk.message(source, 0, "ModelProto")
    if "graph" not in root.counts or "ir_version" not in root.numbers:
        raise Malformed("onnx.structure", "The file has no graph or no version: this is no ONNX model.", 0)
    reading.judge_operators()
    reading.judge_functions()
    inspection.credit("onnx", source.size)
    return reading.externals


class _Reading:
    """One model while its messages are judged, each when it ends."""

    def __init__(self, path: str, inspection: Inspection) -> None:
        self.path = path
        self.inspection = inspection
        self.nodes: list[tuple[int, Operator]] = []
        self.functions: dict[Operator, list[Operator]] = {}
        self.externals: list[External] = []

    def judge(self, kind: str, seen: Seen, at: int) -> None:
        match kind:
            case "NodeProto":
                operator = (seen.text("domain"), seen.text("op_type"))
                self.nodes.append((at, operator))
                if len(self.nodes) > _MOST_NODES:
                    raise Malformed("limit.fields", "The model has more nodes than any real one.", at)
            case "FunctionProto":
                self.function((seen.text("domain"), seen.text("name")), at)
            case "TensorProto" if len(seen.numbers.get("dims", ())) > _MOST_DIMENSIONS:
                raise Malformed("onnx.tensor", "A tensor has more dimensions than any real one.", at)
            case "TensorProto":
                self.judge_tensor(seen, at)
            case "StringStringEntryProto" if seen.text("key").startswith("ort_config"):
                self.inspection.unknown(
                    "onnx.session_options", self.path, at, "The model brings its own session options."
                )
            case _:
                pass

    def judge_tensor(self, seen: Seen, at: int) -> None:
        if "external_data" in seen.counts or seen.number("data_location"):
            self.judge_external(seen, at)
            return
        dims = seen.numbers.get("dims", [])
        kind = seen.number("data_type") or 0
        if any(side < 0 for side in dims):
            raise Malformed("onnx.tensor", f"Tensor {_called(seen)} has a negative size.", at)
        elements = math.prod(dims)
        found = {name: seen.counts[name] for name in _DATA if name in seen.counts and name != "raw_data"}
        raw = seen.spans.get("raw_data")
        if "segment" in seen.counts or len(found) + (raw is not None) > 1:
            raise Malformed("onnx.tensor", f"Tensor {_called(seen)} holds its data twice or in segments.", at)
        if kind != _TEXT_TENSOR and kind not in _BITS:
            raise Malformed("onnx.tensor", f"Tensor {_called(seen)} has the unknown type {kind}.", at)
        if raw is not None:
            if kind == _TEXT_TENSOR or raw[-1][1] != (elements * _BITS[kind] + 7) // 8:
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

    def judge_external(self, seen: Seen, at: int) -> None:
        external = {entry.text("key"): entry.text("value") for entry in seen.children.get("external_data", [])}
        location, kind = external.get("location", ""), seen.number("data_type") or 0
        # "*/" begins ONNX Runtime's names for raw addresses in its own memory.
        if location.startswith(("/", "\\", "~", "*")) or ".." in location or ":" in location or "\0" in location:
            self.inspection.malicious(
                "onnx.external_path", self.path, at, f"Tensor {_called(seen)} is read from the file {location[:120]!r}."
            )
            return
        dims = seen.numbers.get("dims", [])
        numbers = [external.get("offset", "0"), external.get("length", "0")]
        if (
            any(side < 0 for side in dims)
            or kind not in _BITS
            or not external.keys() <= _EXTERNAL_KEYS
            or len(external) != len(seen.children.get("external_data", []))
            or not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers)
        ):
            raise Malformed("onnx.external_data", f"Tensor {_called(seen)} says badly where its data are.", at)
        size = (math.prod(dims) * _BITS[kind] + 7) // 8
        offset, length = map(int, numbers)
        if "length" in external and length != size:
            raise Malformed("onnx.tensor_size", f"Tensor {_called(seen)} is not as long as its shape says.", at)
        self.externals.append(External(name=seen.text("name")[:80], location=location, offset=offset, size=size, at=at))

    def function(self, name: Operator, at: int) -> None:
        inside = [operator for _, operator in taken(self.nodes, at)]
        if name in self.functions:
            raise Malformed("onnx.function", f"The function {name[0][:80]}::{name[1][:80]} is defined twice.", at)
        self.functions[name] = inside

    def judge_operators(self) -> None:
        used: dict[Operator, int | None] = {}
        for where, operator in self.nodes:
            used.setdefault(operator, where)
        for inside in self.functions.values():
            for operator in inside:
                used.setdefault(operator, None)
        for (domain, name), at in used.items():
            if name in _REACHING_OUT and domain not in _STANDARD:
                self.inspection.malicious(
                    "onnx.operator", self.path, at, f"The operator {domain}::{name} runs code or reads files."
                )
            elif _is_listed(domain, name):
                self.inspection.saw("onnx", f"{domain}::{name}", self.path)
            elif (domain, name) not in self.functions:
                self.inspection.unknown(
                    "onnx.custom_operator",
                    self.path,
                    at,
                    f"The operator {domain[:80] or 'ai.onnx'}::{name[:80]} is not one that ONNX or ONNX Runtime is known to have.",
                    "Export with standard operators only.",
                )

    def judge_functions(self) -> None:
        """Name them; none may stand for an operator of ONNX, call itself, or grow without measure when inlined."""
        for domain, name in sorted(self.functions):
            self.inspection.note(
                Severity.INFO,
                "onnx.function",
                self.path,
                None,
                f"The model defines the function {domain[:80]}::{name[:80]}.",
            )
            if domain in _STANDARD | _RUNTIME:
                self.inspection.unknown(
                    "onnx.function_shadows", self.path, None, f"A function takes the place of {domain}::{name[:80]}."
                )
        sizes: dict[Operator, int] = {}
        left = dict(self.functions)
        while left:
            ready = [one for one, inside in left.items() if not any(called in left for called in inside)]
            if not ready:
                raise Malformed("onnx.function_cycle", f"The function {min(left)[1][:80]!r} calls itself.")
            for one in ready:
                sizes[one] = 1 + sum(sizes.get(operator, 1) for operator in left.pop(one))
        if sum(sizes.get(operator, 1) for _, operator in self.nodes) > _MOST_NODES:
            raise Malformed("onnx.function_bomb", "The functions grow beyond any real model when they are inlined.")


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


def _called(seen: Seen) -> str:
    return repr(seen.text("name")[:80])


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


def _is_listed(domain: str, operator: str) -> bool:
    return f"{domain or 'ai.onnx'} {operator}" in lists.read("onnx_ops")


def _recall(name: str) -> Severity | None:
    """Of `domain::operator`, once allowed: what reaches out, or is on the list no more."""
    domain, _, operator = name.partition("::")
    if operator in _REACHING_OUT and domain not in _STANDARD:
        return Severity.MALICIOUS
    return None if _is_listed(domain, operator) else Severity.UNKNOWN


READER = Reader(name="onnx", recognises=_recognises, examine=examine, version=3, rank=2, recall=_recall)
