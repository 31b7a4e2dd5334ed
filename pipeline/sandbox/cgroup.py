"""A control group around each child, where this process may make one: memory and tasks as the kernel counts them.

Knows cgroup v2 and the v1 hierarchies `memory` and `pids`; makes groups below its own and nowhere else. Sources:
`Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst` of Linux, CGROUP_DELEGATION of systemd.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids")
WORKER = "slipway-worker"
"""The v2 group into which a worker moves itself: one that sets limits for others may hold no process of its own."""
SESSION = "slipway-sandbox-"
TASKS = 1024
"""Threads of one child. ONNX Runtime starts as many as there are processors."""

_UNIT = {".scope", ".service", ".slice"}
_DELEGATED = ("trusted.delegate", "user.delegate")
"""How systemd marks a group that it leaves to the processes in it; in others it undoes what it did not set."""
_MAY_LACK = {"memory.swap.max", "memory.oom.group", "memory.memsw.limit_in_bytes"}
"""Kernels without swap, or before Linux 4.19, do not have these; the others must be there."""
_CHARGE = 1 << 20
"""Bytes: more than the kernel asks for at once before it kills (8 pages)."""
_EMPTY_WITHIN = 2.0


class Unusable(Exception):
    """Why no group can be made here."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where this process makes groups: for each controller the folder, one and the same on v2."""

    version: int
    folders: Mapping[str, Path]


class Group:
    """One session's group, which may hold `memory` bytes and `TASKS` threads. Raises OSError.

    Locked for as long as the process lives, so that no other takes it for a dead one's.
    """

    def __init__(self, home: Home, memory: int) -> None:
        self._version = home.version
        self._folders: dict[str, Path] = {}
        self._locks: dict[Path, int] = {}
        try:
            for parent in sorted(set(home.folders.values())):
                made, self._locks[made] = _new_folder(parent)
                self._folders |= {name: made for name, folder in home.folders.items() if folder == parent}
            for name, value in settings(home, memory).items():
                path = self._folders[name.split(".")[0]] / name
                if name not in _MAY_LACK or path.exists():
                    _write(path, value)
        except BaseException:
            self.remove()
            raise

    def take(self, pid: int) -> None:
        """Move the process in. What it touched before stays on its old group's account. Raises OSError."""
        for folder in self._locks:
            _write(folder / "cgroup.procs", str(pid))

    def out_of_memory(self) -> bool:
        """Whether the kernel killed in this group because of this group's limit, not for want of memory elsewhere.

        v1 keeps no such count: there the limit was reached at some time, and somebody was killed at some time.
        """
        folder = self._folders["memory"]
        if self._version == 1:
            # Not by `memory.failcnt`, which stays 0 on new kernels (seen on 6.18).
            most, limit = (int((folder / f"memory.{name}_in_bytes").read_text()) for name in ("max_usage", "limit"))
            return limit - most < _CHARGE and _counts(folder / "memory.oom_control").get("oom_kill", 0) > 0
        events = _counts(folder / "memory.events")
        return events.get("oom", 0) > 0 and events.get("oom_kill", 0) > 0

    def remove(self) -> None:
        """Kill what is left in it (v2) and remove it; one that does not get empty is left to the next sweep."""
        while self._locks:
            folder, lock = self._locks.popitem()
            _remove(folder, patience=_EMPTY_WITHIN)
            os.close(lock)


def find(process: Path = Path("/proc/self"), needed: Collection[str] = CONTROLLERS) -> Home:
    """Where `process` could make groups with these controllers; changes nothing. Raises `Unusable`."""
    own = _own_groups(process)
    unified = own.get("")
    if unified is not None and unified.name == WORKER:
        unified = unified.parent
    if unified is not None and set(needed) <= _words(unified / "cgroup.controllers"):
        if unified.suffix in _UNIT and not any(mark in os.listxattr(unified) for mark in _DELEGATED):
            raise Unusable(f"{unified} is systemd's own: its unit lacks Delegate=yes")
        home = Home(version=2, folders=dict.fromkeys(needed, unified))
        written = [unified, unified / "cgroup.procs", unified / "cgroup.subtree_control"]
    elif own.keys() >= set(needed):
        home = Home(version=1, folders={name: own[name] for name in needed})
        written = list(home.folders.values())
    else:
        raise Unusable(f"this process is in no cgroup with the controllers {' and '.join(needed)}")
    for path in written:
        if not os.access(path, os.W_OK):
            raise Unusable(f"{path} cannot be written")
    return home


