"""How numpy pickles its arrays, types and random states: which arguments and which states are really its own.

A crafted dtype state could make numpy take raw bytes for pointers, so that sizes and flags are held against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.readers.checks import Check, StateCheck, any_state, content, is_bytes, is_plain, is_text, product
from pipeline.readers.symbols import Bytes, Global, Items, Made, Pair, Table, Thing
from pipeline.readers.words import words

if TYPE_CHECKING:
    from pipeline.readers.machine import Machine

_PLAIN_TYPE = re.compile(r"[<>|=]?(?:([biufcSUVmMO])(\d{0,9})(?:\[\d{0,4}[a-zA-Zμ]{1,2}\])?|(\?))")
_NO_OBJECT_FLAGS = 8 | 16 | 128  # to be initialised, aligned
_OBJECT_FLAGS = 27  # those that every type with objects inside has
_DTYPE = Global("numpy", "dtype")

Element = tuple[int, bool]
"""Bytes of one element, and whether there are objects in it."""


def element_of_text(name: str) -> Element | None:
    match = _PLAIN_TYPE.fullmatch(name)
    if match is None:
        return None
    kind, digits, _ = match.groups()
    if kind == "O":
        return 8, True
    if kind in ("M", "m"):
        return 8, False
    size = int(digits or 1)
    return size * 4 if kind == "U" else size, False


def element(dtype: object) -> Element | None:
    """What a symbolic dtype describes, if it is one that was made as numpy makes them."""
    if not isinstance(dtype, Made) or dtype.kind != _DTYPE:
        return None
    if isinstance(dtype.state, tuple):
        return int(dtype.state[0]), bool(dtype.state[1])
    name = dtype.arguments[0] if dtype.arguments else None
    return element_of_text(name) if isinstance(name, str) else None


def sealed(dtype: object) -> Element | None:
    """As `element`; from here on nothing may change the dtype: what holds it would change its meaning."""
    found = element(dtype)
    if found is not None and isinstance(dtype, Made):
        dtype.done = True
    return found


def _dtype(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`numpy.dtype("f8", False, True)`: a copy, so that a state that is set does not change numpy's own."""
    del machine
    return (
        len(arguments) == 3
        and (
            (isinstance(arguments[0], str) and element_of_text(arguments[0]) is not None)
            or arguments[0] in (Global("numpy", "record"), Global("numpy.rec", "record"))
        )
        and arguments[1:] in ((False, True), (0, 1))
    )


def _dtype_state(machine: Machine, made: Made, state: object) -> bool:
    """`(3, "<", subarray, names, fields, size, alignment, flags)`, version 4 with the unit of times behind it."""
    del machine
    if not isinstance(state, tuple) or len(state) not in (8, 9) or state[0] not in (3, 4):
        return False
    _, order, inner, names, fields, size, alignment, flags = state[:8]
    if not isinstance(order, str) or type(size) is not int or type(alignment) is not int or type(flags) is not int:
        return False
    own = element(made)
    width, objects = own if own is not None else (size, False)
    if size not in (-1, width) or width < 0:
        return False
    if fields is not None or names is not None:
        parts = _fields(fields, names, width)
        if parts is None or inner is not None:
            return False
        objects = parts
    elif inner is not None:
        repeated = _subarray(inner)
        if repeated is None or repeated[0] != width:
            return False
        objects = repeated[1]
    made.state = (width, objects)
    return flags & _OBJECT_FLAGS == _OBJECT_FLAGS if objects else flags & ~_NO_OBJECT_FLAGS == 0


def _fields(fields: object, names: object, width: int) -> bool | None:
    """Whether the fields of a structure hold objects; None where they reach beyond it."""
    if not isinstance(fields, Table) or not fields.whole or fields.odd or not isinstance(names, tuple):
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    objects = False
    for field in fields.entries.values():
        if not isinstance(field, tuple) or len(field) not in (2, 3) or type(field[1]) is not int:
            return None
        part = sealed(field[0])
        if part is None or field[1] < 0 or field[1] + part[0] > width:
            return None
        objects = objects or part[1]
    return objects


def _subarray(inner: object) -> Element | None:
    if not isinstance(inner, tuple) or len(inner) != 2:
        return None
    part, count = sealed(inner[0]), product(inner[1] if isinstance(inner[1], tuple) else (inner[1],))
    return None if part is None or count is None else (part[0] * count, part[1])


_ARRAYS = frozenset(
    {("numpy", name) for name in ("ndarray", "matrix", "recarray")}
    | {("numpy.matrixlib.defmatrix", "matrix"), ("numpy.rec", "recarray")}
    | {(f"numpy.{core}.records", "recarray") for core in ("core", "_core")}
)
_MASKED = frozenset({("numpy.ma", "MaskedArray"), ("numpy.ma.core", "MaskedArray")})


def is_array_class(value: object) -> bool:
    return isinstance(value, Global) and value.pair in _ARRAYS


