"""Our best variant beside ONNX Runtime's and OpenVINO's defaults, onnxslim and Olive, on four kinds of model.

Ours is chosen first, by a race among what the optimize stage kept; then all take turns in one run on one thread. Only
what still answers like the model counts: a form whose outputs are off by more than int8 may be is shown, not compared.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import torch
from torch import nn

from benchmarks.peers import olive
from examples import digits
from pipeline.canonical import finish
from pipeline.errors import Rejected
from pipeline.examination import way_of
from pipeline.formats import PRELOAD
from pipeline.formats.onnx import load
from pipeline.racing import Times, race, winner
from pipeline.sandbox import Zygote
from pipeline.signature import Tensor
from pipeline.stage import Context, File, Passage, Sandbox, Upload
from pipeline.stages import optimize
from pipeline.toolchain import installed

Way = tuple[Path, Mapping[str, Any]]
"""A file and how it is run: what `formats.onnx.load` reads of `declared`."""

SAMPLES = 160
OFF = 0.1
"""Error of the outputs, relative to their RMS, up to which a form counts."""


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(narrow, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide))
        fits = narrow == wide and stride == 1
        self.short = nn.Identity() if fits else nn.Conv2d(narrow, wide, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.short(x))


class Encoder(nn.Module):
    """One layer of BERT, 384 wide with 12 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(384, 3 * 384), nn.Linear(384, 384)
        self.wide, self.narrow = nn.Linear(384, 1536), nn.Linear(1536, 384)
        self.one, self.two = nn.LayerNorm(384), nn.LayerNorm(384)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(x).reshape(-1, x.shape[1], 3, 12, 32).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / 32**0.5, -1)
        mixed = (weights @ heads[2]).transpose(1, 2).reshape(-1, x.shape[1], 384)
        x = self.one(x + self.out(mixed))
        found: torch.Tensor = self.two(x + self.narrow(nn.functional.gelu(self.wide(x))))
        return found


class Detector(nn.Module):
    """Convolutions with SiLU as in YOLO, and a head that puts boxes in pixels and scores into one tensor."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 128)
        pairs = itertools.pairwise(widths)
        self.body = nn.Sequential(*(self._block(one, other) for one, other in pairs))
        self.boxes, self.scores = nn.Conv2d(128, 4, 1), nn.Conv2d(128, 80, 1)

    @staticmethod
    def _block(narrow: int, wide: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(narrow, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.body(x)
        boxes, scores = self.boxes(seen).sigmoid() * 320, self.scores(seen).sigmoid()
        return torch.cat([boxes, scores], 1).flatten(2)


def resnet18() -> nn.Module:
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2))
    body = [Residual(*one) for one in (*widths, (512, 512, 1))]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def bert6() -> nn.Module:
    return nn.Sequential(nn.Embedding(1000, 384), *(Encoder() for _ in range(6)))


MODELS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]] = {
    "resnet18": (resnet18, lambda count: torch.randn(count, 3, 160, 160)),
    "bert6": (bert6, lambda count: torch.randint(0, 1000, (count, 64))),
    "detector": (Detector, lambda count: torch.rand(count, 3, 320, 320)),
    "digits": (lambda: digits.train(digits.data()[0]), lambda count: digits.data()[0].images[:count]),
}


@dataclass(kw_only=True)
class Shed:
    """What the optimize stage touches of its context."""

    upload: Upload
    sandbox: Sandbox
    scratch: Path
    earlier: Mapping[str, Passage]
    side_files: Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)

    def log(self, text: str) -> None:
        print(f"    {text}", file=sys.stderr)

    def fetch(self, file: File) -> Path:
        return Path(file.key)


def main() -> dict[str, Any]:
    """By model: how many times as fast as ONNX Runtime's default each form is, its error, and ours over the best peer."""
    results: dict[str, Any] = {"load": os.getloadavg()[0]}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder, closing(Zygote(preload=PRELOAD)) as zygote:
            Path(folder).chmod(0o755)
            results[name] = json.dumps(_measured(name, Path(folder), zygote))
            print(f"  {name}: {results[name]}", file=sys.stderr)
    return results


