"""What it costs that we encrypt objects ourselves: the same bytes written and read with `envelope` and with `none`, in turns.

Against the S3 server that the environment names, in buckets of the benchmark's own; `python -m stack run` gives it one.
"""

from __future__ import annotations

import base64
import os
import statistics
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from shared.envelope import DataKey
from shared.settings import Settings
from shared.storage import PART_SIZE, Bucket, Storage

MIB = 1 << 20
SIZE = 64 * MIB
RANGE = 64 << 10
ROUNDS = 7
SMALL = 20

Times = dict[tuple[str, str], list[tuple[float, float]]]
"""Of each work in each way: seconds of wall time and of this process's CPU."""


def main() -> dict[str, Any]:
    key = base64.b64encode(os.urandom(32)).decode()
    settings = Settings(s3_bucket_prefix=f"bench-{uuid4().hex[:8]}", storage_key=key)
    ways = {
        way: Storage(**settings.storage | {"encryption": way}).bucket(f"{settings.bucket('staging')}-{way}")
        for way in ("none", "envelope")
    }
    content = os.urandom(SIZE)
    times: Times = {}
    for bucket in ways.values():
        bucket.ensure()
    for turn in range(ROUNDS + 1):
        for way, bucket in ways.items():
            for what, work in _works(bucket, content):
                took = _timed(work)
                if turn:  # the first warms up
                    times.setdefault((what, way), []).append(took)
            bucket.delete([stored.key for stored in bucket.list()])
    seal, unseal = _alone(content)
    return _figures(times) | {"sealing alone, MB a second of CPU": seal, "opening alone, MB a second of CPU": unseal}


def _works(bucket: Bucket, content: bytes) -> list[tuple[str, Callable[[], object]]]:
    def small() -> None:
        for number in range(SMALL):
            bucket.put(f"small/{number}", content[:1000])

    def ranges() -> None:
        for number in range(SMALL):
            bucket.read("large", number * 3 * MIB + 12345, RANGE)

    return [
        ("write", lambda: _write(bucket, content)),
        ("read", lambda: sum(len(piece) for piece in bucket.stream("large"))),
        ("small", small),
        ("range", ranges),
    ]


def _write(bucket: Bucket, content: bytes) -> None:
    parts = bucket.begin("large")
    for at in range(0, SIZE, PART_SIZE):
        parts.part(at // PART_SIZE + 1, content[at : at + PART_SIZE], last=at + PART_SIZE == SIZE)
    parts.complete()


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def _alone(content: bytes) -> tuple[int, int]:
    """MB a second of CPU, of sealing and of opening what is in memory."""
    key = DataKey()
    sealed = key.seal(0, content, last=True)

    class Body:
        at = 0

        def read(self, amount: int) -> bytes:
            self.at += amount
            return bytes(sealed[self.at - amount : self.at])

    def rate(work: Callable[[], object]) -> int:
        return round(SIZE / 1e6 / statistics.median(_timed(work)[1] for _ in range(ROUNDS)))

    seal = rate(lambda: DataKey().seal(0, content, last=True))
    return seal, rate(lambda: sum(len(piece) for piece in key.read(Body(), total=len(sealed))))


def _figures(times: Times) -> dict[str, Any]:
    def middle(what: str, way: str, which: int = 0) -> float:
        return statistics.median(each[which] for each in times[what, way])

    figures: dict[str, Any] = {}
    for what in ("write", "read"):
        pairs = zip(times[what, "envelope"], times[what, "none"], strict=True)
        for way in ("none", "envelope"):
            figures[f"{what}, {way}, median MB/s"] = round(SIZE / 1e6 / middle(what, way))
            figures[f"{what}, {way}, median CPU s/GiB"] = round(middle(what, way, 1) * (1 << 30) / SIZE, 1)
        figures[f"{what}, ratio of times, median of pairs"] = round(statistics.median(a[0] / b[0] for a, b in pairs), 2)
    for what, name in (("small", "write 1 kB"), ("range", "read 64 KiB of it")):
        for way in ("none", "envelope"):
            figures[f"{name}, {way}, median ms"] = round(middle(what, way) * 1000 / SMALL, 1)
    return figures


if __name__ == "__main__":
    print(main())
