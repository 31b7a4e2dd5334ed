"""How the service and its runtime children talk: frames over one unix socket, many requests under way at once.

A request is `id, kind, compared, bytes of headers, bytes of body`, then both; an answer is `id, status, bytes of meta, bytes of
body`, then both. Headers and meta are JSON objects, bodies are what HTTP carries. The child is not trusted: what it
sends is judged in form, and never more than was allowed.
"""

from __future__ import annotations

import asyncio
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from serving.protocol.refusals import Kind

KINDS: tuple[Kind, ...] = ("v2", "predict")

_REQUEST = struct.Struct("!IBBIQ")
_ANSWER = struct.Struct("!IHIQ")
_CHUNK = 256 << 10
_LONGEST_META = 256 << 10
STATUSES = frozenset((200, 400, 413, 415, 500))
"""What the codec answers; any other status would let a child say where an HTTP answer ends."""
_GATHERED = 64
"""Buffers of one writev(2); IOV_MAX is 1024."""


@dataclass(kw_only=True)
class Frame:
    """One request as a child sees it. `taken` is when it was read; `compared` asks for a digest of the decisions."""

    id: int
    kind: Kind
    compared: bool
    headers: Mapping[str, str]
    body: memoryview
    taken: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a child said. `meta` is its JSON object, unjudged but for being one."""

    status: int
    meta: Mapping[str, Any]
    body: bytes


class ChildLine:
    """The child's end, on a blocking descriptor. Any number of threads."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._buffer = bytearray()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def take(self, most: int) -> list[Frame]:
        """The next request, and as many as have come already, `most` in all."""
        with self._reading:
            frames = [self._frame()]
            while len(frames) < most and (len(self._buffer) >= _REQUEST.size or self._poll.poll(0)):
                frames.append(self._frame())
        return frames

    def answer(self, frame: Frame, status: int, meta: Mapping[str, Any], body: Any = b"") -> None:
        """`body` is bytes, or several buffers that make it up."""
        parts = [body] if isinstance(body, bytes | bytearray | memoryview) else list(body)
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        told = orjson.dumps(meta)
        head = _ANSWER.pack(frame.id, status, len(told), sum(len(view) for view in views))
        with self._writing:
            self._write([memoryview(head + told), *views])

    def _frame(self) -> Frame:
        buffer = self._buffer
        self._fill(_REQUEST.size)
        number, kind, compared, headers, body = _REQUEST.unpack_from(buffer)
        head = _REQUEST.size + headers
        self._fill(head)
        told = orjson.loads(memoryview(buffer)[_REQUEST.size : head].tobytes())
        content = bytearray(body)
        here = min(body, len(buffer) - head)
        content[:here] = memoryview(buffer)[head : head + here].tobytes()
        del buffer[: head + here]
        view = memoryview(content)
        while here < body:
            here += self._grown(os.readv(self._channel, [view[here:]]))
        return Frame(id=number, kind=KINDS[kind], compared=bool(compared), headers=told, body=view)

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            chunk = os.read(self._channel, _CHUNK)
            self._grown(len(chunk))
            self._buffer += chunk

    def _grown(self, read: int) -> int:
        if read == 0:
            os._exit(0)  # the owner hung up; nothing of ours is worth cleaning up
        return read

    def _write(self, views: list[memoryview]) -> None:
        while views:
            written = os.writev(self._channel, views[:_GATHERED])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]


class Line(asyncio.Protocol):
    """The service's end. `lost` is called once, when the child has hung up or spoken out of form (then with the reason)."""

    def __init__(self, *, longest: int, lost: Callable[[str | None], None]) -> None:
        self._longest, self._lost = longest, lost
        self._buffer = bytearray()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._next = 0
        self._transport: asyncio.Transport | None = None
        self._flaw: str | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.heard = 0.0
        """When the child answered last, by the loop's clock."""

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet, given up ones among them."""
        return len(self._waiting)

    def ask(
        self, kind: Kind, headers: Mapping[str, str], body: Sequence[bytes], *, compared: bool
    ) -> asyncio.Future[Answer]:
        """Send a request; its answer comes into the future. Raises `ConnectionError` where the child is gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._next = number = (self._next + 1) & 0xFFFFFFFF
        told = orjson.dumps(headers)
        size = sum(len(part) for part in body)
        head = _REQUEST.pack(number, KINDS.index(kind), compared, len(told), size)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._quiet.clear()
        transport.writelines([head + told, *body])
        return answer

    async def quiet(self) -> None:
        """Return when nobody waits for an answer."""
        await self._quiet.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self.heard = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        buffer = self._buffer
        buffer += data
        try:
            while len(buffer) >= _ANSWER.size:
                number, status, meta, body = _ANSWER.unpack_from(buffer)
                if (
                    meta > _LONGEST_META
                    or body > self._longest
                    or status not in STATUSES
                    or number not in self._waiting
                ):
                    raise ValueError("an answer out of form")
                size = _ANSWER.size + meta + body
                if len(buffer) < size:
                    return
                view = memoryview(buffer)
                told = orjson.loads(view[_ANSWER.size : _ANSWER.size + meta])
                content = view[_ANSWER.size + meta : size].tobytes()
                view.release()
                del buffer[:size]
                if not isinstance(told, dict):
                    raise ValueError("an answer without its facts")  # noqa: TRY004 - a flaw of form like the others
                answer = self._waiting.pop(number)
                if not self._waiting:
                    self._quiet.set()
                if not answer.done():  # given up meanwhile
                    answer.set_result(Answer(status=status, meta=told, body=content))
        except ValueError as flaw:
            self._flaw = str(flaw)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it was lost
        waiting, self._waiting = self._waiting, {}
        self._quiet.set()
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())
        self._lost(self._flaw)
