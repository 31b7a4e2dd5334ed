"""Start, stop, kill and wait for the processes of a stack through its guardian; say when a service is ready.

Knows one process at a time. Refuses to know which services exist or in which order they come.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import guardian
from stack.home import Account, StackError

_POLL_SECONDS = 0.02
BARE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
_GUARDIAN_EXIT_SECONDS = 12.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """A program and how to live with it.

    `ready` returns False, or raises OSError, while it is not ready yet. `gives` are the environment variables by which
    others find it. It runs in `folder`, as `user` where that is given. `environment` is all it sees of ours: a service
    needs no secret but its own; None stands for the environment of the stack, on top of the launcher's.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    folder: Path
    environment: Mapping[str, str] | None = field(default_factory=lambda: dict(BARE_ENVIRONMENT))
    gives: Mapping[str, str] = field(default_factory=dict)
    user: Account | None = None
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0
    patience: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a process reads and writes: three open descriptors, which stay the caller's."""

    stdin: int
    stdout: int
    stderr: int


class Guardian:
    """Our end of the guardian. Requests are answered at once, one at a time."""

    def __init__(self, *, lock: int | None = None) -> None:
        """Start the guardian; it shares the `lock` descriptor, so that the lock ends with the last process."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        shared = (theirs.fileno(),) if lock is None else (theirs.fileno(), lock)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", guardian.__file__, str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=shared,
                process_group=0,  # the terminal's Ctrl-C is for the launcher
            )

    @property
    def pid(self) -> int:
        """The guardian's own process id."""
        return self._process.pid

    def spawn(
        self,
        command: tuple[str, ...],
        *,
        output: Output,
        folder: Path,
        environment: Mapping[str, str],
        inherit: bool,
        user: Account | None = None,
        group: int | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> int:
        """Start a program, in a session of its own unless it shall join the process group `group`.

        `environment` comes on top of the launcher's if that is to be inherited, else it is all there is.
        """
        answer = self._ask(
            {
                "do": "spawn",
                "command": command,
                "environment": dict(environment),
                "inherit": inherit,
                "folder": str(folder),
                "user": (user.uid, user.gid) if user else None,
                "group": group,
                "stop": int(stop_signal),
            },
            output,
        )
        pid: int = answer["pid"]
        return pid

    def status(self, pid: int) -> int | None:
        """The exit code of a process we started (negative: the signal that ended it), None while it lives."""
        status: int | None = self._ask({"do": "status", "pid": pid})["status"]
        return status

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process we started, if it lives."""
        self._ask({"do": "signal", "pid": pid, "number": int(number)})

    def kill(self, pid: int, *, alone: bool = False) -> None:
        """SIGKILL a process with everything below it, or `alone`; return when it is gone."""
        self._ask({"do": "kill", "pid": pid, "alone": alone})
        self.wait(pid)

    def wait(self, pid: int, *, seconds: float = 30.0) -> int | None:
        """The exit code once the process has ended; None if it still lives after `seconds`."""
        deadline = time.monotonic() + seconds
        while (status := self.status(pid)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return status

    def finish(self, pid: int, *, grace: float) -> bool:
        """Wait for a process that was asked to end, then kill it and whatever it left. True if it went when asked."""
        went = self.wait(pid, seconds=grace) is not None
        self.kill(pid)
        return went

    def close(self) -> None:
        """Let the guardian end everything that is left, and itself."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GUARDIAN_EXIT_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: dict[str, object], output: Output | None = None) -> dict[str, Any]:
        message = json.dumps(request).encode()
        if len(message) > guardian.MESSAGE_BYTES:
            raise StackError("The command line is too long.")
        descriptors = [output.stdin, output.stdout, output.stderr] if output else []
        try:
            socket.send_fds(self._channel, [message], descriptors)
            reply = self._channel.recv(guardian.MESSAGE_BYTES)
        except OSError as error:
            raise StackError("The guardian of the stack has died; its processes died with it.") from error
        if not reply:
            raise StackError("The guardian of the stack has died; its processes died with it.")
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise StackError(f"Could not {request['do']}: {answer['error']}")
        return answer


def unprivileged(*names: str) -> Account | None:
    """The first of these accounts that exists, to run a service that refuses root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in names:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise StackError(f"None of the accounts {', '.join(names)} exists; one is needed to run a service without root.")
