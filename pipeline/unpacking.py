"""Archives unpacked in a sandbox child: every name, size and checksum is looked at before a byte is written.

The scan has refused bombs and lies before; here they are refused again, because this runs on what storage gave back.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from pipeline.errors import Rejected
from pipeline.foreign import blame

LARGEST = 4 << 30
"""Bytes that an archive may unpack to."""

_MEMBERS = 10_000
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpack(model: str) -> Path:
    """A new folder of the scratch space with the archive's files. Raises `Rejected`."""
    folder = Path(tempfile.mkdtemp(prefix="unpacked-", dir=Path.cwd()))
    with blame("not_loadable", "Unpacking the archive"), zipfile.ZipFile(model) as archive:
        seen: set[str] = set()
        for one in _judged(archive):
            path = _place(one)
            if str(path) in seen:
                raise Rejected("not_loadable", f"The archive holds {one.filename[:200]!r} twice.")
            seen.add(str(path))
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(one) as source, target.open("xb") as sink:  # checks the CRC at the end
                shutil.copyfileobj(source, sink, 1 << 20)
            if target.stat().st_size != one.file_size:
                raise Rejected("not_loadable", f"{one.filename[:200]!r} is not as long as the archive says.")
    return folder


def within(root: Path, base: Path, location: str) -> Path:
    """The file that `location` names as seen from the folder `base`, if that lies below `root`. Raises `Rejected`."""
    path = PurePosixPath(location)
    if path.is_absolute() or ".." in path.parts or "\\" in location or "\0" in location or not path.parts:
        raise Rejected("external_data", f"The model names a file outside the package: {location[:200]!r}.")
    found = base / path
    if found.is_symlink() or not found.is_file() or not found.resolve().is_relative_to(root.resolve()):
        raise Rejected("external_data", f"The model's data file {location[:200]!r} is not in the package.")
    return found


def _judged(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MEMBERS:
        raise Rejected("not_loadable", f"The archive has {len(members):,} members; {_MEMBERS:,} may be.")
    total = sum(one.file_size for one in members)
    if total > LARGEST:
        raise Rejected("not_loadable", f"The archive unpacks to {total:,} bytes; {LARGEST:,} may be.")
    for one in members:
        kind = stat.S_IFMT(one.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Rejected("not_loadable", f"{one.filename[:200]!r} is a link or a device.")
        if one.flag_bits & 1 or one.compress_type not in _PLAIN:
            raise Rejected("not_loadable", f"{one.filename[:200]!r} is encrypted or packed in an unusual way.")
    return [one for one in members if not one.is_dir()]


def _place(member: zipfile.ZipInfo) -> PurePosixPath:
    path = PurePosixPath(member.filename)
    unsafe = path.is_absolute() or ".." in path.parts or "\\" in member.filename or not member.filename.isprintable()
    if unsafe or not path.parts or max(map(len, path.parts)) > os.pathconf("/", "PC_NAME_MAX"):
        raise Rejected("not_loadable", f"The archive holds a file with an unsafe name: {member.filename[:200]!r}.")
    return path
