"""Run Swift's account, container, object and proxy server; executed by the Python that Swift is installed in.

    python swift_server.py ETC account=PORT container=PORT object=PORT

`ETC` holds the configuration files; the rings (which server keeps what: here one of each keeps all) are written here,
because only Swift knows their format. Imports Swift once and forks, and ends as a whole when one server ends.
"""

from __future__ import annotations

import array
import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM, or until one of the servers ends."""
    etc, ports = Path(arguments[1]), dict(argument.split("=") for argument in arguments[2:])
    _configure(etc)
    _write_rings(etc, {kind: int(port) for kind, port in ports.items()})
    for module in ("account", "container", "obj", "proxy"):
        importlib.import_module(f"swift.{module}.server")
    parent = os.getpid()
    children: list[int] = []
    asked = False
    for kind in (*ports, "proxy"):
        if (pid := os.fork()) == 0:
            _serve(etc, kind, parent)
        children.append(pid)

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    def obey(*_: object) -> None:
        nonlocal asked
        asked = True
        stop()

    signal.signal(signal.SIGTERM, obey)
    signal.signal(signal.SIGINT, obey)
    children.remove(os.wait()[0])
    stop()
    while children:
        children.remove(os.wait()[0])
    return 0 if asked else 1


def _configure(etc: Path) -> None:
    """Point Swift, which looks in /etc/swift when it is imported, to our folder."""
    utils: Any = importlib.import_module("swift.common.utils")
    utils.SWIFT_CONF_FILE = str(etc / "swift.conf")
    utils.HASH_PATH_PREFIX = utils.HASH_PATH_SUFFIX = b""
    utils.validate_hash_conf()
    importlib.import_module("swift.common.storage_policy").reload_storage_policies()
    importlib.import_module("swift.common.constraints").reload_constraints()


def _write_rings(etc: Path, ports: dict[str, int]) -> None:
    ring_data = importlib.import_module("swift.common.ring").RingData
    for kind, port in ports.items():
        place = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
        device = {"id": 0, "region": 1, "zone": 0, "device": "d1", "weight": 1.0, "meta": "", **place}
        part_shift = 30  # four partitions: there is one disk to spread them over
        ring_data([array.array("H", [0] * 4)], [device], part_shift, version=1).save(str(etc / f"{kind}.ring.gz"))


def _serve(etc: Path, kind: str, parent: int) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    wsgi = importlib.import_module("swift.common.wsgi")
    sys.exit(
        wsgi.run_wsgi(str(etc / f"{kind}.conf"), f"{kind}-server", swift_dir=str(etc), verbose=True)
    )  # verbose: log to stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv))
