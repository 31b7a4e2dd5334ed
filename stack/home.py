"""The state folder of one stack: its lock, its secrets and the ports it had last time.

Knows files and their permissions; refuses to know what a secret opens or who listens on a port.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIVATE = 0o600
_DEAD_LAUNCHER_PATIENCE = 10.0


class StackError(Exception):
    """The stack cannot go on; the message tells the person at the keyboard what to do."""


@dataclass(kw_only=True)
class Home:
    """One state folder. `claims` are the ports this process holds, by name."""

    path: Path
    claims: dict[str, socket.socket] = field(default_factory=dict)
    lock: int | None = None

    @classmethod
    def at(cls, path: Path) -> Home:
        """The folder at `path`, made if need be, open to its owner only."""
        path = path.expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        return cls(path=path)

    def folder(self, name: str, *, user: Account | None = None) -> Path:
        """A private folder below this one, owned by `user` where that is given."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if user is not None and path.stat().st_uid != user.uid:
            os.chown(path, user.uid, user.gid)
        return path

    def secret(self, name: str) -> str:
        """The secret of this name, made of 192 random bits on first use."""
        path = self.folder("secrets") / name
        with contextlib.suppress(FileExistsError):
            write_private(path, secrets.token_hex(24), exclusive=True)
        return path.read_text().strip()

    def acquire(self) -> None:
        """Become the only stack on this folder, or raise StackError saying who is."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        deadline = time.monotonic() + _DEAD_LAUNCHER_PATIENCE
        while not _flock(descriptor):
            owner = os.pread(descriptor, 32, 0).decode().strip()
            # After a kill -9 of the launcher its guardian keeps the lock until it has ended what was started.
            if Path("/proc", owner or "-").exists() or time.monotonic() > deadline:
                os.close(descriptor)
                message = (
                    f"A stack is already running on {self.path} (process {owner or 'unknown'}). "
                    "Stop it first, or choose another SLIPWAY_HOME."
                )
                raise StackError(message)
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self.lock = descriptor

    def in_use(self) -> bool:
        """Whether a stack runs on this folder now."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _flock(descriptor)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give back the lock and the ports."""
        for claim in self.claims.values():
            claim.close()
        self.claims.clear()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def port(self, name: str, usual: int, *, fixed: bool = False) -> int:
        """A free loopback port: the one of last time, else the usual one, else any. `fixed` allows `usual` only."""
        known = {} if fixed else self.read("ports.json")
        candidates = [usual] if fixed else [known.get(name, usual), usual, *(0 for _ in range(20))]
        for candidate in candidates:
            if (claimed := _claim(candidate)) is not None:
                port, self.claims[name] = claimed
                if not fixed:
                    self.write("ports.json", {**known, name: port})
                return port
        message = f"Port {usual}, asked for {name}, is taken by another program."
        raise StackError(message)

    def read(self, name: str) -> dict[str, Any]:
        """What `write` stored under this name, or nothing."""
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Store a private JSON object, whole or not at all."""
        part = self.path / f".{name}.part"
        write_private(part, json.dumps(content, indent=1) + "\n")
        part.replace(self.path / name)


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of this machine that a service is run as."""

    name: str
    uid: int
    gid: int


def write_private(path: Path, text: str, *, exclusive: bool = False) -> None:
    """Write a file that only its owner can read; `exclusive` refuses with FileExistsError to touch another's."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC)
    with open(os.open(path, flags, _PRIVATE), "w") as file:  # noqa: PTH123 - Path.open cannot set the mode at birth
        os.fchmod(file.fileno(), _PRIVATE)
        file.write(text)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _claim(port: int) -> tuple[int, socket.socket] | None:
    """Find out whether nobody listens on the port, and keep other stacks from choosing it before we listen.

    The claim is an abstract Unix socket named after the port: the kernel drops it with the process.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return None
        port = probe.getsockname()[1]
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0slipway.port.{port}")
    except OSError:
        claim.close()
        return None
    return port, claim
