"""Real model files, written by the frameworks themselves, for tests that need something benign."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; TorchScript files are not gone for it
        yield


def convnet() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    ).eval()


def write_all(folder: Path) -> None:
    """One file of every form that issue-free frameworks write and that we must let pass."""
    with _quietly():
        _write_script(folder)
        _write_export(folder)
        _write_onnx(folder)
        _write_others(folder)


def _write_script(folder: Path) -> None:
    import torch
    from torch import nn

    from tests.readers.script_modules import Rich

    torch.jit.save(torch.jit.script(Rich().eval()), folder / "rich.pt")
    traced = torch.jit.trace(convnet(), torch.randn(2, 1, 8, 8))
    torch.jit.save(traced, folder / "traced.pt")
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()))
    torch.jit.save(frozen, folder / "frozen.pt", _extra_files={"labels.txt": "cat\ndog\n"})
    packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {nn.Linear})
    torch.jit.save(torch.jit.script(packed), folder / "quantised.pt")
    torch.save(convnet().state_dict(), folder / "state.pt")


def _write_export(folder: Path) -> None:
    import torch
    from torch import nn

    from tests.readers.script_modules import Joined

    batch = torch.export.Dim("batch", min=1, max=64)
    one = (torch.randn(2, 1, 8, 8),)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    programs = {
        "static": torch.export.export(convnet(), one),
        "dynamic": torch.export.export(convnet(), one, dynamic_shapes=({0: batch},)),
        "automatic": torch.export.export(convnet(), one, dynamic_shapes=({0: torch.export.Dim.AUTO},)),
        "encoder": torch.export.export(
            encoder,
            (torch.randn(2, 5, 8),),
            dynamic_shapes=({0: torch.export.Dim("b"), 1: torch.export.Dim("s")},),
        ),
        "joined": torch.export.export(
            Joined(), (torch.randn(4, 3), torch.randn(4, 3)), dynamic_shapes={"x": {0: batch}, "y": {0: batch}}
        ),
    }
    for name, program in programs.items():
        torch.export.save(program, folder / f"{name}.pt2", extra_files={"note.txt": "hello"})


def _write_onnx(folder: Path) -> None:
    import onnx
    import torch
    from onnxruntime.quantization import quantize_dynamic

    example = (torch.randn(2, 1, 8, 8),)
    plain = folder / "plain.onnx"
    torch.onnx.export(convnet(), example, plain, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    torch.onnx.export(convnet(), example, folder / "dynamo.onnx", dynamo=True, external_data=False, verbose=False)
    quantize_dynamic(plain, folder / "int8.onnx")
    for light in sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx")):
        (folder / light.name).write_bytes(light.read_bytes())


def _write_others(folder: Path) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    state = {**convnet().state_dict(), "half": torch.ones(3, dtype=torch.bfloat16), "empty": torch.zeros(0)}
    save_file(state, folder / "weights.safetensors", metadata={"format": "pt"})
    np.savez(folder / "calibration.npz", x=np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32))
    np.savez_compressed(folder / "packed.npz", x=np.zeros((64, 8)), names=np.array(["a", "bc"]))
    (folder / "README.md").write_text("# Digits!\n\nimport torch\n\n![picture](https://example.org/p.png) – 98 %\n")
    (folder / "config.yaml").write_text("name: digits # a comment!\nclasses: ['0', \"!1\"]\nlr: !!float 1e-3\n")
    (folder / "config.json").write_text('{"classes": ["0", "1"], "seed": 7}\n')
    (folder / "requirements.txt").write_text(
        "# pinned\ntorch==2.13.0\nnumpy>=2,<3 ; python_version >= '3.11'\nuvicorn[standard]~=0.30\nscipy (>=1.1)\n"
    )
