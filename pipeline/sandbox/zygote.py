"""The program that has imported the heavy libraries once and forks one locked-down child per session.

Run as a file with `python -I`, an empty environment and one control socket; holds no secret. Two processes: a
guardian that dies with the owner and takes everything with it, and the zygote proper, which must stay single-threaded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

MAX_MESSAGE = 128 << 10
"""Largest control message, bytes: fits the default send buffer of a unix socket (net.core.wmem_default, 208 KiB)."""


def main() -> NoReturn:
    """Entry of the guardian. Arguments: one JSON object, see `pipeline.sandbox.host`."""
    config = json.loads(sys.argv[1])
    sys.path[:0] = config["import_from"]
    if config["probe"]:
        sys.stdout.write(json.dumps(_why_no_namespaces()))
        os._exit(sys.stdout.flush() or 0)
    home = tempfile.mkdtemp(prefix="slipway-zygote-")
    os.environ.update(HOME=home, TMPDIR=home)
    tempfile.tempdir = home
    why_not = "switched off" if "namespaces" in config["without"] else _why_no_namespaces()
    if why_not is None:
        from pipeline.sandbox import namespaces

        namespaces.separate()
    guardian = os.getpid()
    zygote = os.fork()
    if zygote == 0:
        _become_zygote(config, guardian=guardian, why_not=why_not)
    control, owner = config["control"], config["owner"]
    os.close(control)
    fate = os.pidfd_open(zygote)
    select.select([owner, fate], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(zygote, signal.SIGKILL)
    os.waitpid(zygote, 0)
    shutil.rmtree(home, ignore_errors=True)
    os._exit(0)


def _become_zygote(config: dict[str, Any], *, guardian: int, why_not: str | None) -> NoReturn:
    from pipeline.sandbox import lockdown

    lockdown.die_with_parent()
    if why_not is not None and os.getppid() != guardian:
        os._exit(1)
    os.close(config["owner"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    control = socket.socket(fileno=config["control"])
    missing = _preload(config["preload"], config["packages"])
    gc.collect()
    gc.freeze()  # keeps the collector of the children away from pages they share
    threads = len(list(Path("/proc/self/task").iterdir()))
    hello = {"missing": missing, "namespaces_missing": why_not, "threads": threads}
    control.send(json.dumps(hello).encode())
    _serve(control, config, view=why_not is None)


def _why_no_namespaces() -> str | None:
    """None where namespaces and a private view work here, tried for real in a process that ends at once."""
    from pipeline.sandbox import lockdown, namespaces

    told, tell = os.pipe()
    if os.fork() == 0:
        try:
            os.close(told)
            namespaces.separate()
            scratch = Path(tempfile.mkdtemp(prefix="slipway-probe-"))
            inner = os.fork()  # the new process namespace begins with the next child
            if inner == 0:
                try:
                    namespaces.view(read=lockdown.system_paths(), write=[Path("/dev/null")], scratch=scratch)
                    Path("/proc/self/status").stat()
                except OSError as fault:
                    os.write(tell, str(fault).encode())
                os._exit(0)
            os.waitpid(inner, 0)
            scratch.rmdir()
        except OSError as fault:
            os.write(tell, str(fault).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as answer:
        why = answer.read().decode(errors="replace")
    os.wait()
    return why or None


def _preload(modules: list[str], packages: list[str]) -> dict[str, str]:
    """Import everything that can be; returns why for the rest."""
    missing = {}
    for name in [*packages, *modules]:
        try:
            importlib.import_module(name)
        except ImportError as fault:
            missing[name] = str(fault)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
    return missing


def _serve(control: socket.socket, config: dict[str, Any], *, view: bool) -> NoReturn:
    """Fork on request and report deaths until the owner hangs up."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    children: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready, _ in poller.poll():
            if ready != control.fileno():
                poller.unregister(ready)
                _report_death(ready, *children.pop(ready))
                continue
            message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 3)
            if not message:
                os._exit(0)
            channel, output, status_descriptor = descriptors
            status = socket.socket(fileno=status_descriptor)
            zygote = os.getpid()
            pid = os.fork()
            if pid == 0:
                _become_child(json.loads(message), config, channel=channel, output=output, zygote=zygote, view=view)
            os.close(channel)
            os.close(output)
            fate = os.pidfd_open(pid)
            with contextlib.suppress(OSError):  # the owner may be gone already
                socket.send_fds(status, [b"started"], [fate])
            children[fate] = (pid, status)
            poller.register(fate, select.POLLIN)


def _report_death(fate: int, pid: int, status: socket.socket) -> None:
    _, code, usage = os.wait4(pid, 0)
    os.close(fate)
    report = {
        "signal": os.WTERMSIG(code) if os.WIFSIGNALED(code) else 0,
        "exit": os.WEXITSTATUS(code) if os.WIFEXITED(code) else 0,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
    }
    with contextlib.suppress(OSError), status:
        status.send(json.dumps(report).encode())


def _become_child(
    request: dict[str, Any], config: dict[str, Any], *, channel: int, output: int, zygote: int, view: bool
) -> NoReturn:
    """Lock this process down, say so, and serve. Never returns, whatever happens."""
    from pipeline.sandbox import lockdown, session

    try:
        channel = _keep_only(channel, output)
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        lockdown.die_with_parent()
        if os.getppid() != zygote:
            os._exit(1)
        os.environ.clear()
        os.environ.update(HOME=request["scratch"], TMPDIR=request["scratch"])
        gpu = request["limits"]["gpu"]
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        tempfile.tempdir = None
        os.chdir(request["scratch"])
        limits = request["limits"]
        fence = lockdown.Fence(
            read=[Path(path) for path in (*config["readable"], *request["read"])],
            scratch=Path(request["scratch"]),
            memory=limits["memory"],
            cpu=limits["cpu"],
            file_size=limits["file_size"],
            open_files=limits["open_files"],
            landlock="landlock" not in config["without"],
            view=view,
            gpu=gpu is not None,
        )
        layers = lockdown.lock(fence)
        os.umask(0o077)  # not earlier: the folders of the view must be searchable
        unreadable = [path for path in request["read"] if not os.access(path, os.R_OK)]
        if unreadable or not os.access(request["scratch"], os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{', '.join(unreadable) or request['scratch']} is out of reach")
    except PermissionError as fault:
        why = f"{fault}; as uid {os.getuid()} it must be reached through folders that everybody may search"
        session.send(channel, json.dumps({"refused": why[:1000]}).encode())
        os._exit(1)
    except Exception as fault:  # noqa: BLE001 - not locked down: say why and end
        session.send(channel, json.dumps({"refused": f"{type(fault).__name__}: {fault}"[:1000]}).encode())
        os._exit(1)
    try:
        session.send(channel, json.dumps({"ready": layers}).encode())
        session.serve(channel, prefixes=config["prefixes"], largest=limits["answer"])
    finally:
        os._exit(1)


def _keep_only(channel: int, output: int) -> int:
    """Close every descriptor but the session's; returns the channel's new number."""
    channel = os.dup2(channel, 100, inheritable=False)
    os.dup2(output, 1)
    os.dup2(output, 2)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(channel, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    return 3


if __name__ == "__main__":
    main()
