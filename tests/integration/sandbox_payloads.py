"""What a hostile model might do, and what an honest one must be able to do, as functions that the sandbox tests run
inside a child. Each returns what it achieved; refusals by the kernel come back as the name of the error.
"""

import contextlib
import ctypes
import errno
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import Rejected

X86 = platform.machine() == "x86_64"


def echo(value: object) -> object:
    return value


def refuse(code: str, message: str) -> None:
    raise Rejected(code, message)


def fail(text: str) -> None:
    raise KeyError(text)


def answer_nan() -> float:
    return float("nan")


def say(text: str, times: int = 1) -> None:
    for _ in range(times):
        sys.stdout.write(text)


def write_frame(body: str, length: int) -> None:
    """Speak to the parent without asking `session`: descriptor 3 is the channel."""
    os.write(3, length.to_bytes(4, "big") + body.encode())


def hang_up() -> None:
    os.close(3)
    time.sleep(60)


def attempts() -> dict[str, str]:
    """The name of the error with which each way out is refused; "done" where none was."""
    return {name: _outcome(attempt) for name, attempt in _WAYS_OUT.items()}


def read_file(path: str) -> str:
    return _outcome(lambda: Path(path).read_bytes())


def write_file(path: str) -> str:
    return _outcome(lambda: Path(path).write_bytes(b"x"))


def list_folder(path: str) -> list[str]:
    """The names in the folder, or the name of the error alone."""
    names: list[str] = []
    outcome = _outcome(lambda: names.extend(entry.name for entry in Path(path).iterdir()))
    return sorted(names) if outcome == "done" else [outcome]


def disturb(path: str) -> None:
    """Change what Landlock does not guard: mode and times."""
    with contextlib.suppress(OSError):
        Path(path).chmod(0o777)
    with contextlib.suppress(OSError):
        os.utime(path, (0, 0))
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        os.fchmod(file.fileno(), 0o777)


def empty_while_reading(path: str) -> str:
    return _outcome(lambda: os.open(path, os.O_RDONLY | os.O_TRUNC))


def read_through_link(scratch: str, target: str) -> str:
    link = Path(scratch, "link")

    def attempt() -> None:
        link.symlink_to(target)
        link.read_bytes()

    return _outcome(attempt)


def hard_link(scratch: str, target: str) -> str:
    return _outcome(lambda: os.link(target, Path(scratch, "hard")))


def touch_processes(pids: list[int]) -> dict[str, str]:
    """What happens to each way of looking into or at other processes."""
    tried = {}
    for pid in pids:
        for name in ("environ", "mem", "maps", "cmdline", "status", "fd/0", "cwd/x", "root/etc/passwd", "ns/net"):
            tried[f"{pid}/{name}"] = read_file(f"/proc/{pid}/{name}")
        tried[f"{pid}/oom_score_adj"] = write_file(f"/proc/{pid}/oom_score_adj")
        tried[f"{pid}/mem (write)"] = _outcome(lambda pid=pid: os.open(f"/proc/{pid}/mem", os.O_WRONLY))  # type: ignore[misc]
        tried[f"{pid}/task"] = list_folder(f"/proc/{pid}/task")[0]
    return tried


def processes_in_sight() -> list[str]:
    """The numbers that `/proc` shows, or the name of the error alone."""
    return [name for name in list_folder("/proc") if name.isdecimal() or name.startswith("E")]


def move(source: str, target: str) -> str:
    return _outcome(lambda: Path(source).rename(target))


def exchange(one: str, other: str) -> str:
    """Swap two names in one step (RENAME_EXCHANGE)."""
    return _outcome(_syscall(316, 276, _LONG(-100), os.fsencode(one), _LONG(-100), os.fsencode(other), _LONG(2)))


def remove(path: str) -> str:
    return _outcome(lambda: Path(path).unlink())


def make_folder(path: str) -> str:
    return _outcome(lambda: Path(path).mkdir())


def read_by_folder(scratch: str, path: str) -> str:
    """Open a file relative to a descriptor of our own folder."""
    folder = os.open(scratch, os.O_PATH | os.O_DIRECTORY)
    return _outcome(lambda: os.open(path, os.O_RDONLY, dir_fd=folder))


