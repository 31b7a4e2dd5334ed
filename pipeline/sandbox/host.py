"""What a worker uses: starts the zygote, opens sessions in it, says what the machine can enforce."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import Unavailable
from pipeline.sandbox import access, cgroup, landlock, lockdown, seccomp, zygote
from pipeline.sandbox.child import SandboxChild
from pipeline.stage import Limits

PRELOAD = ("numpy", "onnx", "onnxruntime", "torch")
"""What stages import; together two to four seconds, paid once per worker process."""

_OURS = ("pipeline", "registry", "shared")
"""Packages whose source a child may read: ours, without the folder around them, where settings may lie."""
_PRELOADED_WITHIN = 180.0
_PROBED_WITHIN = 20.0
_ENDED_WITHIN = 5.0
_QUIET = {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""The zygote's whole environment. Threads started at import would not survive the fork: pools of BLAS and OpenMP, and
ONNX Runtime's telemetry, which nobody asked for either."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """What this machine enforces. `..._missing` says why there are none; `landlock` is the ABI, 0 for none.

    Of cgroups it says whether this process could make some; only a worker does.
    """

    landlock: int
    seccomp: bool
    namespaces_missing: str | None
    cgroup_missing: str | None

    @property
    def namespaces(self) -> bool:
        return self.namespaces_missing is None

    @property
    def refused(self) -> str | None:
        """Why untrusted bytes are not touched here; None where the sandbox holds."""
        if not self.seccomp:
            return f"The kernel (on {os.uname().machine}) does not filter system calls for us."
        if not self.landlock and not self.namespaces:
            return f"The kernel has no Landlock (Linux 5.13), and namespaces do not work: {self.namespaces_missing}."
        return None


@functools.cache
def supported() -> Support:
    """What can be enforced here, tried for real once per process (about 0.1 s)."""
    filtered = seccomp.available()
    cgroup_missing = None
    try:
        cgroup.find()
    except cgroup.Unusable as why:
        cgroup_missing = str(why)
    return Support(
        landlock=landlock.abi(),
        seccomp=filtered,
        namespaces_missing=_probe_namespaces(),
        cgroup_missing=cgroup_missing,
    )


class Zygote:
    """The process that children are forked from; implements `pipeline.stage.Sandbox`.

    Starts at the first `open`, again when it is found dead, and anew in a forked copy of its owner; ends with its
    owner. `preload` are modules to import once; `prefixes` say which modules' functions may be called. `without`
    switches layers off ("namespaces", "landlock", "cgroup") so that tests can see the others hold alone.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = PRELOAD,
        prefixes: Sequence[str] = ("pipeline.",),
        without: Collection[str] = (),
    ) -> None:
        self._preload, self._prefixes, self._without = tuple(preload), tuple(prefixes), frozenset(without)
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def open(self, *, read: Sequence[Path], scratch: Path, limits: Limits | None = None) -> Session:
        """See `pipeline.stage.Sandbox`. `scratch` must exist; paths of `read` inside it add nothing and are ignored.

        As root, `scratch` is given to nobody, and what nobody could not read in `read` to its group. Keep `read`
        outside `scratch`: everything inside may be rewritten by the child.
        """
        return Session(zygote=self, read=read, scratch=scratch, limits=limits or Limits())

    @property
    def missing(self) -> dict[str, str]:
        """Modules of `preload` that could not be imported, and why; empty before the first `open`."""
        return dict(self._running.hello["missing"]) if self._running else {}

    @property
    def pid(self) -> int | None:
        """The guardian's process id while one runs."""
        return self._running.process.pid if self._running and self._running.alive() else None

    def close(self) -> None:
        """End the zygote and every child of it."""
        with self._lock:
            if self._running is not None:
                self._running.end()
                self._running = None

    def start_child(self, request: dict[str, Any], limits: Limits) -> SandboxChild:
        """Fork a child for `Session`. Raises `Unavailable`."""
        channel, childs_channel = socket.socketpair()
        status, zygotes_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, childs_output = os.pipe()
        child = SandboxChild(channel=channel, output=output, status=status, limits=limits)
        message = json.dumps(request).encode()
        descriptors = [childs_channel.fileno(), childs_output, zygotes_status.fileno()]
        try:
            if len(message) > zygote.MAX_MESSAGE:
                raise ValueError("too many paths for one sandbox session")
            with self._lock:
                running = self._ready()
                try:
                    socket.send_fds(running.control, [message], descriptors)
                except (BrokenPipeError, ConnectionResetError):  # died since we looked
                    running = self._ready()
                    socket.send_fds(running.control, [message], descriptors)
        except BaseException:
            child.close()
            raise
        finally:
            childs_channel.close()
            zygotes_status.close()
            os.close(childs_output)
        try:
            child.begin(running.home)
        except BaseException:
            child.close()
            raise
        return child

    def _ready(self) -> _Running:
        if self._running is not None and (self._running.owner != os.getpid() or not self._running.alive()):
            self._running.end()
            self._running = None
        if self._running is None:
            support = supported()
            refused = support.refused or _refused_without(support, self._without)
            if refused is not None:
                raise Unavailable("sandbox_unavailable", refused)
            self._running = _start(self._preload, self._prefixes, self._without)
        return self._running


