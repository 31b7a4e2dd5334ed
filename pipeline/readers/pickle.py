"""Reads pickles by interpreting their opcodes over symbols: nothing is imported, made or called.

Every global a pickle names must be on an allow-list, every call must be to a vetted callable. A payload counts even
when the pickle breaks after it, because a real unpickler would have run it by then.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from pipeline.readers.allowed import PLAIN, SCRIPT, TENSORS, Allowed, Global, Thing, is_gadget
from pipeline.readers.inspection import Glimpse, Inspection, Limits, Malformed, Reader, Severity
from pipeline.readers.opcodes import HIGHEST, STEPS, Mark
from pipeline.readers.source import Cursor, Source, Truncated, of_bytes

_LINE = 4096
_KEPT_TEXT = 1024
_NESTED = 64 << 20
_PROBE = Limits(seconds=5.0, opcodes=200_000)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A persistent id that names the bytes of a tensor."""

    kind: str
    key: str
    count: int
    offset: int


@dataclass(kw_only=True)
class Walk:
    """What one pickle did. `end` is the offset behind its STOP; `calls` counts what a real unpickler would call."""

    end: int = 0
    calls: int = 0
    names: set[Global] = field(default_factory=set)
    storages: list[Storage] = field(default_factory=list)


def examine(source: Source, path: str, inspection: Inspection, allowed: Allowed = PLAIN) -> None:
    """Judge all pickles of a file, one behind the other."""
    offset = 0
    while offset < source.size:
        offset = walk(source, path, inspection, allowed, offset=offset).end
        if offset < source.size and source.read(offset, 1) != b"\x80":
            raise Malformed("pickle.trailing", f"{source.size - offset:,} bytes follow the pickle.", offset)
        inspection.tick()
    inspection.credit("pickle", source.size)


def walk(source: Source, path: str, inspection: Inspection, allowed: Allowed, *, offset: int = 0) -> Walk:
    """Interpret one pickle up to its STOP."""
    return Machine(source, path, inspection, allowed, offset).run()


def would_act(source: Source) -> bool:
    """Whether an unpickler would call something before it noticed that this is no pickle (or is one)."""
    probe = Inspection(limits=_PROBE, readers=())
    machine = Machine(source, "", probe, PLAIN, 0)
    with suppress(Malformed, Truncated):
        machine.run()
    return machine.result.calls > 0


