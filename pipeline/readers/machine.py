"""The unpickler's machine over symbols: nothing is imported, made or called. Judges what each opcode asks for.

Every global a pickle names must be on an allow-list, every call must be to a vetted callable with vetted arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from pipeline.readers import joblib, nested
from pipeline.readers.allowed import Allowed
from pipeline.readers.arrays import JOBLIB_WRAPPERS
from pipeline.readers.checks import special_names
from pipeline.readers.gadgets import is_gadget
from pipeline.readers.inspection import Inspection, Limits, Malformed
from pipeline.readers.opcodes import PROTOCOLS, STEPS
from pipeline.readers.source import Cursor, Source, Truncated
from pipeline.readers.symbols import (
    ALWAYS_KEPT,
    KEPT_ITEMS,
    Bytes,
    Elements,
    Global,
    Items,
    Made,
    Mark,
    Table,
    Text,
    Thing,
)

PROBE = Limits(seconds=5.0, opcodes=200_000)
_KEPT_TEXT = 1024
_KEPT_IN_ALL = 1_000_000
_STOP = 0x2E
_ROUND = 1 << 15


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
    arrays: int = 0
    names: set[Global] = field(default_factory=set)
    storages: list[Storage] = field(default_factory=list)
    value: object = None


class Machine:
    """The unpickler's stack, memo and opcodes, over symbols."""

    cursor: Cursor

    def __init__(
        self, source: Source, path: str, inspection: Inspection, allowed: Allowed, offset: int, *, probing: bool = False
    ) -> None:
        self.source = source
        self.path = path
        self.inspection = inspection
        self.allowed = allowed
        self.cursor = Cursor(source, offset)
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.protocol = 0
        self.frame_end = 0
        self.result = Walk()
        self.probing = probing
        self.seen: set[int] = set()
        self.has_tools = False
        self.endless = False
        self.kept = 0
        self.cut = False

    def beside(self, source: Source, path: str, offset: int = 0) -> Machine:
        """A fresh machine for another pickle, with the same notebook and the same lists."""
        return Machine(source, path, self.inspection, self.allowed, offset, probing=self.probing)

    def probe(self, source: Source, offset: int = 0) -> Machine:
        """A fresh machine that is to go as far as it can and tells nobody."""
        return Machine(source, "", Inspection(limits=PROBE, readers=()), self.allowed, offset, probing=True)

    def attempt(self) -> None:
        """Run, whatever happens: `cut` says that the bytes ended, `endless` that a limit did it."""
        try:
            self.run()
        except Truncated:
            self.cut = True
        except Malformed as stop:
            self.endless = stop.rule.startswith("limit.")
        except (RecursionError, MemoryError, OverflowError):
            self.endless = True

    @property
    def acts(self) -> bool:
        """Whether what was read would have done something, is a whole pickle that imports something, or goes on."""
        return self.result.calls > 0 or self.endless or (self.result.end > 0 and bool(self.result.names))

    @property
    def at(self) -> int:
        """Where the opcode stands that is being interpreted."""
        return self.cursor.start

    def run(self) -> Walk:
        limits, begin, steps, seen = self.inspection.limits, self.cursor.begin, STEPS, self.seen
        try:
            for left in range(limits.opcodes, 0, -_ROUND):
                for _ in range(min(left, _ROUND)):
                    opcode = begin()
                    if opcode == _STOP:
                        return self.finish()
                    step = steps.get(opcode)
                    if step is None:
                        self.broken(f"{opcode:#04x} is not an opcode.")
                    step(self)
                    seen.add(opcode)
                self.inspection.tick()
                if len(self.stack) > limits.stack or len(self.memo) > limits.memo:
                    break
        finally:
            self.compare_protocol()
        raise Malformed("limit.opcodes", "The pickle has more opcodes than any real model.", self.at)

    def finish(self) -> Walk:
        if len(self.stack) != 1 or isinstance(self.stack[0], Mark):
            self.broken("The pickle stops with a stack that is not one value.")
        self.result.end = self.cursor.position
        self.result.value = self.stack[0]
        return self.result

    def compare_protocol(self) -> None:
        newest = max((PROTOCOLS[opcode] for opcode in self.seen), default=0)
        if newest > max(self.protocol, 1):
            self.unknown(
                "pickle.protocol", f"The pickle announces protocol {self.protocol} and uses opcodes of {newest}."
            )

    def broken(self, message: str) -> NoReturn:
        raise Malformed("pickle.broken", message, self.at)

    def unknown(self, rule: str, message: str, advice: str | None = None) -> None:
        self.inspection.unknown(rule, self.path, self.at, message, advice)

    def malicious(self, rule: str, message: str) -> None:
        self.inspection.malicious(rule, self.path, self.at, message)

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
        if index > self.cursor.position:
            self.unknown(
                "pickle.memo", f"Memo {index:,} is beyond this pickle; unpicklers make room for all before it."
            )
        if self.memo.setdefault(index, value) is not value:
            self.unknown("pickle.memo", f"Memo {index} is written twice; no pickler does that.")
            self.memo[index] = value

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.broken(f"Memo {index} is read before it is written.")
        self.push(self.memo[index])

    # Names and calls

    def look_up(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            self.malicious("pickle.computed_name", "A global's name is computed while unpickling.")
            return Global("?", "?")
        found = Global(module, name)
        if found not in self.result.names:
            self.result.names.add(found)
            self.has_tools = self.has_tools or found.pair in self.allowed.tools
            if self.allowed.knows(found.pair):
                self.inspection.saw("pickle", f"{found.module} {found.name}", self.path)
            else:
                self.refuse_name(found)
        return found

    def refuse_name(self, found: Global) -> None:
        if is_gadget(found.module, found.name):
            self.malicious("pickle.gadget", f"The pickle names {found}, which runs code or reaches outside.")
        else:
            self.unknown(
                "pickle.unknown_global",
                f"The pickle names {str(found)[:200]}, which nobody has vetted.",
                "Save plain tensors (safetensors, a state dict) or export to ONNX; or have a reviewer look at the name.",
            )

    def call(self, function: object, arguments: object, how: str) -> None:
        """What REDUCE, INST and OBJ do: `function(*arguments)`."""
        self.result.calls += 1
        if not isinstance(function, Global):
            self.malicious("pickle.computed_call", f"{how} calls something that is not a plain global.")
            self.push(Thing("result of a computed call"))
            return
        given = arguments if isinstance(arguments, tuple) else None
        if self.allowed.knows(function.pair) and not self.allowed.is_class(function.pair):
            check = self.allowed.calls.get(function.pair)
            if check is None:
                self.unknown("pickle.unvetted_call", f"{how} calls {function}, which may only be named.")
            elif given is None or not check(self, given):
                self.unknown("pickle.arguments", f"{how} calls {function} with arguments nobody has vetted.")
        if function.pair in self.allowed.makers and given and isinstance(given[0], Global):
            self.push(Made(given[0], given[1:]))
        else:
            self.push(Made(function, given or ()))

    def make(self, kind: object, arguments: object, options: object, how: str) -> None:
        """What NEWOBJ does: `kind.__new__(kind, *arguments, **options)`."""
        self.result.calls += 1
        given = arguments if isinstance(arguments, tuple) else None
        if not isinstance(kind, Global):
            self.malicious("pickle.computed_call", f"{how} makes an object of something that is not a global.")
            self.push(Thing("instance of a computed class"))
            return
        if self.allowed.knows(kind.pair) and not self.allowed.is_class(kind.pair):
            check = self.allowed.calls.get(kind.pair)
            plain = not options or (isinstance(options, Table) and not options.entries and not options.odd)
            if kind.pair not in self.allowed.classes and check is None:
                self.unknown("pickle.unvetted_call", f"{how} makes a {kind}, which may only be named.")
            elif not plain or not (
                (given == () and kind.pair in self.allowed.classes)
                or (check is not None and given is not None and check(self, given))
            ):
                self.unknown("pickle.arguments", f"{how} makes a {kind} with arguments nobody has vetted.")
        self.push(Made(kind, given or ()))

    def hold(self, values: list[object]) -> list[object]:
        """Values on their way into a container: what only unpickling itself may call does not belong there."""
        if self.has_tools:
            for value in values:
                if isinstance(value, Global) and value.pair in self.allowed.tools:
                    self.unknown("pickle.tool", f"{value} is kept as a value, so that somebody may call it later.")
        return values

    # Changing what is there

    def fill(self, how: str, values: list[object]) -> None:
        """APPENDS, SETITEMS and ADDITEMS: fine for a list, a dict, a set, and for classes that are nothing else."""
        target = self.top()
        self.hold(values)
        self.kept += len(values)
        most = KEPT_ITEMS if self.kept < _KEPT_IN_ALL else ALWAYS_KEPT
        entries = how.startswith("SETITEM")
        if isinstance(target, Items) and not entries and (target.what == "list") is how.startswith("APPEND"):
            target.add(values, most)
        elif isinstance(target, Table) and entries:
            for key, value in zip(values[::2], values[1::2], strict=False):
                target.set(key, value, most)
        elif isinstance(target, Made):
            kinds = self.allowed.tables if entries else self.allowed.lists
            known = self.allowed.knows(target.kind.pair)
            if how == "ADDITEMS" or target.done or (known and target.kind.pair not in kinds):
                self.unknown("pickle.fill", f"{how} fills a {target.kind}, as no pickler does.")
        else:
            self.patched(target, how)

    def patched(self, target: object, how: str) -> None:
        """Something is changed that is neither a container nor an instance."""
        self.result.calls += 1
        if isinstance(target, Global):
            self.malicious("pickle.patches_global", f"{how} changes {target} itself, not an instance.")
        else:
            self.unknown("pickle.fill", f"{how} changes what is no container and no instance.")

    def build(self) -> None:
        """BUILD sets the state of an instance: attributes, or whatever a `__setstate__` takes."""
        state, target = self.pop(), self.top()
        self.result.calls += 1
        if not isinstance(target, Made):
            self.patched(target, "BUILD")
            return
        special = special_names(state)
        if special:
            self.malicious("pickle.special_attribute", f"BUILD sets {special[0][:80]!r} of a {target.kind}.")
        if target.done:
            self.unknown("pickle.fill", f"BUILD sets the state of a {target.kind} that is complete.")
        if target.kind.pair in JOBLIB_WRAPPERS and self.allowed.knows(target.kind.pair):
            joblib.read_array(self, target, state)
            return
        if self.allowed.knows(target.kind.pair) and not self.allowed.is_class(target.kind.pair):
            check = self.allowed.states.get(target.kind.pair)
            if not special and (check is None or not check(self, target, state)):
                self.unknown("pickle.state", f"BUILD gives a {target.kind} a state that nobody has vetted.")
        target.done = True

    def persistent(self, pid: object) -> None:
        """In torch's files: `("storage", type, key, place, count)`, old ones with a view or `("module", class, …)`.

        In the oldest ones the key of a tensor, or `(class, file, source)`.
        """
        named = pid[1:] if isinstance(pid, tuple) and pid[:1] == ("module",) else pid
        if not self.allowed.storages and not self.allowed.tensors:
            self.unknown("pickle.persistent_id", "A persistent id has no meaning here.")
        elif (
            self.allowed.storages
            and isinstance(pid, tuple)
            and len(pid) in (5, 6)
            and pid[0] == "storage"
            and isinstance(pid[1], Global)
            and isinstance(pid[2], str)
            and isinstance(pid[3], str)
            and type(pid[4]) is int
        ):
            storage = Storage(kind=pid[1].name, key=pid[2], count=pid[4], offset=self.at)
            self.result.storages.append(storage)
            view = pid[5] if len(pid) == 6 else None
            count = view[2] if isinstance(view, tuple) and len(view) == 3 and type(view[2]) is int else storage.count
            self.push(Elements(min(count, storage.count), untyped=storage.kind == "UntypedStorage"))
            return
        elif isinstance(named, tuple) and len(named) == 3 and isinstance(named[0], Global):
            self.push(named[0])
            return
        elif self.allowed.tensors and (type(pid) is int or isinstance(pid, str)):
            self.result.storages.append(Storage(kind="", key=str(pid), count=0, offset=self.at))
        else:
            self.unknown("pickle.persistent_id", "A persistent id names no storage.")
        self.push(Thing("storage"))

    # Constants

    def text(self, length: int) -> None:
        if length > _KEPT_TEXT:
            nested.suspect(self, self.cursor.position, length)
            self.push(Text(self.cursor.position, length))
            self.cursor.skip(length)
            return
        raw = self.cursor.take(length)
        try:
            self.stack.append(raw.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            self.broken("A string is not UTF-8.")
        if b"\n" in raw:
            nested.suspect(self, self.cursor.position - length, length, raw)

    def payload(self, length: int) -> None:
        """Bytes that are data, unless they are a pickle of their own."""
        start = self.cursor.position
        content = self.cursor.take(length) if length <= _KEPT_TEXT else None
        if content is None:
            self.cursor.skip(length)
        self.push(Bytes(start, length, content))
        nested.suspect(self, start, length, content)
