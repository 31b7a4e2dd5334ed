"""What each pickle opcode does to the symbolic machine of `pickle.py`, for protocols 0 to 5. Judges nothing."""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline.readers import nested
from pipeline.readers.symbols import HIGHEST, Global, Items, Mark, Table, Thing

if TYPE_CHECKING:
    from pipeline.readers.machine import Machine

PROTOCOLS = {ord(opcode.code): opcode.proto for opcode in pickletools.opcodes}
"""The protocol that brought each opcode."""

_LINE = 4096
_LONGEST_LINE = 8 << 20
_KEPT_TEXT = 1024
_KEPT_TUPLE = 256


def _tuple(machine: Machine, values: list[object]) -> None:
    machine.hold(values)
    machine.push(tuple(values) if len(values) <= _KEPT_TUPLE else Thing("long tuple"))


def _proto(machine: Machine) -> None:
    announced = machine.cursor.byte()
    if announced > HIGHEST:
        machine.broken("The pickle has an unknown protocol.")
    if machine.seen:
        machine.unknown("pickle.protocol", "The pickle announces its protocol in the middle.")
    machine.protocol = max(machine.protocol, announced)


def _frame(machine: Machine) -> None:
    length = machine.cursor.number(8)
    if length > machine.cursor.remaining:
        machine.broken("A frame is longer than the file.")
    if machine.frame_end > machine.cursor.position:
        machine.unknown("pickle.frame", "A frame begins inside of another.")
    machine.frame_end = machine.cursor.position + length


def _unicode_line(machine: Machine) -> None:
    line = machine.cursor.line(_LONGEST_LINE)
    try:
        _push_text(machine, line.decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        machine.broken("A string is not text.")


def _string_line(machine: Machine) -> None:
    """Protocol 0, Python 2: a string in quotes. Its escapes are resolved as an unpickler resolves them."""
    line = machine.cursor.line(_LONGEST_LINE).rstrip()
    if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":
        machine.broken("A string has no quotes.")
    try:
        raw, _ = codecs.escape_decode(line[1:-1])
    except ValueError:
        machine.broken("A string holds broken escapes.")
    _push_text(machine, raw.decode("latin-1"))


def _push_text(machine: Machine, text: str) -> None:
    if len(text) > _KEPT_TEXT:
        machine.push(Thing("text"))
    else:
        machine.push(text)
    nested.suspect_text(machine, text)


def _latin_text(machine: Machine, length: int) -> None:
    if length > _KEPT_TEXT:
        machine.payload(length)
    else:
        _push_text(machine, machine.cursor.take(length).decode("latin-1"))


def _global(machine: Machine) -> None:
    module, name = machine.cursor.line(_LINE), machine.cursor.line(_LINE)
    try:
        machine.push(machine.look_up(module.decode(), name.decode()))
    except UnicodeDecodeError:
        machine.broken("A global's name is not text.")


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.look_up(module, name))


def _inst(machine: Machine) -> None:
    module, name = machine.cursor.line(_LINE), machine.cursor.line(_LINE)
    arguments = tuple(machine.pop_mark())
    _instantiate(machine, machine.look_up(module.decode("latin-1"), name.decode("latin-1")), arguments, "INST")


def _obj(machine: Machine) -> None:
    values = machine.pop_mark()
    if not values:
        machine.broken("OBJ has no class.")
    _instantiate(machine, values[0], tuple(values[1:]), "OBJ")


def _instantiate(machine: Machine, kind: object, arguments: tuple[object, ...], how: str) -> None:
    """Without arguments an unpickler does not call a class but makes a bare instance."""
    if not arguments and isinstance(kind, Global) and kind.pair in machine.allowed.classes:
        machine.make(kind, arguments, None, how)
    else:
        machine.call(kind, arguments, how)


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments, "REDUCE")


def _newobj(machine: Machine) -> None:
    arguments, kind = machine.pop(), machine.pop()
    machine.make(kind, arguments, None, "NEWOBJ")


def _newobj_ex(machine: Machine) -> None:
    options, arguments, kind = machine.pop(), machine.pop(), machine.pop()
    machine.make(kind, arguments, options, "NEWOBJ_EX")


def _extension(machine: Machine, width: int) -> None:
    machine.cursor.take(width)
    machine.unknown("pickle.extension", "A global hides behind a number of the extension registry.")
    machine.result.calls += 1
    machine.push(Global("copyreg", "?extension"))


def _buffer(machine: Machine) -> None:
    machine.unknown("pickle.buffer", "The pickle needs buffers from elsewhere.")
    machine.push(Thing("buffer"))


def _readonly_buffer(machine: Machine) -> None:
    machine.top()


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.fill("APPEND", [value])


