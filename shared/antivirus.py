"""Asks a ClamAV daemon over its socket. Knows the INSTREAM protocol; refuses to call "not fully looked at" clean.

Our own client, because the `clamd` package sends 1 KiB pieces without making sure that they left, and loses the
daemon's answer when a size limit ends the stream.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

from shared.errors import DependencyUnavailable

_CHUNK = 1 << 20
_OVERLAP = 1 << 20
_SMALLEST_WINDOW = 4 << 20
_LONGEST_ANSWER = 4096
# Cut in two so that no scanner takes this source file for the test virus.
_EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


class Look(NamedTuple):
    """What the daemon saw: the signature's name, whether every byte was looked at, and by whom.

    `complete` is False when a limit of the daemon kept it from seeing everything. A file too long for one stream is
    shown in `windows` overlapping pieces, in which signatures of whole files and archives cannot match.
    """

    threat: str | None
    complete: bool
    engine: str
    windows: int = 1


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the daemon is worth: its engine, when its virus database was made, and whether it finds the test virus.

    `made` is None where no database is loaded: then it knows only the signatures that somebody wrote by hand.
    """

    engine: str
    made: datetime | None
    finds_test_virus: bool


class _LimitReachedError(Exception):
    """The daemon did not look at all that it was sent."""


class Clamd:
    """A ClamAV daemon at `tcp://host:port` or `unix:///path`.

    `window` is how many bytes one stream may have (the daemon's StreamMaxLength); it shrinks when the daemon says it
    was too much. `answer_timeout` exceeds the MaxScanTime of our configurations (600 s), so that the daemon gives up first and says
    so. Every method raises `DependencyUnavailable` when the daemon is away, silent or in trouble.
    """

    def __init__(
        self, url: str, *, window: int = 1 << 30, connect_timeout: float = 5.0, answer_timeout: float = 660.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            self._address: str | tuple[str, int] = parts.path
        elif parts.scheme in ("tcp", "clamd") and parts.hostname:
            self._address = (parts.hostname, parts.port or 3310)
        else:
            raise ValueError(f"CLAMD_URL must be tcp://host:port or unix:///path, not {parts.scheme}://…")
        self._window = window
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout

    def ping(self) -> None:
        """Return when the daemon answers."""
        answer = self._command(b"zPING\0")
        if answer != "PONG":
            raise DependencyUnavailable("antivirus_unavailable", f"The antivirus daemon answered PING with {answer!r}.")

    def version(self) -> str:
        """Engine, number and date of its signatures, as in `ClamAV 1.4.3/27000/Mon Nov  2 2026`."""
        return self._command(b"zVERSION\0")

    def self_test(self) -> bool:
        """Whether the daemon recognises the EICAR test file: a daemon without signatures finds nothing."""
        with self._connection() as connection:
            try:
                return _threat(_send(connection, [_EICAR])) is not None
            except _LimitReachedError:
                return False

    def condition(self) -> Condition:
        """Ask for the version, and show the test virus."""
        engine, made = _dated(self.version())
        return Condition(engine=engine, made=made, finds_test_virus=self.self_test())

    def scan(self, path: Path) -> Look:
        """Show every byte of the file to the daemon."""
        engine, size, window = self.version(), path.stat().st_size, self._window
        with path.open("rb") as file:
            while True:
                windows = _windows(size, window)
                try:
                    return Look(self._look(file, windows), complete=True, engine=engine, windows=len(windows))
                except _LimitReachedError:
                    window = min(size, window) // 2
                if window < _SMALLEST_WINDOW:
                    return Look(None, complete=False, engine=engine, windows=len(windows))

    def _look(self, file: BinaryIO, windows: list[tuple[int, int]]) -> str | None:
        for start, end in windows:
            with self._connection() as connection:
                threat = _threat(_send(connection, _pieces(file, start, end)))
            if threat is not None:
                return threat
        return None

    def _command(self, command: bytes) -> str:
        with self._connection() as connection:
            connection.sendall(command)
            return _answer(connection)

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        try:
            with self._connect() as connection:
                connection.settimeout(self._answer_timeout)
                yield connection
        except OSError as error:
            raise DependencyUnavailable(
                "antivirus_unavailable", f"The antivirus daemon cannot be asked: {error or type(error).__name__}."
            ) from error

    def _connect(self) -> socket.socket:
        if not isinstance(self._address, str):
            return socket.create_connection(self._address, timeout=self._connect_timeout)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self._connect_timeout)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            raise
        return connection


def _dated(version: str) -> tuple[str, datetime | None]:
    """Engine and date of `ClamAV 1.4.3/27000/Mon Nov  2 10:00:00 2026`; without a database the daemon names the engine alone.

    The date has no zone; it is taken for UTC, in which the official images run.
    """
    engine, *rest = version.split("/")
    try:
        return engine, datetime.strptime(rest[-1].strip(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    except (IndexError, ValueError):
        return engine, None


def _windows(size: int, window: int) -> list[tuple[int, int]]:
    """Start and end of overlapping pieces that together cover the file."""
    if size <= window:
        return [(0, size)]
    step = window - _OVERLAP
    return [(start, min(start + window, size)) for start in range(0, size - _OVERLAP, step)]


def _pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        piece = file.read(min(_CHUNK, end - start))
        if not piece:
            raise RuntimeError("The file became shorter while it was read.")
        start += len(piece)
        yield piece


def _send(connection: socket.socket, pieces: Iterator[bytes] | list[bytes]) -> str:
    try:
        connection.sendall(b"zINSTREAM\0")
        for piece in pieces:
            connection.sendall(len(piece).to_bytes(4, "big") + piece)
        connection.sendall(b"\0\0\0\0")
    except (BrokenPipeError, ConnectionResetError):
        # The daemon hung up in the middle: it has said why, or it is dead and reading fails as well.
        return _answer(connection)
    return _answer(connection)


def _answer(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\0"):
        piece = connection.recv(_LONGEST_ANSWER)
        if not piece or len(received) > _LONGEST_ANSWER:
            raise ConnectionError("it hung up without an answer")
        received += piece
    return received[:-1].decode("utf-8", "replace").strip()


def _threat(answer: str) -> str | None:
    """The threat a stream's answer names; raises when the answer means that it was not looked at."""
    if answer == "stream: OK":
        return None
    if "size limit exceeded" in answer:
        raise _LimitReachedError
    if answer.startswith("stream: ") and answer.endswith(" FOUND"):
        threat = answer.removeprefix("stream: ").removesuffix(" FOUND")
        if threat.startswith("Heuristics.Limits."):
            raise _LimitReachedError
        return threat
    raise DependencyUnavailable("antivirus_error", f"The antivirus daemon could not look: {answer[:200]}.")
