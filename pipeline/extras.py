"""What some formats need on top of the core, as the names by which pip installs it; tells what is here without importing it.

An extra is a choice of the deployment: its licence, its size or its pins kept it out of the core. A step that needs one
has a queue of its own, which only those workers serve that have it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from pipeline.errors import Unavailable

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "architectures": ("timm", "transformers"),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow", "tf2onnx"),
    "yolo": ("ultralytics",),
}
"""Extra → the modules that must be importable. Modules and not distributions: TensorFlow alone has three of these."""


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed here."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def installed() -> tuple[str, ...]:
    """The extras that this machine has."""
    return tuple(extra for extra in EXTRAS if not missing(extra))


def require(extra: str | None, title: str) -> None:
    """Raises `Unavailable` (`converter_missing`) where this machine lacks what opens a file of the format `title`."""
    if extra is not None and (absent := missing(extra)):
        raise Unavailable(
            "converter_missing",
            f"Opening a {title} file needs the extra '{extra}', of which {' and '.join(absent)} is not installed here: "
            f"pip install 'slipway-server[{extra}]' on a worker.",
            extra=extra,
        )


def queue(name: str, extra: str | None) -> str:
    """The queue of a step that needs `extra`: served by workers of the same pool that have it."""
    return name if extra is None else f"{name}-{extra}"
