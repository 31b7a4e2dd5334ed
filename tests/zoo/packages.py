"""Packages: a model in a `.zip` with what belongs to it, as people pack them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.zoo import Sample, onnx, tensorflow

CARD = "# Digits\n\nReads handwritten digits of 8 × 8 pixels.\n"
CONFIG = {"task": "classification", "classes": [str(digit) for digit in range(10)]}


def pack(target: Path, members: Mapping[str, Path | bytes | str]) -> Path:
    """Write a zip archive of these members."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content.read_bytes() if isinstance(content, Path) else content)
    return target


def side_files(folder: Path) -> dict[str, Path | bytes | str]:
    """What lies beside a digits model."""
    return {
        "README.md": CARD,
        "LICENSE": "Apache License, Version 2.0\n",
        "requirements.txt": "onnx==1.23.2\n",
        "config.json": json.dumps(CONFIG),
        "calibration.npz": onnx.write_samples(folder),
    }


def write_external(folder: Path) -> Path:
    """An ONNX model whose weights lie in a file of their own."""
    from onnx import save_model

    work = folder / "external"
    work.mkdir()
    save_model(
        onnx.digits_model(),
        work / "digits.onnx",
        save_as_external_data=True,
        location="digits.onnx.data",
        size_threshold=0,
    )
    model = {f"model/{path.name}": path for path in sorted(work.iterdir())}
    return pack(folder / "digits-external.zip", {**model, **side_files(folder)})


def write_saved_model(folder: Path) -> Path:
    """A SavedModel in a folder beside its card."""
    saved = tensorflow.SAMPLES[0].make(folder)
    with zipfile.ZipFile(saved) as archive:
        members = {f"digits/{name}": archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    return pack(folder / "digits-package.zip", {**members, "README.md": CARD})


def write_skeleton(folder: Path) -> Path:
    """A torch.export program that was never trained, and a safetensors file with the weights of one that was."""
    import torch
    from safetensors.torch import save

    from examples.digits import Digits
    from tests.zoo.torch import convolutional

    torch.manual_seed(1)
    untrained, example = Digits().eval(), torch.zeros(2, 1, 8, 8)
    shapes, skeleton = {"image": {0: torch.export.Dim("batch")}}, folder / "skeleton.pt2"
    torch.export.save(torch.export.export(untrained, (example,), dynamic_shapes=shapes), skeleton)
    members = {"skeleton.pt2": skeleton, "weights.safetensors": save(convolutional().state_dict())}
    return pack(folder / "digits-skeleton.zip", members)


SAMPLES = (
    Sample(name="package-onnx-external", format="package", filename="digits-external.zip", make=write_external),
    Sample(name="package-skeleton", format="package", filename="digits-skeleton.zip", make=write_skeleton),
    Sample(
        name="package-saved-model",
        format="package",
        filename="digits-package.zip",
        make=write_saved_model,
        extra="tensorflow",
        slow=True,
    ),
)
