"""What others make of a model for this CPU, each as its own documentation says. Who makes nothing says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.peers import olive
from pipeline.toolchain import installed


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A file and the `way` it is run (`formats.onnx.load`), or the `reason` why there is none.

    `ranged`: ranges of activations were fixed on the samples.
    """

    name: str
    path: Path | None = None
    way: Mapping[str, Any] = field(default_factory=dict)
    ranged: bool = False
    reason: str | None = None


def versions() -> dict[str, str]:
    found = {name: _version(name) for name in ("onnxruntime", "onnxslim", "openvino")}
    return found | {"olive": olive.version() or olive.MISSING}


def peers(model: Path, samples: Mapping[str, Any], folder: Path) -> Iterator[Peer]:
    """ONNX Runtime's default first, on the very file that is given to all. `samples` are arrays by input, without labels."""
    yield Peer(name="onnxruntime", path=model)
    yield _slimmed(model, folder / "slim.onnx")
    there = installed("openvino")
    way = {"runtime": "openvino", "session": {"precision": None}}
    yield Peer(name="openvino", path=model, way=way) if there else Peer(name="openvino", reason="not installed")
    for form in olive.FORMS:
        try:
            path = olive.optimised(model, folder / f"olive-{form.replace(' ', '-')}", form, samples)
        except LookupError as missing:
            yield Peer(name=f"olive {form}", reason=str(missing))
        else:
            yield Peer(name=f"olive {form}", path=path, ranged=form.startswith("static"))


def _slimmed(model: Path, destination: Path) -> Peer:
    import onnx
    import onnxslim

    onnx.save_model(onnxslim.slim(onnx.load_model(model)), destination)
    return Peer(name="onnxslim", path=destination)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
