"""What a model takes, as JSON Schema (2020-12) of both forms, with a request that it would take."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from pipeline.signature import shown
from serving.protocol.signature import Json, Port, Shape, Signature

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SHOWN = 4096
"""Values of an example that is still worth reading in a schema."""

_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNsaGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"
"""Eight by eight grey pixels, PNG."""


def json_schema(signature: Signature) -> Json:
    """One schema for each form: of the simple one under `predict`, of V2 in JSON under `v2`."""
    schemas = {"predict": _predict(signature), "v2": _v2(signature)}
    if sum(math.prod(_sizes(signature, one)) for one in signature.inputs) <= _SHOWN:
        for form, request in example(signature).items():
            schemas[form]["examples"] = [request]
    elif signature.image:
        schemas["predict"]["examples"] = [example(signature)["predict"]]
    return schemas


def example(signature: Signature) -> Json:
    """A request in each form that the model takes: `predict` and `v2`."""
    named, tensors = {}, []
    for port in signature.inputs:
        sizes = _sizes(signature, port)
        value = _value(port)
        data = [value] * math.prod(sizes)
        pictured = signature.image is not None and signature.image.input == port.name
        named[port.name] = _PICTURE if pictured else _nested(value, sizes)
        tensors.append({"name": port.name, "datatype": port.datatype, "shape": list(sizes), "data": data})
    return {"predict": {"inputs": named}, "v2": {"inputs": tensors}}


def _predict(signature: Signature) -> dict[str, Json]:
    names = [one.name for one in signature.inputs]
    return {
        "$schema": _DIALECT,
        "type": "object",
        "properties": {
            "inputs": {
                "type": "object",
                "properties": {one.name: _value_schema(signature, one) for one in signature.inputs},
                "required": names,
                "additionalProperties": False,
            },
            "outputs": {"type": "array", "items": {"enum": list(signature.output_names)}, "uniqueItems": True},
            "id": {"type": "string"},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }


def _v2(signature: Signature) -> dict[str, Json]:
    tensors = [_tensor_schema(one) for one in signature.inputs]
    parameters = {
        "type": "object",
        "properties": {"binary_data": {"type": "boolean"}, "classification": {"type": "integer", "minimum": 0}},
    }
    return {
        "$schema": _DIALECT,
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
            "inputs": {
                "type": "array",
                "items": {"oneOf": tensors},
                "minItems": len(tensors),
                "maxItems": len(tensors),
                "uniqueItems": True,
            },
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"enum": list(signature.output_names)}, "parameters": parameters},
                    "required": ["name"],
                },
            },
        },
        "required": ["inputs"],
    }


def _value_schema(signature: Signature, port: Port) -> Json:
    """Every way to write an input in the simple form."""
    leaf, shape = _leaf(port), port.shape
    if shape is None:
        return {"description": _told(port)}
    shapes = [shape]
    if shape[:1] in ((None,), (1,)):
        shapes.append(shape[1:])
    if shape[-1:] == (1,):
        shapes.append(shape[:-1])
    if all(one in (None, 1) for one in shape):
        shapes.append(())
    ways = [_nesting(leaf, one) for one in dict.fromkeys(shapes)]
    ways.append(
        {
            "type": "object",
            "properties": {"data": _data(leaf, shape), "shape": {"type": "array", "items": {"type": "integer"}}},
            "required": ["data"],
            "additionalProperties": False,
        }
    )
    if signature.image is not None and signature.image.input == port.name:
        picture = {"type": "string", "contentEncoding": "base64"}
        ways = [picture, {"type": "array", "items": picture, "minItems": 1}, *ways]
    return {"description": _told(port), "anyOf": ways}


def _tensor_schema(port: Port) -> Json:
    sizes: dict[str, Json] = {"type": "array", "items": {"type": "integer", "minimum": 1}}
    if port.shape is not None:
        each = [{"type": "integer", "minimum": 1} if one is None else {"const": one} for one in port.shape]
        sizes = {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
        if not each:
            del sizes["prefixItems"]  # an empty list is none that the dialect allows
    return {
        "type": "object",
        "description": _told(port),
        "properties": {
            "name": {"const": port.name},
            "datatype": {"const": port.datatype},
            "shape": sizes,
            "data": _data(_leaf(port), port.shape or ()),
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape", "data"],
    }


def _data(leaf: Json, shape: Shape) -> Json:
    """Row by row in one list, or nested as the shape is."""
    flat = {"type": "array", "items": leaf}
    return {"anyOf": [flat, _nesting(leaf, shape)]} if len(shape) > 1 else flat


def _nesting(leaf: Json, shape: Sequence[int | None]) -> Json:
    def within(inner: Json, size: int | None) -> Json:
        bounds = {"minItems": 1} if size is None else {"minItems": size, "maxItems": size}
        return {"type": "array", "items": inner, **bounds}

    return functools.reduce(within, reversed(shape), leaf)


def _leaf(port: Port) -> Json:
    """One value."""
    if port.closed and port.values:
        return {"enum": list(port.values) if port.datatype == "BYTES" else [float(one) for one in port.values]}
    match port.datatype:
        case "BOOL":
            return {"type": "boolean"}
        case "BYTES":
            return {"type": "string"}
        case "FP16" | "FP32" | "FP64":
            return {"type": "number"}
        case name:
            bits = int(name.lstrip("UINT"))
            low, high = (0, 2**bits - 1) if name[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            if port.below is not None:
                low, high = 0, port.below - 1
            return {"type": "integer", "minimum": low, "maximum": high}


def _told(port: Port) -> str:
    return f"{port.datatype} {shown(port.shape)}"


def _sizes(signature: Signature, port: Port) -> tuple[int, ...]:
    """The shape that was tried in the pipeline, else one row of what is known, two of what is free."""
    image = signature.image
    if image is not None and image.input == port.name:
        depth, sides = len(image.mean), (image.height, image.width)
        return (1, depth, *sides) if image.layout == "NCHW" else (1, *sides, depth)
    shape = port.shape or ()
    if len(port.example) == len(shape) and all(
        one in (None, size) and size > 0 for one, size in zip(shape, port.example, strict=True)
    ):
        return port.example
    return tuple(one if one is not None else 1 if axis == 0 else 2 for axis, one in enumerate(shape))


def _value(port: Port) -> Json:
    if port.datatype == "BYTES":
        return port.values[0] if port.values else "text"
    if port.datatype == "BOOL":
        return False
    number = float(port.values[0]) if port.values else 0.5
    return number if port.datatype.startswith("FP") else int(number)


def _nested(value: Json, sizes: Sequence[int]) -> Json:
    for size in reversed(sizes):
        value = [value] * size
    return value
