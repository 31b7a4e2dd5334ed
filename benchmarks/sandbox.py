"""What a step pays for its locked-down child: the zygote's start, then opening, one call and closing, many times."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.errors import Unavailable
from pipeline.sandbox import Zygote, discard, supported
from pipeline.sandbox.host import PRELOAD

ROUNDS = 200
CALL = "benchmarks.sandbox:nothing"


def nothing() -> None:
    """What the child is asked to do."""


def main() -> dict[str, str | int]:
    support = supported()
    figures: dict[str, str | int] = {
        "rounds": ROUNDS,
        "processors, load before": f"{os.cpu_count()}, {os.getloadavg()[0]:.1f}",
        "uid": os.geteuid(),
        "Landlock ABI": support.landlock,
        "namespaces": support.namespaces_missing or "yes",
    }
    for title, preload, without in (
        ("bare", (), ()),
        ("preloaded", PRELOAD, ()),
        ("preloaded, no namespaces", PRELOAD, ("namespaces",)),
    ):
        try:
            measured = _measure(preload, without)
        except Unavailable as refusal:
            measured = {"not possible here": refusal.message}
        figures |= {f"{title}: {name}": value for name, value in measured.items()}
    return figures


def _measure(preload: tuple[str, ...], without: tuple[str, ...]) -> dict[str, str]:
    zygote = Zygote(preload=preload, prefixes=("pipeline.", "benchmarks."), without=without)
    with closing(zygote), _place() as scratch:
        began = time.perf_counter()
        with zygote.open(read=[], scratch=scratch) as child:
            child.call(CALL)
            layers = ", ".join(child.layers)
        first = time.perf_counter() - began
        sessions, calls = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            with zygote.open(read=[], scratch=scratch) as child:
                child.call(CALL)
                opened = time.perf_counter()
                child.call(CALL)
                calls.append(time.perf_counter() - opened)
            sessions.append(time.perf_counter() - began - calls[-1])
    return {
        "layers": layers,
        "first session, with the zygote's start": f"{first:.2f} s",
        "open, no-op call, close": _spread(sessions),
        "each further call": _spread(calls),
    }


@contextmanager
def _place() -> Iterator[Path]:
    """A scratch folder that nobody can reach, on the way to nobody."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    folder.chmod(0o711)
    (folder / "scratch").mkdir()
    try:
        yield folder / "scratch"
    finally:
        discard(folder / "scratch")
        folder.rmdir()


def _spread(seconds: list[float]) -> str:
    median, p90 = statistics.median(seconds), statistics.quantiles(seconds, n=10)[-1]
    return f"median {median * 1000:.2f} ms, p90 {p90 * 1000:.2f} ms, fastest {min(seconds) * 1000:.2f} ms"
