"""Between what stands in a request and numpy arrays: JSON lists, raw bytes, and everything that may be wrong with them."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pipeline.signature import shown
from serving.protocol.refusals import BadRequest, Buffer, brief
from serving.protocol.signature import Port

Array = np.ndarray[Any, Any]

NUMPY: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "BYTES": np.dtype(object),
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in NUMPY.items()}
_ORDER = {datatype: dtype.newbyteorder("<") for datatype, dtype in NUMPY.items()}

_TAKES = {"f": frozenset({int, float}), "i": frozenset({int}), "u": frozenset({int}), "b": frozenset({bool})}
_TEXTS = frozenset({str})
_WORDS = {"f": "numbers", "i": "whole numbers", "u": "whole numbers from 0", "b": "true or false", "O": "texts"}
_DEEPEST, _WIDEST = 32, 1 << 31
_FRAME = struct.Struct("<I")


def datatype_of(array: Array) -> str:
    """The V2 name of an array's dtype; texts of any kind are BYTES."""
    return "BYTES" if array.dtype.kind in "OUS" else _NAMES[array.dtype]


def fits(wanted: Sequence[int | None] | None, shape: Sequence[int]) -> bool:
    """Whether a tensor of this shape is taken. A free axis takes any size but none."""
    if wanted is None:
        return len(shape) <= _DEEPEST and all(0 < size < _WIDEST for size in shape)
    return len(wanted) == len(shape) and all(
        0 < size < _WIDEST if want is None else size == want for want, size in zip(wanted, shape, strict=True)
    )


def wrong_shape(port: Port, got: Sequence[int]) -> BadRequest:
    expected, came = shown(port.shape), shown(got[:_DEEPEST])
    free = " A free size (?) is at least 1." if port.shape is None or None in port.shape else ""
    return BadRequest(
        "wrong_shape",
        f"Input {port.name} takes {expected}, not {came}.{free}",
        field=f"inputs.{port.name}.shape",
        expected=expected,
        got=came,
    )


