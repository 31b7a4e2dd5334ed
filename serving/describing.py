"""What a model tells of itself: metadata, configuration, schemas, as the Open Inference Protocol has them. Pure.

Source: KServe's Open Inference Protocol (REST) and Triton's extensions `model_configuration` and `model_repository`.
"""

from __future__ import annotations

from typing import Any

from serving.catalog import Route
from serving.fleet import Outfit, Variant
from serving.protocol.schemas import example, json_schema
from serving.protocol.signature import Port, Signature

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "openvino": "openvino_onnx", "tensorrt": "tensorrt_plan"}
_VERSION = "1.0"


def server() -> dict[str, Any]:
    return {"name": "slipway", "version": _VERSION, "extensions": list(EXTENSIONS)}


def metadata(route: Route, versions: list[str]) -> dict[str, Any]:
    """`versions` are those that can be asked; `version` is the one that this address leads to."""
    signature = Signature.of(route.variant.signature)
    told: dict[str, Any] = {
        "name": route.model.reference,
        "versions": versions,
        "platform": platform(route.variant),
        "inputs": [_port(one) for one in signature.inputs],
        "outputs": [_port(one) for one in signature.outputs],
        "parameters": {
            "version": route.variant.version,
            "variant": route.variant.name,
            "sha256": route.variant.sha256,
            "target": route.target,
        },
    }
    return told


def config(route: Route, outfit: Outfit) -> dict[str, Any]:
    """The subset of Triton's model configuration that has a meaning here."""
    signature = Signature.of(route.variant.signature)
    batched = bool(signature.inputs) and all(one.batched for one in signature.inputs)
    return {
        "name": route.model.reference,
        "platform": platform(route.variant),
        "backend": platform(route.variant).split("_", 1)[0],
        "max_batch_size": 0,
        "input": [_configured(one) for one in signature.inputs],
        "output": [_configured(one) for one in signature.outputs],
        "instance_group": [{"kind": "KIND_CPU" if outfit.device == "cpu" else "KIND_GPU", "count": outfit.threads}],
        "parameters": {
            "slipway_version": {"string_value": route.variant.version},
            "slipway_variant": {"string_value": route.variant.name},
            "slipway_batched": {"string_value": str(batched).lower()},
        },
    }


def schema(route: Route) -> dict[str, Any]:
    """JSON Schemas of both forms of a request, each with an example that the model takes."""
    signature = Signature.of(route.variant.signature)
    return {
        "model": route.model.reference,
        "version": route.variant.version,
        "schemas": json_schema(signature),
        "examples": example(signature),
    }


def openapi(route: Route) -> dict[str, Any]:
    """OpenAPI 3.1 of the one model: what it takes, by name, with examples to try."""
    facts = schema(route)
    name, version = route.model.reference, route.variant.version
    secured: Any = [{"bearer": []}] if route.model.auth_required else []
    operations = {
        f"/api/v1/models/{name}/predict": ("predict", "Predict, by the names of the inputs"),
        f"/v2/models/{name}/infer": ("v2", "Infer (Open Inference Protocol V2)"),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version, "description": f"What {name} {version} answers."},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            path: {
                "post": {
                    "summary": summary,
                    "security": secured,
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {"schema": facts["schemas"][form], "example": facts["examples"][form]}
                        },
                    },
                    "responses": {
                        "200": {"description": "What the model says.", "content": {"application/json": {}}},
                        **{str(status): {"description": text} for status, text in _REFUSALS.items()},
                    },
                }
            }
            for path, (form, summary) in operations.items()
        },
    }


def listed(name: str, version: str, *, loaded: bool) -> dict[str, str]:
    """One line of the repository's index."""
    state, reason = ("READY", "") if loaded else ("UNAVAILABLE", "not loaded yet; the first request loads it")
    return {"name": name, "version": version, "state": state, "reason": reason}


def platform(variant: Variant) -> str:
    if variant.name.startswith("tensorrt-"):
        return _PLATFORMS["tensorrt"]
    return _PLATFORMS[variant.way.get("runtime") or "onnxruntime"]


def _port(port: Port) -> dict[str, Any]:
    """-1 stands for a size that is free, as in Triton."""
    return {"name": port.name, "datatype": port.datatype, "shape": _sizes(port)}


def _configured(port: Port) -> dict[str, Any]:
    kind = "TYPE_STRING" if port.datatype == "BYTES" else f"TYPE_{port.datatype}"
    return {"name": port.name, "data_type": kind, "dims": _sizes(port)}


def _sizes(port: Port) -> list[int]:
    return [-1 if size is None else size for size in port.shape or ()]


_REFUSALS = {
    400: "The input does not fit the model: which field, what was expected, what came.",
    401: "The endpoint wants to know who asks.",
    404: "No such model or version, or not yours.",
    409: "The version cannot be served: not published, switched off, or its bytes are not what was published.",
    413: "The request is too large.",
    423: "The version is in quarantine.",
    429: "Too many requests; Retry-After says when to come again.",
    503: "The model is being loaded, or its runtime has just ended; Retry-After says when to come again.",
    504: "No answer within the time.",
}
