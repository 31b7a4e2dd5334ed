"""Arrays as the Open Inference Protocol (V2) carries them: bytes where numpy is there, JSON where it is not. No HTTP.

Sources: KServe's "Open Inference Protocol" and Triton's "Binary Tensor Data Extension". A text is its UTF-8 bytes behind
their number in four bytes, little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from slipway.errors import InvalidRequest, Unreachable

HEADER_LENGTH = "Inference-Header-Content-Length"
BYTES, BF16 = "BYTES", "BF16"
DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""The protocol's names of types → numpy's. It has two more: BYTES, which holds texts, and BF16."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output: `shape` has -1 where any size will do."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Port:
        """Read it from a model's metadata."""
        return cls(
            name=str(data["name"]), datatype=str(data["datatype"]), shape=tuple(int(one) for one in data["shape"])
        )

    @property
    def example(self) -> tuple[int, ...]:
        """A shape that fits, as small as it may be."""
        return tuple(1 if size < 0 else size for size in self.shape)


def numpy() -> ModuleType | None:
    """Return numpy where it is installed."""
    try:
        import numpy as np
    except ModuleNotFoundError:
        return None
    return np


def encode(inputs: Any, ports: Sequence[Port]) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a request: `inputs` by name, or those of the only input.

    A batch axis that is missing is put before the others, and numbers become those that the model takes where that loses
    no kind (float64 → float32, never 0.5 → int). Raises InvalidRequest for what the model does not take.
    """
    named = _named(inputs, ports)
    wanted = {port.name: port for port in ports}
    np = numpy()
    tensors: list[dict[str, Any]] = []
    sections: list[bytes] = []
    for name, value in named.items():
        if name not in wanted:
            raise _refused(f"The model has no input {name!r}.", f"It takes {', '.join(wanted)}.")
        tensor, section = _as_lists(value, wanted[name]) if np is None else _as_bytes(np, value, wanted[name])
        tensors.append(tensor)
        sections.append(section)
    if absent := [name for name in wanted if name not in named]:
        raise _refused(f"The model also takes {', '.join(absent)}.", f"It takes {', '.join(wanted)}.")
    if np is None:
        return {"Content-Type": "application/json"}, json.dumps({"inputs": tensors}).encode()
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return headers, head + b"".join(sections)


def decode(body: bytes, header_length: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an answer's JSON part and its outputs by name: arrays where numpy is there, else nested lists."""
    try:
        length = len(body) if header_length is None else int(header_length)
        said = json.loads(body[:length])
        return said, dict(_outputs(said["outputs"], memoryview(body)[length:]))
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Unreachable(
            "not_slipway",
            f"The answer does not follow the Open Inference Protocol: {error!r}.",
            hint="Check SLIPWAY_SERVING_URL.",
        ) from error


def _named(inputs: Any, ports: Sequence[Port]) -> Mapping[str, Any]:
    if isinstance(inputs, Mapping):
        return inputs
    if len(ports) != 1:
        names = ", ".join(port.name for port in ports)
        raise _refused("The model takes several inputs.", f"Give them by name: {names}.")
    return {ports[0].name: inputs}


def _as_bytes(np: Any, value: Any, port: Port) -> tuple[dict[str, Any], bytes]:
    array = np.asarray(value)
    if port.datatype != BYTES:
        dtype = np.dtype("float32" if port.datatype == BF16 else DTYPES[port.datatype])
        if dtype.kind in "iu" and array.dtype.kind in "iu" and array.size:
            bounds = np.iinfo(dtype)
            if array.min() < bounds.min or array.max() > bounds.max:
                raise _refused(
                    f"{port.name} is of type {port.datatype}: {bounds.min} to {bounds.max}.", "A value lies outside."
                )
        elif not np.can_cast(array.dtype, dtype, "same_kind"):
            raise _refused(f"{port.name} is of type {port.datatype}, not {array.dtype}.", "Convert it first.")
        array = np.ascontiguousarray(array, dtype).reshape(array.shape)  # it makes scalars one long
    array = array.reshape(_filled(port, array.shape))
    if port.datatype == BYTES:
        section = b"".join(_framed(one) for one in array.ravel().tolist())
    elif port.datatype == BF16:  # numpy has no such type: the upper half of a float32, rounded to even
        bits = array.view(np.uint32)
        section = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    else:
        section = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return _tensor(port, array.shape) | {"parameters": {"binary_data_size": len(section)}}, section


def _as_lists(value: Any, port: Port) -> tuple[dict[str, Any], bytes]:
    return _tensor(port, _filled(port, _shape(value))) | {"data": list(_flat(value))}, b""


def _tensor(port: Port, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": port.name, "datatype": port.datatype, "shape": list(shape)}


def _filled(port: Port, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape, a batch of one where only that is missing. What else may be wrong the server says best."""
    batch = len(shape) == len(port.shape) - 1 and port.shape[0] in {-1, 1}
    return (1, *shape) if batch else tuple(shape)


def _shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list | tuple):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _framed(value: Any) -> bytes:
    content = value if isinstance(value, bytes) else str(value).encode()
    return struct.pack("<I", len(content)) + content


def _outputs(said: Sequence[Mapping[str, Any]], left: memoryview) -> Iterator[tuple[str, Any]]:
    np = numpy()
    for tensor in said:
        name, datatype, shape = str(tensor["name"]), str(tensor["datatype"]), [int(one) for one in tensor["shape"]]
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            flat = list(_flat(tensor["data"]))
            yield name, _nested(flat, shape) if np is None else np.array(flat, DTYPES.get(datatype)).reshape(shape)
            continue
        section, left = left[: int(size)], left[int(size) :]
        if np is None:
            raise ValueError("bytes came that were not asked for")
        if datatype == BYTES:
            yield name, np.array(list(_texts(section)), dtype=object).reshape(shape)
        elif datatype == BF16:
            yield name, (np.frombuffer(section, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        else:
            yield name, np.frombuffer(section, np.dtype(DTYPES[datatype]).newbyteorder("<")).reshape(shape)


def _texts(section: memoryview) -> Iterator[str]:
    at = 0
    while at < len(section):
        (length,) = struct.unpack_from("<I", section, at)
        yield bytes(section[at + 4 : at + 4 + length]).decode()
        at += 4 + length


def _nested(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return list(flat)
    step = len(flat) // shape[0] if shape[0] else 0
    return [_nested(flat[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


def _refused(detail: str, hint: str) -> InvalidRequest:
    return InvalidRequest("bad_input", detail, hint=hint)
