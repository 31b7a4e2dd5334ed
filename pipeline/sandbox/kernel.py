"""The few system calls that Python has no name for, through ctypes. Knows numbers, not policy.

Numbers above 423 are the same on every architecture (Linux, `include/uapi/asm-generic/unistd.h`); the others come
from the two tables of `seccomp.py`.
"""

import ctypes
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h, as the next three
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

MACHINE = platform.machine()


def syscall(name: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel and return its answer; raises OSError that names the call."""
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return checked(name, libc.syscall(ctypes.c_long(number), *passed))


def prctl(option: int, value: int = 0) -> int:
    return checked("prctl", libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3))


def checked(name: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