def _measured(name: str, folder: Path, zygote: Sandbox) -> dict[str, Any]:
    model, inputs, samples = _written(name, folder)
    shed = _shed(model, inputs, samples, folder, zygote)
    made = optimize.STAGE.run(cast("Context", shed)).files
    ours: dict[str, Way] = {"onnx-fp32": (model, {})}
    ours |= {str(one.meta["variant"]): (one.path, way_of(one.meta)) for one in made}
    chosen = list(ours)[winner(_times(list(ours.values()), inputs))[0]]
    field_ = {f"slipway: {chosen}": ours[chosen]} | _peers(model, folder)
    speeds = winner(_times([field_["onnxruntime"], *field_.values()], inputs))[1][1:]
    errors = _errors(model, field_, samples)
    rows = {one: {"speed": speed, "error": error} for (one, error), speed in zip(errors.items(), speeds, strict=True)}
    mine, *others = rows.values()
    counting = [one["speed"] or 0.0 for one in others if (one["error"] or 0.0) <= OFF]
    ahead = round((mine["speed"] or 0.0) / max(counting), 3)
    return {"ours over the best peer": ahead, "load": round(os.getloadavg()[0], 1), "rows": rows}


def _written(name: str, folder: Path) -> tuple[Path, list[dict[str, Any]], dict[str, Any]]:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    make, draw = MODELS[name]
    module, examples = make().eval(), draw(SAMPLES)
    raw, model = folder / "raw.onnx", folder / "model.onnx"
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        module, (examples[:2],), dynamo=True, external_data=False, verbose=False, dynamic_shapes=({0: batch},)
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave nothing back")
    program.save(raw)
    finish(str(raw), str(model))
    [given] = program.model.graph.inputs
    shape = list(examples.shape[1:])
    dtype = str(examples.numpy().dtype)
    inputs = [Tensor(name=str(given.name), dtype=dtype, shape=[None, *shape], example=[1, *shape]).model_dump()]
    return model, inputs, {str(given.name): examples.numpy()}


def _shed(model: Path, inputs: list[dict[str, Any]], samples: dict[str, Any], folder: Path, zygote: Sandbox) -> Shed:
    np.savez(folder / "samples.npz", **samples)
    (folder / "scratch").mkdir()
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    size = model.stat().st_size
    meta = {"inputs": inputs, "outputs": []}
    file = File(name="onnx-fp32", role="canonical", key=str(model), sha256=sha256, size=size, meta=meta)
    upload = Upload(
        version_id=UUID(int=0),
        model="m",
        version="1.0.0",
        format="onnx",
        filename=model.name,
        size=size,
        sha256=sha256,
        declared={},
    )
    return Shed(
        upload=upload,
        sandbox=zygote,
        scratch=folder / "scratch",
        earlier={"convert": Passage(facts={}, files=[file])},
        side_files={"calibration": folder / "samples.npz"},
    )


def _peers(model: Path, folder: Path) -> dict[str, Way]:
    import onnx
    import onnxslim

    slim = folder / "slim.onnx"
    onnx.save_model(onnxslim.slim(onnx.load_model(model)), slim)
    peers: dict[str, Way] = {"onnxruntime": (model, {}), "onnxslim": (slim, {})}
    if installed("openvino"):
        peers["openvino"] = model, {"runtime": "openvino", "session": {"precision": None}}
    for precision in olive.PRECISIONS if olive.program() is not None else ():
        made = olive.optimised(model, folder / f"olive-{precision}", precision)
        if made is not None:
            peers[f"olive {precision}"] = made, {}
    return peers


def _times(ways: list[Way], inputs: list[dict[str, Any]]) -> Any:
    described = [{"model": str(path), "declared": dict(way)} for path, way in ways]
    return Times.by(race(described, inputs), len(ways))


def _errors(model: Path, forms: Mapping[str, Way], samples: dict[str, Any]) -> dict[str, float]:
    few = {name: one[:16] for name, one in samples.items()}
    expected = next(iter(load(str(model), [], {})(few).values()))
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1)  # by class or channel: small ones count as well
    scale = np.sqrt(np.square(expected).mean(axis=axes))
    found = {}
    for name, (path, way) in forms.items():
        try:
            answer = next(iter(load(str(path), [], dict(way))(few).values()))
        except Rejected:
            found[name] = float("inf")
            continue
        off = np.sqrt(np.square(answer - expected).mean(axis=axes))
        found[name] = round(float((off / np.maximum(scale, 1e-6)).mean()), 5)
    return found


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
