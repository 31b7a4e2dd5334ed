"""Olive's optimiser, in an environment of its own that `OLIVE_VENV` names; our process never imports it.

The environment needs olive-ai, onnxoptimizer, which its peephole pass asks for, requests, which its command line does,
and the ONNX Runtime it is compared with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORMS = ("auto-opt fp32", "auto-opt int8", "static int8")
"""Its automatic choice of steps at both precisions, of which the second is dynamic int8, and its static int8 pass."""

MISSING = "not installed; OLIVE_VENV names the virtual environment that has it"
_WITHIN = 600.0
_SAMPLES, _BATCH = 96, 8
_HARDWARE = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}


def program() -> Path | None:
    """The command line of Olive, in `OLIVE_VENV` or on the PATH."""
    folder = os.environ.get("OLIVE_VENV")
    found = shutil.which("olive", path=str(Path(folder, "bin")) if folder else None)
    return Path(found) if found else None


def version() -> str | None:
    """The version of Olive and of the ONNX Runtime beside it, None where there is no Olive."""
    olive = program()
    if olive is None:
        return None
    asked = "from importlib.metadata import version as v; print(v('olive-ai'), 'with onnxruntime', v('onnxruntime'))"
    interpreter = olive.read_bytes().splitlines()[0].removeprefix(b"#!").decode().strip()
    return subprocess.run([interpreter, "-c", asked], capture_output=True, check=True, text=True).stdout.strip()


def optimised(model: Path, folder: Path, form: str, samples: Mapping[str, Any]) -> Path:
    """What Olive makes of an ONNX file for this CPU; `samples` are arrays by input. Raises `LookupError` with its reason."""
    olive = program()
    if olive is None:
        raise LookupError(MISSING)
    folder.mkdir()
    kind, precision = form.split()
    command = [str(olive), "auto-opt", "-m", str(model), "-o", str(folder / "made"), "--precision", precision]
    command += ["--device", "cpu", "--provider", "CPUExecutionProvider"]
    if kind == "static":
        command = [str(olive), "run", "--config", str(_workflow(model, folder, samples))]
    try:
        done = subprocess.run(
            [*command, "--disable_telemetry"], capture_output=True, check=False, cwd=folder, timeout=_WITHIN, text=True
        )
    except subprocess.TimeoutExpired as late:
        raise LookupError(f"took more than {_WITHIN:g} s") from late
    found = sorted((folder / "made").rglob("*.onnx"))
    if done.returncode or not found:
        raise LookupError(_complaint([*done.stdout.splitlines(), *done.stderr.splitlines()]))
    return found[0]


def _workflow(model: Path, folder: Path, samples: Mapping[str, Any]) -> Path:
    """Its static quantisation as it comes, on samples of ours: `olive optimize` would fetch WikiText and want a CUDA device."""
    raw = folder / "arrays"  # Olive takes the name of its data for a path where there is one of that name
    for name, array in samples.items():
        (raw / name).mkdir(parents=True)
        few = array[-_SAMPLES:]
        for start in range(0, len(few) - _BATCH + 1, _BATCH):
            few[start : start + _BATCH].tofile(raw / name / f"{start:04}.bin")
    described = {
        "data_dir": str(raw),
        "input_names": list(samples),
        "input_shapes": [[_BATCH, *one.shape[1:]] for one in samples.values()],
        "input_types": [str(one.dtype) for one in samples.values()],
    }
    workflow = {
        "input_model": {"type": "OnnxModel", "model_path": str(model)},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [_HARDWARE]}},
        "data_configs": [{"name": "samples", "type": "RawDataContainer", "load_dataset_config": described}],
        "passes": {
            "peephole": {"type": "OnnxPeepholeOptimizer"},
            "quantise": {"type": "OnnxStaticQuantization", "data_config": "samples"},
        },
        "host": "here",
        "target": "here",
        "no_artifacts": True,
        "output_dir": str(folder / "made"),
    }
    path = folder / "workflow.json"
    path.write_text(json.dumps(workflow), encoding="utf-8")
    return path


def _complaint(lines: Sequence[str]) -> str:
    """What was said from the last line on that names an error, else the last line."""
    said = [one.strip() for one in lines if one.strip()] or ["it made no file and said nothing"]
    named = [number for number, one in enumerate(said) if "Error" in one or "Exception" in one]
    return " ".join(said[named[-1] :] if named else said[-1:])[:400]
