"""What each pickle opcode does to the symbolic machine of `pickle.py`, for protocols 0 to 5. Judges nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline.readers.allowed import Global, Thing

if TYPE_CHECKING:
    from pipeline.readers.pickle import Machine

HIGHEST = 5
_LINE = 4096
_KEPT_TEXT = 1024
_KEPT_TUPLE = 256


class Mark:
    """The mark on the stack."""


def _tuple(machine: Machine, values: list[object]) -> None:
    machine.push(tuple(values) if len(values) <= _KEPT_TUPLE else Thing("long tuple"))


def _proto(machine: Machine) -> None:
    if machine.cursor.byte() > HIGHEST:
        machine.broken("The pickle has an unknown protocol.")


def _frame(machine: Machine) -> None:
    if machine.cursor.number(8) > machine.cursor.remaining:
        machine.broken("A frame is longer than the file.")


def _unicode_line(machine: Machine) -> None:
    line = machine.cursor.line(1 << 20)
    try:
        machine.push(line.decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        machine.broken("A string is not text.")


def _string_line(machine: Machine) -> None:
    machine.cursor.line(1 << 20)
    machine.push(Thing("string"))  # its escapes are not resolved: as a global's name it counts as computed


def _latin_text(machine: Machine, length: int) -> None:
    if length > _KEPT_TEXT:
        machine.payload(length)
    else:
        machine.push(machine.cursor.take(length).decode("latin-1"))


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
    machine.call(machine.look_up(module.decode("latin-1"), name.decode("latin-1")), arguments, "INST")


def _obj(machine: Machine) -> None:
    values = machine.pop_mark()
    if not values:
        machine.broken("OBJ has no class.")
    machine.call(values[0], tuple(values[1:]), "OBJ")


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments, "REDUCE")


def _newobj(machine: Machine, operands: int) -> None:
    for _ in range(operands):
        machine.pop()
    machine.make(machine.pop())


def _extension(machine: Machine, width: int) -> None:
    machine.cursor.take(width)
    machine.inspection.unknown(
        "pickle.extension", machine.path, machine.at, "A global hides behind a number of the extension registry."
    )
    machine.result.calls += 1
    machine.push(Global("copyreg", "?extension"))


def _buffer(machine: Machine) -> None:
    machine.inspection.unknown("pickle.buffer", machine.path, machine.at, "The pickle needs buffers from elsewhere.")
    machine.push(Thing("buffer"))


def _readonly_buffer(machine: Machine) -> None:
    machine.top()


def _append(machine: Machine) -> None:
    machine.pop()
    machine.fill(machine.top(), "APPEND")


def _setitem(machine: Machine) -> None:
    machine.pop()
    machine.pop()
    machine.fill(machine.top(), "SETITEM")


def _many(how: str) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.pop_mark()
        machine.fill(machine.top(), how)

    return step


def _build(machine: Machine) -> None:
    machine.pop()
    machine.result.calls += 1
    machine.fill(machine.top(), "BUILD")


def _pop(machine: Machine) -> None:
    if not machine.stack:
        machine.broken("The pickle takes a value from an empty stack.")
    machine.stack.pop()


def _pop_mark(machine: Machine) -> None:
    machine.pop_mark()


def _take(kind: str) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.pop_mark()
        machine.push(Thing(kind))

    return step


def _thing(kind: str) -> Callable[[Machine], None]:
    return lambda machine: machine.push(Thing(kind))


def _constant(value: object) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _integer(width: int, *, signed: bool) -> Callable[[Machine], None]:
    return lambda machine: machine.push(int.from_bytes(machine.cursor.take(width), "little", signed=signed))


def _sized(width: int, take: Callable[[Machine, int], None]) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        length = machine.cursor.number(width)
        if length > machine.cursor.remaining:
            machine.broken("A value is longer than the file.")
        take(machine, length)

    return step


def _long(machine: Machine, length: int) -> None:
    if length <= 16:
        machine.push(int.from_bytes(machine.cursor.take(length), "little", signed=True))
    else:
        machine.cursor.skip(length)
        machine.push(Thing("number"))


def _float_line(machine: Machine) -> None:
    try:
        machine.push(float(machine.cursor.line(_LINE)))
    except ValueError:
        machine.broken("A number is not a number.")


STEPS: Mapping[int, Callable[[Machine], None]] = {
    ord("("): lambda machine: machine.push(Mark()),
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): lambda machine: machine.push(machine.top()),
    ord("F"): _float_line,
    ord("G"): lambda machine: machine.push(struct.unpack(">d", machine.cursor.take(8))[0]),
    ord("I"): lambda machine: machine.push(machine.decimal()),
    ord("L"): lambda machine: machine.push(machine.decimal()),
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
    0x8C: _sized(1, lambda machine, length: machine.text(length)),
    0x8D: _sized(8, lambda machine, length: machine.text(length)),
    0x97: _buffer,
    0x98: _readonly_buffer,
    ord("P"): lambda machine: machine.persistent(machine.cursor.line(_LINE)),
    ord("Q"): lambda machine: machine.persistent(machine.pop()),
    ord("R"): _reduce,
    ord("b"): _build,
    ord("c"): _global,
    0x93: _stack_global,
    ord("i"): _inst,
    ord("o"): _obj,
    0x81: lambda machine: _newobj(machine, 1),
    0x92: lambda machine: _newobj(machine, 2),
    0x82: lambda machine: _extension(machine, 1),
    0x83: lambda machine: _extension(machine, 2),
    0x84: lambda machine: _extension(machine, 4),
    ord(")"): _constant(()),
    ord("t"): lambda machine: _tuple(machine, machine.pop_mark()),
    0x85: lambda machine: _tuple(machine, [machine.pop()]),
    0x86: lambda machine: _tuple(machine, [machine.pop(), machine.pop()][::-1]),
    0x87: lambda machine: _tuple(machine, [machine.pop(), machine.pop(), machine.pop()][::-1]),
    ord("]"): _thing("list"),
    ord("l"): _take("list"),
    ord("a"): _append,
    ord("e"): _many("APPENDS"),
    ord("}"): _thing("dict"),
    ord("d"): _take("dict"),
    ord("s"): _setitem,
    ord("u"): _many("SETITEMS"),
    0x8F: _thing("set"),
    0x90: _many("ADDITEMS"),
    0x91: _take("frozenset"),
    ord("p"): lambda machine: machine.remember(machine.decimal()),
    ord("q"): lambda machine: machine.remember(machine.cursor.byte()),
    ord("r"): lambda machine: machine.remember(machine.cursor.number(4)),
    0x94: lambda machine: machine.remember(len(machine.memo)),
    ord("g"): lambda machine: machine.recall(machine.decimal()),
    ord("h"): lambda machine: machine.recall(machine.cursor.byte()),
    ord("j"): lambda machine: machine.recall(machine.cursor.number(4)),
    0x80: _proto,
    0x95: _frame,
}
