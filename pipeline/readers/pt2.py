"""Archives written by `torch.export.save`: no code of any kind gets in with them.

JSON is checked against torch's own schema, symbolic sizes against a strict grammar, operators against an allow-list;
raw tensors against their sizes, sample inputs as a checkpoint. No other pickle, no native code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pipeline.readers import strict_json, torch, zip_archive
from pipeline.readers.archive import Archive, Layout
from pipeline.readers.export_schema import ENUMS, STRUCTS, UNIONS
from pipeline.readers.inspection import Inspection, Malformed, Severity
from pipeline.readers.source import Source
from pipeline.readers.symbolic import is_expression, is_guard
from pipeline.readers.tensors import EXPORT_BYTES
from pipeline.readers.torch_ops import FORBIDDEN, OPERATORS
from pipeline.readers.words import words

_RECORD = re.compile(r"data/(?:weights/weight|constants/tensor)_\d+")
_ENOUGH = 20
_NATIVE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa\xcf", b"!<arch>\n")
_FIXED = {"archive_format": b"pt2", "archive_version": b"0"}

_PYTHON_TARGETS = frozenset(
    f"{prefix}{name}"
    for prefix, names in (
        (
            "_operator.",
            "add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ not_ lshift rshift getitem",
        ),
        ("math.", "trunc floor ceil sqrt"),
        ("torch.sym_", "int float not ite max min sqrt sum"),
        ("torch._sym_", "sqrt cos cosh sin sinh tan tanh asin acos atan log2"),
        ("torch.ops.higher_order.", "cond while_loop map_impl scan wrap_with_set_grad_enabled wrap_with_autocast"),
    )
    for name in words(names)
)
_TREE_TYPES = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", "collections.deque"}
)
_IDENTIFIER = re.compile(r"[\w.<>$:*/ -]{0,512}")


def examine(archive: Archive, inspection: Inspection) -> None:
    _Reading(archive, inspection).run()


class _Reading:
    """One exported archive while it is judged member by member."""

    def __init__(self, archive: Archive, inspection: Inspection) -> None:
        self.archive = archive
        self.inspection = inspection
        self.root = torch.root_of(frozenset(archive.members)) or ""
        self.records: set[str] = set()

    def run(self) -> None:
        names = [full.removeprefix(self.root) for full in self.archive.members]
        for name in names:
            self.inspection.guarded(self.path(name), partial(self.member, name))
        for name in names:
            if _RECORD.fullmatch(name) and name not in self.records:
                self.inspection.unknown(
                    "pt2.orphan", self.path(name), None, f"No configuration names the record {name!r}."
                )

    def path(self, name: str) -> str:
        return self.archive.path_of(self.root + name)

    def member(self, name: str) -> None:
        source = self.archive.open(self.root + name)
        if _RECORD.fullmatch(name):
            self.inspection.credit("tensors", source.size)
        elif name.startswith("data/aotinductor/") or source.head(8).startswith(_NATIVE):
            self.inspection.malicious("pt2.native_code", self.path(name), 0, f"{name[:100]!r} is compiled code.")
        else:
            judge = next((judge for pattern, judge in _JUDGES if pattern.fullmatch(name)), _Reading.other)
            judge(self, name, source)

    def program(self, name: str, source: Source) -> None:
        self.document(name, source, "ExportedProgram")

    def document(self, name: str, source: Source, kind: str) -> Any | None:
        """The JSON document if it is all that the schema says."""
        if source.size > self.inspection.limits.document:
            raise Malformed("json.oversized", f"{source.size:,} bytes of JSON are more than any program needs.")
        document = strict_json.parse(source.read(0, source.size))
        self.inspection.credit("pt2", source.size)
        problems = 0
        for problem in _check(document, kind, "$"):
            problems += 1
            self.inspection.note(problem.severity, problem.rule, self.path(name), None, problem.message)
            if problems > _ENOUGH:
                break
        return None if problems else document

    def configuration(self, name: str, source: Source) -> None:
        document = self.document(name, source, "PayloadConfig")
        folder = name.rsplit("/", 1)[0]
        for tensor, entry in document["config"].items() if document else ():
            self.payload(tensor, f"{folder}/{entry['path_name']}", entry, self.path(name))

    def payload(self, tensor: str, name: str, entry: Mapping[str, Any], path: str) -> None:
        """One tensor of a configuration must fit into a record that is there."""
        member, meta = self.archive.members.get(self.root + name), entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            self.inspection.unknown("pt2.pickled_payload", path, None, f"{tensor[:100]!r} is stored as a pickle.")
        elif member is None or _RECORD.fullmatch(name) is None:
            self.inspection.unknown("pt2.record", path, None, f"The record of {tensor[:100]!r} is not there.")
        else:
            self.records.add(name)
            needed, width = _needed_bytes(meta), EXPORT_BYTES.get(meta["dtype"])
            if needed is None or width is None or member.size % width or needed > member.size:
                self.inspection.unknown("pt2.record", path, None, f"{tensor[:100]!r} does not fit into its record.")

    def samples(self, name: str, source: Source) -> None:
        if source.size:
            with self.inspection.deeper():
                inner = zip_archive.read(source, self.path(name), self.inspection)
                torch.examine_tensors(inner, self.inspection)

    def pickled(self, name: str, source: Source) -> None:
        self.inspection.unknown(
            "pt2.pickled_payload",
            self.path(name),
            0,
            f"{name!r} is a pickled object, which torch.export would load.",
            "Export the model without custom objects or tensor subclasses.",
        )
        self.inspection.examine(source, self.path(name))

    def extra(self, name: str, source: Source) -> None:
        self.inspection.examine(source, self.path(name))

    def other(self, name: str, source: Source) -> None:
        content = source.head(1024)
        if source.size == len(content) and _FIXED.get(name) == content.rstrip(b"\n"):
            self.inspection.credit("pt2", source.size)
        elif source.size != len(content) or not torch.small_file(name, content, self.path(name), self.inspection):
            self.inspection.unknown(
                "pt2.member", self.path(name), 0, f"torch.export writes no such member: {name[:100]!r}."
            )


_JUDGES: tuple[tuple[re.Pattern[str], Callable[[_Reading, str, Source], None]], ...] = (
    (re.compile(r"models/[\w.-]+\.json"), _Reading.program),
    (re.compile(r"data/(weights|constants)/[\w.-]+_\1_config\.json"), _Reading.configuration),
    (re.compile(r"data/sample_inputs/[\w.-]+\.pt"), _Reading.samples),
    (re.compile(r"data/constants/(?:custom_obj|opaque_obj)_\d+"), _Reading.pickled),
    (re.compile(r"data/(?:weights|constants)/[\w.-]+\.pt"), _Reading.pickled),
    (re.compile(r"extra/.*[^/]"), _Reading.extra),
)


def _needed_bytes(meta: Mapping[str, Any]) -> int | None:
    """How far into its record a tensor reaches; None where its sizes are no plain numbers."""
    width = EXPORT_BYTES.get(meta["dtype"], 1)
    offset, *rest = (side.get("as_int") for side in (meta["storage_offset"], *meta["sizes"], *meta["strides"]))
    if len(meta["sizes"]) != len(meta["strides"]) or offset is None or offset < 0:
        return None
    if any(number is None or number < 0 for number in rest):
        return None
    sizes, strides = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    reach = offset + 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return 0 if 0 in sizes else reach * width


def _problem(rule: str, message: str, severity: Severity = Severity.UNKNOWN) -> Malformed:
    return Malformed(rule, message[:400], None, severity)


def _check(value: Any, kind: str, where: str) -> Iterator[Malformed]:  # noqa: C901, PLR0912 – one arm per kind of type
    """Everything in which a JSON value differs from the type that the schema gives it."""
    kind = kind.removesuffix(" =")
    if kind.startswith("Optional["):
        if value is not None:
            yield from _check(value, kind[9:-1], where)
    elif kind.startswith("List["):
        if not isinstance(value, list):
            yield _problem("pt2.schema", f"{where} is not a list.")
            return
        for index, item in enumerate(value):
            yield from _check(item, kind[5:-1], f"{where}[{index}]")
    elif kind.startswith("Dict[str, "):
        if not isinstance(value, dict):
            yield _problem("pt2.schema", f"{where} is not an object.")
            return
        for key, item in value.items():
            yield from _check(item, kind[10:-1], f"{where}.{key[:40]}")
    elif kind in STRUCTS:
        yield from _check_struct(value, kind, where)
    elif kind in UNIONS:
        fields = UNIONS[kind]
        if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in fields:
            yield _problem("pt2.schema", f"{where} is no {kind}.")
            return
        [(field, item)] = value.items()
        yield from _check(item, fields[field], f"{where}.{field}")
        if field == "as_operator":
            yield from _check_target(item, where)
    elif not _is_plain(value, kind):
        yield _problem("pt2.schema", f"{where} is no {kind}.")


def _is_plain(value: object, kind: str) -> bool:
    match kind:
        case "int":
            return type(value) is int
        case "bool":
            return type(value) is bool
        case "float":
            return type(value) in (int, float) or value in ("Infinity", "-Infinity", "NaN")
        case "str":
            return isinstance(value, str)
        case _:
            return type(value) is int and value in ENUMS[kind]


def _check_struct(value: Any, kind: str, where: str) -> Iterator[Malformed]:
    fields = STRUCTS[kind]
    if not isinstance(value, dict) or not set(value) <= set(fields):
        yield _problem("pt2.schema", f"{where} is no {kind}.")
        return
    missing = [field for field, type_ in fields.items() if field not in value and not type_.endswith(" =")]
    if missing:
        yield _problem("pt2.schema", f"{where} lacks {', '.join(missing)}.")
        return
    before = 0
    for field, item in value.items():
        for problem in _check(item, fields[field], f"{where}.{field}"):
            before += 1
            yield problem
    if not before:
        yield from _check_meaning(value, kind, where)


def _check_meaning(value: Mapping[str, Any], kind: str, where: str) -> Iterator[Malformed]:
    """The strings that torch evaluates or looks up."""
    match kind:
        case "SymExpr" if not is_expression(text := value["expr_str"]):
            yield _problem("pt2.expression", f"{where} evaluates {text[:120]!r}.", Severity.MALICIOUS)
        case "ExportedProgram":
            yield from _check_program(value, where)
        case "Node":
            yield from _check_target(value["target"], where)
        case "ModuleCallSignature":
            yield from _check_tree(value["in_spec"], f"{where}.in_spec")
            yield from _check_tree(value["out_spec"], f"{where}.out_spec")
        case "CustomObjArgument":
            yield _problem("pt2.custom_object", f"{where} uses a custom object of class {value['class_fqn'][:80]!r}.")
        case "Device" if re.fullmatch(r"cpu|cuda|mps|meta|xpu", value["type"]) is None:
            yield _problem("pt2.device", f"{where} names the device {value['type'][:40]!r}.")
        case "TensorArgument" if _IDENTIFIER.fullmatch(value["name"]) is None:
            yield _problem("pt2.name", f"{where} has the name {value['name'][:80]!r}.")


def _check_program(value: Mapping[str, Any], where: str) -> Iterator[Malformed]:
    for guard in value.get("guards_code", []):
        if not is_guard(guard):
            yield _problem("pt2.guard", f"{where} has the guard {guard[:120]!r}.", Severity.MALICIOUS)
    for symbol in value["range_constraints"]:
        if not is_expression(symbol):
            yield _problem("pt2.expression", f"{where} constrains {symbol[:120]!r}.", Severity.MALICIOUS)


def _check_target(target: str, where: str) -> Iterator[Malformed]:
    parts = target.split(".")
    if target in _PYTHON_TARGETS:
        return
    if parts[:2] == ["torch", "ops"] and len(parts) in (4, 5):
        namespace, name = parts[2], parts[3]
        overload = parts[4] if len(parts) == 5 else "default"
        if f"{namespace}::{name}" in FORBIDDEN:
            yield _problem("pt2.operator", f"{where} calls {target}, which reaches files.", Severity.MALICIOUS)
        elif name in OPERATORS.get(namespace, ()) and re.fullmatch(r"\w+", overload) and not overload.startswith("__"):
            return
        else:
            yield _problem("pt2.operator", f"{where} calls {target[:120]!r}, which nobody has vetted.")
    elif parts[0] in ("torch", "_operator", "math", "operator"):
        yield _problem("pt2.operator", f"{where} calls the function {target[:120]!r}.", Severity.MALICIOUS)
    else:
        yield _problem("pt2.operator", f"{where} calls {target[:120]!r}, which nobody has vetted.")


def _check_tree(text: str, where: str) -> Iterator[Malformed]:
    """A pytree description: torch imports what its node types name."""
    if not text:
        return
    document = strict_json.parse(text.encode())
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        yield _problem("pt2.tree", f"{where} is no tree description.")
        return
    waiting = [document[1]]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
            yield _problem("pt2.tree", f"{where} is no tree description.")
            return
        if node["type"] not in _TREE_TYPES or not isinstance(node["context"], str | None):
            yield _problem("pt2.tree", f"{where} builds a {str(node['type'])[:80]!r}.")
        waiting.extend(node["children_spec"])


def _is_export(names: frozenset[str]) -> bool:
    root = torch.root_of(names)
    return root is not None and any(name.startswith(f"{root}models/") for name in names)


LAYOUTS = (Layout(name="pt2", recognises=_is_export, examine=examine),)