class Machine:
    """The unpickler's stack, memo and opcodes, over symbols."""

    cursor: Cursor
    stack: list[object]

    def __init__(self, source: Source, path: str, inspection: Inspection, allowed: Allowed, offset: int) -> None:
        self.source = source
        self.path = path
        self.inspection = inspection
        self.allowed = allowed
        self.cursor = Cursor(source, offset)
        self.stack = []
        self.memo: dict[int, object] = {}
        self.result = Walk()
        self.at = offset

    def run(self) -> Walk:
        limits, cursor = self.inspection.limits, self.cursor
        for count in range(limits.opcodes):
            self.at = cursor.position
            opcode = cursor.byte()
            if opcode == 0x2E:  # STOP
                if len(self.stack) != 1 or isinstance(self.stack[0], Mark):
                    self.broken("The pickle stops with a stack that is not one value.")
                self.result.end = cursor.position
                return self.result
            step = STEPS.get(opcode)
            if step is None:
                self.broken(f"{opcode:#04x} is not an opcode.")
            step(self)
            if count % 65536 == 0:
                self.inspection.tick()
                if len(self.stack) > limits.stack or len(self.memo) > limits.stack:
                    break
        raise Malformed("limit.opcodes", "The pickle has more opcodes than any real model.", self.at)

    def broken(self, message: str) -> NoReturn:
        raise Malformed("pickle.broken", message, self.at)

    # The stack

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if not self.stack or isinstance(self.stack[-1], Mark):
            self.broken("The pickle takes a value from an empty stack.")
        return self.stack.pop()

    def top(self) -> object:
        if not self.stack or isinstance(self.stack[-1], Mark):
            self.broken("The pickle looks at an empty stack.")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        index = len(self.stack) - 1
        while index >= 0 and not isinstance(self.stack[index], Mark):
            index -= 1
        if index < 0:
            self.broken("The pickle looks for a mark that is not there.")
        values = self.stack[index + 1 :]
        del self.stack[index:]
        return values

    def remember(self, index: int) -> None:
        value = self.top()
        if index in self.memo and self.memo[index] is not value:
            self.inspection.unknown(
                "pickle.memo", self.path, self.at, f"Memo {index} is written twice; no pickler does that."
            )
        self.memo[index] = value

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.broken(f"Memo {index} is read before it is written.")
        self.push(self.memo[index])

    # Names and calls

    def look_up(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            self.inspection.malicious(
                "pickle.computed_name", self.path, self.at, "A global's name is computed while unpickling."
            )
            return Global("?", "?")
        found = Global(module, name)
        if found not in self.result.names:
            self.result.names.add(found)
            if self.allowed.knows(found.pair):
                self.inspection.saw("pickle", f"{found.module} {found.name}", self.path)
            else:
                self.refuse_name(found)
        return found

    def refuse_name(self, found: Global) -> None:
        if is_gadget(found.module, found.name):
            self.inspection.malicious(
                "pickle.gadget", self.path, self.at, f"The pickle names {found}, which runs code or reaches outside."
            )
        else:
            self.inspection.unknown(
                "pickle.unknown_global",
                self.path,
                self.at,
                f"The pickle names {str(found)[:200]}, which nobody has vetted.",
                "Save plain tensors (safetensors, a state dict) or export to ONNX; or have a reviewer look at the name.",
            )

    def call(self, function: object, arguments: object, how: str) -> None:
        """What REDUCE, INST and OBJ do: `function(*arguments)`."""
        self.result.calls += 1
        if not isinstance(function, Global):
            self.inspection.malicious(
                "pickle.computed_call", self.path, self.at, f"{how} calls something that is not a plain global."
            )
        elif self.allowed.knows(function.pair):
            check = self.allowed.calls.get(function.pair)
            if check is None and not self.allowed.is_class(function.pair):
                self.inspection.unknown(
                    "pickle.unvetted_call", self.path, self.at, f"{how} calls {function}, which may only be named."
                )
            elif check is not None and (not isinstance(arguments, tuple) or not check(arguments)):
                self.inspection.unknown(
                    "pickle.arguments", self.path, self.at, f"{how} calls {function} with arguments nobody has vetted."
                )
        self.push(Thing(f"result of {function}"))

    def make(self, kind: object) -> None:
        """What NEWOBJ does: `kind.__new__(kind, …)`."""
        self.result.calls += 1
        if not isinstance(kind, Global):
            self.inspection.malicious(
                "pickle.computed_call", self.path, self.at, "NEWOBJ makes an object of something that is not a global."
            )
        elif self.allowed.knows(kind.pair) and not (
            kind.pair in self.allowed.calls or self.allowed.is_class(kind.pair)
        ):
            self.inspection.unknown(
                "pickle.unvetted_call", self.path, self.at, f"NEWOBJ makes a {kind}, which may only be named."
            )
        self.push(Thing(f"instance of {kind}"))

    def fill(self, target: object, how: str) -> None:
        """BUILD, APPENDS, SETITEMS change their target: fine for an instance, never for a module's own name."""
        if isinstance(target, Global):
            self.result.calls += 1
            self.inspection.malicious(
                "pickle.patches_global", self.path, self.at, f"{how} changes {target} itself, not an instance."
            )

    def persistent(self, pid: object) -> None:
        if not self.allowed.storages:
            self.inspection.unknown("pickle.persistent_id", self.path, self.at, "A persistent id has no meaning here.")
        elif (
            isinstance(pid, tuple)
            and len(pid) == 5
            and pid[0] == "storage"
            and isinstance(pid[1], Global)
            and isinstance(pid[2], str)
            and isinstance(pid[3], str)
            and type(pid[4]) is int
        ):
            storage = Storage(kind=pid[1].name, key=pid[2], count=pid[4], offset=self.at)
            self.result.storages.append(storage)
        else:
            self.inspection.unknown("pickle.persistent_id", self.path, self.at, "A persistent id names no storage.")
        self.push(Thing("storage"))

    # Constants

    def text(self, length: int) -> None:
        if length > _KEPT_TEXT:
            self.payload(length)
            return
        try:
            self.push(self.cursor.take(length).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            self.broken("A string is not UTF-8.")

    def payload(self, length: int) -> None:
        """Bytes that are data, unless they are a pickle of their own."""
        start = self.cursor.position
        self.cursor.skip(length)
        self.push(Thing("bytes"))
        if 4 <= length <= _NESTED and self.source.read(start, 1) == b"\x80":
            inner = self.source.part(start, length)
            if inner.read(1, 1)[0] <= HIGHEST and inner.read(length - 1, 1) == b".":
                with self.inspection.deeper():
                    self.nested(inner, f"{self.path}@{start}")

    def nested(self, inner: Source, path: str) -> None:
        """Bytes that look like pickles: judged as such, unless they break before they do anything."""
        offset = 0
        while offset < inner.size:
            machine = Machine(inner, path, self.inspection, self.allowed, offset)
            try:
                offset = machine.run().end
            except (Malformed, Truncated):
                if machine.result.calls:
                    raise
                return

    def decimal(self) -> int:
        line = self.cursor.line(_LINE)
        digits = line[:-1] if line.endswith(b"L") else line
        try:
            return int(digits) if len(digits) < 64 else 1 << 64
        except ValueError:
            self.broken("A number is not a number.")


def _recognises(glimpse: Glimpse) -> bool:
    head = glimpse.head
    return (head[:1] == b"\x80" and len(head) > 1 and head[1] <= HIGHEST) or would_act(of_bytes(head))


def _recall(name: str) -> Severity | None:
    """Of `module name`, once allowed: what is on no list any more, or has become a gadget."""
    module, _, attribute = name.partition(" ")
    if any(each.knows((module, attribute)) for each in (PLAIN, TENSORS, SCRIPT)):
        return None
    return Severity.MALICIOUS if is_gadget(module, attribute) else Severity.UNKNOWN


READER = Reader(name="pickle", recognises=_recognises, examine=examine, rank=5, recall=_recall)
