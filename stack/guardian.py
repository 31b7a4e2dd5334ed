"""The parent of every process of one stack: it ends all of them when the launcher is gone, however it went.

Executed as a program of its own (standard library only) so that it outlives a launcher killed with SIGKILL. As child
subreaper it inherits every orphan, so no grandchild can slip away by forking twice or by opening its own session.
Knows processes and signals; refuses to know what they are for.

One request is one JSON message on a SOCK_SEQPACKET socket, answered by one JSON message:

    {"do": "spawn", "command": [...], "environment": {...}, "inherit": true, "folder": "/…",
     "user": [uid, gid] | null, "group": pid | null, "stop": 15} + the descriptors stdin, stdout, stderr   → {"pid": 42}
    {"do": "status", "pid": 42}                                                 → {"status": null | exit code}
    {"do": "signal", "pid": 42, "number": 15}                                   → {}
    {"do": "kill", "pid": 42, "alone": false}                                   → {}  (and everything below it)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 1 << 17
TICK_SECONDS = 0.25
LAST_GRACE_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(kw_only=True)
class Child:
    """A process started on request. `family` holds every pid ever seen below it."""

    process: subprocess.Popen[bytes]
    stop: int
    status: int | None = None
    family: set[int] = field(default_factory=set)


def become_subreaper() -> None:
    """From now on orphans among our descendants become our children instead of init's."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> set[int]:
    """Every living process below `pid`, read from /proc; zombies count until they are reaped."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command name may hold spaces and parentheses: what we want stands after the last one.
                parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                below.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in below.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def end_descendants(*, patience: float = 5.0) -> None:
    """Kill and reap everything below this process until nothing is left."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and (left := descendants(os.getpid())):
        for pid in left:
            _send(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def main(arguments: list[str]) -> None:
    """Serve the launcher whose pid and socket are given until it closes the socket, dies or sends SIGTERM."""
    launcher, channel = int(arguments[1]), socket.socket(fileno=int(arguments[2]))
    become_subreaper()
    ending = False

    def leave(*_: object) -> None:
        nonlocal ending
        ending = True

    # Handlers rather than SIG_IGN, which our children would inherit through exec.
    signal.signal(signal.SIGTERM, leave)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    watched: list[Any] = [channel]
    # A process the launcher forked may hold the socket open after it: watch the launcher itself as well.
    with contextlib.suppress(ProcessLookupError):
        watched.append(os.pidfd_open(launcher))
    children: dict[int, Child] = {}
    while not ending and len(watched) > 1:
        ready = select.select(watched, [], [], TICK_SECONDS)[0]
        _reap(children)
        if watched[1] in ready:
            break
        if channel in ready and not _serve(channel, children):
            break
    _end(children)


def _serve(channel: socket.socket, children: dict[int, Child]) -> bool:
    message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 3)
    if not message:
        return False
    try:
        answer = _answer(json.loads(message), descriptors, children)
    except OSError as error:
        answer = {"error": str(error)}
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        channel.send(json.dumps(answer).encode())
    except OSError:
        return False
    return True


def _answer(request: dict[str, Any], descriptors: list[int], children: dict[int, Child]) -> dict[str, Any]:
    match request["do"]:
        case "spawn":
            child = _spawn(request, descriptors)
            children[child.process.pid] = child
            return {"pid": child.process.pid}
        case "status":
            _reap(children)
            return {"status": children[request["pid"]].status}
        case "signal":
            child = children[request["pid"]]
            child.family |= descendants(child.process.pid)
            if child.status is None:
                _send(child.process.pid, request["number"])
            return {}
        case "kill":
            _kill(children[request["pid"]], alone=request["alone"])
            return {}
        case unknown:
            return {"error": f"cannot {unknown}"}


def _spawn(request: dict[str, Any], descriptors: list[int]) -> Child:
    guardian, user, group = os.getpid(), request["user"], request["group"]

    def tie() -> None:  # runs after the change of user, which would undo it
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != guardian:
            os._exit(1)

    process = subprocess.Popen(
        request["command"],
        stdin=descriptors[0],
        stdout=descriptors[1],
        stderr=descriptors[2],
        env={**(os.environ if request["inherit"] else {}), **request["environment"]},
        cwd=request["folder"],
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=[] if user else None,
        start_new_session=group is None,
        process_group=group,
        preexec_fn=tie,  # noqa: PLW1509 - this process has one thread
    )
    return Child(process=process, stop=request["stop"])


def _reap(children: dict[int, Child]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in children:
                children[pid].status = children[pid].process.returncode = os.waitstatus_to_exitcode(status)


def _kill(child: Child, *, alone: bool) -> None:
    pid = child.process.pid
    if not alone:
        child.family |= descendants(pid)
    if child.status is None:
        _send(pid, signal.SIGKILL)
    # Only pids that are still below us: any other has ended and may belong to a stranger by now.
    for member in child.family & descendants(os.getpid()) if not alone else ():
        _send(member, signal.SIGKILL)


def _end(children: dict[int, Child]) -> None:
    for child in reversed(children.values()):
        if child.status is None:
            _send(child.process.pid, child.stop)
    deadline = time.monotonic() + LAST_GRACE_SECONDS
    while time.monotonic() < deadline and any(child.status is None for child in children.values()):
        time.sleep(0.02)
        _reap(children)
    end_descendants()


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main(sys.argv)