def run_own_program(scratch: str) -> str:
    """Write a program and execute it, by name and by descriptor."""
    program = Path(scratch, "program")
    program.write_bytes(b"#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    by_name = _outcome(lambda: os.execv(str(program), ["program"]))
    handle = os.open(program, os.O_RDONLY)
    return f"{by_name} {_outcome(lambda: os.execve(handle, ['program'], {}))}"


def own_number() -> int:
    return os.getpid()


def move_the_parent(cpu: int) -> str:
    return _outcome(lambda: os.sched_setaffinity(os.getppid(), {cpu}))


def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def old_system_call() -> None:
    """Call getpid through the 32-bit gate (int 0x80), whose numbers are other calls than ours."""
    import mmap

    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def fill_pipes() -> int:
    """Kernel memory that RLIMIT_AS does not see: bytes that stay in pipes until something refuses."""
    kept = 0
    with contextlib.suppress(OSError):
        while True:
            _, inward = os.pipe()
            os.set_blocking(inward, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    kept += os.write(inward, bytes(65536))
    return kept


def map_memory(shared: bool) -> int:
    """How many bytes could be mapped without `malloc`, in pieces of 64 MiB."""
    import mmap

    kept = []
    flags = mmap.MAP_ANONYMOUS | (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
    with contextlib.suppress(OSError, MemoryError):
        while len(kept) < 64:
            kept.append(mmap.mmap(-1, 64 << 20, flags=flags))
            kept[-1][0] = 1
    return len(kept) << 26


def recurse_natively() -> None:
    """Overflow the C stack."""
    import json

    sys.setrecursionlimit(1 << 30)
    depth: list[object] = []
    for _ in range(1_000_000):
        depth = [depth]
    json.dumps(depth)


def answer_then(body: str, length: int) -> str:
    """An answer before the answer."""
    write_frame(body, length)
    return "honest"


def signal_process(pid: int) -> str:
    return _outcome(lambda: os.kill(pid, signal.SIGTERM))


def send_datagram(path: str) -> str:
    return _outcome(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", path))


def identity() -> dict[str, object]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "capabilities": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
        "no_new_privs": int(status["NoNewPrivs"]),
        "seccomp": int(status["Seccomp"]),
        "threads": int(status["Threads"]),
        "session": os.getsid(0) == os.getpid(),
        "environment": dict(os.environ),
        "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir())[:-1],
    }


def environment_of_c() -> list[str]:
    """What the C library believes the environment to be."""
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found: list[str] = []
    while environ and environ[len(found)]:
        found.append(environ[len(found)].decode())
    return found


def fork_forever() -> str:
    return _outcome(lambda: [os.fork() for _ in range(1000)])


def start_threads(count: int) -> int:
    """How many threads could be started, each kept alive."""
    done = threading.Event()
    started = 0
    with contextlib.suppress(RuntimeError, MemoryError):
        for _ in range(count):
            threading.Thread(target=done.wait, daemon=True).start()
            started += 1
    done.set()
    return started


def eat_memory() -> int:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def touch_memory(size: int) -> int:
    return len(bytearray(os.urandom(1)) * size)


def spin() -> None:
    while True:
        pass


def ignore_and_spin() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    spin()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def write_big(path: str, size: int) -> None:
    with Path(path).open("wb") as file:
        file.truncate(size)


def fill_folder(path: str, files: int, size: int) -> int:
    """How many files of `size` bytes could be written."""
    for number in range(files):
        Path(path, str(number)).write_bytes(bytes(size))
    return files


def lock_folder(path: str) -> None:
    Path(path, "outer", "open").mkdir(parents=True)
    Path(path, "outer", "locked").mkdir(mode=0)


def crash() -> None:
    ctypes.string_at(0)


def abort(message: str) -> None:
    os.write(2, message.encode())
    os.abort()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wrong_architecture() -> None:
    """Call getpid through the x32 table, whose numbers another filter might not know."""
    _libc.syscall(ctypes.c_long(0x40000000 | 39))


def leave(status: int) -> None:
    os._exit(status)


def use_numpy() -> float:
    import numpy as np

    return float(np.linalg.inv(np.eye(64) * 2).sum())


def run_torchscript(path: str) -> list[float]:
    import torch

    found: list[float] = torch.jit.load(path)(torch.ones(1, 4)).flatten().tolist()  # type: ignore[no-untyped-call]
    return found


def export_onnx(path: str) -> int:
    """Export with the new exporter, which imports half of torch and touches its caches; returns the file's size."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    program = torch.onnx.export(model, (torch.ones(1, 4),), dynamo=True, verbose=False)
    assert program is not None
    program.save(path, external_data=False)
    return Path(path).stat().st_size


def run_onnx(path: str, threads: int) -> list[list[float]]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[list[float]] = session.run(None, {session.get_inputs()[0].name: np.ones((1, 4), np.float32)})[
        0
    ].tolist()
    return found


def train_forest() -> float:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    digits = load_digits()
    forest = RandomForestClassifier(n_estimators=5, random_state=0, n_jobs=2).fit(digits.data, digits.target)
    return float(forest.score(digits.data, digits.target))


def count(step: int) -> int:
    """State that lives in one child only."""
    _counter.append(step)
    return sum(_counter)


_counter: list[int] = []
_libc = ctypes.CDLL(None, use_errno=True)


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as refusal:
        return errno.errorcode.get(refusal.errno or 0, type(refusal).__name__)
    return "done"


def _syscall(x86_64: int, aarch64: int, *arguments: object) -> Callable[[], None]:
    def attempt() -> None:
        if _libc.syscall(ctypes.c_long(x86_64 if X86 else aarch64), *arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    return attempt


def _spawn() -> None:
    os.posix_spawn("/bin/true", ["true"], {})


_LONG = ctypes.c_long
_BUFFER = ctypes.create_string_buffer(256)
_WAYS_OUT: dict[str, Callable[[], object]] = {
    "tcp": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "abstract": lambda: socket.socket(socket.AF_UNIX).connect("\0slipway"),
    "socketpair": socket.socketpair,
    "exec": lambda: os.execv("/bin/sh", ["sh", "-c", "true"]),
    "execveat": _syscall(322, 281, _LONG(-100), b"/bin/true", None, None, _LONG(0)),
    "fork": os.fork,
    "spawn": _spawn,
    "clone3": _syscall(435, 435, _BUFFER, _LONG(88)),
    "ptrace": _syscall(101, 117, _LONG(0), _LONG(0), _LONG(0), _LONG(0)),
    "process_vm_readv": _syscall(310, 270, _LONG(1), None, _LONG(0), None, _LONG(0), _LONG(0)),
    "pidfd_open": lambda: os.pidfd_open(os.getppid()),
    "pidfd_getfd": _syscall(438, 438, _LONG(3), _LONG(0), _LONG(0)),
    "unshare user": _syscall(272, 97, _LONG(0x10000000)),
    "unshare mount": _syscall(272, 97, _LONG(0x00020000)),
    "clone into a user namespace": _syscall(56, 220, _LONG(0x10000000 | 17), None, None, None, None),
    "setns": _syscall(308, 268, _LONG(3), _LONG(0)),
    "mount": _syscall(165, 40, b"none", b"/tmp", b"tmpfs", _LONG(0), None),
    "umount": _syscall(166, 39, b"/proc", _LONG(2)),
    "open_tree": _syscall(428, 428, _LONG(-100), b"/", _LONG(1)),
    "pivot_root": _syscall(155, 41, b".", b"."),
    "chroot": lambda: os.chroot("/"),
    "bpf": _syscall(321, 280, _LONG(0), _BUFFER, _LONG(128)),
    "perf_event_open": _syscall(298, 241, _BUFFER, _LONG(0), _LONG(-1), _LONG(-1), _LONG(0)),
    "userfaultfd": _syscall(323, 282, _LONG(0)),
    "io_uring": _syscall(425, 425, _LONG(8), _BUFFER),
    "keyctl": _syscall(250, 219, _LONG(0), _LONG(-3), _LONG(1)),
    "add_key": _syscall(248, 217, b"user", b"x", b"y", _LONG(1), _LONG(-3)),
    "memfd": lambda: os.memfd_create("x"),
    "shared memory": _syscall(29, 194, _LONG(0), _LONG(4096), _LONG(0o1600)),
    "message queue": _syscall(68, 186, _LONG(0), _LONG(0o1600)),
    "mlock": _syscall(149, 228, _BUFFER, _LONG(4096)),
    "mknod": lambda: os.mknod("device", 0o600 | 0o020000, os.makedev(1, 3)),
    "fifo": lambda: os.mkfifo("fifo"),
    "symlink": lambda: Path("link").symlink_to("/etc"),
    "chown": lambda: os.chown(".", 0, 0),
    "setuid": lambda: os.setuid(0),
    "truncate": lambda: os.truncate("/dev/null", 0),
    "openat2": _syscall(437, 437, _LONG(-100), b"/", _BUFFER, _LONG(24)),
    "setxattr": lambda: os.setxattr(".", "user.x", b"y"),
    "file handle": _syscall(304, 265, _LONG(-100), _BUFFER, _LONG(0)),
    "terminal input": _syscall(16, 29, _LONG(0), _LONG(0x5412), b"x"),
    "outlive the owner": _syscall(157, 167, _LONG(1), _LONG(0), _LONG(0), _LONG(0), _LONG(0)),
    "become dumpable": _syscall(157, 167, _LONG(4), _LONG(1), _LONG(0), _LONG(0), _LONG(0)),
    "signal by fcntl": _syscall(72, 25, _LONG(3), _LONG(8), _LONG(1)),
    "signal the group": lambda: os.kill(0, signal.SIGTERM),
    "signal everybody": lambda: os.kill(-1, signal.SIGTERM),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "limit the parent": _syscall(302, 261, _LONG(os.getppid()), _LONG(7), _BUFFER, None),
    "new session": os.setsid,
    "kexec": _syscall(246, 104, _LONG(0), _LONG(0), None, _LONG(0)),
    "load a module": _syscall(175, 105, _BUFFER, _LONG(256), b""),
    "set the clock": _syscall(227, 112, _LONG(0), _BUFFER),
    "unknown call": _syscall(1000, 1000),
    "send a descriptor": _syscall(46, 211, _LONG(3), _BUFFER, _LONG(0)),
    "take a descriptor": _syscall(47, 212, _LONG(3), _BUFFER, _LONG(0)),
    "datagram by the channel": _syscall(44, 206, _LONG(3), b"x", _LONG(1), _LONG(0), None, _LONG(0)),
    "packet": lambda: socket.socket(17, socket.SOCK_RAW, 768),
    "kernel crypto": lambda: socket.socket(38, socket.SOCK_SEQPACKET),
    "listen": _syscall(50, 201, _LONG(3), _LONG(1)),
    "vfork": _syscall(58, 1000 - 1, None) if X86 else os.fork,
    "process_vm_writev": _syscall(311, 271, _LONG(1), None, _LONG(0), None, _LONG(0), _LONG(0)),
    "process_madvise": _syscall(440, 440, _LONG(3), None, _LONG(0), _LONG(0), _LONG(0)),
    "kcmp": _syscall(312, 272, _LONG(1), _LONG(1), _LONG(0), _LONG(0), _LONG(0)),
    "tkill": _syscall(200, 130, _LONG(1), _LONG(0)),
    "queue a signal": _syscall(129, 138, _LONG(1), _LONG(0), _BUFFER),
    "queue a signal to a thread": _syscall(297, 240, _LONG(1), _LONG(1), _LONG(0), _BUFFER),
    "signal by pidfd": _syscall(424, 424, _LONG(3), _LONG(9), None, _LONG(0)),
    "signal by lease": _syscall(72, 25, _LONG(3), _LONG(1024), _LONG(1)),
    "signal by folder": _syscall(72, 25, _LONG(3), _LONG(1026), _LONG(1)),
    "signal by timer": _syscall(222, 107, _LONG(0), _BUFFER, _BUFFER),
    "priority of others": lambda: os.setpriority(os.PRIO_USER, 0, 19),
    "input and output priority": _syscall(251, 30, _LONG(1), _LONG(0), _LONG(0)),
    "real-time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "deadline scheduling": _syscall(314, 274, _LONG(0), _BUFFER, _LONG(0)),
    "unshare net": _syscall(272, 97, _LONG(0x40000000)),
    "unshare pid": _syscall(272, 97, _LONG(0x20000000)),
    "fsopen": _syscall(430, 430, b"tmpfs", _LONG(0)),
    "fsmount": _syscall(432, 432, _LONG(3), _LONG(0), _LONG(0)),
    "move_mount": _syscall(429, 429, _LONG(-100), b"/", _LONG(-100), b"/tmp", _LONG(0)),
    "mount_setattr": _syscall(442, 442, _LONG(-100), b"/", _LONG(0), _BUFFER, _LONG(32)),
    "watch files": _syscall(294, 26, _LONG(0)),
    "watch everything": _syscall(300, 262, _LONG(0), _LONG(0)),
    "name a file handle": _syscall(303, 264, _LONG(-100), b"/", _BUFFER, _BUFFER, _LONG(0)),
    "splice": _syscall(275, 76, _LONG(3), None, _LONG(1), None, _LONG(1), _LONG(0)),
    "vmsplice": _syscall(278, 75, _LONG(1), _BUFFER, _LONG(0), _LONG(0)),
    "tee": _syscall(276, 77, _LONG(1), _LONG(1), _LONG(1), _LONG(0)),
    "secret memory": _syscall(447, 447, _LONG(0)),
    "semaphores": _syscall(64, 190, _LONG(0), _LONG(1), _LONG(0o1600)),
    "posix message queue": _syscall(240, 180, b"x", _LONG(0o102), _LONG(0o600), None),
    "pages of others": _syscall(279, 239, _LONG(1), _LONG(0), None, None, None, _LONG(0)),
    "personality": _syscall(135, 92, _LONG(0x0400000)),
    "io_uring by number": _syscall(427, 427, _LONG(3), _LONG(0), None, _LONG(0)),
    "io_uring enter": _syscall(426, 426, _LONG(3), _LONG(0), _LONG(0), _LONG(0), None, _LONG(0)),
    "kernel aio": _syscall(206, 0, _LONG(1), _BUFFER),
    "another filter": _syscall(317, 277, _LONG(1), _LONG(0), _BUFFER),
    "another filter by prctl": _syscall(157, 167, _LONG(22), _LONG(2), _BUFFER, _LONG(0), _LONG(0)),
    "another ruleset": _syscall(444, 444, None, _LONG(0), _LONG(1)),
    "capabilities": _syscall(126, 91, _BUFFER, _BUFFER),
    "setgid": lambda: os.setgid(0),
    "setgroups": lambda: os.setgroups([0]),
    "setfsuid": _syscall(122, 151, _LONG(0)),
    "host name": lambda: socket.sethostname("x"),
    "reboot": _syscall(169, 142, _LONG(0), _LONG(0), _LONG(0), None),
    "swap": _syscall(167, 224, b"/dev/zero", _LONG(0)),
    "accounting": _syscall(163, 89, b"/dev/null"),
    "kernel log": _syscall(103, 116, _LONG(3), _BUFFER, _LONG(1)),
    "quota": _syscall(179, 60, _LONG(0), b"/", _LONG(0), _BUFFER),
    "hang up the terminal": _syscall(153, 58),
    "set rlimits": _syscall(160, 164, _LONG(7), _BUFFER),
}
if X86:
    _WAYS_OUT |= {
        "ports": _syscall(172, 0, _LONG(3)),
        "port permissions": _syscall(173, 0, _LONG(0), _LONG(1), _LONG(1)),
        "descriptor table": _syscall(154, 0, _LONG(1), _BUFFER, _LONG(16)),
    }
