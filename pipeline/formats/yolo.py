"""Checkpoints of ultralytics (YOLO): a whole network and what it was trained for. Opened in a sandbox child only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import Rejected
from pipeline.formats import Format
from pipeline.formats.checkpoint import READ_AS, export_module, inspect_module, is_yolo
from pipeline.signature import Tensor, in_form
from pipeline.stage import Json
from pipeline.trial import Predictor

if TYPE_CHECKING:
    import torch

_SIZE = 640
"""Pixels of an image's side where the checkpoint does not say."""


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Describe the network, its classes, task and stride, and run it on images of the size it was trained on."""
    from pipeline.torch_models import class_names

    module, settings = _open(model)
    size, channels = _number(settings.get("imgsz"), _SIZE), _number(getattr(module, "yaml", {}).get("channels"), 3)
    stride = getattr(module, "stride", None)
    notes = {
        "dtypes": settings["dtypes"],
        "task": str(getattr(module, "task", None) or settings.get("task") or "detect")[:100],
        "imgsz": str(size),
        "stride": ", ".join(f"{one:g}" for one in stride.tolist()) if stride is not None else "",
        "ultralytics": str(settings.get("version") or "unknown")[:100],
    }
    said = {**declared} if declared.get("input_shape") else {**declared, "input_shape": [None, channels, size, size]}
    return inspect_module(
        module,
        said,
        holder="A YOLO checkpoint",
        producer="ultralytics",
        classes=class_names(getattr(module, "names", None)),
        notes={name: text for name, text in notes.items() if text},
    )


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the network for running on arrays."""
    from pipeline.torch_models import named_call, predictor

    names = [Tensor.of(one).name for one in inputs]
    return predictor(named_call(_open(model)[0], names), names)


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with the newer exporter, or trace the network for the older one."""
    return export_module(_open(model)[0], destination, exporter, inputs, outputs)


def _open(model: str) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    """The network, with answers decoded as ultralytics' own exporters do; the settings it was trained with."""
    from pipeline.architectures import decode_answers
    from pipeline.checkpoints import open_file

    found = open_file(model)
    if found.module is None:
        raise Rejected("no_weights", "The checkpoint names classes of ultralytics, but holds no network of it.")
    settings = getattr(found.module, "args", {})
    known = settings if isinstance(settings, Mapping) else vars(settings)
    return decode_answers(found.module), {**known, **found.notes}


def _number(found: Any, otherwise: int) -> int:
    return found if type(found) is int and found > 0 else otherwise


FORMAT = Format(
    name="yolo",
    title="YOLO (ultralytics)",
    extensions=(".pt",),
    recognises=is_yolo,
    extra="yolo",
    runtime="torch",
    read_as=READ_AS,
)
