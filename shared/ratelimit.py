"""How often somebody may do something within a moving hour, counted in Redis. Knows keys and numbers, no user.

Redis may be away: then nothing is known, and what is not known is allowed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import redis

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
    """Counts on a Redis client that somebody else owns."""

    def __init__(self, client: redis.Redis) -> None:
        from limits.storage import RedisStorage
        from limits.strategies import MovingWindowRateLimiter

        storage = RedisStorage("redis://", connection_pool=client.connection_pool, key_prefix="slipway-limit")
        self._window = MovingWindowRateLimiter(storage)

    def allow(self, key: str, per_hour: int) -> Decision:
        """Count one use of `key` unless that would exceed `per_hour`. A refused use does not count."""
        import redis
        from limits import RateLimitItemPerHour

        item = RateLimitItemPerHour(per_hour)
        try:
            allowed = self._window.hit(item, key)
            stats = self._window.get_window_stats(item, key)
        except redis.RedisError as error:
            log.warning("ratelimit.unknown", key=key, error=str(error))
            return Decision(allowed=True, limit=per_hour, remaining=per_hour, reset_seconds=0, known=False)
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Decision(allowed=allowed, limit=per_hour, remaining=stats.remaining, reset_seconds=reset)
