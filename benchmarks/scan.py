"""How fast a large checkpoint is scanned and in how much memory, beside picklescan and modelscan where they are there.

Each scan is a process of its own, start included; the scanners take turns. CPU time holds where others use the machine. `SCANNER_VENV` names the peers' environment.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import MISSING, program

MIB = 1 << 20
SIZES = {"100 MB": 100_000_000, "500 MB": 500_000_000}
ROUNDS = 5
WARM_UP = 1
TENSORS = 100
_GLANCE = 0.005
_OURS = (
    "import sys; from pipeline.readers import examine; sys.exit(examine(sys.argv[1], 'model.pt')['verdict'] != 'clean')"
)


_CHECKPOINT = """
import sys, torch
path, count, tensors = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.save({f"layers.{number}.weight": torch.randn(count) for number in range(tensors)}, path)
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one scan: seconds of wall and of CPU time, bytes resident at the peak."""

    seconds: float
    cpu: float
    memory: int


def main() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    commands = {"slipway": [sys.executable, "-c", _OURS]}
    for name in ("picklescan", "modelscan"):
        found = program(name)
        if found is None:
            figures[name] = MISSING
        else:
            commands[name] = [str(found), "-p"]
    with tempfile.TemporaryDirectory() as folder:
        for label, size in SIZES.items():
            path = Path(folder) / "model.pt"
            _write(path, size)
            costs: dict[str, list[Cost]] = {name: [] for name in commands}
            for _ in range(ROUNDS + WARM_UP):
                for name, command in commands.items():
                    costs[name].append(_scan([*command, str(path)]))
            figures |= _figures(label, path.stat().st_size, {name: all_[WARM_UP:] for name, all_ in costs.items()})
    return figures


def _figures(label: str, size: int, costs: dict[str, list[Cost]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, all_ in costs.items():
        figures[f"{name}, {label}, median MB/s"] = round(size / 1e6 / statistics.median(cost.seconds for cost in all_))
        figures[f"{name}, {label}, peak MiB"] = round(max(cost.memory for cost in all_) / MIB)
        figures[f"{name}, {label}, median CPU s"] = round(statistics.median(cost.cpu for cost in all_), 2)
        if name != "slipway":
            pairs = list(zip(costs["slipway"], all_, strict=True))
            times = [ours.seconds / theirs.seconds for ours, theirs in pairs]
            cpu = [ours.cpu / theirs.cpu for ours, theirs in pairs]
            figures[f"slipway / {name}, {label}, ratio of times, median of pairs"] = round(statistics.median(times), 2)
            figures[f"slipway / {name}, {label}, ratio of CPU times, median"] = round(statistics.median(cpu), 2)
    return figures


def _write(path: Path, size: int) -> None:
    """By another process, which takes torch with it when it ends."""
    subprocess.run([sys.executable, "-c", _CHECKPOINT, str(path), str(size // TENSORS // 4), str(TENSORS)], check=True)


def _resident(pid: int) -> int:
    """The most bytes that a process has had resident so far. Its `ru_maxrss` would begin with what we hold ourselves."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def _scan(command: list[str]) -> Cost:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(_GLANCE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} does not call the checkpoint clean: exit {process.returncode}")
    return Cost(seconds=seconds, cpu=usage.ru_utime + usage.ru_stime, memory=peak)


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
