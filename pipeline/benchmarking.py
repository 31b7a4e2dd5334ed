"""How fast forms of a model are beside each other, and how sure that is. The protocol, its statistics and its timer.

All forms stay open, each in a process of its own with one thread, and take turns in random order, because two runs one
after the other on a shared machine differ by far more than two models do. The statistics are plain Python: the worker
computes them. `open_model`, `calibrate` and `sample` run in the sandbox children.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from pipeline.signature import Answer, Tensor
from pipeline.stage import Json
from pipeline.trial import draw
from pipeline.verification import load

SAMPLES = 3
"""Timed samples of a form per round, after one that is thrown away; the fastest stands for the round."""

SHORTEST_SAMPLE = 0.002
"""Seconds: a sample repeats the model until it lasts this long, so that the clock and the scheduler weigh little."""

MOST_ITERATIONS = 2_000
MARGIN = 0.05
"""Speeds within this of each other are called the same."""

WILD = 0.15
"""If the source differs from itself by more than this, nothing can be called the same."""

_RESAMPLES = 2_000
_CONFIDENCE = 0.95
_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast as the source, with a 95 % confidence interval."""

    value: float
    low: float
    high: float

    def facts(self) -> Json:
        return {"value": round(self.value, 4), "ci": [round(self.low, 4), round(self.high, 4)]}


class Sample(Answer):
    """Nanoseconds of each iteration of each kept sample."""

    samples: Annotated[list[Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]], Field(min_length=1)]

    @property
    def fastest(self) -> float:
        """Seconds per iteration of the fastest sample."""
        return min(sum(one) / len(one) for one in self.samples) / 1e9


def paired_ratio(reference: Sequence[float], other: Sequence[float], *, seed: int = _SEED) -> Ratio:
    """The median over rounds of reference time by other time, with a bootstrap interval over the rounds."""
    ratios = [one / two for one, two in zip(reference, other, strict=True)]
    rng = random.Random(seed)  # noqa: S311 - resampling, not secrets
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    tail = (1 - _CONFIDENCE) / 2
    return Ratio(
        value=statistics.median(ratios),
        low=medians[int(tail * _RESAMPLES)],
        high=medians[int((1 - tail) * _RESAMPLES) - 1],
    )


def verdict(ratio: Ratio, control: Ratio) -> str:
    """`faster` or `slower` where the whole interval says so, by more than the source differs from itself.

    `same` where the whole interval lies within that, unless the machine was too restless to tell; else `inconclusive`.
    """
    noise = max(abs(control.value - 1), (control.high - control.low) / 2)
    margin = max(MARGIN, noise)
    if ratio.low > 1 + margin:
        return "faster"
    if ratio.high < 1 / (1 + margin):
        return "slower"
    if noise <= WILD and ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        return "same"
    return "inconclusive"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted `values` lie, interpolated."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def iterations(seconds: float) -> int:
    """How often to repeat what takes `seconds` to make one sample."""
    return max(1, min(MOST_ITERATIONS, round(SHORTEST_SAMPLE / max(seconds, 1e-9))))


def rounds_that_fit(wanted: int, least: int, seconds_per_round: float, seconds: float) -> int:
    """How many rounds to run: as many as wanted, or as fit; 0 where not even the least number fits."""
    fitting = int(seconds / max(seconds_per_round, 1e-9))
    return min(wanted, fitting) if fitting >= least else 0


def interleave(forms: Mapping[str, Callable[[], Sample]], rounds: int, *, seed: int = _SEED) -> dict[str, list[Sample]]:
    """Let the forms take turns, in a new random order each round."""
    rng = random.Random(seed)  # noqa: S311 - an order, not a secret
    found: dict[str, list[Sample]] = {name: [] for name in forms}
    for _ in range(rounds):
        order = list(forms)
        rng.shuffle(order)
        for name in order:
            found[name].append(forms[name]())
    return found


_opened: dict[str, Any] = {}
"""What a child holds between calls: `predict`, the inputs' description, and the arrays drawn for each batch size."""


def open_model(form: str, model: str, inputs: Json, declared: Json) -> Json:
    """In the child: load a model, answer with the seconds it took and those of the first run."""
    started = time.perf_counter()
    predict = load(form, model, inputs, declared)
    loaded = time.perf_counter()
    _opened.update(predict=predict, inputs=[Tensor.of(one) for one in inputs], arrays={})
    predict(_arrays(1))
    return {"load": loaded - started, "first": time.perf_counter() - loaded}


def calibrate(batch: int) -> Json:
    """In the child: warm up at a batch size until the time of a run has settled; answer with its seconds."""
    predict, arrays = _opened["predict"], _arrays(batch)
    best, waited, started = float("inf"), 0, time.perf_counter()
    while waited < 3 and time.perf_counter() - started < 1:
        begun = time.perf_counter()
        predict(arrays)
        taken = time.perf_counter() - begun
        waited = waited + 1 if taken > 0.95 * best else 0
        best = min(best, taken)
    return {"seconds": best}


def sample(batch: int, repeat: int, samples: int) -> Json:
    """In the child: one sample to throw away and `samples` to keep, each of `repeat` timed iterations."""
    predict, arrays, clock = _opened["predict"], _arrays(batch), time.perf_counter_ns
    kept: list[list[int]] = []
    for _ in range(samples + 1):
        taken = []
        for _ in range(repeat):
            begun = clock()
            predict(arrays)
            taken.append(max(1, clock() - begun))
        kept.append(taken)
    return {"samples": kept[1:]}


def _arrays(batch: int) -> Any:
    drawn: dict[int, Any] = _opened["arrays"]
    if batch not in drawn:
        drawn[batch] = draw(_opened["inputs"], batch=batch, kind="normal")
    return drawn[batch]
