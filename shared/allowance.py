"""How many requests somebody may still make within the running minute, counted in Redis in blocks, so that few of them ask it.

Each process takes a block of what is left and hands it out by itself: together they never allow more than the limit, and
one that is hardly asked may hold back a block that another would need. Redis may be away: then each process counts alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger()

MINUTE = 60
_BLOCKS = 50
"""Into how many blocks a minute's allowance is cut."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`reset_seconds` is when the minute is over."""

    allowed: bool
    limit: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """`RateLimit-Policy` (IETF draft-ietf-httpapi-ratelimit-headers), and `Retry-After` where it was refused."""
        said = {"RateLimit-Policy": f'"minute";q={self.limit};w={MINUTE}'}
        if not self.allowed:
            said |= {"RateLimit": f'"minute";r=0;t={self.reset_seconds}', "Retry-After": str(self.reset_seconds)}
        return said


@dataclass(kw_only=True)
class _Block:
    window: int
    left: int
    empty: bool = False
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Allowance:
    """On a Redis client that somebody else owns. All methods belong to one event loop."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._blocks: dict[str, _Block] = {}
        self._window = 0

    async def take(self, key: str, per_minute: int) -> Decision:
        """Count one use of `key` within this minute (by the clock) unless that would exceed `per_minute`."""
        now = time.time()
        window = int(now // MINUTE)
        reset = max(1, math.ceil((window + 1) * MINUTE - now))
        block = self._blocks.get(key)
        if block is None or block.window != window:
            self._forget(window)
            block = self._blocks[key] = _Block(window=window, left=0)
        if block.left == 0 and not block.empty:
            async with block.drawing:  # one for all that wait; who comes after finds what it brought
                if block.left == 0 and not block.empty:
                    block.left, block.empty = await self._draw(f"slipway-allowance:{key}:{window}", per_minute)
        allowed = block.left > 0
        block.left -= allowed
        return Decision(allowed=allowed, limit=per_minute, reset_seconds=reset)

    async def _draw(self, key: str, limit: int) -> tuple[int, bool]:
        """The next block's size, and whether there will be no other in this minute."""
        import redis

        wanted = max(1, limit // _BLOCKS)
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.incrby(key, wanted)
                pipe.expire(key, 2 * MINUTE)
                taken, _ = await pipe.execute()
        except redis.RedisError as error:
            log.warning("allowance.alone", error=str(error))
            return limit, True
        return max(0, min(wanted, limit - (int(taken) - wanted))), int(taken) >= limit

    def _forget(self, window: int) -> None:
        """Drop the blocks of earlier minutes, once in a minute."""
        if window != self._window:
            self._window = window
            self._blocks = {key: block for key, block in self._blocks.items() if block.window == window}
