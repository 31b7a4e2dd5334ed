"""Tells waiting event streams that a run has something new: one LISTEN connection for the whole process.

A hint to look and nothing more: news may be lost, doubled or late. While the connection is down, waiting is polling.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import psycopg
import structlog

from pipeline.store import NEWS

log = structlog.get_logger()

POLL = 1.0
"""Seconds between looks while nobody rings."""
LOOK_ANYWAY = 15.0
"""Seconds between looks while the listener is up, should a doorbell have been lost."""
HEARTBEAT = 20.0
"""Seconds of silence after which the connection is asked whether it is still there."""
LONGEST_PAUSE = 10.0
MOST_STREAMS = 50
"""Streams of one user at once, in each process: every stream holds a connection, and there is an end of those."""


class Hub:
    """Made in `main`, run by the app's lifespan. For one event loop; not thread-safe."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._seated: Counter[UUID] = Counter()
        self.listening = False
        self.closed = False

    async def run(self) -> None:
        """Listen until cancelled; come back, ever more slowly, when the database goes away."""
        pause = 0.0
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                pause = min(LONGEST_PAUSE, 2 * pause + 0.25) if not self.listening else 0.25
                log.warning("news.connection_lost", error=str(error).strip(), again_in=pause)
            finally:
                self.listening = False
                self._wake_all()
            await asyncio.sleep(pause)

    @contextmanager
    def subscribe(self, run_id: UUID) -> Iterator[Subscription]:
        """Hear of a run's news from now on. Look at the database only after this, or news may fall between."""
        bell = asyncio.Event()
        self._waiting[run_id].add(bell)
        try:
            yield Subscription(self, bell)
        finally:
            self._waiting[run_id].discard(bell)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    @contextmanager
    def seat(self, user_id: UUID) -> Iterator[bool]:
        """A place for one more stream of this user; False where they have all that they may have."""
        free = self._seated[user_id] < MOST_STREAMS
        self._seated[user_id] += free
        try:
            yield free
        finally:
            self._seated[user_id] -= free
            if not self._seated[user_id]:
                del self._seated[user_id]

    def close(self) -> None:
        """Let every stream end, because the process does."""
        self.closed = True
        self._wake_all()

    @property
    def subscribers(self) -> int:
        return sum(len(bells) for bells in self._waiting.values())

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3
        )
        async with connection:
            await connection.execute(f"LISTEN {NEWS}")
            self.listening = True
            self._wake_all()  # what happened before LISTEN rang for nobody
            while True:
                async for notice in connection.notifies(timeout=HEARTBEAT):
                    self._wake(notice.payload)
                await connection.execute("SELECT 1")

    def _wake(self, payload: str) -> None:
        try:
            run_id = UUID(payload)
        except ValueError:
            return
        for bell in self._waiting.get(run_id, ()):
            bell.set()

    def _wake_all(self) -> None:
        for bells in self._waiting.values():
            for bell in bells:
                bell.set()


class Subscription:
    """One waiting stream."""

    def __init__(self, hub: Hub, bell: asyncio.Event) -> None:
        self._hub = hub
        self._bell = bell

    async def wait(self) -> bool:
        """Return when it is time to look at the database (True), or when the process is ending (False)."""
        if not self._hub.closed:
            patience = LOOK_ANYWAY if self._hub.listening else POLL
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), patience)
            self._bell.clear()
        return not self._hub.closed
