"""A served model as the contract has it: it doubles numbers and shouts texts, in both forms, by code of its own."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

SIGNATURE = {
    "digits": [("x", "FP32", [-1, 4])],
    "texts": [("text", "BYTES", [-1]), ("half", "BF16", [-1, 2]), ("flag", "BOOL", [-1]), ("n", "INT64", [])],
    "photos": [("image", "FP32", [-1, 3, 32, 32])],
}
"""By model; every output is called as its input, in capitals."""
RECEIPT = {"Slipway-Prediction": "receipt-1"}
CLASSES = ["zero", "one", "two", "three"]


def metadata(handler: Any, _: dict[str, str], path: str) -> None:
    ports = SIGNATURE[_name(path)]
    told = [
        [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in side]
        for side in (ports, _out(ports))
    ]
    handler._json({"name": path, "versions": ["1.0.0"], "platform": "p", "inputs": told[0], "outputs": told[1]})


def schema(handler: Any, _: dict[str, str], path: str) -> None:
    inputs = []
    for name, kind, shape in SIGNATURE[_name(path)]:
        sizes = [1 if size < 0 else size for size in shape]
        value = "text" if kind == "BYTES" else False if kind == "BOOL" else 1 if kind == "INT64" else 0.5
        inputs.append({"name": name, "datatype": kind, "shape": sizes, "data": [value] * int(np.prod(sizes))})
    named = path.partition("/versions/")[0]
    handler._json({"model": named, "version": "1.0.0", "schemas": {}, "examples": {"v2": {"inputs": inputs}}})


def infer(handler: Any, _: dict[str, str], path: str) -> None:
    """Sent in bytes it answers in bytes, in JSON in JSON."""
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    length = int(handler.headers.get("Inference-Header-Content-Length", len(body)))
    said, at = json.loads(body[:length]), length
    handler.harbour.bodies.append(said)
    outputs, sections = [], b""
    wanted = {name: kind for name, kind, _ in SIGNATURE[_name(path)]}
    for one in said["inputs"]:
        if wanted.get(one["name"]) != one["datatype"]:
            handler._bytes(
                b'{"error": "x is FP32.", "code": "wrong_datatype"}', 400, {"Content-Type": "application/json"}
            )
            return
        size = one.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.array(one["data"], triton_to_np_dtype(one["datatype"]))
        else:
            array, at = _read(one["datatype"], body[at : at + size]), at + size
        made = _doubled(array.reshape(one["shape"]))
        told = {"name": one["name"].upper(), "datatype": one["datatype"], "shape": one["shape"]}
        if size is None:
            outputs.append(told | {"data": made.ravel().tolist()})
            continue
        section = _written(one["datatype"], made)
        outputs.append(told | {"parameters": {"binary_data_size": len(section)}})
        sections += section
    version = path.partition("/versions/")[2] or "1.0.0"
    head = json.dumps({"model_name": path, "model_version": version, "outputs": outputs}).encode()
    headers = RECEIPT | ({"Inference-Header-Content-Length": str(len(head))} if sections else {})
    handler._bytes(head + sections, 200, headers)


def predict(handler: Any, _: dict[str, str], path: str) -> None:
    """Whatever is sent shows a one, or for sure a three where it is an image."""
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    kind = handler.headers["Content-Type"]
    handler.harbour.bodies.append(json.loads(body) if kind == "application/json" else (kind, body))
    shares = [0.1, 0.7, 0.2, 0.0] if kind == "application/json" else [0.0, 0.0, 0.0, 1.0]
    best = shares.index(max(shares))
    told = {
        "predictions": [CLASSES[best]],
        "confidence": [shares[best]],
        "classes": CLASSES,
        "outputs": {"y": [shares]},
    }
    handler._json({"model": path, "version": "1.0.0", "processing_time": 0.001} | told, headers=RECEIPT)


def _name(path: str) -> str:
    return path.partition("/versions/")[0].rpartition("/")[2]


def _out(ports: list[tuple[str, str, list[int]]]) -> list[tuple[str, str, list[int]]]:
    return [(name.upper(), kind, shape) for name, kind, shape in ports]


def _doubled(array: Any) -> Any:
    if array.dtype == object:
        texts = [(one.decode() if isinstance(one, bytes) else one).upper() for one in array.ravel()]
        return np.array(texts, object).reshape(array.shape)
    return ~array if array.dtype == bool else array * array.dtype.type(2)


def _read(datatype: str, section: bytes) -> Any:
    if datatype == "BYTES":
        return deserialize_bytes_tensor(section)
    return np.frombuffer(section, triton_to_np_dtype(datatype))


def _written(datatype: str, array: Any) -> bytes:
    return serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()


ROUTES = [
    ("/v2/models/(.+)/infer", "POST", infer, False),
    ("/v2/models/(.+)/schema", "GET", schema, False),
    ("/v2/models/(.+)", "GET", metadata, False),
    ("/api/v1/models/(.+)/predict", "POST", predict, False),
]
