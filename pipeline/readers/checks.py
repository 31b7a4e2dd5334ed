"""What vetted callables may be called with, and what vetted classes may be filled with: one small function for each.

A check sees symbols only. It says yes to what frameworks write; everything else is somebody's idea.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.readers import nested
from pipeline.readers.symbols import Bytes, Elements, Global, Items, Made, Table, Thing, is_special
from pipeline.readers.torch_ops import OPERATORS
from pipeline.readers.words import words

if TYPE_CHECKING:
    from pipeline.readers.machine import Machine

Check = Callable[["Machine", tuple[object, ...]], bool]
"""Whether a vetted callable may be called with these arguments."""

StateCheck = Callable[["Machine", Made, object], bool]
"""Whether what was made may get this state."""

_DEEPEST_ARGUMENTS = 10_000
BUILTINS = ("builtins", "__builtin__")
_FACTORIES = frozenset(
    {(module, name) for module in BUILTINS for name in words("list dict set int float str bool tuple bytes frozenset")}
    | {("collections", "OrderedDict"), ("collections", "Counter")}
)
_FRACTION = re.compile(r"-?\d{1,600}(?:/\d{1,600})?")


# Arguments


def plain(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """Values only: no names among them, also not inside of tuples."""
    del machine
    return is_plain(arguments)


def is_plain(value: object) -> bool:
    queue, seen = [value], 0
    while queue:
        one = queue.pop()
        seen += 1
        if isinstance(one, Global) or seen > _DEEPEST_ARGUMENTS:
            return False
        if isinstance(one, tuple):
            queue.extend(one)
    return True


def nothing(machine: Machine, arguments: tuple[object, ...]) -> bool:
    del machine
    return arguments == ()


def data(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """Plain Python data: an instance of some class among it would run code of that class when it is iterated over."""
    return plain(machine, arguments) and not any(
        isinstance(argument, Made) and argument.kind.pair not in _ITERABLE for argument in arguments
    )


_ITERABLE = frozenset({("collections", "OrderedDict"), *((module, "set") for module in BUILTINS)})


def texts_and_numbers(machine: Machine, arguments: tuple[object, ...]) -> bool:
    del machine
    return all(isinstance(argument, str | int | float | None) for argument in arguments)


def given_bytes(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`bytearray(number)` would fill the memory."""
    del machine
    return all(isinstance(argument, str) or is_bytes(argument) for argument in arguments)


