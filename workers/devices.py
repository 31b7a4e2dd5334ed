"""The GPUs of this machine, as `nvidia-smi` lists them: no library of theirs is loaded into a worker's own processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from pipeline.errors import Unavailable

log = structlog.get_logger()

VISIBLE = "CUDA_VISIBLE_DEVICES"
_FIELDS = "index,uuid,name,memory.total,memory.free,compute_cap"
_MIB = 1 << 20
_PATIENCE = 20


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU. Memory in bytes; `sm` is its architecture, such as `sm90`."""

    index: int
    uuid: str
    name: str
    memory: int
    free: int
    sm: str

    def facts(self) -> dict[str, Any]:
        """What the registry of workers tells of it."""
        return {name: value for name, value in asdict(self).items() if name in ("index", "name", "memory", "sm")}


def devices() -> list[Device]:
    """Those that this process may use; none where there is no driver. Heeds `CUDA_VISIBLE_DEVICES`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run(  # noqa: S603 - a fixed command of the driver's
            [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("devices.unreadable", error=str(error))
        return []
    return visible(parse(listed), os.environ.get(VISIBLE))


def parse(listed: str) -> list[Device]:
    """The devices of `nvidia-smi --query-gpu=… --format=csv,noheader,nounits`, which tells memory in MiB."""
    found = []
    for line in listed.splitlines():
        index, uuid, name, total, free, capability = (part.strip() for part in line.split(","))
        found.append(
            Device(
                index=int(index),
                uuid=uuid,
                name=name,
                memory=int(total) * _MIB,
                free=int(free) * _MIB,
                sm=f"sm{capability.replace('.', '')}",
            )
        )
    return found


def visible(found: list[Device], chosen: str | None) -> list[Device]:
    """Those that `CUDA_VISIBLE_DEVICES` leaves, in its order; as in CUDA, what follows an unknown entry does not count."""
    if chosen is None:
        return found
    kept: list[Device] = []
    for entry in (part.strip() for part in chosen.split(",")):
        match = [one for one in found if entry and (entry == str(one.index) or one.uuid.startswith(entry))]
        if not match:
            break
        kept.append(match[0])
    return kept


def pin(child: int, found: list[Device]) -> Device | None:
    """Give the child process with that number (0, 1, …) one device and hide the others from it and all that it starts."""
    if not found:
        return None
    device = found[child % len(found)]
    os.environ[VISIBLE] = device.uuid
    return device


def require_memory(device: Device, least: int) -> None:
    """Raises `Unavailable` where less than `least` bytes of the device are free: somebody else is at work on it."""
    now = next((one for one in devices() if one.uuid == device.uuid), None)
    if now is None:
        raise Unavailable("device_gone", f"{device.name} (GPU {device.index}) no longer answers.")
    if now.free < least:
        raise Unavailable(
            "device_memory",
            f"{device.name} (GPU {device.index}) has {now.free // _MIB} MiB free; {least // _MIB} MiB are needed.",
        )
