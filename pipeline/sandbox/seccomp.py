"""A seccomp filter as classic BPF: a list of allowed system calls, everything else refused. Needs no libseccomp.

Constants: `include/uapi/linux/{seccomp,audit,filter,bpf_common}.h`, seccomp(2). The filter sees numbers and register
values, never memory behind pointers: files are Landlock's business.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.sandbox import kernel, syscalls

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_OR_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER_AT, _ARCH_AT = 0, 4  # struct seccomp_data {int nr; __u32 arch; __u64 ip; __u64 args[6];}
_X32_BIT = 0x40000000
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
_GET_ACTION_AVAILABLE = 2

_CLONE_THREAD_FLAGS = 0x10000 | 0x800 | 0x100  # CLONE_THREAD | CLONE_SIGHAND | CLONE_VM: a thread, not a process
_CLONE_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}
_O_ACCMODE, _O_TRUNC = 0x3, 0x200  # asm-generic/fcntl.h
_HARMLESS_PRCTL = (15, 16, 0x53564D41)  # SET_NAME, GET_NAME, SET_VMA. Not PDEATHSIG: it would outlive its owner
_HARMLESS_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX (`asm-generic/ioctls.h`)."""
_HARMFUL_FCNTL = (8, 10, 15, 1024, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: each lets the kernel signal another process."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One architecture: its AUDIT_ARCH_* value, its system calls and the number of seccomp(2)."""

    audit: int
    numbers: dict[str, int]
    seccomp: int


MACHINES = {
    "x86_64": Machine(audit=0xC000003E, numbers=syscalls.X86_64, seccomp=317),
    "aarch64": Machine(audit=0xC00000B7, numbers=syscalls.AARCH64, seccomp=277),
}

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, k) of a struct sock_filter."""

_PRETEND: list[Instruction] = [(_RETURN, 0, 0, _ERRNO)]


def available() -> bool:
    """Whether this kernel filters system calls and this machine is one whose numbers are known."""
    machine = MACHINES.get(kernel.MACHINE)
    if machine is None:
        return False
    try:
        action = struct.pack("=I", _KILL_PROCESS)
        kernel.syscall("seccomp", machine.seccomp, _GET_ACTION_AVAILABLE, 0, action)
    except OSError:
        return False
    return True


def restrict() -> None:
    """Filter every thread of this process for ever. Wants no_new_privs set."""
    machine = MACHINES[kernel.MACHINE]
    code = b"".join(struct.pack("=HBBI", *step) for step in program(machine, own_pid=os.getpid()))
    steps = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("@HP", len(code) // 8, ctypes.addressof(steps))
    kernel.syscall("seccomp", machine.seccomp, _SET_MODE_FILTER, _FLAG_TSYNC, filter_program)


def program(machine: Machine, *, own_pid: int) -> list[Instruction]:
    """The filter. `own_pid` is the only process that may be signalled or limited."""
    number = machine.numbers
    steps: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_GREATER_OR_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    judged = {
        "clone": _threads_only(),
        # Landlock does not know these, and a child with its owner's uid could harm every file of his: it is told that
        # they worked (errno 0) and nothing happens, since honest copying and unpacking call them.
        **dict.fromkeys(("chmod", "fchmod", "fchmodat"), _PRETEND),
        **dict.fromkeys(("utime", "utimes", "futimesat", "utimensat"), _PRETEND),
        "open": _no_truncating_reader(flags_at=1),
        "openat": _no_truncating_reader(flags_at=2),
        "openat2": [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)],
        # Its flags lie in memory, where a filter cannot look; the C library falls back to clone.
        "clone3": [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)],
        "prctl": _argument_in(0, _HARMLESS_PRCTL, inside=_ALLOW, outside=_ERRNO | errno.EPERM),
        "ioctl": _argument_in(1, _HARMLESS_IOCTL, inside=_ALLOW, outside=_ERRNO | errno.ENOTTY),
        "fcntl": _argument_in(1, _HARMFUL_FCNTL, inside=_ERRNO | errno.EPERM, outside=_ALLOW),
        "kill": _argument_in(0, (own_pid,), inside=_ALLOW, outside=_ERRNO | errno.EPERM),
        "tgkill": _argument_in(0, (own_pid,), inside=_ALLOW, outside=_ERRNO | errno.EPERM),
        "prlimit64": _argument_in(0, (0, own_pid), inside=_ALLOW, outside=_ERRNO | errno.EPERM),
        # ONNX Runtime pins its threads, by thread id: it is told that this worked (errno 0) and nothing happens.
        "sched_setaffinity": _argument_in(0, (0, own_pid), inside=_ALLOW, outside=_ERRNO),
    }
    for name in sorted(number.keys() & judged.keys()):
        steps += [(_JUMP_EQUAL, 0, len(judged[name]), number[name]), *judged[name]]
    for name in sorted(number.keys() - judged.keys()):
        steps += [(_JUMP_EQUAL, 0, 1, number[name]), (_RETURN, 0, 0, _ALLOW)]
    steps += [
        (_JUMP_GREATER_OR_EQUAL, 0, 1, syscalls.NEWEST_KNOWN + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return steps


def _no_truncating_reader(*, flags_at: int) -> list[Instruction]:
    """Opening for reading may empty a file, and before ABI 3 Landlock sees only the reading."""
    return [
        _load_argument(flags_at),
        (_JUMP_ANY_BIT, 0, 2, _O_TRUNC),
        (_JUMP_ANY_BIT, 1, 0, _O_ACCMODE),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _threads_only() -> list[Instruction]:
    block: list[Instruction] = [_load_argument(0)]
    block += [(_JUMP_ANY_BIT, 0, 1, _CLONE_NEW_NAMESPACES), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    for bit in (1 << shift for shift in range(32) if _CLONE_THREAD_FLAGS >> shift & 1):
        block += [(_JUMP_ANY_BIT, 1, 0, bit), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return [*block, (_RETURN, 0, 0, _ALLOW)]


def _argument_in(index: int, values: Iterable[int], *, inside: int, outside: int) -> list[Instruction]:
    """Judge the low 32 bits of one argument: all these arguments are 32 bits wide to the kernel."""
    block = [_load_argument(index)]
    for value in values:
        block += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, inside)]
    return [*block, (_RETURN, 0, 0, outside)]


def _load_argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, 16 + 8 * index)  # both machines are little-endian
