"""Requests a minute, counted by several processes on a real Valkey that few of them have to ask."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from uuid import uuid4

import redis.asyncio

from shared.allowance import MINUTE, Allowance, Decision
from shared.settings import Settings


def within_one_minute(seconds: float) -> None:
    """The window is the clock's: begin where so many seconds of it are left."""
    if (left := MINUTE - time.time() % MINUTE) < seconds:
        time.sleep(left)


def test_processes_together_allow_what_one_may_and_ask_for_blocks(settings: Settings) -> None:
    within_one_minute(5)

    async def story() -> tuple[list[list[Decision]], int]:
        clients = [redis.asyncio.Redis.from_url(settings.redis_url.get_secret_value()) for _ in range(3)]
        key, before = uuid4().hex, (await clients[0].info("commandstats")).get("cmdstat_incrby", {}).get("calls", 0)
        each = [Allowance(client) for client in clients]
        answers = await asyncio.gather(*(_many(one, key) for one in each))
        after = (await clients[0].info("commandstats"))["cmdstat_incrby"]["calls"]
        for client in clients:
            await client.aclose()
        return answers, after - before

    async def _many(one: Allowance, key: str) -> list[Decision]:
        return [await one.take(key, 300) for _ in range(200)]

    answers, asked = asyncio.run(story())
    decisions = [each for several in answers for each in several]
    assert Counter(each.allowed for each in decisions) == {True: 300, False: 300}
    assert asked <= 60
    refused = next(each for each in decisions if not each.allowed)
    assert 1 <= int(refused.headers["Retry-After"]) <= MINUTE


def test_without_redis_each_process_counts_alone() -> None:
    within_one_minute(5)

    async def story() -> list[bool]:
        client = redis.asyncio.Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
        one = Allowance(client)
        decisions = await asyncio.gather(*(one.take("somebody", 5) for _ in range(8)))
        decisions += [await one.take("somebody", 5) for _ in range(2)]
        await client.aclose()
        return [each.allowed for each in decisions]

    assert asyncio.run(story()) == [True] * 5 + [False] * 5
