"""`python -m tests.integration.container_rules COMMAND…`: run a command under a container's default seccomp profile.

Rebuilt by hand from Docker's `profiles/seccomp/default.json`, for a kernel of 4.8 or later and the capabilities that
Docker grants by default: what it refuses is listed here, everything else is allowed. containerd's default, which
Kubernetes calls RuntimeDefault, differs in nothing that matters to the sandbox. Capabilities are the caller's business.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

from pipeline.sandbox import kernel, seccomp
from pipeline.sandbox.seccomp import _ALLOW, _ARCH_AT, _ERRNO, _JUMP_ANY_BIT, _JUMP_EQUAL, _LOAD, _NUMBER_AT, _RETURN

DEFAULT_CAPABILITIES = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
]

_NAMESPACES = 0x7E020000
"""The profile's mask for clone: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}."""
_AF_VSOCK = 40

# fmt: off
_REFUSED: dict[str, tuple[int, int]] = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "clock_settime": (227, 112), "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "get_mempolicy": (239, 236), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18), "mbind": (237, 235),
    "migrate_pages": (256, 238), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "move_pages": (279, 239), "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "process_madvise": (440, 440), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "reboot": (169, 142), "request_key": (249, 218), "set_mempolicy": (238, 237), "setns": (308, 268),
    "setdomainname": (171, 162), "sethostname": (170, 161), "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58),
    # Allowed from kernel 4.8 on; refused here, because some profiles still do.
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117),
}
_X86_64_ONLY = {"ioperm": 173, "iopl": 172, "sysfs": 139, "uselib": 134, "ustat": 136}
# fmt: on


def main() -> None:
    """Wants no_new_privs set, as `setpriv --no-new-privs` does."""
    machine = platform.machine()
    steps = _program(x86=machine == "x86_64")
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("@HP", len(steps), ctypes.addressof(buffer))
    kernel.syscall("seccomp", seccomp.MACHINES[machine].seccomp, 1, 0, filter_program)
    os.execvp(sys.argv[1], sys.argv[1:])


def _program(*, x86: bool) -> list[seccomp.Instruction]:
    machine = seccomp.MACHINES["x86_64" if x86 else "aarch64"]
    refused = [pair[0 if x86 else 1] for pair in _REFUSED.values()] + (list(_X86_64_ONLY.values()) if x86 else [])
    steps: list[seccomp.Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in refused:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    steps += [
        (_JUMP_EQUAL, 0, 1, 435),  # clone3: its flags lie in memory
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_JUMP_EQUAL, 0, 3, 56 if x86 else 220),  # clone
        (_LOAD, 0, 0, 16),
        (_JUMP_ANY_BIT, 0, 4, _NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_JUMP_EQUAL, 0, 2, 41 if x86 else 198),  # socket
        (_LOAD, 0, 0, 16),
        (_JUMP_EQUAL, 1, 0, _AF_VSOCK),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return steps


if __name__ == "__main__":
    main()
