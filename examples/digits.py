"""Train a real digit classifier in seconds on scikit-learn's bundled digits and save it in every form that torch knows.

    python examples/digits.py FOLDER

writes digits.onnx, digits.pt (TorchScript), digits.pt2 (torch.export), digits.safetensors (weights only),
digits-heldout.npz (`images`, `labels`: never trained on), digits-calibration.npz (`image`) and digits.json (accuracy,
classes, input shape).
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 20
EPOCHS = 25
BATCH = 64
CALIBRATION = 128
INPUT_SHAPE = [None, 1, 8, 8]
CLASSES = [str(digit) for digit in range(10)]


class Digits(nn.Module):
    """Two convolutions and two layers: 8 × 8 grey values between 0 and 1 in, ten scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.scores = nn.Sequential(nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.scores(self.features(image))
        return scores


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (N, 1, 8, 8) in float32 and their labels."""

    images: torch.Tensor
    labels: torch.Tensor


def data() -> tuple[Split, Split]:
    """What to train on and what to hold out, a quarter."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    parts = train_test_split(images, digits.target, test_size=0.25, random_state=SEED, stratify=digits.target)
    train, held, train_labels, held_labels = (torch.from_numpy(part) for part in parts)
    return Split(images=train, labels=train_labels), Split(images=held, labels=held_labels)


def train(split: Split) -> Digits:
    """The trained classifier, the same one each time."""
    torch.set_num_threads(1)  # four times as fast here as two threads that wait for each other over tiny layers
    torch.manual_seed(SEED)
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(split.labels)).split(BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(split.images[rows]), split.labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return model.eval()


def accuracy(model: nn.Module, split: Split) -> float:
    """The share of digits that the model names correctly."""
    with torch.inference_mode():
        return int((model(split.images).argmax(1) == split.labels).sum()) / len(split.labels)


def save(model: Digits, folder: Path, example: torch.Tensor) -> None:
    """Write the model in all four forms. The batch size stays free in each."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it says that torchvision is missing; nobody needs it here
    with warnings.catch_warnings():
        # TorchScript is deprecated, and that is why people still have such files to upload.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(model).save(folder / "digits.pt")  # type: ignore[no-untyped-call]
        program = torch.export.export(model, (example,), dynamic_shapes={"image": {0: torch.export.Dim("batch")}})
        torch.export.save(program, folder / "digits.pt2")
        exported = torch.onnx.export(
            program, dynamo=True, external_data=False, verbose=False, input_names=["image"], output_names=["scores"]
        )
        if exported is None:
            raise RuntimeError("torch.onnx.export gave nothing back")
        exported.save(folder / "digits.onnx")
    save_file(model.state_dict(), folder / "digits.safetensors")


def write(folder: Path) -> float:
    """Train, save everything into the folder and give the accuracy on the held-out digits."""
    folder.mkdir(parents=True, exist_ok=True)
    training, held = data()
    model = train(training)
    save(model, folder, training.images[:2])
    np.savez(folder / "digits-heldout.npz", images=held.images.numpy(), labels=held.labels.numpy())
    np.savez(folder / "digits-calibration.npz", image=training.images[:CALIBRATION].numpy())
    reached = accuracy(model, held)
    card = {"accuracy": round(reached, 4), "held_out": len(held.labels), "classes": CLASSES, "input_shape": INPUT_SHAPE}
    (folder / "digits.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return reached


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Train a digit classifier and save it in every form torch knows.")
    parser.add_argument("folder", type=Path, help="where to write the files")
    folder = parser.parse_args().folder
    print(f"{write(folder):.2%} of the held-out digits are named correctly; the model is in {folder}")


if __name__ == "__main__":
    main()
