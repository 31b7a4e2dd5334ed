"""Counting what somebody does within an hour, in a Redis that may be away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from pydantic import SecretStr

from api.app import assemble
from shared.ratelimit import HOUR, RateLimiter
from shared.settings import Settings


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        yield client


def test_the_limit_holds_and_tells_what_is_left(client: redis.Redis) -> None:
    limiter, key = RateLimiter(client), f"upload:{uuid4()}"
    decisions = [limiter.allow(key, 3) for _ in range(4)]
    assert [(each.allowed, each.remaining) for each in decisions] == [(True, 2), (True, 1), (True, 0), (False, 0)]
    assert all(each.known and 0 < each.reset_seconds <= HOUR for each in decisions)
    assert "Retry-After" not in decisions[0].headers
    refused = decisions[3].headers
    assert refused["RateLimit-Policy"] == '"hour";q=3;w=3600'
    assert refused["RateLimit"].startswith('"hour";r=0;t=')
    assert int(refused["Retry-After"]) == decisions[3].reset_seconds


def test_everybody_has_their_own_count(client: redis.Redis) -> None:
    limiter = RateLimiter(client)
    assert [limiter.allow(f"upload:{uuid4()}", 1).allowed for _ in range(3)] == [True] * 3


def test_the_count_is_shared_by_every_process(client: redis.Redis) -> None:
    key = f"upload:{uuid4()}"
    assert [RateLimiter(client).allow(key, 2).allowed for _ in range(3)] == [True, True, False]


def test_a_redis_that_is_away_refuses_nobody_claims_nothing_and_costs_no_time(settings: Settings) -> None:
    parts = assemble(settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    began = time.monotonic()
    decision = parts.limiter.allow("upload:x", 1)
    assert time.monotonic() - began < 0.5
    assert (decision.allowed, decision.known, decision.headers) == (True, False, {})
    parts.close()


def test_a_redis_that_has_forgotten_everything_counts_anew(client: redis.Redis) -> None:
    limiter, key = RateLimiter(client), f"upload:{uuid4()}"
    assert not [limiter.allow(key, 1) for _ in range(2)][1].allowed
    client.flushdb()
    client.script_flush()
    assert limiter.allow(key, 1).allowed
