"""Takes the files of one upload to staging while they arrive: hashed and sent in one pass, and gone unless kept.

Holds at most one part being filled and two under way. Knows bytes, keys and digests; no form, no row, no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import structlog

from pipeline.formats import HEAD, TAIL, Glimpse
from pipeline.staging import MODEL, staging_key
from shared.errors import AdapterError
from shared.storage import Bucket, Multipart

log = structlog.get_logger()

T = TypeVar("T")

SMALLEST_PART = 8 << 20
MOST_PARTS = 10_000
UNDER_WAY = 2
RAW = "application/octet-stream"


def part_size(length: int) -> int:
    """Bytes per part for a file of at most `length` bytes: 8 MiB, or as many whole MiB as 10,000 parts then need."""
    needed = -(-length // MOST_PARTS)
    return max(SMALLEST_PART, -(-needed // (1 << 20)) << 20)


@dataclass(frozen=True, kw_only=True)
class Landed:
    """A file that has arrived. It can be read under `key` once `Landing.complete` has returned."""

    name: str
    key: str
    sha256: str
    size: int


class Landing:
    """One upload on its way into staging. `async with` removes everything on the way out, unless `keep` was called.

    All that must happen in order – hashing, beginning, completing, keeping, removing – has one thread, its lane. So
    removing waits for a commit under way, and a handler that is cancelled leaves neither half a file nor half a row.
    """

    def __init__(self, staging: Bucket, *, longest: int) -> None:
        self.upload_id = uuid4()
        self._staging = staging
        self._part_size = part_size(longest)
        self._lane = ThreadPoolExecutor(1, "upload-lane")
        self._senders = ThreadPoolExecutor(UNDER_WAY, "upload-sender")
        self._flying: deque[asyncio.Future[list[None]]] = deque()
        self._keys: list[str] = []
        self._kept = False
        self._model_key = ""
        self._multipart: Future[Multipart] | None = None
        self._parts = 0
        self._filling = bytearray()
        self._digest = hashlib.sha256()
        self._head = bytearray()
        self._tail = b""
        self._size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leaving = self._lane.submit(self._leave)
        self._lane.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(leaving))

    @property
    def size(self) -> int:
        """Bytes of the model file so far."""
        return self._size

    @property
    def head(self) -> bytes:
        """The first bytes of the model file, up to `HEAD`."""
        return bytes(self._head)

    def begin(self, filename: str) -> None:
        """The model file follows."""
        self._model_key = staging_key(self.upload_id, MODEL, filename)

    async def write(self, data: memoryview) -> None:
        """Take bytes of the model file; wait while storage is behind."""
        self._size += len(data)
        if len(self._head) < HEAD:
            self._head += data[: HEAD - len(self._head)]
        while data:
            if len(self._filling) == self._part_size:  # more follows, so this is not the last
                await self._send_part()
            room = self._part_size - len(self._filling)
            self._filling += data[:room]
            data = data[room:]

    async def store(self, role: str, filename: str, data: bytes) -> Landed:
        """Store a side file, whole."""
        key = staging_key(self.upload_id, role, filename)
        await self._room()
        self._keys.append(key)
        self._fly(self._senders.submit(self._staging.put, key, data, RAW))
        digest = await self.run(lambda: hashlib.sha256(data).hexdigest())
        return Landed(name=filename, key=key, sha256=digest, size=len(data))

    async def finish(self, filename: str) -> Landed:
        """The model file has ended. Everything has been sent on return; nothing can be read yet."""
        if self._multipart is None:
            await self.run(lambda: self._digest.update(self._filling))
        else:
            await self._send_part(last=True)
        while self._flying:
            await self._land_one()
        return Landed(name=filename, key=self._model_key, sha256=self._digest.hexdigest(), size=self._size)

    def seen(self) -> Glimpse:
        """The model file's beginning, end and size, as far as it has come."""
        return Glimpse(head=self.head, tail=(self._tail + self._filling)[-TAIL:], size=self._size)

    async def complete(self) -> None:
        """Make every file readable."""
        while self._flying:
            await self._land_one()
        self._keys.append(self._model_key)
        if self._multipart is None:
            await self.run(lambda: self._staging.put(self._model_key, bytes(self._filling), RAW))
        else:
            await self.run(self._multipart.result().complete)

    def keep(self) -> None:
        """Let everything stay. To be called inside the transaction that names the files, as the last thing in it.

        A commit that fails may have happened all the same, so from here on only the sweep may judge.
        """
        self._kept = True

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in the lane: after all that was asked for before, and before anything is removed."""
        return await asyncio.wrap_future(self._lane.submit(work))

    async def _send_part(self, *, last: bool = False) -> None:
        await self._room()
        part, self._filling = self._filling, bytearray()
        self._tail = bytes(part[-TAIL:]) if len(part) >= TAIL else (self._tail + part)[-TAIL:]
        if self._multipart is None:
            begin = partial(self._staging.begin, self._model_key, RAW, part_size=self._part_size)
            self._multipart = self._lane.submit(begin)
        self._parts += 1
        self._fly(
            self._lane.submit(self._digest.update, part),
            self._senders.submit(_send, self._multipart, self._parts, part, last=last),
        )

    async def _room(self) -> None:
        while len(self._flying) >= UNDER_WAY:
            await self._land_one()

    def _fly(self, *work: Future[None]) -> None:
        flight = asyncio.gather(*(asyncio.wrap_future(each) for each in work))
        flight.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may come to ask
        self._flying.append(flight)

    async def _land_one(self) -> None:
        """Wait for the oldest, so that errors surface in the order in which things were sent."""
        await self._flying.popleft()

    def _leave(self) -> None:
        self._senders.shutdown(cancel_futures=True)
        if self._kept:
            return
        try:
            if self._multipart is not None and self._multipart.exception() is None:
                self._multipart.result().abort()
            self._staging.delete(self._keys)
        except AdapterError as error:
            log.warning("upload.left_to_the_sweep", upload_id=str(self.upload_id), error=error.message)


def _send(multipart: Future[Multipart], number: int, part: bytearray, *, last: bool) -> None:
    multipart.result().part(number, part, last=last)
