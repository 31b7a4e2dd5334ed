"""Lets nobody reach what a session names, when a root worker's child is about to become nobody."""

import os
import stat
from pathlib import Path

from pipeline.sandbox.lockdown import NOBODY

_GROUP_READ, _OTHERS_READ = stat.S_IRGRP, stat.S_IROTH
_GROUP_SEARCH, _OTHERS_SEARCH = stat.S_IXGRP, stat.S_IXOTH


def give(scratch: Path) -> None:
    """Make nobody the owner of the folder (not of what lies in it: files of ours there stay ours)."""
    os.chown(scratch, NOBODY, NOBODY)
    scratch.chmod(0o700)


def let_read(path: Path) -> None:
    """Add group nobody's right to read a file or a whole folder, and only where others have none yet.

    The path up to it is not touched: its folders must be searchable by everyone, or the view of the file system hides
    them. A file becomes readable to nobody's group on this machine, to no other.
    """
    _let_read_one(path)
    if path.is_dir():
        for folder, subfolders, files in os.walk(path):
            for name in (*subfolders, *files):
                _let_read_one(Path(folder, name))


def _let_read_one(path: Path) -> None:
    found = path.stat(follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        return
    group, others = _GROUP_READ, _OTHERS_READ
    if stat.S_ISDIR(found.st_mode):
        group, others = group | _GROUP_SEARCH, others | _OTHERS_SEARCH
    if found.st_mode & others == others:
        return
    if found.st_gid != NOBODY:
        os.chown(path, -1, NOBODY, follow_symlinks=False)
    path.chmod(stat.S_IMODE(found.st_mode) | group)
