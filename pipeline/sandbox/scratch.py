"""Scratch folders: one for each process that has children, and what a child left there, named and linked by somebody we do not trust."""

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from pipeline.errors import Rejected

SCRATCH = "slipway-scratch-"
LOCK = "in-use"
PASSABLE = 0o711
"""Mode of the folders above a child's own: a sandbox child, who is nobody, passes through and sees nothing."""


def safe_file(scratch: Path, name: str, max_size: int) -> Path:
    """The regular file `name` (may lie in subfolders) of `scratch`; raises `Rejected("answer_invalid")` otherwise.

    No component may be a symbolic link or `..`, the file must have one link and at most `max_size` bytes. Ask after
    the session is closed: while the child lives it can exchange what was checked.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise Rejected("answer_invalid", "The model's process named a file outside its folder.")
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folder)
            os.close(folder)
            folder = deeper
        found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except OSError as fault:
        raise Rejected("answer_invalid", "The model's process named a file that is not there.") from fault
    finally:
        os.close(folder)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise Rejected("answer_invalid", "The model's process left something that is no plain file.")
    if found.st_size > max_size:
        raise Rejected("answer_invalid", f"The model's process left {found.st_size} bytes; {max_size} are allowed.")
    return scratch.joinpath(*parts)


def discard(scratch: Path) -> None:
    """Delete the folder, also where a child took our own rights on its subfolders away. Follows no links."""
    scratch.chmod(0o700)
    for folder, subfolders, _ in os.walk(scratch):
        for name in subfolders:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(scratch)


def new_scratch(place: Path) -> Path:
    """A folder for one process's work and that of its children, locked for as long as the process lives, so that no other takes it for a dead one's."""
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=place))
    # Never closed: the kernel lets go of the lock when the process ends, however it ends.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    folder.chmod(PASSABLE)
    return folder


def forget_dead_scratch(place: Path) -> None:
    """Remove what killed workers left: locks tell, not process numbers, because containers may share the place."""
    for folder in place.glob(f"{SCRATCH}*"):
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # being made or being removed at this moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
