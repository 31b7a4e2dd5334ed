"""The scratch folder after a child had it: everything in it was named, sized and linked by somebody we do not trust."""

import os
import shutil
import stat
from pathlib import Path

from pipeline.errors import Rejected


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
