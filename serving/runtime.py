"""One loaded variant in a sandboxed child of its own: ask it, see it die, let it finish. Knows no model by name and no HTTP.

A request that brings the native runtime down takes the child with it, and what else the child was working at; nothing
more.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from pipeline.errors import Rejected, SlipwayError
from pipeline.sandbox import PASSABLE, Zygote, discard
from pipeline.sandbox.child import SandboxChild
from pipeline.stage import Limits
from serving.protocol.refusals import Kind
from serving.wire import Answer, Line

log = structlog.get_logger()

LONGEST_ANSWER = 256 << 20
"""Bytes of one answer's body."""
_FOR_EVER = 1 << 31
_SILENT = 2.0


class Died(Exception):
    """The child ended with this request under way. `why` is for the log."""


class Overloaded(Exception):
    """As many requests are waiting as may."""


class TimedOut(Exception):
    """No answer within the time."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to load and how: `path` is a file whose digest has been checked, `signature` as `protocol.Signature.facts`."""

    path: Path
    way: Mapping[str, Any]
    inputs: Sequence[Any]
    signature: Mapping[str, Any]
    name: str
    version: str
    threads: int
    largest: int
    memory: int
    device: str = "cpu"
    gpu: str | None = None


class Runtime:
    """Made by `start`. All methods belong to one event loop."""

    def __init__(self, *, queue: int, threads: Executor) -> None:
        self._queue, self._threads = queue, threads
        self._stack = ExitStack()
        self._child: SandboxChild | None = None
        self._line: Line
        self._baseline = 0
        self._over = asyncio.Event()
        self._closing = self._dying = False
        self.facts: Mapping[str, Any] = {}
        """What `executor.load` found out."""

    @classmethod
    async def start(cls, zygote: Zygote, load: Load, *, queue: int, scratch: Path, threads: Executor) -> Self:
        """Raises `Rejected` where the file does not load, `Unavailable` where no child can be had.

        What takes long is done on `threads`: whoever asks the database must not wait for a model to load.
        """
        runtime, loop = cls(queue=queue, threads=threads), asyncio.get_running_loop()
        try:
            channel = await loop.run_in_executor(threads, runtime._open, zygote, load, scratch)
            _, runtime._line = await loop.create_unix_connection(
                lambda: Line(longest=LONGEST_ANSWER, lost=runtime._lost), sock=channel
            )
        except BaseException:
            await loop.run_in_executor(threads, runtime._stack.close)
            raise
        return runtime

    @property
    def alive(self) -> bool:
        return not self._over.is_set() and not self._closing

    @property
    def waiting(self) -> int:
        return self._line.waiting

    def look(self) -> int:
        """Bytes that the child has for itself beyond what it was born with. Also keeps what it prints flowing."""
        child = self._child
        if child is None or self._dying or not self.alive:
            return 0
        child.drain()
        return max(0, child.memory - self._baseline)

    async def ask(
        self, kind: Kind, headers: Mapping[str, str], body: Sequence[bytes], *, seconds: float, compared: bool = False
    ) -> Answer:
        """Raises `Overloaded`, `TimedOut`, `Died`. One that timed out goes on in the child and keeps its place in the queue.

        A child that then answers nobody for as long again, and for `_SILENT` seconds at least, is taken for hung and killed.
        """
        line = self._line
        if line.waiting >= self._queue:
            raise Overloaded
        try:
            answer = line.ask(kind, headers, body, compared=compared)
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            loop = asyncio.get_running_loop()
            loop.call_later(max(seconds, _SILENT), self._kill_if_silent, loop.time())
            raise TimedOut from None
        except ConnectionError:
            raise Died from None

    async def close(self, *, drain: float = 0.0) -> None:
        """End the child, after what it is working at has been answered; `drain` is how many seconds that may take."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await self._line.quiet()
        self._line.close()
        await self._over.wait()
        await asyncio.get_running_loop().run_in_executor(self._threads, self._stack.close)

    async def gone(self) -> None:
        """Return when the child has ended, whyever."""
        await self._over.wait()

    def _open(self, zygote: Zygote, load: Load, scratch: Path) -> Any:
        folder = Path(tempfile.mkdtemp(prefix="runtime-", dir=scratch))
        folder.chmod(PASSABLE)
        (folder / "scratch").mkdir()
        self._stack.callback(discard, folder)
        limits = Limits(wall=120.0, cpu=_FOR_EVER, memory=load.memory, file_size=1 << 20, gpu=load.gpu)
        session = zygote.open(read=[load.path], scratch=folder / "scratch", limits=limits)
        child = self._child = self._stack.enter_context(session)
        self._baseline = child.memory
        self.facts = child.call(
            "serving.executor:load",
            model=str(load.path),
            way=dict(load.way),
            inputs=list(load.inputs),
            signature=load.signature,
            name=load.name,
            version=load.version,
            threads=load.threads,
            largest=load.largest,
            device=load.device,
        )
        return child.hand_over("serving.executor:serve")

    def _kill_if_silent(self, asked: float) -> None:
        if self._line.heard <= asked and self._line.waiting and self._child is not None and self.alive:
            log.warning("runtime.hung", waiting=self._line.waiting)
            self._child.kill()

    def _lost(self, flaw: str | None) -> None:
        if self._closing:
            self._over.set()
            return
        self._dying = True
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._threads, self._bury, loop, flaw)

    def _bury(self, loop: asyncio.AbstractEventLoop, flaw: str | None) -> None:
        """Say why the child is gone, and clean up after it."""
        child = self._child
        assert child is not None  # noqa: S101 - it was asked something
        try:
            why: Exception = Rejected("answer_invalid", flaw) if flaw else child.cause()
            code = why.code if isinstance(why, SlipwayError) else "unknown"
            log.error("runtime.died", code=code, why=str(why), output=child.output[-2000:])
        finally:
            loop.call_soon_threadsafe(self._over.set)
            self._stack.close()