class Session:
    """One child's life, as a context manager."""

    def __init__(self, *, zygote: Zygote, read: Sequence[Path], scratch: Path, limits: Limits) -> None:
        self._zygote, self._limits = zygote, limits
        self._scratch = _normal(scratch)
        absolute = [_normal(path) for path in read]
        self._read = [path for path in absolute if not path.is_relative_to(self._scratch)]
        self._child: SandboxChild | None = None

    def __enter__(self) -> SandboxChild:
        if lockdown.may_change_user():
            access.give(self._scratch)
            for path in self._read:
                access.let_read(path)
        passed = ("memory", "cpu", "file_size", "open_files", "answer", "gpu")
        limits = {name: getattr(self._limits, name) for name in passed}
        request = {"read": [str(path) for path in self._read], "scratch": str(self._scratch), "limits": limits}
        self._child = self._zygote.start_child(request, self._limits)
        return self._child

    def __exit__(self, *exception: object) -> None:
        if self._child is not None:
            self._child.close()


@dataclass(frozen=True, kw_only=True)
class _Running:
    process: subprocess.Popen[bytes]
    control: socket.socket
    complaints: IO[bytes]
    owner: int
    hello: dict[str, Any]
    home: cgroup.Home | None

    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        """In the owner: hang up, then kill. In a forked copy of the owner: only forget, the zygote is the owner's."""
        if self.owner == os.getpid():
            with contextlib.suppress(OSError):  # it may be dead already
                self.control.shutdown(socket.SHUT_RDWR)  # also where a forked copy of us holds the socket open
            try:
                self.process.wait(_ENDED_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        else:
            self.process.returncode = 0  # keeps Popen from waiting for a process that is not our child
        self.control.close()
        self.complaints.close()


def _start(preload: Sequence[str], prefixes: Sequence[str], without: Collection[str]) -> _Running:
    home = None
    if "cgroup" not in without:
        with contextlib.suppress(cgroup.Unusable):  # the worker said so when it began
            home = cgroup.prepare()
    control, zygotes_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    owner = os.pidfd_open(os.getpid())
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
    folders = _source_folders({prefix.split(".")[0] for prefix in prefixes} | set(_OURS))
    config = {
        "probe": False,
        "control": zygotes_control.fileno(),
        "owner": owner,
        "import_from": sorted({str(folder.parent) for folder in folders.values()}),
        "packages": sorted(folders),
        "readable": [str(folder) for folder in folders.values()],
        "preload": list(preload),
        "prefixes": list(prefixes),
        "without": sorted(without),
    }
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            _command(config),
            env=_QUIET,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=(zygotes_control.fileno(), owner),
            start_new_session=True,  # a Ctrl-C or a signal to the worker's group lets running steps finish
        )
    finally:
        zygotes_control.close()
        os.close(owner)
    control.settimeout(_PRELOADED_WITHIN)
    greeting = b""
    with contextlib.suppress(OSError):
        greeting = control.recv(zygote.MAX_MESSAGE)
    if not greeting:
        process.kill()
        process.wait()
        control.close()
        complaints.seek(0)
        last = complaints.read()[-1000:].decode(errors="replace").strip()
        complaints.close()
        raise Unavailable("sandbox_unavailable", f"The sandbox process did not start: {last or 'it said nothing'}")
    return _Running(
        process=process,
        control=control,
        complaints=complaints,
        owner=os.getpid(),
        hello=json.loads(greeting),
        home=home,
    )


def _probe_namespaces() -> str | None:
    folders = _source_folders({"pipeline"})
    config = {"probe": True, "import_from": [str(folders["pipeline"].parent)]}
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            _command(config), env={}, cwd="/", capture_output=True, check=True, timeout=_PROBED_WITHIN
        )
    except (OSError, subprocess.SubprocessError) as fault:
        return f"the probe failed: {fault}"
    why: str | None = json.loads(done.stdout)
    return why


def _command(config: dict[str, Any]) -> list[str]:
    return [sys.executable, "-I", str(Path(zygote.__file__)), json.dumps(config)]


def _source_folders(packages: Collection[str]) -> dict[str, Path]:
    """Where the packages lie that are installed here."""
    folders = {}
    for package in packages:
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            folders[package] = Path(next(iter(found.submodule_search_locations))).absolute()
    return folders


def _normal(path: Path) -> Path:
    """Absolute and without `..`, links kept: the child is to find the file under the name its caller uses."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow links


def _refused_without(support: Support, without: Collection[str]) -> str | None:
    if "landlock" in without and ("namespaces" in without or not support.namespaces):
        return "The sandbox was told to do without Landlock where namespaces cannot stand in for it."
    return None