def encoded(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """How protocols 0 to 2 write bytes: `_codecs.encode(text, "latin1")`."""
    if len(arguments) != 2 or arguments[1] not in ("latin1", "latin-1") or not is_text(arguments[0]):
        return False
    nested.suspect_latin(machine, arguments[0])
    return True


def is_text(value: object) -> bool:
    """Text, short or long."""
    return isinstance(value, str) or (isinstance(value, Thing) and value.what == "text")


def is_bytes(value: object) -> bool:
    """Bytes, in each way in which a pickle can hold them."""
    return (
        isinstance(value, Bytes)
        or (isinstance(value, Made) and value.kind == _ENCODE)
        or (isinstance(value, Made) and value.kind.module in BUILTINS and value.kind.name in ("bytes", "bytearray"))
    )


_ENCODE = Global("_codecs", "encode")


def content(value: object) -> bytes | None:
    """The bytes themselves, where they are few and stand there."""
    if isinstance(value, Made) and value.kind == _ENCODE:
        value = value.arguments[0] if value.arguments else None
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return value.content if isinstance(value, Bytes) else None


def default_factory(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`defaultdict(list)`: the factory is called for every missing key."""
    del machine
    return len(arguments) <= 1 and all(
        argument is None or (isinstance(argument, Global) and argument.pair in _FACTORIES) for argument in arguments
    )


def fraction(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`Fraction("1e999999999")` would compute for ever."""
    if len(arguments) == 1:
        return isinstance(arguments[0], str) and _FRACTION.fullmatch(arguments[0]) is not None
    return len(arguments) == 2 and texts_and_numbers(machine, arguments)


def kind_of_nothing(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`type(None)`: how Python itself writes that class. `type(name, bases, dict)` would make one."""
    del machine
    return arguments == (None,)


def moment(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """Dates and times: packed into bytes, or as numbers, with a time zone made of the same."""
    del machine
    return all(
        argument is None
        or isinstance(argument, str | int)
        or is_bytes(argument)
        or (isinstance(argument, Made) and argument.kind.module == "datetime")
        for argument in arguments
    )


# Making instances of a class that is the first argument


def instance(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`copyreg.__newobj__(cls)` and what Cython writes for its classes: `__pyx_unpickle_X(cls, checksum, state)`."""
    return (
        bool(arguments)
        and isinstance(arguments[0], Global)
        and arguments[0].pair in machine.allowed.classes
        and is_plain(arguments[1:])
    )


def bare_instance(machine: Machine, arguments: tuple[object, ...]) -> bool:
    return len(arguments) == 1 and instance(machine, arguments)


def new_index(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """pandas: `_new_Index(class, {"data": …, "name": …})` makes an index with these options."""
    return (
        len(arguments) == 2
        and bare_instance(machine, arguments[:1])
        and isinstance(arguments[0], Global)
        and arguments[0].name.endswith("Index")
        and isinstance(arguments[1], Table)
        and arguments[1].whole
        and not arguments[1].odd
        and not any(map(is_special, arguments[1].entries))
        and all(is_plain(value) for value in arguments[1].entries.values())
    )


def string_type(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """pandas: `StringDtype("python", NA)`."""
    del machine
    return len(arguments) <= 2 and all(isinstance(one, str | float | None) or one in _MISSING for one in arguments)


_MISSING = (Global("pandas", "NA"), Global("pandas._libs.missing", "NA"))


def reconstructed(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`copyreg._reconstructor(cls, object, None)`: protocols 0 and 1. Other bases get their value as third argument."""
    if len(arguments) != 3 or not instance(machine, arguments[:1]) or not isinstance(arguments[1], Global):
        return False
    base, value = arguments[1], arguments[2]
    if base.module not in BUILTINS:
        return False
    return (base.name == "object" and value is None) or (
        base.name in ("dict", "list", "set", "tuple", "str", "int", "float")
        and (isinstance(value, str | int | float | tuple | Items | Table) and is_plain(value))
    )


def member(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`getattr(cls, name)`, for the exact pairs that frameworks write: members of enums, torch's own functions."""
    if len(arguments) != 2 or not isinstance(arguments[0], Global) or not isinstance(arguments[1], str):
        return False
    if arguments[0].pair == ("torch._C", "_VariableFunctionsClass"):
        return arguments[1] in OPERATORS["aten"] and not arguments[1].startswith("_")
    return arguments[1] in machine.allowed.members.get(arguments[0].pair, ())


def layer(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`functools.partial(LayerNorm)`, which torchvision's and timm's models hold; the options come with its state."""
    return (
        len(arguments) == 1
        and isinstance(arguments[0], Global)
        and arguments[0].pair in machine.allowed.classes
        and arguments[0].module.startswith(("torch.nn.modules.", "timm.layers.", "torchvision.ops."))
    )


# torch

_REBUILDERS = words(
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_qtensor _rebuild_sparse_tensor"
)
_TENSORS = frozenset(
    {("torch", "Tensor"), ("torch._tensor", "Tensor")}
    | {("torch.nn.parameter", name) for name in ("Parameter", "Buffer")}
    | {("torch.nn", "Parameter")}
)


def tensor(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`(storage, offset, size, stride, …)`, inside the storage: what lies beyond it is somebody else's memory."""
    del machine
    *plain, last = arguments or (None,)
    typed = isinstance(last, Global) and last.module == "torch"  # `_rebuild_tensor_v3` names the type of an untyped one
    if len(arguments) < 4 or not is_plain(tuple(plain) if typed else arguments):
        return False
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Elements):
        return True
    bits = re.search(r"\d+", last.name) if isinstance(last, Global) else None
    width = int(bits[0]) // 8 if bits is not None and storage.untyped else 1
    return _inside(offset, size, stride, storage.count // max(width, 1))


def _inside(offset: object, size: object, stride: object, count: int) -> bool:
    if (
        type(offset) is not int
        or not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or len(size) != len(stride)
        or not all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
    ):
        return False
    if 0 in size:
        return bool(offset <= count)
    return bool(offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) < count)


def typed_tensor(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`torch._tensor._rebuild_from_type_v2(function, class, arguments, state)`: calls one of the other functions."""
    if len(arguments) != 4:
        return False
    function, kind, inner, state = arguments
    return (
        isinstance(function, Global)
        and function.module == "torch._utils"
        and function.name in _REBUILDERS
        and isinstance(kind, Global)
        and kind.pair in _TENSORS
        and isinstance(inner, tuple)
        and (tensor(machine, inner) if function.name.startswith("_rebuild_tensor") else is_plain(inner))
        and _harmless_attributes(state)
    )


def parameter_with_state(machine: Machine, arguments: tuple[object, ...]) -> bool:
    del machine
    return len(arguments) == 4 and is_plain(arguments[:3]) and _harmless_attributes(arguments[3])


def quantised_tensor(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """The scheme is a name that stands inside a tuple: `(torch.per_tensor_affine, scale, zero point)`."""
    return tensor(machine, arguments[:4]) and all(
        is_plain(argument[1:] if isinstance(argument, tuple) and argument[:1] and _is_scheme(argument[0]) else argument)
        for argument in arguments
    )


def _is_scheme(value: object) -> bool:
    return isinstance(value, Global) and value.module == "torch" and value.name.startswith("per_")


def named_tensor(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """A tensor without numbers: its type is a name."""
    del machine
    return all(
        is_plain(argument) or (isinstance(argument, Global) and argument.module == "torch") for argument in arguments
    )


def torch_inside(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """A tensor in a plain pickle is a file of `torch.save` of its own, and judged as one."""
    return len(arguments) == 1 and nested.look_inside(machine, arguments[0])


# States


def attributes(machine: Machine, made: Made, state: object) -> bool:
    """What `__dict__` is updated with: names that Python gives no meaning to."""
    del machine, made
    return state is None or _harmless_attributes(state)


def _harmless_attributes(state: object) -> bool:
    if isinstance(state, tuple):  # what has slots: one dict for `__dict__`, one for them
        return len(state) == 2 and all(part is None or _harmless_attributes(part) for part in state)
    return isinstance(state, Table) and not state.odd and not any(map(is_special, state.entries))


def any_state(machine: Machine, made: Made, state: object) -> bool:
    """For classes whose own `__setstate__` was reviewed: it judges what it gets."""
    del machine, made
    return not isinstance(state, Table | tuple) or not special_names(state)


def layer_options(machine: Machine, made: Made, state: object) -> bool:
    """`functools.partial.__setstate__((function, arguments, options, attributes))` can replace its function."""
    del machine
    return (
        isinstance(state, tuple)
        and len(state) == 4
        and state[:1] == made.arguments[:1]
        and is_plain(state[1])
        and isinstance(state[2], Table)
        and state[2].whole
        and not state[2].odd
        and all(is_plain(value) for value in state[2].entries.values())
        and (state[3] is None or (isinstance(state[3], Table) and not state[3].entries and not state[3].odd))
    )


def special_names(state: object) -> list[str]:
    """Attributes by which a state would change what its object is."""
    tables = [part for part in (state if isinstance(state, tuple) else (state,)) if isinstance(part, Table)]
    return [name for table in tables for name in table.entries if is_special(name)]


# Sizes


def product(shape: object) -> int | None:
    """How many elements an array of this shape has."""
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        return None
    return math.prod(shape) if len(shape) <= 64 else None
