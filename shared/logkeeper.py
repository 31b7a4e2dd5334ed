"""Keeps what is worth keeping of the log, beside the stream that it goes to. Never makes anybody wait, and says what it lost.

Knows no table: who builds it says how a lot of records is written. One thread writes; it begins with the first record,
and anew in a child that was forked.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

ROOM = 1000
"""Records that may wait. What comes when the room is full is lost, and counted."""
LOT = 100
PAUSE = 1.0
"""Seconds between lots: at most a hundred records a second are kept, whatever somebody does to us."""
LONGEST = 2000
"""Characters of one value."""
MOST = 32
"""Fields of one record."""

_SECRET_NAME = re.compile(
    r"pass(word|wd)?|secret|token|authorization|cookie|credential|signature|private", re.IGNORECASE
)
_SECRET = re.compile(
    r"slw_[\w-]{8,}"  # an API key
    r"|eyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?"  # a bearer token
    r"|(?<=://)[^/\s@]*:[^/\s@]*(?=@)"  # user and password in an address
    r"|(?<=[?&])X-Amz-[\w-]+=[^&\s\"']+"  # a presigned address
)
_OWN = frozenset({"event", "level", "timestamp", "trace_id", "exc_info", "exception", "stack_info"})


@dataclass(frozen=True, kw_only=True)
class Record:
    """`level` as in `logging`; `fields` is JSON and holds nothing that looks like a secret."""

    at: datetime
    level: int
    event: str
    trace_id: str | None
    fields: Mapping[str, Any]


class LogKeeper:
    """A processor of structlog: hands records from `level` on to `write`, in lots, and lets every event pass unchanged."""

    def __init__(self, write: Callable[[Sequence[Record]], None], *, level: int) -> None:
        self._write = write
        self._level = level
        self._start_anew()

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        level = logging.getLevelNamesMapping().get(str(event.get("level", "")).upper(), 0)
        if level >= self._level and not getattr(self._writing, "now", False):
            self._put(_record(level, event))
        return event

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for so many seconds."""
        thread = self._thread
        if thread is not None and self._pid == os.getpid():
            self._over.set()
            thread.join(timeout)

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._waiting: queue.Queue[Record] = queue.Queue(ROOM)
        self._lost = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._writing = threading.local()
        self._thread: threading.Thread | None = None

    def _put(self, record: Record) -> None:
        if self._pid != os.getpid():  # forked: the thread stayed behind, and a lock may be held for ever
            self._start_anew()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)
                    thread.start()
                    self._thread = thread  # once it runs: whoever closes us joins it
                    atexit.register(self.close)
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._lose(1)

    def _lose(self, records: int) -> None:
        with self._lock:
            self._lost += records

    def _run(self) -> None:
        self._writing.now = True  # what goes wrong here goes to the stream only, or it would feed itself
        while True:
            over = self._over.wait(PAUSE)
            self._write_lot()
            if over and self._waiting.empty():
                return

    def _write_lot(self) -> None:
        lot: list[Record] = []
        while len(lot) < LOT and not self._waiting.empty():
            lot.append(self._waiting.get_nowait())
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:
            fields = {"records": lost}
            lot.append(
                Record(at=datetime.now(UTC), level=logging.WARNING, event="log.lost", trace_id=None, fields=fields)
            )
        if not lot:
            return
        try:
            self._write(lot)
        except Exception as error:  # noqa: BLE001 - whatever keeps it from writing, the process goes on
            self._lose(len(lot) - bool(lost) + lost)
            _complain(error)


def _complain(error: Exception) -> None:
    import structlog

    structlog.get_logger().warning("log.not_kept", error=type(error).__name__)
    time.sleep(PAUSE)


def _record(level: int, event: Mapping[str, Any]) -> Record:
    fields = {name: _clean(name, value) for name, value in event.items() if name not in _OWN and value is not None}
    if (error := _error(event.get("exc_info"))) is not None:
        fields["exception"] = error
    trace_id = event.get("trace_id")
    return Record(
        at=datetime.now(UTC),
        level=level,
        event=_washed(str(event.get("event", ""))),
        trace_id=None if trace_id is None else str(trace_id)[:64],
        fields=dict(list(fields.items())[:MOST]),
    )


def _clean(name: str, value: Any) -> Any:
    if _SECRET_NAME.search(name):
        return "…"
    plain = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else _washed(str(value))


def _washed(text: str) -> str:
    """Without what looks like a secret, and without what Postgres does not take."""
    plain = text[:LONGEST].replace("\0", "").encode("utf-8", "replace").decode()
    return _SECRET.sub("…", plain)


def _error(exc_info: Any) -> str | None:
    """Kind and place of an exception, never its text: that of a database error holds the statement's values."""
    import sys

    error = sys.exc_info()[1] if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(error, BaseException):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"
