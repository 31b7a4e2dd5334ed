"""What a sandbox child does to be measured: opens a form of a model, warms up, takes samples. And the form of its answers."""

from __future__ import annotations

import resource
import time
from typing import Annotated, Any

from pydantic import Field

from pipeline.signature import Answer, Tensor
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor, draw, read
from pipeline.verification import load

SHORTEST_SAMPLE = 0.00025
"""Seconds: a sample repeats the model until it lasts this long, so that the clock weighs little; and no longer, for the
shorter a sample the likelier it is that nobody interrupts it."""

MOST_ITERATIONS = 100
_SETTLED_AFTER = 3
_WARM_WITHIN = 1.0
_WAITS = 0.1
"""Of all iterations, those that may wait for something before CPU time no longer stands for the time that they take."""


class Opened(Answer):
    """Seconds of loading and of the first run; whether the user's own samples are what it runs on."""

    load: Annotated[float, Field(ge=0)]
    first: Annotated[float, Field(ge=0)]
    sampled: bool


class Warm(Answer):
    """Seconds of a run that has settled."""

    seconds: Annotated[float, Field(gt=0)]


Times = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=MOST_ITERATIONS)]


class Turn(Answer):
    """What one form did in one round: kept samples, each the nanoseconds of its iterations.

    `cpu` is the CPU time of each sample in nanoseconds, by the clock of the thread that took it: the one of the whole
    process was found to stand still for milliseconds. `waits` is how often in all a thread of the process gave the
    processor away of itself, rather than have it taken.
    """

    samples: Annotated[list[Times], Field(min_length=1)]
    cpu: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    waits: Annotated[int, Field(ge=0)]

    @property
    def wall_seconds(self) -> float:
        """Seconds per iteration of the fastest sample."""
        return min(sum(one) / len(one) for one in self.samples) / 1e9

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds per iteration of the sample that took the fewest."""
        return min(cpu / len(one) for cpu, one in zip(self.cpu, self.samples, strict=True)) / 1e9

    @property
    def iterations(self) -> int:
        return sum(map(len, self.samples))


def computes(turns: list[Turn]) -> bool:
    """Whether a form does nothing but compute on one thread: then CPU time is the time it would take if left in peace."""
    return sum(one.waits for one in turns) <= _WAITS * sum(one.iterations for one in turns)


def iterations(seconds: float) -> int:
    """How often to repeat what takes `seconds` to make one sample."""
    return max(1, min(MOST_ITERATIONS, round(SHORTEST_SAMPLE / max(seconds, 1e-9))))


_opened: dict[str, Any] = {}
"""What a child holds between calls: `predict`, the inputs' description, the user's samples, and arrays by batch size."""


def open_model(*, form: str, model: str, inputs: Json, declared: Json, threads: int, samples: str | None) -> Json:
    """Load a model to run on so many threads, and run it once."""
    import torch

    torch.set_num_threads(threads)
    tensors = [Tensor.of(one) for one in inputs]
    given = _fitting(tensors, read(samples)) if samples is not None else None
    _opened.update(inputs=tensors, given=given, arrays={})
    arrays = _arrays(_opened_batch())
    started = time.perf_counter()
    predict = load(form, model, inputs, declared | {"threads": threads})
    loaded = time.perf_counter()
    predict(arrays)
    _opened["predict"] = predict
    return {"load": loaded - started, "first": time.perf_counter() - loaded, "sampled": given is not None}


def warm_up(batch: int) -> Json:
    """Run at a batch size until three runs in a row are no faster than the fastest; a second at most, three runs at least."""
    predict, arrays = _opened["predict"], _arrays(batch)
    best, waited, runs, started = float("inf"), 0, 0, time.perf_counter()
    while runs < _SETTLED_AFTER or (waited < _SETTLED_AFTER and time.perf_counter() - started < _WARM_WITHIN):
        begun = time.perf_counter()
        predict(arrays)
        taken = time.perf_counter() - begun
        waited = waited + 1 if taken > 0.95 * best else 0
        best, runs = min(best, taken), runs + 1
    return {"seconds": max(best, 1e-9)}


def take_turn(batch: int, repeat: int, samples: int, discarded: int) -> Json:
    """So many samples to throw away and to keep, each of `repeat` timed iterations."""
    return turn(_opened["predict"], _arrays(batch), repeat=repeat, samples=samples, discarded=discarded)


def turn(predict: Predictor, arrays: Arrays, *, repeat: int, samples: int, discarded: int) -> Json:
    """The same of any predictor, in the form of `Turn`."""
    clock = time.perf_counter_ns
    kept: list[list[int]] = []
    spent: list[int] = []
    waits = 0
    for _ in range(discarded + samples):
        taken = []
        waited, used = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, time.thread_time_ns()
        for _ in range(repeat):
            begun = clock()
            predict(arrays)
            taken.append(max(1, clock() - begun))
        kept.append(taken)
        spent.append(max(1, time.thread_time_ns() - used))
        waits += resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - waited
    return {"samples": kept[discarded:], "cpu": spent[discarded:], "waits": waits}


def _opened_batch() -> int:
    return next((one.example[0] for one in _opened["inputs"] if one.example and not one.batched), 1)


def _arrays(batch: int) -> Any:
    drawn: dict[int, Any] = _opened["arrays"]
    if batch not in drawn:
        given = _opened["given"]
        if given is None:
            drawn[batch] = draw(_opened["inputs"], batch=batch, kind="normal")
        else:
            drawn[batch] = {name: one.take(range(batch), axis=0, mode="wrap") for name, one in given.items()}
    return drawn[batch]


def _fitting(tensors: list[Tensor], given: dict[str, Any]) -> dict[str, Any] | None:
    """The user's samples for each input, as it wants them; None where the first axis of an input is not the samples'."""
    if len(tensors) == 1 and tensors[0].name not in given:
        fitting = [one for one in given.values() if _fits(tensors[0], one)]
        given = {tensors[0].name: fitting[0]} if fitting else {}
    if not all(one.name in given and _fits(one, given[one.name]) for one in tensors):
        return None
    return {one.name: given[one.name].astype(one.dtype) for one in tensors}


def _fits(tensor: Tensor, array: Any) -> bool:
    wanted = (tensor.shape or [])[1:]
    return bool(
        tensor.shape
        and array.ndim == len(tensor.shape)
        and len(array)
        and array.dtype.kind in ("US" if tensor.dtype == "str" else "fiub")
        and all(one in (None, size) for one, size in zip(wanted, array.shape[1:], strict=True))
    )