def prepare(needed: Collection[str] = CONTROLLERS) -> Home:
    """`find`, made ready: on v2 the worker moves out of the way; groups of dead workers go. Raises `Unusable`.

    A group is made for trial, so that later ones fail for a reason of that moment only.
    """
    home = find(needed=needed)
    try:
        for folder in set(home.folders.values()):
            if home.version == 2:
                _share_out(folder, needed)
            _sweep(folder)
        Group(home, memory=1 << 30).remove()
    except OSError as fault:
        raise Unusable(str(fault)) from fault
    return home


def settings(home: Home, memory: int) -> dict[str, str]:
    """File names and what is written to them, in this order: v1 refuses a sum with swap below the memory alone."""
    limit = str(memory)
    names = {
        1: {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit, "pids.max": str(TASKS)},
        2: {"memory.max": limit, "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": str(TASKS)},
    }
    return {name: value for name, value in names[home.version].items() if name.split(".")[0] in home.folders}


def _own_groups(process: Path) -> dict[str, Path]:
    """The folder of the process's group by controller; v2's under the empty name. Those not in sight are left out."""
    paths: dict[str, Path] = {}
    for line in (process / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), Path(path))
    found = {}
    for line in (process / "mountinfo").read_text().splitlines():
        where, what = line.split(" - ", 1)
        root, point = where.split()[3:5]
        kind, _, options = what.split(" ", 2)
        names_here = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, [])
        for name in paths.keys() & names_here:
            if paths[name].is_relative_to(root) and ".." not in paths[name].parts:
                found[name] = point / paths[name].relative_to(root)
    return found


def _share_out(folder: Path, needed: Collection[str]) -> None:
    """Let groups below have the controllers. v2 allows that to none that holds processes, but for the system's root."""
    control, wanted = folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in needed)
    if set(needed) <= _words(control):
        return
    members = _words(folder / "cgroup.procs") if (folder / "cgroup.type").exists() else set()
    strangers = members - _ancestry()
    if strangers:
        raise Unusable(f"{folder} holds processes that are not this worker's ({', '.join(sorted(strangers)[:3])})")
    if members:
        (folder / WORKER).mkdir(exist_ok=True)
    for pid in members:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            _write(folder / WORKER / "cgroup.procs", pid)
    _write(control, wanted)


def _ancestry() -> set[str]:
    """The numbers of this process and of those above it: what started a worker alone in its group, such as a container's init."""
    line, pid = set(), os.getpid()
    while pid > 0:
        line.add(str(pid))
        pid = _counts(Path(f"/proc/{pid}/status"))["PPid:"]
    return line


def _new_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SESSION, dir=parent))
        lock = _lock(folder, fcntl.LOCK_EX)
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:  # swept before it was locked
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove the groups of dead workers. Locks tell, as with scratch folders: containers may share the place."""
    for folder in parent.glob(f"{SESSION}*"):
        lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            _remove(folder, patience=0)
            os.close(lock)


def _lock(folder: Path, how: int) -> int | None:
    """The descriptor that holds it; None where the folder is gone or another's."""
    lock = -1
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, how)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove(folder: Path, *, patience: float) -> None:
    deadline = time.monotonic() + patience
    if (folder / "cgroup.kill").exists():
        _write(folder / "cgroup.kill", "1")
    while folder.exists():
        try:
            folder.rmdir()
        except OSError as busy:
            if busy.errno != errno.EBUSY:
                raise
            if time.monotonic() >= deadline:
                return
            time.sleep(0.01)


def _counts(path: Path) -> dict[str, int]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def _words(path: Path) -> set[str]:
    return set(path.read_text().split()) if path.exists() else set()


def _write(path: Path, value: str) -> None:
    """One write to a file that must be there: the kernel takes each as one order."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
