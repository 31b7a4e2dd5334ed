"""A worker's right to report, kept alive by a heartbeat; also carries the step's log lines to the database.

Two threads: the heartbeat asks the database, the watch asks only the clock, because a database that hangs takes the heartbeat
with it. When the right is gone (cancelled, taken over, out of time, or the database has been silent for a whole lease) they
end whatever the step has running, so that the main thread comes back by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline import store
from shared.db import Begin

log = structlog.get_logger()

BEAT = 1.0
"""Seconds between heartbeats: how soon a cancelled step notices."""
GRACE = 30.0
"""Seconds that a step which is out of time has for coming back and saying so; then its lease runs out like a dead worker's."""
MAX_LINES = 2_000
MAX_LINE = 4_000


class Lease:
    """Own an attempt inside a `with` block. `lost` says why it is over, if it is."""

    def __init__(
        self, begin: Begin, run_id: UUID, stage: str, attempt: int, *, seconds: float, time_limit: float
    ) -> None:
        self.lost: str | None = None
        self.timed_out = False
        self._begin = begin
        self._attempt = (run_id, stage, attempt)
        self._seconds = seconds
        self._pause = min(BEAT, seconds / 4)
        self._deadline = time.monotonic() + time_limit
        self._valid_until = time.monotonic() + seconds
        self._lines: deque[tuple[datetime, str]] = deque()
        self._logged = 0
        self._enders: list[Callable[[], None]] = []
        self._guard = threading.Lock()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat_until_done, name="lease-heartbeat", daemon=True),
            threading.Thread(target=self._watch_until_done, name="lease-watch", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._flush()

    def log(self, text: str) -> None:
        """One line for the step's log; shortened when long, and silent after `MAX_LINES`."""
        self._logged += 1
        if self._logged > MAX_LINES:
            return
        line = text[:MAX_LINE] if self._logged < MAX_LINES else "The log of this step is full."
        self._lines.append((datetime.now(UTC), line))

    def on_lost(self, end: Callable[[], None]) -> None:
        """Have `end` called (from the heartbeat's thread) when the lease is lost; at once if it is already."""
        with self._guard:
            self._enders.append(end)
            lost = self.lost
        if lost:
            end()

    def _beat_until_done(self) -> None:
        while not self._done.wait(self._pause):
            if time.monotonic() > self._deadline + GRACE or not self._beat():
                return

    def _watch_until_done(self) -> None:
        while not self._done.wait(self._pause):
            now = time.monotonic()
            if now > self._deadline and not self.timed_out:
                self.timed_out = True
                self._lose("out of time")
            if now > self._valid_until and not self.lost:
                self._lose("the database was silent for a whole lease")

    def _beat(self) -> bool:
        """False: the attempt is not ours any more."""
        sent = time.monotonic()
        try:
            with self._begin() as session:
                owned = store.renew(session, *self._attempt, self._seconds)
        except SQLAlchemyError as error:
            log.warning("lease.unreachable", error=str(error))
            return True
        if not owned:
            self._lose("cancelled or taken over")
            return False
        self._valid_until = sent + self._seconds
        self._flush()
        return True

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        try:
            with self._begin() as session:
                store.add_logs(session, *self._attempt, lines)
        except SQLAlchemyError as error:
            log.warning("lease.log_lost", lines=len(lines), error=str(error))

    def _lose(self, reason: str) -> None:
        with self._guard:
            self.lost = reason
            enders = list(self._enders)
        for end in enders:
            end()
