"""A TensorRT engine, or what of one can be made without a GPU: its header, with a body that nothing will ever load."""

from __future__ import annotations

from pathlib import Path

from tests.zoo import Sample

_HEADER = b"ftrt" + bytes(4) + (239).to_bytes(4, "little") + bytes(12) + bytes([10, 16, 0, 72]) + bytes(4)


def _engine(folder: Path) -> Path:
    """As TensorRT 10.16.0.72 begins its files."""
    (folder / "digits.engine").write_bytes(_HEADER + bytes(range(256)) * 64)
    return folder / "digits.engine"


SAMPLES = (
    Sample(name="tensorrt-engine", format="tensorrt_engine", filename="digits.engine", make=_engine, served=False),
)
