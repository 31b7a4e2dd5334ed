"""Modules for TorchScript to compile; it reads annotations at run time, so they are written the old way."""

from typing import Dict, Final, List  # noqa: UP035 - what TorchScript understands

import torch
from torch import nn


class Inner(nn.Module):
    names: List[str]  # noqa: UP006 - see above
    table: Dict[str, int]  # noqa: UP006

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("shift", torch.randn(8))
        self.names = ["a", "b"]
        self.table = {"x": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x) + self.shift) * float(len(self.names)) + self.table["x"]


class Rich(nn.Module):
    times: Final[int] = 3

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(Inner(), nn.BatchNorm1d(8), nn.Dropout(0.1))
        self.lstm = nn.LSTM(8, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.more = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        self.small = nn.Parameter(torch.randn(4).to(torch.bfloat16))
        self.mixed = (1, 2.5, "z")
        self.device = torch.device("cpu")
        self.nothing = None

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:  # noqa: UP006
        y = self.inner(x)
        if y.shape[0] > 3:
            y = y + torch.ones(8) * self.times
        for layer in self.more:
            y = layer(y)
        z, _ = self.lstm(y.unsqueeze(0))
        a, _ = self.attention(y.unsqueeze(0), y.unsqueeze(0), y.unsqueeze(0))
        if y.dim() == 7:
            raise ValueError("bad " + str(y.shape))
        return {"z": z + torch.randn(1), "a": a}


class Joined(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, int]:
        return torch.cat([x, y])[:-1].repeat(2, 1), x.shape[0] * 2 + 1
