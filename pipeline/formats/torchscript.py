"""TorchScript archives (`torch.jit.save`). The archive is code: it is opened in a sandbox child and nowhere else."""

from __future__ import annotations

from pipeline.formats import Format, Glimpse


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.holds("code") and glimpse.holds("data.pkl") and glimpse.holds("constants.pkl")


FORMAT = Format(
    name="torchscript",
    title="TorchScript",
    extensions=(".pt", ".pth"),
    recognises=_recognises,
    exporters=("torchscript", "dynamo"),
)
