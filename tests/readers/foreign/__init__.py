"""Real files of frameworks that are not installed where the tests run: `models.zip`, written by `make.py`."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from pipeline.readers import examine

CANARY = Path("/tmp/slipway-canary")
with zipfile.ZipFile(Path(__file__).with_name("models.zip")) as _archive:
    FILES = {name: _archive.read(name) for name in _archive.namelist()}


def judged(folder: Path, content: bytes, name: str, **limits: float) -> dict[str, Any]:
    """The readers' answer, after a look at whether anything was executed."""
    path = folder / "upload"
    path.write_bytes(content)
    answer = examine(str(path), name, limits)
    json.dumps(answer, allow_nan=False)
    assert not CANARY.exists()
    return answer


def rules(answer: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in answer["findings"]}


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def packed(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()