def flatten(port: Port, data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The values of nested lists, row by row, and the shape of the nesting; a bare value has the shape ()."""
    if type(data) is not list:
        return [data], ()
    shape = [len(data)]
    level = data
    while level and type(level[0]) is list:  # lists among values are found by `from_values`, which looks at each anyway
        sizes = set(map(len, level)) if set(map(type, level)) == {list} else ()
        if len(sizes) != 1 or len(shape) == _DEEPEST:
            raise _ragged(port)
        shape += sizes
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def from_values(port: Port, values: list[Any], shape: Sequence[int]) -> Array:
    """An array of JSON's values, each of which the datatype must be able to hold."""
    dtype = NUMPY[port.datatype]
    quick = _floats(values) if dtype.kind == "f" else None
    if quick is not None:
        with np.errstate(over="ignore"):
            return checked(port, _reshaped(port, quick.astype(dtype), shape))
    takes = _TAKES.get(dtype.kind, _TEXTS)
    if not set(map(type, values)) <= takes:
        wrong = next(one for one in values if type(one) not in takes)
        raise _ragged(port) if type(wrong) is list else _wrong_value(port, wrong)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        outside = next(one for one in values if not limits.min <= one <= limits.max)
        raise _out_of_range(port, f"{limits.min} to {limits.max}", outside) from None
    return checked(port, _reshaped(port, array, shape))


def _floats(values: list[Any]) -> Array | None:
    """JSON's numbers as float64; None where there are none, or something else is among them.

    Pictures have some hundred thousand: looking at each one's type takes as long as reading it. Only what is 0 or 1 may be
    a truth value.
    """
    try:
        found = np.frombuffer(array("d", values)) if values else None
    except (TypeError, OverflowError):
        return None
    if found is None or any(
        type(values[place]) is bool for place in np.flatnonzero((found == 0) | (found == 1)).tolist()
    ):
        return None
    return found


def from_bytes(port: Port, data: Buffer, shape: Sequence[int]) -> Array:
    """An array over the bytes themselves, little-endian and row by row; copied only where they lie unaligned."""
    if port.datatype == "BYTES":
        return checked(port, _reshaped(port, _unframed(port, data, math.prod(shape)), shape))
    dtype = _ORDER[port.datatype]
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != len(data):
        raise wrong_length(port, f"{wanted} bytes for {shown(shape)} of {port.datatype}", f"{len(data)} bytes")
    array = np.frombuffer(data, dtype)
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise _out_of_range(port, "bytes 0 and 1", int(array.view(np.uint8).max()))
    if not array.flags.aligned:
        array = array.copy()
    return checked(port, _reshaped(port, array, shape))


def framed(array: Array) -> bytes:
    """Texts as the binary extension has them: each its length in four bytes, little-endian, and UTF-8."""
    encoded = [one if isinstance(one, bytes) else str(one).encode() for one in array.ravel().tolist()]
    return b"".join(chain.from_iterable((_FRAME.pack(len(one)), one) for one in encoded))


def wrong_length(port: Port, expected: str, got: str) -> BadRequest:
    return BadRequest(
        "wrong_length",
        f"Input {port.name} needs {expected}, not {got}.",
        field=f"inputs.{port.name}.data",
        expected=expected,
        got=got,
    )


def checked(port: Port, array: Array) -> Array:
    """The array, if its values are such as the model knows."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
        where = [int(one) for one in place]
        expected = f"finite numbers that {port.datatype} can hold"
        raise BadRequest(
            "not_finite",
            f"Input {port.name} takes {expected}; at {where} there is none.",
            field=f"inputs.{port.name}.data",
            expected=expected,
            got=f"{array[place]} at {where}",
        )
    if port.below is not None and array.dtype.kind in "iu" and array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= port.below:
            raise _out_of_range(port, f"0 to {port.below - 1}", low if low < 0 else high)
    if port.closed and port.values:
        _closed(port, array)
    return array


def _closed(port: Port, array: Array) -> None:
    if array.dtype.kind == "O":
        unknown: Any = next((one for one in array.ravel().tolist() if one not in port.known), None)
    else:
        known = np.array([float(one) for one in port.values]).astype(array.dtype)
        outside = array[~np.isin(array, known)]
        unknown = outside[0].item() if outside.size else None
    if unknown is not None:
        expected = ", ".join(port.values[:10]) + (", …" if len(port.values) > 10 else "")
        raise BadRequest(
            "unknown_value",
            f"Input {port.name} knows {expected}, not {brief(unknown)}.",
            field=f"inputs.{port.name}.data",
            expected=list(port.values),
            got=brief(unknown),
        )


def _reshaped(port: Port, array: Array, shape: Sequence[int]) -> Array:
    if math.prod(shape) != array.size:
        raise wrong_length(port, f"{math.prod(shape)} values for {shown(shape)}", f"{array.size}")
    try:
        return array.reshape(shape)
    except ValueError:  # no values at all, and sizes beyond what numpy can count
        raise wrong_shape(port, shape) from None


def _unframed(port: Port, data: Buffer, count: int) -> Array:
    """Texts out of their frames."""
    view, position = memoryview(data), 0
    texts: list[str] = []
    while position + 4 <= len(view) and len(texts) < count:
        end = position + 4 + _FRAME.unpack_from(view, position)[0]
        if end > len(view):
            break
        try:
            texts.append(str(view[position + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise BadRequest(
                "not_utf8",
                f"Input {port.name}: text {len(texts)} is not UTF-8; the model takes texts.",
                field=f"inputs.{port.name}.data",
                expected="UTF-8",
                got=brief(bytes(view[position + 4 : min(end, position + 24)])),
            ) from None
        position = end
    if position != len(view) or len(texts) != count:
        raise wrong_length(
            port,
            f"{count} texts, each after its length in four bytes, and nothing else",
            f"{len(texts)} in the first {position} of {len(view)} bytes",
        )
    return np.array(texts, object)


def _ragged(port: Port) -> BadRequest:
    return BadRequest(
        "wrong_shape",
        f"Input {port.name}: its lists have different lengths, hold values beside lists, or are nested too deeply.",
        field=f"inputs.{port.name}.data",
        expected=shown(port.shape),
        got="ragged lists",
    )


def _wrong_value(port: Port, value: Any) -> BadRequest:
    words = _WORDS[NUMPY[port.datatype].kind]
    return BadRequest(
        "wrong_datatype",
        f"Input {port.name} is {port.datatype} and takes {words}, not {brief(value)}.",
        field=f"inputs.{port.name}.data",
        expected=f"{port.datatype}: {words}",
        got=brief(value),
    )


def _out_of_range(port: Port, expected: str, got: int) -> BadRequest:
    return BadRequest(
        "out_of_range",
        f"Input {port.name} takes {expected}, not {got}.",
        field=f"inputs.{port.name}.data",
        expected=expected,
        got=str(got),
    )
