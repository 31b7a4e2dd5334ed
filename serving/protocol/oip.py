"""The Open Inference Protocol V2 over HTTP, with the extensions for binary tensors, raw requests and classification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from pipeline.signature import shown
from serving.protocol import tensors
from serving.protocol.refusals import BadRequest, Buffer, Reply, brief
from serving.protocol.request import (
    Request,
    Wanted,
    distinct,
    malformed,
    parsed,
    understood,
    unknown_input,
    unknown_output,
)
from serving.protocol.signature import Port, Signature
from serving.protocol.tensors import Array

HEADER_LENGTH = "inference-header-content-length"
_NOTHING: Mapping[str, Any] = {}


def decode(signature: Signature, headers: Mapping[str, str], body: Buffer) -> Request:
    """A request in JSON, in JSON with bytes after it, or (`Inference-Header-Content-Length: 0`) of bytes alone."""
    announced = headers.get(HEADER_LENGTH)
    if announced is None:
        head, rest = body, memoryview(b"")
    else:
        length = _length(announced, len(body))
        if length == 0:
            return _raw(signature, body)
        view = memoryview(body)
        head, rest = view[:length], view[length:]
    said = parsed(head)
    if type(said) is not dict:
        raise malformed("The request", "an object with inputs", said)
    given = said.get("inputs")
    if type(given) is not list:
        raise malformed("inputs", "a list of tensors", given)
    arrays: dict[str, Array] = {}
    position = 0
    for one in given:
        port, shape, size, data = _tensor(signature, one)
        if port.name in arrays:
            distinct([port.name, port.name], "input")
        if size is None:
            arrays[port.name] = _listed(port, data, shape)
        else:
            if position + size > len(rest):
                raise tensors.wrong_length(port, f"{size} bytes after the JSON", f"{len(rest) - position}")
            arrays[port.name] = tensors.from_bytes(port, rest[position : position + size], shape)
            position += size
    if position != len(rest):
        raise BadRequest(
            "wrong_length",
            f"{len(rest)} bytes follow the JSON, but its binary_data_size add up to {position}.",
            field="parameters.binary_data_size",
            expected=f"{position} bytes",
            got=f"{len(rest)} bytes",
        )
    return understood(signature, "v2", said, arrays, _outputs(signature, said))


def encode(signature: Signature, request: Request, outputs: Mapping[str, Array], *, model: str, version: str) -> Reply:
    """The answer; values that JSON lacks (NaN, infinities) are null there and exact in binary."""
    told: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        told["id"] = request.id
    buffers: list[Buffer] = []
    told["outputs"] = listed = []
    for wanted in request.outputs:
        array = outputs[wanted.name]
        if wanted.classification:
            array = _best(array, wanted.classification, signature.classes)
        datatype = tensors.datatype_of(array)
        one: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": array.shape}
        if wanted.binary:
            data = _bytes(array, datatype)
            one["parameters"] = {"binary_data_size": len(data)}
            buffers.append(data)
        else:
            one["data"] = _values(array, datatype)
        listed.append(one)
    head = orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(one.binary for one in request.outputs):
        return Reply(headers={"content-type": "application/json"}, body=head)
    return Reply(
        headers={"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}, body=[head, *buffers]
    )


def _length(announced: str, size: int) -> int:
    if not (announced.isascii() and announced.isdecimal() and len(announced) < 20 and int(announced) <= size):
        raise malformed("Inference-Header-Content-Length", f"the length of the JSON, at most {size}", announced)
    return int(announced)


def _tensor(signature: Signature, said: Any) -> tuple[Port, list[int], int | None, Any]:
    """Which input this is, its shape as it came, and either how many bytes follow for it or its data."""
    if type(said) is not dict:
        raise malformed("inputs", "a list of objects", said)
    name, datatype, shape = said.get("name"), said.get("datatype"), said.get("shape")
    port = signature.by_name.get(name) if type(name) is str else None
    if port is None:
        raise unknown_input(signature, name) if type(name) is str else malformed("inputs.name", "a text", name)
    if datatype != port.datatype:
        raise BadRequest(
            "wrong_datatype",
            f"Input {name} is {port.datatype}, not {brief(datatype)}.",
            field=f"inputs.{name}.datatype",
            expected=port.datatype,
            got=brief(datatype),
        )
    if type(shape) is not list or not set(map(type, shape)) <= {int}:
        raise malformed(f"inputs.{name}.shape", "a list of sizes", shape)
    if not tensors.fits(port.shape, shape):
        raise tensors.wrong_shape(port, shape)
    parameters = _parameters(said, f"inputs.{name}.parameters")
    if "shared_memory_region" in parameters:
        raise _unsupported(
            f"inputs.{name}.parameters.shared_memory_region", "This server shares no memory with clients"
        )
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise malformed(f"inputs.{name}.parameters.binary_data_size", "a number of bytes", size)
    if (size is None) == ("data" not in said):
        raise malformed(f"inputs.{name}", "a tensor with either data or binary_data_size", said)
    return port, shape, size, said.get("data")


def _listed(port: Port, data: Any, shape: list[int]) -> Array:
    """Data in JSON: flat, or nested as the shape says."""
    if type(data) is not list:
        raise malformed(f"inputs.{port.name}.data", "a list", data)
    values, nesting = tensors.flatten(port, data)
    if len(nesting) > 1 and list(nesting) != shape:
        raise BadRequest(
            "wrong_shape",
            f"Input {port.name}: its shape says {shown(shape)}, its data are nested as {shown(nesting)}.",
            field=f"inputs.{port.name}.data",
            expected=shown(shape),
            got=shown(nesting),
        )
    return tensors.from_values(port, values, shape)


def _raw(signature: Signature, body: Buffer) -> Request:
    """The bytes of the only input; at most one size may be free, and follows from their number."""
    if len(signature.inputs) != 1 or signature.inputs[0].shape is None:
        raise _unsupported("Inference-Header-Content-Length", "A request of bytes alone needs a model with one input")
    port = signature.inputs[0]
    shape = [one or 1 for one in port.shape or ()]
    free = [axis for axis, one in enumerate(port.shape or ()) if one is None]
    if port.datatype == "BYTES" or len(free) > 1:
        raise _unsupported(
            "Inference-Header-Content-Length",
            f"{port.datatype} of shape {shown(port.shape)} cannot come as bytes alone",
        )
    if free:
        row = math.prod(shape) * tensors.NUMPY[port.datatype].itemsize
        shape[free[0]] = max(1, len(body) // row) if row else 1
    array = tensors.from_bytes(port, body, shape)
    outputs = tuple(Wanted(name=one, binary=True) for one in signature.output_names)
    return understood(signature, "v2", _NOTHING, {port.name: array}, outputs)


def _outputs(signature: Signature, said: Mapping[str, Any]) -> tuple[Wanted, ...]:
    parameters = _parameters(said, "parameters")
    binary = _flag(parameters, "binary_data_output", "parameters", default=False)
    asked = said.get("outputs")
    if asked is None or asked == []:
        return tuple([Wanted(name=one, binary=binary) for one in signature.output_names])
    if type(asked) is not list:
        raise malformed("outputs", "a list of objects", asked)
    wanted = tuple(_output(signature, one, binary=binary) for one in asked)
    distinct([one.name for one in wanted], "output")
    return wanted


def _output(signature: Signature, said: Any, *, binary: bool) -> Wanted:
    if type(said) is not dict or type(said.get("name")) is not str:
        raise malformed("outputs", "a list of objects with a name", said)
    name = said["name"]
    if name not in signature.output_names:
        raise unknown_output(signature, name)
    field = f"outputs.{name}.parameters"
    parameters = _parameters(said, field)
    if "shared_memory_region" in parameters:
        raise _unsupported(f"{field}.shared_memory_region", "This server shares no memory with clients")
    count = parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise malformed(f"{field}.classification", "a number of classes", count)
    datatype = next(one.datatype for one in signature.outputs if one.name == name)
    if count and datatype in ("BYTES", "BOOL"):
        raise _unsupported(f"{field}.classification", f"Output {name} is {datatype}, which has no order")
    return Wanted(name=name, binary=_flag(parameters, "binary_data", field, default=binary), classification=count)


def _parameters(said: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    parameters = said.get("parameters", _NOTHING)
    if not isinstance(parameters, dict) and parameters is not _NOTHING:
        raise malformed(field, "an object", parameters)
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, field: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise malformed(f"{field}.{name}", "true or false", value)
    return value


def _unsupported(field: str, why: str) -> BadRequest:
    return BadRequest("unsupported_parameter", f"{why}; leave {field} out.", field=field)


def _best(array: Array, count: int, classes: tuple[str, ...]) -> Array:
    """The largest scores of each row, or of all where there is one axis, as "score:index:label"."""
    rows = array.reshape(len(array), math.prod(array.shape[1:])) if array.ndim > 1 else array.reshape(1, -1)
    places = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(rows, places, axis=1)
    names = classes if len(classes) == rows.shape[1] else ()
    texts = [
        f"{score:f}:{place}:{names[place]}" if names else f"{score:f}:{place}"
        for score, place in zip(scores.ravel().tolist(), places.ravel().tolist(), strict=True)
    ]
    return np.array(texts, object).reshape(places.shape if array.ndim > 1 else places.size)


def _bytes(array: Array, datatype: str) -> Buffer:
    if datatype == "BYTES":
        return tensors.framed(array)
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""


def _values(array: Array, datatype: str) -> Any:
    """Row by row, as one list."""
    flat = np.ascontiguousarray(array).ravel()
    return [_text(one) for one in flat.tolist()] if datatype == "BYTES" else flat


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
