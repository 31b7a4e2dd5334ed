"""How the requests of this process went: counts, and times as a histogram. Memory is bounded, and nothing outlives the process."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

RATIO = 1.1
"""Between neighbouring bounds: a percentile is right to 10 %."""
_FIRST = 1e-4
_BUCKETS = 160
"""From a tenth of a millisecond to seven minutes."""

OTHER = "(other)"
"""Addresses that are none of the API's own: files of its pages, and what does not exist."""


@dataclass
class Tally:
    """Requests of one endpoint, or of all. `timed` of them lasted `seconds` together; event streams are not timed."""

    requests: int = 0
    failed: int = 0
    timed: int = 0
    seconds: float = 0.0

    @property
    def average(self) -> float:
        """Seconds a request."""
        return self.seconds / self.timed if self.timed else 0.0

    def add(self, *, failed: bool, seconds: float | None) -> None:
        self.requests += 1
        self.failed += failed
        if seconds is not None:
            self.timed += 1
            self.seconds += seconds


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was seen until now. Times in seconds; `top` are the endpoints with the most requests."""

    uptime: float
    total: Tally
    p95: float
    p99: float
    top: Sequence[tuple[str, Tally]]


@dataclass
class Traffic:
    """Takes a note of each request. From any thread."""

    _began: float = field(default_factory=time.monotonic)
    _total: Tally = field(default_factory=Tally)
    _endpoints: dict[str, Tally] = field(default_factory=dict)
    _histogram: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    _lock: Lock = field(default_factory=Lock)

    def saw(self, endpoint: str, *, failed: bool, seconds: float | None) -> None:
        """Note a request. `endpoint` is one of the app's own addresses with its method, so there are as many as routes."""
        with self._lock:
            self._total.add(failed=failed, seconds=seconds)
            self._endpoints.setdefault(endpoint, Tally()).add(failed=failed, seconds=seconds)
            if seconds is not None:
                self._histogram[bucket(seconds)] += 1

    def figures(self, top: int = 5) -> Figures:
        with self._lock:
            most = sorted(self._endpoints.items(), key=lambda each: (-each[1].requests, each[0]))[:top]
            return Figures(
                uptime=time.monotonic() - self._began,
                total=Tally(**vars(self._total)),
                p95=percentile(self._histogram, 0.95),
                p99=percentile(self._histogram, 0.99),
                top=[(endpoint, Tally(**vars(tally))) for endpoint, tally in most],
            )


def bucket(seconds: float) -> int:
    """Where in the histogram a time belongs: bucket n ends at `_FIRST` × `RATIO` ** n."""
    if seconds <= _FIRST:
        return 0
    return min(_BUCKETS - 1, math.ceil(math.log(seconds / _FIRST, RATIO)))


def percentile(histogram: Sequence[int], share: float) -> float:
    """The upper bound, in seconds, of the bucket in which that share of all times is reached; 0 where there are none."""
    wanted, seen = share * sum(histogram), 0
    for index, times in enumerate(histogram):
        seen += times
        if times and seen >= wanted:
            return _FIRST * RATIO**index
    return 0.0
