"""Four kinds of network to optimise, each with inputs and, where it decides something, with labels.

Bodies have drawn weights; statistics and heads are fitted to a task, for scores that nearly tie are no decisions. Every
draw is seeded: the same networks each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from examples import digits

SAMPLES = 160
"""Inputs of a network that nothing of it was fitted to."""

_FITTED = 512
_SEED = 3


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module, `SAMPLES` inputs and what is right for them, None where there is no right answer."""

    module: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor | None = None


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(narrow, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide))
        fits = narrow == wide and stride == 1
        short = [nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)]
        self.short = nn.Identity() if fits else nn.Sequential(*short)

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


class Mean(nn.Module):
    """The mean over the words of a text."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


class Detector(nn.Module):
    """Convolutions with SiLU as in YOLO, and a head that puts boxes in pixels and scores into one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(self._block(*one) for one in itertools.pairwise((3, 16, 32, 64, 128, 128))))
        self.boxes, self.scores = nn.Conv2d(128, 4, 1), nn.Conv2d(128, 80, 1)

    @staticmethod
    def _block(narrow: int, wide: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(narrow, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.body(x)
        boxes, scores = self.boxes(seen).sigmoid() * 320, self.scores(seen).sigmoid()
        return torch.cat([boxes, scores], 1).flatten(2)


def _resnet18() -> Network:
    """ResNet-18 that reads scikit-learn's digits, enlarged to 160 × 160."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2))
    layers = [Residual(*one) for one in (*widths, (512, 512, 1))]
    body = nn.Sequential(*stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    known, held = digits.data()
    seen, asked = _enlarged(known.images[:_FITTED]), _enlarged(held.images[:SAMPLES])
    _settle(body, seen[:64])
    return Network(
        module=nn.Sequential(body, _head(body, seen, known.labels[:_FITTED], ridge=10)),
        inputs=asked,
        labels=held.labels[:SAMPLES],
    )


def _bert6() -> Network:
    """Six layers of BERT over 64 words, that tell ten subjects apart by the words that each of them prefers."""
    body = nn.Sequential(nn.Embedding(1000, 384), *(Encoder() for _ in range(6)), Mean())
    subjects = torch.arange(_FITTED + SAMPLES) % 10
    preferred = subjects[:, None] * 100 + torch.randint(0, 100, (len(subjects), 64))
    texts = torch.where(torch.rand(preferred.shape) < 0.7, preferred, torch.randint(0, 1000, preferred.shape))
    head = _head(body, texts[:_FITTED], subjects[:_FITTED], ridge=0.01)
    return Network(module=nn.Sequential(body, head), inputs=texts[_FITTED:], labels=subjects[_FITTED:])


def _detector() -> Network:
    module, inputs = Detector(), torch.rand(SAMPLES, 3, 320, 320)
    _settle(module.body, inputs[:16])
    return Network(module=module, inputs=inputs)


def _digits() -> Network:
    known, held = digits.data()
    return Network(module=digits.train(known), inputs=held.images[:SAMPLES], labels=held.labels[:SAMPLES])


_MAKERS: Mapping[str, Callable[[], Network]] = {
    "resnet18": _resnet18,
    "bert6": _bert6,
    "detector": _detector,
    "digits": _digits,
}
NAMES = tuple(_MAKERS)


def make(name: str) -> Network:
    torch.set_num_threads(1)
    torch.manual_seed(_SEED)
    network = _MAKERS[name]()
    network.module.eval()
    return network


def _enlarged(images: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(images, size=(160, 160), mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def _settle(body: nn.Module, inputs: torch.Tensor) -> None:
    """Give every batch normalisation the statistics of what passes through it, as training would."""
    for one in body.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = None
    with torch.no_grad():
        body.train()(inputs)
    body.eval()


def _head(body: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, ridge: float) -> nn.Linear:
    """The linear classifier with the least squared error on the body's features.

    `ridge` is relative to their variance. Where features are large and hardly vary, a weak one leaves a head that
    multiplies every rounding, as no trained network's does.
    """
    with torch.no_grad():
        found = torch.cat([body.eval()(one) for one in torch.split(inputs, 16)]).double()
    mean = found.mean(0)
    centred, wanted = found - mean, nn.functional.one_hot(labels).double()
    gram = centred.T @ centred + ridge * float(centred.square().sum(0).mean()) * torch.eye(centred.shape[1]).double()
    weights: Any = torch.linalg.solve(gram, centred.T @ (wanted - wanted.mean(0)))
    head = nn.Linear(*weights.shape)
    head.weight.data, head.bias.data = weights.T.float(), (wanted.mean(0) - mean @ weights).float()
    return head
