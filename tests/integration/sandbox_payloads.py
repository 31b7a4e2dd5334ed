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
}
