"""A Landlock ruleset: which files this process may touch, whatever its uid. Knows nothing of why.

Constants: Linux `include/uapi/linux/landlock.h`, explained in landlock(7). Each ABI added rights; rights that the
running kernel does not know are left out of the mask, since it refuses a mask that it cannot enforce.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from pipeline.sandbox import kernel

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER = 1 << 13  # ABI 2: rename across folders
_TRUNCATE = 1 << 14  # ABI 3
_IOCTL_DEV = 1 << 15  # ABI 5
_FIRST_ABI_RIGHTS = (1 << 13) - 1  # EXECUTE … MAKE_SYM

_READ = _READ_FILE | _READ_DIR
_READ_WRITE = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
"""No symbolic links, sockets, fifos or devices: a scratch folder holds files and folders."""
_FILE_RIGHTS = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
"""The rights that may be given on something that is not a folder."""

_NET_TCP = 0b11  # ABI 4: BIND_TCP, CONNECT_TCP; handled and never granted
_SCOPES = 0b11  # ABI 6: abstract unix sockets, signals


def abi() -> int:
    """Version of Landlock that this kernel enforces; 0 when it has none."""
    try:
        return kernel.syscall("landlock_create_ruleset", _CREATE, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(*, read: Iterable[Path], write: Iterable[Path], devices: Iterable[Path] = ()) -> int:
    """Confine this process for ever to reading `read` and writing `write`; returns the ABI. Wants no_new_privs set.

    `devices` are device files that may be commanded (ioctl) too.
    Paths that do not exist are passed over. TCP is refused from ABI 4 on, signals to others from ABI 6 on.
    """
    version = abi()
    handled = _handled(version)
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _NET_TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = kernel.syscall("landlock_create_ruleset", _CREATE, attributes, len(attributes), 0)
    try:
        for rights, paths in ((_READ, read), (_READ_WRITE, write), (_READ_WRITE | _IOCTL_DEV, devices)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        kernel.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _handled(version: int) -> int:
    rights = _FIRST_ABI_RIGHTS
    if version >= 2:
        rights |= _REFER
    if version >= 3:
        rights |= _TRUNCATE
    if version >= 5:
        rights |= _IOCTL_DEV
    return rights


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, beneath)
        kernel.syscall(f"landlock_add_rule {path}", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(beneath)
