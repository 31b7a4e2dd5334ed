"""A module for TorchScript that writes a file when it is loaded; the compiler reads annotations at run time."""

from typing import Tuple  # noqa: UP035 - what TorchScript understands

import torch
from torch import nn


class Saving(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.training = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> Tuple[str, bool]:  # noqa: UP006
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[str, bool]) -> None:  # noqa: UP006
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)
