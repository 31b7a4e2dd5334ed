"""The virus scanner for the stack: Debian's clamd on loopback with a configuration and a signature folder of our own.

Always knows the EICAR test file; knows real malware only where freshclam has fetched its databases.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from stack.home import Home
from stack.processes import Service, unprivileged

USUAL_PORT = 3310
_HERE = "/proc/self/cwd"  # see stack.postgres: works where the account cannot reach the state folder
_FRESHCLAM = Path("/var/lib/clamav")
_LARGEST = "2047M"  # clamd cannot see further than 2 GiB - 1
# The EICAR test file by digest, and anywhere inside a file. Written so that this source is not taken for it.
_SIGNATURES = {
    "slipway.hdb": "44d88612fea8a8f36de82e1278abb02f:68:Slipway.Test.EICAR\n",
    "slipway.ndb": (
        "Slipway.Test.EICAR-Inside:0:*:58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d"
        "5354414e444152442d414e544956495255532d544553542d46494c452124482b482a\n"
    ),
}
_SETTINGS = {
    "Foreground": "yes",
    "TCPAddr": "127.0.0.1",
    "DatabaseDirectory": f"{_HERE}/signatures",
    "TemporaryDirectory": f"{_HERE}/scratch",
    "StreamMaxLength": _LARGEST,
    "MaxScanSize": _LARGEST,
    "MaxFileSize": _LARGEST,
    "MaxFiles": "100000",
    "MaxScanTime": "600000",
    "MaxThreads": "4",
    "ReadTimeout": "300",
    "AlertExceedsMax": "yes",  # what was not scanned completely must not pass for clean
    "ConcurrentDatabaseReload": "no",
    "ExitOnOOM": "yes",
}


def program() -> str | None:
    """The clamd of this machine, if there is one."""
    return shutil.which("clamd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def has_real_signatures() -> bool:
    """Whether freshclam has fetched databases on this machine."""
    return bool(_databases())


def service(home: Home, port: int, *, binary: str) -> Service:
    """A scanner on `port` with the limits raised as far as clamd allows."""
    user = unprivileged("clamav", "daemon", "nobody")
    folder = home.folder("clamd", user=user)
    signatures, scratch = home.folder("clamd/signatures", user=user), home.folder("clamd/scratch", user=user)
    for stale in (*signatures.iterdir(), *scratch.iterdir()):  # clamd leaves its scratch files when it is killed
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    files = {signatures / name: text for name, text in _SIGNATURES.items()}
    files[folder / "clamd.conf"] = (
        "".join(f"{key} {value}\n" for key, value in _SETTINGS.items()) + f"TCPSocket {port}\n"
    )
    for path, text in files.items():
        path.write_text(text)
        path.chmod(0o644)
    for database in _databases():
        (signatures / database.name).symlink_to(database)
    return Service(
        name="clamd",
        command=(binary, f"--config-file={_HERE}/clamd.conf"),
        folder=folder,
        user=user,
        ready=lambda: _answers(port),
        gives={"CLAMD_URL": f"tcp://127.0.0.1:{port}"},
        patience=180.0,  # the real databases take a while to load
    )


def _databases() -> list[Path]:
    return [path for path in _FRESHCLAM.glob("*.c[vl]d") if path.is_file()] if _FRESHCLAM.is_dir() else []


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"zPING\0")
        return connection.recv(16) == b"PONG\0"
