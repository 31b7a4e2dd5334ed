"""The order in which a freshly forked child gives everything up. Knows every layer, none of their details.

Called after the heavy imports, in a process with one thread, before a single untrusted byte is read. Anything that
cannot be applied raises: a child that is not locked down never answers.
"""

import os
import resource
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.sandbox import kernel, landlock, namespaces, seccomp

NOBODY = 65534
"""Uid and gid of nobody on every distribution, and the kernel's overflow id (`/proc/sys/kernel/overflowuid`)."""

_THREADS = 4096
"""RLIMIT_NPROC counts every thread of the uid on the machine, ours and strangers': low values hit the innocent. New
processes are refused by seccomp; this bounds threads, each of which costs the kernel 16 KiB that RLIMIT_AS misses."""

_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h
_CAPSET = {"x86_64": 126, "aarch64": 91}
_SIGKILL = 9

_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/osrelease",
    "/proc/self",
)
"""What the C library, Python, torch's cpuinfo and OpenMP look at while they work. `/proc/self` is the child's own."""
_DEVICES = (Path("/dev/null"),)
_DRIVER = ("/sys/bus/pci/devices", "/sys/devices", "/sys/module/nvidia", "/proc/driver/nvidia", "/proc/devices")
"""What NVIDIA's driver library looks at beside its device files."""


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What one child may touch and use. Byte and second limits as in `pipeline.stage.Limits`.

    `gpu` opens NVIDIA's device files; which GPU is used is the environment's business. The driver then is in reach of
    what the child runs, the greatest hole that the fence can have: only builders of engines get it.
    """

    read: Sequence[Path]
    scratch: Path
    memory: int
    cpu: int
    file_size: int
    open_files: int
    landlock: bool
    view: bool
    gpu: bool = False


def system_paths() -> list[Path]:
    """Interpreter, standard library, site-packages and the system's libraries, under every name they have."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    paths = {Path(path) for path in (*_SYSTEM, *prefixes)}
    # A prefix of `/usr` or `/` would open more than libraries; what Python needs of it lies in the folders above.
    paths -= {Path("/"), Path("/usr")}
    return sorted(paths | {Path(os.path.realpath(path)) for path in paths if not path.is_relative_to("/proc")})


def gpu_paths() -> tuple[list[Path], list[Path]]:
    """The device files of NVIDIA's driver, and what is read beside them."""
    devices = [path for path in Path("/dev").glob("nvidia*") if path.is_char_device()]
    return sorted(devices), [Path(path) for path in _DRIVER]


def lock(fence: Fence) -> list[str]:
    """Give up everything but the fence; returns the names of the layers that hold. Raises OSError."""
    layers = ["rlimits", "capabilities", "seccomp"]
    gpu_devices, driver = gpu_paths() if fence.gpu else ([], [])
    read, devices = [*system_paths(), *driver, *fence.read], [*_DEVICES, *gpu_devices]
    if fence.view:
        namespaces.view(read=read, write=devices, scratch=fence.scratch)
        layers.append("namespaces")
    _limit(fence)
    if _drop_user():
        layers.append("uid")
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    die_with_parent()  # a change of uid clears it
    if fence.landlock:
        landlock.restrict(read=read, write=[*_DEVICES, fence.scratch], devices=gpu_devices)
        layers.append("landlock")
    seccomp.restrict()
    return sorted(layers)


def die_with_parent() -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _SIGKILL)


def _limit(fence: Fence) -> None:
    wanted = {
        resource.RLIMIT_AS: resource.RLIM_INFINITY if fence.gpu else fence.memory,
        resource.RLIMIT_CPU: fence.cpu,
        resource.RLIMIT_FSIZE: fence.file_size,
        resource.RLIMIT_NOFILE: fence.open_files,
        resource.RLIMIT_NPROC: _THREADS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        bounded = [limit for limit in (value, hard) if limit != resource.RLIM_INFINITY]
        soft = min(bounded, default=resource.RLIM_INFINITY)
        # One second later than the soft limit, whose SIGXCPU can be ignored, the hard one kills.
        grace = 1 if which == resource.RLIMIT_CPU and (hard == resource.RLIM_INFINITY or hard > soft) else 0
        resource.setrlimit(which, (soft, soft + grace))


def _drop_user() -> bool:
    """Become nobody where we may, and hold no capability in any set."""
    may_change = may_change_user()
    if may_change:
        for capability in range(64):
            try:
                kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
            except OSError:
                break  # past the last one this kernel knows
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    kernel.syscall("capset", _CAPSET[kernel.MACHINE], header, bytes(24))
    return may_change


def may_change_user() -> bool:
    """Whether this is a root that still has CAP_SETUID and CAP_SETGID (bits 7 and 6); some containers' root has not."""
    return os.geteuid() == 0 and effective_capabilities() & 0b1100_0000 == 0b1100_0000


def effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
