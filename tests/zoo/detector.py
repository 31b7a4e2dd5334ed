"""A detector that sees: YOLO11n, trained for a minute on shapes that are drawn here, on images of 64 × 64 pixels.

ultralytics gives the network and its loss; its trainer, which wants data sets, fonts and folders of its own, is not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.zoo import Sample
from tests.zoo.torch import ready, ultralytics_file

SIZE = 64
SHAPES = ("circle", "square", "triangle", "star")
_STEPS, _BATCH = 160, 32
_HELD_OUT = 256


def scenes(count: int, seed: int) -> tuple[Any, Any]:
    """Images (n, 3, 64, 64) from 0 to 1 with one to three shapes each, and a row for each shape: image, class, x, y, w, h."""
    import numpy as np

    rng = np.random.default_rng(seed)
    images, rows = [], []
    for number in range(count):
        image, found = _scene(rng)
        images.append(image)
        rows += [(number, *one) for one in found]
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255, np.array(rows, np.float32)


def _scene(rng: Any) -> tuple[Any, list[tuple[float, ...]]]:
    """Bright shapes on a dark ground, none above another."""
    import numpy as np
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8))
    draw, found = ImageDraw.Draw(canvas), list[tuple[float, ...]]()
    for corner in rng.permutation(4)[: rng.integers(1, 4)]:
        radius = rng.uniform(8, 14)
        x, y = (half * 32 + rng.uniform(radius, 32 - radius) for half in divmod(int(corner), 2))
        kind = int(rng.integers(len(SHAPES)))
        points = _outline(SHAPES[kind]) * radius + (x, y)
        draw.polygon([tuple(one) for one in points], fill=tuple(int(one) for one in rng.integers(120, 256, 3)))
        (left, top), (right, bottom) = points.min(axis=0) / SIZE, points.max(axis=0) / SIZE
        found.append((kind, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top))
    return np.asarray(canvas), found


def _outline(shape: str) -> Any:
    """Corners (n, 2) of a shape around zero, all within a distance of one."""
    import numpy as np

    corners = {"circle": 32, "square": 4, "triangle": 3, "star": 10}[shape]
    angles = np.arange(corners) * 2 * np.pi / corners + (np.pi / 4 if shape == "square" else -np.pi / 2)
    lengths = np.where(np.arange(corners) % 2, 0.45, 1.0) if shape == "star" else np.ones(corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]


def trained(folder: Path) -> Any:
    """The network after training: it finds all shapes of scenes that it has not seen, and nothing else."""
    import torch

    ready("ultralytics", folder)
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DetectionModel("yolo11n.yaml", nc=len(SHAPES), verbose=False)
    model.names = dict(enumerate(SHAPES))
    model.args = get_cfg(overrides={"imgsz": SIZE})  # where the loss reads the weights of its parts
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=_STEPS)
    model.train()
    for step in range(_STEPS):
        images, rows = (torch.from_numpy(one) for one in scenes(_BATCH, seed=step))
        batch = {"img": images, "batch_idx": rows[:, 0], "cls": rows[:, 1:2], "bboxes": rows[:, 2:]}
        losses, _ = model(batch)
        optimizer.zero_grad()
        losses.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    model.criterion = None  # a file that named the loss would be refused: it is no part of the network
    return model.eval()


def checkpoint(folder: Path) -> Path:
    """Its file."""
    return ultralytics_file(trained(folder), folder / "shapes.pt", size=SIZE)


def unseen() -> tuple[Any, Any]:
    """Scenes that it was not trained on."""
    return scenes(_HELD_OUT, seed=_STEPS)


def held_out(folder: Path) -> Path:
    """These scenes, for calibration."""
    import numpy as np

    np.savez(folder / "scenes.npz", images=unseen()[0])
    return folder / "scenes.npz"


SAMPLES = (
    Sample(
        name="yolo11n-trained",
        format="yolo",
        filename="shapes.pt",
        make=checkpoint,
        calibration=held_out,
        extra="yolo",
        slow=True,
    ),
)
