"""The machine that figures were measured on: its processor, and how many threads of it are ours."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from pathlib import Path

from pipeline.stage import Json


def cores(root: Path = Path("/")) -> int:
    """How many threads can run at once here: what the scheduler allows, less where a cgroup's CPU quota is smaller."""
    allowed = len(os.sched_getaffinity(0))
    quota = min((one for group in _groups(root) if (one := _quota(group)) is not None), default=float(allowed))
    return max(1, min(allowed, math.floor(quota)))


def describe() -> Json:
    """The machine, as people name it."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"kind": "cpu", "cpu": cpu, "cores": cores(), "system": f"{platform.system()} {platform.release()}"}


def _groups(root: Path) -> list[Path]:
    """The folders of the cgroup we are in and of those around it, under the second version's and the first's roots."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounted = root / "sys/fs/cgroup" / (controllers and "cpu")
            inside = mounted / path.lstrip("/")
            found += [inside, *(one for one in inside.parents if one.is_relative_to(mounted))]
    return found


def _quota(group: Path) -> float | None:
    """Processors' worth of time that a cgroup may use, None where it is not bounded."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        share, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return None if share == "max" else int(share) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        share, period = ((group / f"cpu.cfs_{one}_us").read_text(encoding="utf-8") for one in ("quota", "period"))
        return None if int(share) < 0 else int(share) / int(period)
    return None
