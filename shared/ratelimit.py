"""How often somebody may do something within a moving hour, counted in Redis. Knows keys and numbers, no user.

Redis may be away: then nothing is known, and what is not known is allowed, or counted by this process alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import redis
    from limits import RateLimitItemPerHour
    from limits.strategies import MovingWindowRateLimiter

log = structlog.get_logger()

HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`reset_seconds` is when the oldest use leaves the window. Not `known`: the counter could not be asked."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int
    known: bool = True

    @property
    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` (IETF draft-ietf-httpapi-ratelimit-headers), `Retry-After` when refused."""
        if not self.known:
            return {}
        said = {
            "RateLimit-Policy": f'"hour";q={self.limit};w={HOUR}',
            "RateLimit": f'"hour";r={self.remaining};t={self.reset_seconds}',
        }
        return said if self.allowed else said | {"Retry-After": str(self.reset_seconds)}


class RateLimiter:
    """Counts on a Redis client that somebody else owns.

    With `alone`, a process whose Redis is away counts by itself: each process allows as much as all of them should,
    which is what guards passwords then.
    """

    def __init__(self, client: redis.Redis) -> None:
        from limits.storage import RedisStorage
        from limits.strategies import MovingWindowRateLimiter

        storage = RedisStorage("redis://", connection_pool=client.connection_pool, key_prefix="slipway-limit")
        self._window = MovingWindowRateLimiter(storage)

    def allow(self, key: str, per_hour: int, *, alone: bool = False) -> Decision:
        """Count one use of `key` unless that would exceed `per_hour`. A refused use does not count."""
        return self._decide(key, per_hour, lambda window, item: window.hit(item, key), alone=alone)

    def look(self, key: str, per_hour: int, *, alone: bool = False) -> Decision:
        """Whether one use more of `key` would be allowed. Counts nothing."""
        return self._decide(key, per_hour, lambda window, item: window.test(item, key), alone=alone)

    def forget(self, key: str, per_hour: int) -> None:
        """Let `key` begin anew."""
        import redis
        from limits import RateLimitItemPerHour

        item = RateLimitItemPerHour(per_hour)
        if "_own" in vars(self):
            self._own.clear(item, key)
        try:
            self._window.clear(item, key)
        except redis.RedisError as error:
            log.warning("ratelimit.unknown", key=key, error=str(error))

    @cached_property
    def _own(self) -> MovingWindowRateLimiter:
        """Made when first needed: it has a thread that forgets what is over."""
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())

    def _decide(
        self,
        key: str,
        per_hour: int,
        ask: Callable[[MovingWindowRateLimiter, RateLimitItemPerHour], bool],
        *,
        alone: bool,
    ) -> Decision:
        import redis
        from limits import RateLimitItemPerHour

        item = RateLimitItemPerHour(per_hour)
        try:
            return _decision(self._window, item, key, allowed=ask(self._window, item))
        except redis.RedisError as error:
            log.warning("ratelimit.unknown", key=key, error=str(error))
        if alone:
            return _decision(self._own, item, key, allowed=ask(self._own, item))
        return Decision(allowed=True, limit=per_hour, remaining=per_hour, reset_seconds=0, known=False)


def _decision(window: MovingWindowRateLimiter, item: RateLimitItemPerHour, key: str, *, allowed: bool) -> Decision:
    stats = window.get_window_stats(item, key)
    reset = max(1, math.ceil(stats.reset_time - time.time()))
    return Decision(allowed=allowed, limit=item.amount, remaining=stats.remaining, reset_seconds=reset)