def _setitem(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill("SETITEM", [key, value])


def _many(how: str) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        values = machine.pop_mark()
        machine.fill(how, values)

    return step


def _pop(machine: Machine) -> None:
    if not machine.stack:
        machine.broken("The pickle takes a value from an empty stack.")
    machine.stack.pop()


def _pop_mark(machine: Machine) -> None:
    machine.pop_mark()


def _list(machine: Machine) -> None:
    machine.push(Items("list", machine.hold(machine.pop_mark())))


def _frozenset(machine: Machine) -> None:
    machine.push(Items("frozenset", machine.hold(machine.pop_mark())))


def _dict(machine: Machine) -> None:
    values = machine.pop_mark()
    machine.push(Table())
    machine.fill("SETITEMS", values)


def _constant(value: object) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _integer(width: int, *, signed: bool) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(int.from_bytes(machine.cursor.take(width), "little", signed=signed))


def _sized(width: int, take: Callable[[Machine, int], None]) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        take(machine, machine.cursor.number(width))

    return step


def _long(machine: Machine, length: int) -> None:
    if length <= 16:
        machine.push(int.from_bytes(machine.cursor.take(length), "little", signed=True))
    else:
        machine.cursor.skip(length)
        machine.push(Thing("number"))


def _decimal(machine: Machine) -> int:
    """A number in digits. Huge ones become some number out of every range."""
    line = machine.cursor.line(_LINE)
    digits = line[:-1] if line.endswith(b"L") else line
    try:
        return int(digits) if len(digits) < 64 else 1 << 64
    except ValueError:
        machine.broken("A number is not a number.")


def _float_line(machine: Machine) -> None:
    try:
        machine.push(float(machine.cursor.line(_LINE)))
    except ValueError:
        machine.broken("A number is not a number.")


def _memoize(machine: Machine) -> None:
    machine.remember(len(machine.memo))


STEPS: Mapping[int, Callable[[Machine], None]] = {
    ord("("): lambda machine: machine.push(Mark()),
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): lambda machine: machine.push(machine.top()),
    ord("F"): _float_line,
    ord("G"): lambda machine: machine.push(struct.unpack(">d", machine.cursor.take(8))[0]),
    ord("I"): lambda machine: machine.push(_decimal(machine)),
    ord("L"): lambda machine: machine.push(_decimal(machine)),
    ord("J"): _integer(4, signed=True),
    ord("K"): _integer(1, signed=False),
    ord("M"): _integer(2, signed=False),
    0x8A: _sized(1, _long),
    0x8B: _sized(4, _long),
    ord("N"): _constant(None),
    0x88: _constant(value=True),
    0x89: _constant(value=False),
    ord("S"): _string_line,
    ord("T"): _sized(4, _latin_text),
    ord("U"): _sized(1, _latin_text),
    ord("B"): _sized(4, lambda machine, length: machine.payload(length)),
    ord("C"): _sized(1, lambda machine, length: machine.payload(length)),
    0x8E: _sized(8, lambda machine, length: machine.payload(length)),
    0x96: _sized(8, lambda machine, length: machine.payload(length)),
    ord("V"): _unicode_line,
    ord("X"): _sized(4, lambda machine, length: machine.text(length)),
    0x8C: lambda machine: machine.text(machine.cursor.byte()),
    0x8D: _sized(8, lambda machine, length: machine.text(length)),
    0x97: _buffer,
    0x98: _readonly_buffer,
    ord("P"): lambda machine: machine.persistent(machine.cursor.line(_LINE)),
    ord("Q"): lambda machine: machine.persistent(machine.pop()),
    ord("R"): _reduce,
    ord("b"): lambda machine: machine.build(),
    ord("c"): _global,
    0x93: _stack_global,
    ord("i"): _inst,
    ord("o"): _obj,
    0x81: _newobj,
    0x92: _newobj_ex,
    0x82: lambda machine: _extension(machine, 1),
    0x83: lambda machine: _extension(machine, 2),
    0x84: lambda machine: _extension(machine, 4),
    ord(")"): _constant(()),
    ord("t"): lambda machine: _tuple(machine, machine.pop_mark()),
    0x85: lambda machine: _tuple(machine, [machine.pop()]),
    0x86: lambda machine: _tuple(machine, [machine.pop(), machine.pop()][::-1]),
    0x87: lambda machine: _tuple(machine, [machine.pop(), machine.pop(), machine.pop()][::-1]),
    ord("]"): lambda machine: machine.push(Items("list")),
    ord("l"): _list,
    ord("a"): _append,
    ord("e"): _many("APPENDS"),
    ord("}"): lambda machine: machine.push(Table()),
    ord("d"): _dict,
    ord("s"): _setitem,
    ord("u"): _many("SETITEMS"),
    0x8F: lambda machine: machine.push(Items("set")),
    0x90: _many("ADDITEMS"),
    0x91: _frozenset,
    ord("p"): lambda machine: machine.remember(_decimal(machine)),
    ord("q"): lambda machine: machine.remember(machine.cursor.byte()),
    ord("r"): lambda machine: machine.remember(machine.cursor.number(4)),
    0x94: _memoize,
    ord("g"): lambda machine: machine.recall(_decimal(machine)),
    ord("h"): lambda machine: machine.recall(machine.cursor.byte()),
    ord("j"): lambda machine: machine.recall(machine.cursor.number(4)),
    0x80: _proto,
    0x95: _frame,
}
