"""torch.export archives (`.pt2`). Loading one evaluates expressions from the file: only a sandbox child does it."""

from __future__ import annotations

from pipeline.formats import Format, Glimpse


def _recognises(glimpse: Glimpse) -> bool:
    return glimpse.holds("models", "model.json") and glimpse.holds("archive_version")


FORMAT = Format(
    name="pt2",
    title="torch.export",
    extensions=(".pt2",),
    recognises=_recognises,
    exporters=("dynamo", "torchscript"),
)
