"""What came of the requests: counted in memory, written down every second in one transaction, and by statistics of this process.

A process that is killed loses the last second's counts; no request waits for the database.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from registry import rollouts, usage, verdicts
from serving.traffic import Arm
from shared.db import Begin

_ROWS = 1 << 24


@dataclass(kw_only=True)
class _Sum:
    """Of one thing that is timed: how often, and nanoseconds in all, as the statistics extension has it."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(kw_only=True)
class Statistics:
    """Of one version in this process since it began (Triton's statistics extension). Times in nanoseconds."""

    rows: int = 0
    executions: float = 0.0
    last: int = 0
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    decoding: _Sum = field(default_factory=_Sum)
    computing: _Sum = field(default_factory=_Sum)
    encoding: _Sum = field(default_factory=_Sum)

    def facts(self, name: str, version: str) -> dict[str, Any]:
        parts = {
            "success": self.success,
            "fail": self.fail,
            "queue": self.queue,
            "compute_input": self.decoding,
            "compute_infer": self.computing,
            "compute_output": self.encoding,
            "cache_hit": _Sum(),
            "cache_miss": _Sum(),
        }
        return {
            "name": name,
            "version": version,
            "last_inference": self.last,
            "inference_count": self.rows,
            "execution_count": round(self.executions),
            "inference_stats": {key: {"count": one.count, "ns": one.ns} for key, one in parts.items()},
            "batch_stats": [],
        }


class Counting:
    """All methods belong to one event loop."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._predictions: Counter[UUID] = Counter()
        self._tallies: dict[tuple[UUID, Arm], dict[str, Any]] = defaultdict(_empty)
        self.statistics: dict[tuple[UUID, str], Statistics] = defaultdict(Statistics)
        """By model and version."""

    def answered(self, model: UUID, version_id: UUID, version: str, meta: Mapping[str, Any], seconds: float) -> None:
        """A prediction was made. `meta` is the child's account of it, `seconds` all that it took here."""
        self._predictions[version_id] += 1
        one = self.statistics[model, version]
        ns = int(1e9 * seconds)
        decoding, computing, encoding = _numbers(meta.get("ns"), 3, most=ns) or (0, ns, 0)
        rows, together = _numbers([meta.get("rows"), meta.get("batch")], 2, most=_ROWS) or (1, 1)
        one.rows += max(1, rows)
        one.executions += 1 / max(1, together)
        one.last = time.time_ns() // 1_000_000
        one.success.add(ns)
        one.decoding.add(decoding)
        one.computing.add(computing)
        one.encoding.add(encoding)
        one.queue.add(max(0, ns - decoding - computing - encoding))

    def failed(self, model: UUID, version: str, seconds: float) -> None:
        self.statistics[model, version].fail.add(int(1e9 * seconds))

    def tried(self, rollout: UUID, arm: Arm, *, seconds: float, error: bool, slow: bool) -> None:
        """What came of a request that an arm of a rollout was given."""
        tally = self._tallies[rollout, arm]
        tally["requests"] += 1
        tally["errors"] += error
        tally["slow"] += slow
        tally["seconds"] += seconds
        tally["latencies"][verdicts.bucket(seconds)] += 1

    def compared(self, rollout: UUID, *, agreed: bool) -> None:
        """A shadow copy and what was answered."""
        tally = self._tallies[rollout, "candidate"]
        tally["compared"] += 1
        tally["disagreed"] += not agreed

    async def write_down(self) -> None:
        """What is new since the last time. Nothing is lost where the database is away: it is tried again with the next."""
        predictions, self._predictions = self._predictions, Counter()
        tallies, self._tallies = self._tallies, defaultdict(_empty)
        if not predictions and not tallies:
            return
        try:
            await asyncio.to_thread(self._write, predictions, tallies)
        except BaseException:
            self._predictions.update(predictions)
            for key, tally in tallies.items():
                mine = self._tallies[key]
                for name, value in tally.items():
                    mine[name] = (
                        [a + b for a, b in zip(mine[name], value, strict=True)]
                        if name == "latencies"
                        else mine[name] + value
                    )
            raise

    def _write(self, predictions: Mapping[UUID, int], tallies: Mapping[tuple[UUID, Arm], dict[str, Any]]) -> None:
        with self._begin() as session:
            if predictions:
                usage.count_many(session, predictions, "prediction")
            for (rollout, arm), tally in sorted(tallies.items()):
                rollouts.add(session, rollout, arm, verdicts.Tally(**tally))


def _empty() -> dict[str, Any]:
    counts = dict.fromkeys(("requests", "errors", "slow", "compared", "disagreed"), 0)
    return {**counts, "seconds": 0.0, "latencies": [0] * (len(verdicts.LATENCY_BUCKETS) + 1)}


def _numbers(found: Any, count: int, *, most: int) -> list[int] | None:
    """So many whole numbers up to `most`, or None for anything else: the child is not believed."""
    good = isinstance(found, list) and len(found) == count
    return found if good and all(isinstance(one, int) and 0 <= one <= most for one in found) else None
