"""Olive's optimiser, in an environment of its own that `OLIVE_VENV` names; our process never imports it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

MISSING = "not installed; OLIVE_VENV names the virtual environment that has it"
PRECISIONS = ("fp32", "int8")
_WITHIN = 600.0


def program() -> Path | None:
    """The command line of Olive, in `OLIVE_VENV` or on the PATH."""
    folder = os.environ.get("OLIVE_VENV")
    found = shutil.which("olive", path=str(Path(folder, "bin")) if folder else None)
    return Path(found) if found else None


def optimised(model: Path, folder: Path, precision: str) -> Path | None:
    """What Olive makes of an ONNX file for this CPU by its own choice of steps, None where it makes nothing."""
    olive = program()
    if olive is None:
        raise LookupError(f"Olive is {MISSING}")
    command = [str(olive), "optimize", "-m", str(model), "-o", str(folder), "--device", "cpu"]
    command += ["--provider", "CPUExecutionProvider", "--precision", precision, "--disable_telemetry"]
    done = subprocess.run(command, capture_output=True, check=False, cwd=folder.parent, timeout=_WITHIN)
    found = sorted(folder.rglob("*.onnx")) if done.returncode == 0 else []
    return found[0] if found else None
