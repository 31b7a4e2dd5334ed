"""A runtime child: loads one variant and answers requests for it until its owner hangs up. Runs locked down.

Nothing here knows a database, a key or a name of the network. Several threads share one channel: whoever is free reads the
next request, works it off and writes the answer, so that no request changes hands. Where batching pays, the reader also
takes what is waiting already; nobody waits for a batch to fill.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Rejected
from pipeline.foreign import out_of_memory
from pipeline.signature import Tensor
from pipeline.trial import draw
from serving import wire
from serving.protocol import codec
from serving.protocol.signature import Signature

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Predictor = Callable[[Arrays], dict[str, Any]]

LARGEST_BATCH = 32
"""Rows that are put together at most."""
PAYS = 1.3
"""How many times as many rows a second batches must bring to be made."""
_TRIAL_SECONDS = 0.03
_TOO_SLOW = 0.25
"""Seconds of the first row from which on no batches are made: they would keep the others waiting too long."""
_TRIAL_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the child has loaded: one predictor for each thread, the same one where it may be shared."""

    predictors: Sequence[Predictor]
    signature: Signature
    name: str
    version: str
    batch: int
    largest: int


_loaded: list[Model] = []
"""The child's one model: `load` fills it, `serve` takes it. A child is forked for one model and ends with it."""


def load(
    *,
    model: str,
    way: Any,
    inputs: Any,
    signature: Any,
    name: str,
    version: str,
    threads: int,
    largest: int,
    device: str,
) -> dict[str, Any]:
    """Open the file, run it once, and find out whether batches pay. `largest`: bytes of an unpacked request.

    Answers with `batch`, the rows that are put together at most (1: none), `gain`, how many times as many rows a second
    batches of eight brought (0: not tried), and the seconds that loading took. Raises `Rejected`.
    """
    began = time.perf_counter()
    tensors = [Tensor.of(one) for one in inputs]
    predictors = _open(model, way, threads, device)
    row = draw(tensors, batch=1, kind="normal")
    for one in predictors:
        started = time.perf_counter()
        one(row)
    loaded = time.perf_counter()
    gain = _gain(predictors[0], tensors) if loaded - started < _TOO_SLOW else 0.0
    batch = LARGEST_BATCH if gain >= PAYS else 1
    _loaded[:] = [
        Model(
            predictors=predictors,
            signature=Signature.of(signature),
            name=name,
            version=version,
            batch=batch,
            largest=largest,
        )
    ]
    return {"batch": batch, "gain": round(gain, 2), "seconds": round(loaded - began, 4)}


def serve(channel: int) -> None:
    """Answer requests on as many threads as there are predictors. Never returns: the owner's hanging up ends the process."""
    (model,) = _loaded
    line = wire.ChildLine(channel)
    others = [
        threading.Thread(target=_work_or_end, args=(line, model, predictor), daemon=True)
        for predictor in model.predictors[1:]
    ]
    for thread in others:
        thread.start()
    _work_or_end(line, model, model.predictors[0])


def _open(model: str, way: Any, threads: int, device: str) -> list[Predictor]:
    if Path(model).suffix == ".engine":
        from pipeline.tensorrt_build import loaded

        return [loaded(model)]
    from pipeline.formats import onnx

    # ONNX Runtime runs one session from any number of threads; OpenVINO's requests belong to one each.
    apart = threads if way.get("runtime") == "openvino" else 1
    opened = [onnx.load(model, [], {**way, "device": device}) for _ in range(apart)]
    return opened if apart > 1 else opened * threads


def _gain(predict: Predictor, tensors: Sequence[Tensor]) -> float:
    """How many times as many rows a second a batch of eight brings; 0 where rows cannot be put together."""
    import numpy as np

    if not all(one.batched for one in tensors):
        return 0.0
    rows = draw(tensors, batch=_TRIAL_ROWS, kind="normal")
    one_row = {name: array[:1] for name, array in rows.items()}
    try:
        together = predict(rows)
        alone = predict(one_row)
    except Rejected:  # one row at a time, whatever the graph says
        return 0.0
    for name, array in together.items():
        if np.shape(array)[:1] != (_TRIAL_ROWS,) or np.shape(alone[name])[:1] != (1,):
            return 0.0
        if array.dtype.kind == "f":
            same = np.allclose(array[:1], alone[name], rtol=1e-3, atol=1e-5)
        else:
            same = np.array_equal(array[:1], alone[name])
        if not same:  # a row's answer leans on its neighbours
            return 0.0
    return _TRIAL_ROWS * _fastest(predict, one_row) / _fastest(predict, rows)


