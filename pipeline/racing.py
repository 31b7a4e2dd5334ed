"""A quick race between ways to run one model on this machine: which setting of a runtime is the faster one here.

Not the benchmark: it decides how a variant is to be run, and the benchmark then measures the variant. All ways stay open
in one sandbox child, on one thread, and take turns in random order. By wall time, busy neighbours would choose.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from pipeline import benchmarking
from pipeline.benchmarking import Turn, computes, iterations
from pipeline.errors import Rejected
from pipeline.formats.onnx import load
from pipeline.signature import Answer, Tensor
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor, draw

GAIN = 1.03
"""How many times as fast a way must be to be preferred to the one before it."""

ROUNDS = 9
_SAMPLES, _TURN = 12, 0.03
"""Most samples in a turn, and the seconds that a turn may take: slow ways have fewer, two at least."""

_SECONDS = 60.0
_SEED = 11


class Times(Answer):
    """Seconds of a run by way and round, the fastest sample's; None for a way that does not work."""

    times: list[Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None]

    @classmethod
    def by(cls, answer: Json, ways: int) -> Sequence[Sequence[float] | None]:
        """The times of an answer about so many ways, of which the first works, over the same rounds."""
        times = cls.of(answer).times
        if len(times) != ways or times[0] is None or any(one and len(one) != len(times[0]) for one in times):
            raise Rejected("answer_invalid", "The sandbox gave an answer out of form: not one time per way and round.")
        return times


def race(ways: Json, inputs: Json) -> Json:
    """In the child: open every way (`model`, `declared`) and measure them at batch 1, in turns."""
    tensors = [Tensor.of(one) for one in inputs]
    free = any(one.batched for one in tensors)
    arrays = draw(
        tensors, batch=1 if free else next((one.example[0] for one in tensors if one.example), 1), kind="normal"
    )
    opened, pace = {}, {}
    for number, way in enumerate(ways):
        try:
            predict = load(way["model"], inputs, way["declared"])
            predict(arrays)
            pace[number] = min(_timed(predict, arrays) for _ in range(2))
        except Rejected:
            continue
        opened[number] = predict
    turns: dict[int, list[Turn]] = {number: [] for number in opened}
    rng, started = random.Random(_SEED), time.perf_counter()  # noqa: S311 - an order, not a secret
    for done in range(ROUNDS):
        if done and time.perf_counter() - started > _SECONDS:
            break
        for number in rng.sample(list(opened), len(opened)):
            turns[number].append(_turn(opened[number], arrays, pace[number]))
    times = seconds(turns)
    return {"times": [times.get(number) for number in range(len(ways))]}


def seconds(turns: Mapping[int, Sequence[Turn]]) -> dict[int, list[float]]:
    """Seconds of a run by way and round: CPU time where all ways only compute, else wall time for all."""
    alone = all(computes(list(one)) for one in turns.values())
    return {number: [turn.cpu_seconds if alone else turn.wall_seconds for turn in one] for number, one in turns.items()}


def winner(times: Sequence[Sequence[float] | None]) -> tuple[int, list[float | None]]:
    """The place of the way to prefer, and how many times as fast as the first each is.

    A later way wins over an earlier one only by `GAIN` and in three rounds of four: noise must not choose.
    """
    first = held = times[0] or ()
    best, speeds = 0, [None if one is None else _ratio(first, one) for one in times]
    for number, one in enumerate(times):
        if one is None or number == 0:
            continue
        wins = sum(mine < theirs for mine, theirs in zip(one, held, strict=True))
        if _ratio(held, one) >= GAIN and wins * 4 >= 3 * len(one):
            best, held = number, one
    return best, speeds


def _ratio(held: Sequence[float], other: Sequence[float]) -> float:
    return round(statistics.median(one / two for one, two in zip(held, other, strict=True)), 3)


def _timed(predict: Predictor, arrays: Arrays) -> float:
    started = time.perf_counter()
    predict(arrays)
    return time.perf_counter() - started


def _turn(predict: Predictor, arrays: Arrays, pace: float) -> Turn:
    samples = max(2, min(_SAMPLES, int(_TURN / max(pace, 1e-9))))
    return Turn.of(
        benchmarking.turn(predict, arrays, repeat=iterations(pace), samples=samples, discarded=max(1, samples // 3))
    )