def _empty_array(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`_reconstruct(ndarray, (0,), b"b")`: an empty array, to be filled. Any other size would fill the memory."""
    del machine
    return (
        len(arguments) == 3 and is_array_class(arguments[0]) and arguments[1] == (0,) and content(arguments[2]) == b"b"
    )


def _empty_masked_array(machine: Machine, arguments: tuple[object, ...]) -> bool:
    return (
        len(arguments) == 4
        and isinstance(arguments[0], Global)
        and arguments[0].pair in _MASKED
        and _empty_array(machine, arguments[1:])
    )


def _array_state(machine: Machine, made: Made, state: object) -> bool:
    """`(1, shape, dtype, Fortran order, bytes or the list of objects)`; a masked array's mask and filler behind it."""
    del machine
    masked = made.kind.name == "_mareconstruct"
    if not isinstance(state, tuple) or len(state) != (7 if masked else 5) or state[0] not in (1, True):
        return False
    _, shape, dtype, order, values = state[:5]
    found, count = sealed(dtype), product(shape)
    if found is None or count is None or type(order) not in (bool, int):
        return False
    if masked and not (is_bytes(state[5]) or isinstance(state[5], str | Thing)):
        return False
    if found[1]:
        return isinstance(values, Items) and values.what == "list"
    if isinstance(values, Bytes):
        return values.length == found[0] * count
    return is_text(values) or is_bytes(values)


def _scalar(machine: Machine, arguments: tuple[object, ...]) -> bool:
    del machine
    if len(arguments) != 2:
        return False
    found = sealed(arguments[0])
    return found is not None and not found[1] and (is_bytes(arguments[1]) or isinstance(arguments[1], str))


def _from_buffer(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`_frombuffer(bytes, dtype, shape, order)`: how protocol 5 writes arrays."""
    del machine
    if len(arguments) not in (4, 5) or not isinstance(arguments[0], Bytes):
        return False
    found, count = sealed(arguments[1]), product(arguments[2])
    return (
        found is not None
        and not found[1]
        and count is not None
        and arguments[0].length == found[0] * count
        and arguments[3] in ("C", "F", "K", "A")
        and is_plain(arguments[4:])
    )


_GENERATORS = words("MT19937 PCG64 PCG64DXSM Philox SFC64")
_MODULES = {"MT19937": "_mt19937", "PCG64": "_pcg64", "PCG64DXSM": "_pcg64", "Philox": "_philox", "SFC64": "_sfc64"}
_BIT_GENERATOR = Global("numpy.random._pickle", "__bit_generator_ctor")


def _bit_generator(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """By name, or by class: the constructor calls what it is given."""
    del machine
    if len(arguments) != 1:
        return not arguments
    chosen = arguments[0]
    return (isinstance(chosen, str) and chosen in _GENERATORS) or (
        isinstance(chosen, Global) and chosen.pair in BIT_GENERATORS
    )


def _generator(machine: Machine, arguments: tuple[object, ...]) -> bool:
    """`__generator_ctor(bit generator or its name, constructor)`: the constructor must be numpy's own."""
    del machine
    return (
        len(arguments) <= 2
        and all(
            (isinstance(first, str) and first in _GENERATORS)
            or (isinstance(first, Made) and first.kind == _BIT_GENERATOR)
            for first in arguments[:1]
        )
        and all(second == _BIT_GENERATOR for second in arguments[1:])
    )


BIT_GENERATORS = frozenset((f"numpy.random.{_MODULES[name]}", name) for name in _GENERATORS)

CALLS: Mapping[Pair, Check] = {
    ("numpy", "dtype"): _dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy.ma.core", "_mareconstruct"): _empty_masked_array,
    ("numpy.random._pickle", "__bit_generator_ctor"): _bit_generator,
    ("numpy.random._pickle", "__generator_ctor"): _generator,
    ("numpy.random._pickle", "__randomstate_ctor"): _generator,
}

STATES: Mapping[Pair, StateCheck] = {
    ("numpy", "dtype"): _dtype_state,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array_state for core in ("core", "_core")},
    ("numpy.ma.core", "_mareconstruct"): _array_state,
    **{("numpy.random._pickle", f"__{kind}_ctor"): any_state for kind in ("bit_generator", "generator", "randomstate")},
    ("numpy.random.bit_generator", "SeedSequence"): any_state,
}

NAMES = frozenset(
    _ARRAYS
    | _MASKED
    | BIT_GENERATORS
    | {("numpy", "record"), ("numpy.rec", "record")}
    | {("numpy.random.bit_generator", "SeedSequence"), ("numpy.random.mtrand", "RandomState")}
    | {("numpy.random._generator", "Generator")}
)

_RECORDED = ("subclass", "shape", "order", "dtype", "allow_mmap")


def joblib_array(made: Made, state: object) -> tuple[Element, int] | None:
    """What joblib's wrapper, filled with this state, says about the array behind it: its element and their number."""
    if not attributes_only(state):
        return None
    entries = state.entries if isinstance(state, Table) else {}
    if set(entries) - {"numpy_array_alignment_bytes"} != set(_RECORDED) or made.arguments:
        return None
    found, count = sealed(entries["dtype"]), product(entries["shape"])
    if found is None or count is None or not _joblib_class(entries["subclass"]) or entries["order"] not in ("C", "F"):
        return None
    return found, count


def joblib_aligned(state: object) -> bool:
    """Since joblib 1.2 a byte says how much padding stands before the numbers."""
    return isinstance(state, Table) and state.entries.get("numpy_array_alignment_bytes") is not None


def attributes_only(state: object) -> bool:
    return isinstance(state, Table) and state.whole and not state.odd


def _joblib_class(value: object) -> bool:
    return isinstance(value, Global) and value.pair in _JOBLIB_CLASSES


_JOBLIB_CLASSES = frozenset({("numpy", "ndarray"), ("numpy", "matrix"), ("numpy.matrixlib.defmatrix", "matrix")})
JOBLIB_WRAPPERS = frozenset(
    {("joblib.numpy_pickle", "NumpyArrayWrapper"), ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper")}
)