def _fastest(predict: Predictor, arrays: Arrays) -> float:
    best, ends = float("inf"), time.perf_counter() + _TRIAL_SECONDS
    for _ in range(200):
        began = time.perf_counter()
        predict(arrays)
        now = time.perf_counter()
        best = min(best, now - began)
        if now > ends:
            break
    return best


@dataclass(kw_only=True)
class _Asked:
    frame: wire.Frame
    request: codec.Request
    decoded: float
    outputs: dict[str, Any] | None = None
    failure: Rejected | None = None
    began: float = 0.0
    computed: float = 0.0
    together: int = 1


def _work_or_end(line: wire.ChildLine, model: Model, predict: Predictor) -> None:
    """A fault of ours, or want of memory, ends the whole child: a thread that vanished would leave its requests waiting."""
    try:
        _work(line, model, predict)
    except BaseException:  # noqa: BLE001 - whatever it was, the owner sees what is printed and starts another child
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _work(line: wire.ChildLine, model: Model, predict: Predictor) -> None:
    while True:
        frames = line.take(model.batch)
        asked = []
        for frame in frames:
            try:
                request = codec.decode(model.signature, frame.kind, frame.headers, frame.body, model.largest)
            except codec.BadRequest as refusal:
                reply = codec.refusal(frame.kind, refusal)
                line.answer(frame, reply.status, _meta(reply), reply.body)
                continue
            asked.append(_Asked(frame=frame, request=request, decoded=time.perf_counter()))
        for group in _groups(asked, model.batch):
            _run(predict, group)
            for one in group:
                _finish(line, model, one)


def _groups(asked: list[_Asked], most: int) -> list[list[_Asked]]:
    """Those that can be run together: the same shapes but for the rows, and not too many of these."""
    if len(asked) < 2:
        return [asked] if asked else []
    groups: dict[Any, list[list[_Asked]]] = {}
    for one in asked:
        rows = one.request.rows
        key: Any = id(one)
        if rows is not None and rows <= most:
            key = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(one.request.arrays.items()))
        kept = groups.setdefault(key, [[]])
        if sum(each.request.rows or 1 for each in kept[-1]) + (rows or 1) > most and kept[-1]:
            kept.append([])
        kept[-1].append(one)
    return [group for kept in groups.values() for group in kept]


def _run(predict: Predictor, group: list[_Asked]) -> None:
    """Fill in the outputs; a batch that fails as one is tried one by one, so that nobody pays for a neighbour."""
    import numpy as np

    began = time.perf_counter()
    if len(group) == 1:
        arrays: Arrays = group[0].request.arrays
    else:
        names = group[0].request.arrays
        arrays = {name: np.concatenate([one.request.arrays[name] for one in group]) for name in names}
    try:
        outputs = predict(arrays)
    except Rejected as refusal:
        if len(group) > 1:
            for one in group:
                _run(predict, [one])
            return
        group[0].outputs, group[0].began, group[0].computed = None, began, time.perf_counter()
        group[0].failure = refusal
        return
    computed, start = time.perf_counter(), 0
    for one in group:
        one.began, one.computed, one.together = began, computed, len(group)
        if len(group) == 1:
            one.outputs = outputs
        else:
            rows = one.request.rows or 1
            one.outputs = {name: array[start : start + rows] for name, array in outputs.items()}
            start += rows


def _finish(line: wire.ChildLine, model: Model, one: _Asked) -> None:
    frame = one.frame
    if one.outputs is None:
        failure = one.failure
        assert failure is not None  # noqa: S101 - `_run` leaves one of the two
        if out_of_memory(failure.__cause__ or failure):
            raise MemoryError
        refusal = codec.BadRequest(
            "inference_failed", f"The model could not be run on this input. {failure.message}", status=500
        )
        told = codec.refusal(frame.kind, refusal)
        line.answer(frame, told.status, _meta(told), told.body)
        return
    seconds = one.computed - one.began
    reply = codec.encode(
        model.signature,
        one.request,
        one.outputs,
        model=model.name,
        version=model.version,
        seconds=seconds,
        accept=frame.headers.get("accept-encoding", ""),
    )
    done = time.perf_counter()
    meta = _meta(reply) | {
        "label": codec.label(model.signature, one.request, one.outputs),
        "rows": one.request.rows or 1,
        "batch": one.together,
        "ns": [int(1e9 * part) for part in (one.decoded - frame.taken, seconds, done - one.computed)],
    }
    if frame.compared:
        meta["decision"] = codec.decision(model.signature, one.request, one.outputs)
    line.answer(frame, 200, meta, reply.body)


def _meta(reply: codec.Reply) -> dict[str, Any]:
    return {"headers": reply.headers}
