"""Private namespaces and a private view of the file system, where the kernel lets us make them. On top, never instead.

What bubblewrap does around a command, done by the zygote itself: once for network, IPC, host name and processes, and
for each child a mount namespace that holds what the child may see and nothing else. Sources: namespaces(7),
user_namespaces(7), mount_namespaces(7), pivot_root(2), `include/uapi/linux/mount.h`.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from pipeline.sandbox import kernel

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_EMPTY_PATH, _MOVE_MOUNT_F_EMPTY_PATH = 1, 0x8000, 0x1000, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def separate() -> None:
    """Leave the system's network, IPC, host name and (for later children) processes behind, for ever.

    Root with CAP_SYS_ADMIN does it directly; everyone else inside a user namespace of their own, in which they keep
    their uid. Raises OSError where the kernel or a container's rules refuse.
    """
    flags = _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWPID
    if os.geteuid() == 0:
        _unshare(flags)
        return
    uid, gid = os.geteuid(), os.getegid()
    _unshare(flags | _CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def view(*, read: Iterable[Path], write: Iterable[Path], scratch: Path) -> None:
    """Make a root that holds `read` (read-only), `write` (device files), `scratch` and this namespace's /proc.

    Folders on the way to them are new and searchable by everyone: a file in somebody's private folder becomes
    reachable at its own path without any right on that folder. Ends with `scratch` as the working directory.
    """
    _unshare(_CLONE_NEWNS | _CLONE_NEWIPC)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    trees = {path: _clone_tree(path) for path in _outermost(read) if path.exists()}
    devices = {path: _clone_tree(path) for path in write if path.exists()}
    own = _clone_tree(scratch)
    for path, tree in trees.items():
        _restrict_tree(tree, _ATTR_RDONLY | _ATTR_NOSUID | (0 if path.is_relative_to("/dev") else _ATTR_NODEV))
    _restrict_tree(own, _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC)

    _mount("tmpfs", str(scratch), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    root = scratch
    for path, tree in (trees | devices).items():
        _place(tree, path, root)
    _place(own, scratch, root)
    proc = root / "proc"
    proc.mkdir(exist_ok=True)
    # All sessions of a zygote share one process namespace: each is to see itself alone.
    _mount("proc", str(proc), "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "hidepid=2")

    os.chdir(root)
    kernel.syscall("pivot_root", _PIVOT_ROOT[kernel.MACHINE], b".", b".")
    kernel.checked("umount2", kernel.libc.umount2(b".", _MNT_DETACH))  # the old root, now on top of the new one
    os.chdir("/")
    _set_attributes(kernel.AT_FDCWD, b"/", _ATTR_RDONLY, flags=0)
    os.chdir(scratch)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that lie in no other one; /proc is left out, the view has its own."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if path.is_relative_to("/proc") or any(path.is_relative_to(outer) for outer in kept):
            continue
        kept.append(path)
    return kept


def _place(tree: int, path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        if Path(f"/proc/self/fd/{tree}").is_dir():
            target.mkdir()
        else:
            target.touch()
    place = bytes(target)
    kernel.syscall(f"move_mount {path}", _MOVE_MOUNT, tree, b"", kernel.AT_FDCWD, place, _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


def _clone_tree(path: Path) -> int:
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    return kernel.syscall(f"open_tree {path}", _OPEN_TREE, kernel.AT_FDCWD, bytes(path), flags)


def _restrict_tree(tree: int, attributes: int) -> None:
    _set_attributes(tree, b"", attributes, flags=_AT_EMPTY_PATH | _AT_RECURSIVE)


def _set_attributes(folder: int, path: bytes, attributes: int, *, flags: int) -> None:
    """mount_setattr(2) with struct mount_attr {attr_set, attr_clr, propagation, userns_fd}."""
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    kernel.syscall("mount_setattr", _MOUNT_SETATTR, folder, path, flags, request, len(request))


def _unshare(flags: int) -> None:
    kernel.checked("unshare", kernel.libc.unshare(flags))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    result = kernel.libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    kernel.checked(f"mount {target}", result)
