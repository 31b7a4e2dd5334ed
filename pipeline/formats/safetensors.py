"""safetensors files: named tensors and no code. The header is read here, strictly, and without the library."""

from __future__ import annotations

from pipeline.formats import Format, Glimpse

MAX_HEADER = 100_000_000


def _recognises(glimpse: Glimpse) -> bool:
    length = int.from_bytes(glimpse.head[:8], "little")
    return glimpse.size >= 10 and 2 <= length <= min(MAX_HEADER, glimpse.size - 8) and glimpse.head[8:9] == b"{"


FORMAT = Format(
    name="safetensors",
    title="safetensors",
    extensions=(".safetensors",),
    recognises=_recognises,
    servable=False,
    unservable=(
        "A safetensors file holds weights without the network that uses them: it is stored and described, not served. "
        "To serve the model, upload it as .onnx (torch.onnx.export) or .pt2 (torch.export.save)."
    ),
)
