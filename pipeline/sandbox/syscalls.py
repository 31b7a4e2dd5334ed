"""Numbers of the system calls that a child may make, for x86_64 and aarch64. Knows no policy beyond the list.

From Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`. Names that aarch64 never
had (`open`, `stat`, …) are missing from its table. What is not listed here is refused: sockets, new processes, exec,
links, device nodes, ownership, truncating by name, ptrace, namespaces, mounts, bpf, io_uring, keys, shared memory, timers of the kernel,
handles, modules, and whatever later kernels invent.
"""

# fmt: off
X86_64: dict[str, int] = {
    # files
    "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "preadv": 295, "pwritev": 296,
    "preadv2": 327, "pwritev2": 328, "creat": 85, "close": 3, "close_range": 436, "lseek": 8, "stat": 4, "fstat": 5,
    "lstat": 6, "newfstatat": 262, "statx": 332, "statfs": 137, "fstatfs": 138, "access": 21, "faccessat": 269,
    "faccessat2": 439, "readlink": 89, "readlinkat": 267, "getdents": 78, "getdents64": 217, "getcwd": 79,
    "chdir": 80, "fchdir": 81, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "unlink": 87, "unlinkat": 263,
    "rename": 82, "renameat": 264, "renameat2": 316, "ftruncate": 77, "fallocate": 285, "fsync": 74,
    "fdatasync": 75, "sync_file_range": 277, "flock": 73, "dup": 32, "dup2": 33, "dup3": 292, "pipe": 22,
    "pipe2": 293, "fadvise64": 221, "readahead": 187, "copy_file_range": 326, "sendfile": 40, "getxattr": 191,
    "lgetxattr": 192, "fgetxattr": 193, "listxattr": 194, "llistxattr": 195, "flistxattr": 196, "umask": 95,
    # memory
    "mmap": 9, "munmap": 11, "mremap": 25, "mprotect": 10, "madvise": 28, "brk": 12, "mincore": 27, "msync": 26,
    "membarrier": 324, "get_mempolicy": 239, "arch_prctl": 158,
    # threads
    "futex": 202, "futex_waitv": 449, "set_robust_list": 273, "get_robust_list": 274, "set_tid_address": 218,
    "rseq": 334, "gettid": 186, "exit": 60, "exit_group": 231, "sched_yield": 24, "sched_getaffinity": 204,
    "sched_getparam": 143, "sched_getscheduler": 145, "sched_get_priority_max": 146, "sched_get_priority_min": 147,
    "getcpu": 309, "getpriority": 140,
    # signals
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "rt_sigpending": 127, "rt_sigsuspend": 130,
    "rt_sigtimedwait": 128, "sigaltstack": 131, "restart_syscall": 219,
    # time
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "nanosleep": 35, "gettimeofday": 96,
    "time": 201, "times": 100, "getitimer": 36, "setitimer": 38,
    # waiting
    "poll": 7, "ppoll": 271, "select": 23, "pselect6": 270, "epoll_create": 213, "epoll_create1": 291,
    "epoll_ctl": 233, "epoll_wait": 232, "epoll_pwait": 281, "epoll_pwait2": 441, "eventfd": 284, "eventfd2": 290,
    # self
    "getpid": 39, "getppid": 110, "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108, "getresuid": 118,
    "getresgid": 120, "getgroups": 115, "getpgrp": 111, "getpgid": 121, "getsid": 124, "uname": 63, "sysinfo": 99,
    "getrusage": 98, "getrlimit": 97, "getrandom": 318, "capget": 125, "wait4": 61,
    # judged by their arguments, see seccomp.py
    "open": 2, "openat": 257, "openat2": 437, "chmod": 90, "fchmod": 91, "fchmodat": 268, "utime": 132,
    "utimes": 235, "futimesat": 261, "utimensat": 280, "clone": 56, "clone3": 435, "prctl": 157, "ioctl": 16,
    "fcntl": 72, "kill": 62, "tgkill": 234, "prlimit64": 302, "sched_setaffinity": 203,
}

AARCH64: dict[str, int] = {
    # files
    "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "preadv": 69, "pwritev": 70,
    "preadv2": 286, "pwritev2": 287, "close": 57, "close_range": 436, "lseek": 62, "fstat": 80, "newfstatat": 79,
    "statx": 291, "statfs": 43, "fstatfs": 44, "faccessat": 48, "faccessat2": 439, "readlinkat": 78,
    "getdents64": 61, "getcwd": 17, "chdir": 49, "fchdir": 50, "mkdirat": 34, "unlinkat": 35, "renameat": 38,
    "renameat2": 276, "ftruncate": 46, "fallocate": 47, "fsync": 82, "fdatasync": 83, "sync_file_range": 84,
    "flock": 32, "dup": 23, "dup3": 24, "pipe2": 59, "fadvise64": 223, "readahead": 213, "copy_file_range": 285,
    "sendfile": 71, "getxattr": 8, "lgetxattr": 9, "fgetxattr": 10, "listxattr": 11, "llistxattr": 12,
    "flistxattr": 13, "umask": 166,
    # memory
    "mmap": 222, "munmap": 215, "mremap": 216, "mprotect": 226, "madvise": 233, "brk": 214, "mincore": 232,
    "msync": 227, "membarrier": 283, "get_mempolicy": 236,
    # threads
    "futex": 98, "futex_waitv": 449, "set_robust_list": 99, "get_robust_list": 100, "set_tid_address": 96,
    "rseq": 293, "gettid": 178, "exit": 93, "exit_group": 94, "sched_yield": 124, "sched_getaffinity": 123,
    "sched_getparam": 121, "sched_getscheduler": 120, "sched_get_priority_max": 125, "sched_get_priority_min": 126,
    "getcpu": 168, "getpriority": 141,
    # signals
    "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "rt_sigpending": 136, "rt_sigsuspend": 133,
    "rt_sigtimedwait": 137, "sigaltstack": 132, "restart_syscall": 128,
    # time
    "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "nanosleep": 101, "gettimeofday": 169,
    "times": 153, "getitimer": 102, "setitimer": 103,
    # waiting
    "ppoll": 73, "pselect6": 72, "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "epoll_pwait2": 441,
    "eventfd2": 19,
    # self
    "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "getresuid": 148,
    "getresgid": 150, "getgroups": 158, "getpgid": 155, "getsid": 156, "uname": 160, "sysinfo": 179,
    "getrusage": 165, "getrlimit": 163, "getrandom": 278, "capget": 90, "wait4": 260,
    # judged by their arguments, see seccomp.py
    "openat": 56, "openat2": 437, "fchmod": 52, "fchmodat": 53, "utimensat": 88, "clone": 220, "clone3": 435,
    "prctl": 167, "ioctl": 29, "fcntl": 25, "kill": 129, "tgkill": 131, "prlimit64": 261, "sched_setaffinity": 122,
}
# fmt: on

NEWEST_KNOWN = 462
"""Highest number given out when this list was written (Linux 6.10, `mseal`). Refused calls up to here answer EPERM;
later ones answer ENOSYS, so that a newer C library falls back to an older call."""
