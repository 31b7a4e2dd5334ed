"""Whether the benchmark's verdicts can be believed: the same model beside itself, and one with 15 % more work, beside a busy neighbour.

Every run opens its children anew, as a step does. The neighbour computes in bursts, as many processes as there are
processors. `CALIBRATION_RUNS` of each kind, 40 by default.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from pipeline import measuring, speeds
from pipeline.formats import PRELOAD
from pipeline.measuring import CONTROL, SOURCE, Deadline, Form, Heat
from pipeline.sandbox import Zygote, discard
from pipeline.signature import Tensor

RUNS = int(os.environ.get("CALIBRATION_RUNS", "40"))
LAYERS, SLOWER = 40, 46
WIDTH = 192
FIRST_LOOK = 15
TIMEOUT = 120.0
_BURST = 0.08
_CANDIDATE = "candidate"
_INPUT = Tensor(name="x", dtype="float32", shape=[None, WIDTH], example=[1, WIDTH])


def main() -> dict[str, str | int]:
    zygote = Zygote(preload=PRELOAD)
    before = os.getloadavg()[0]
    with closing(zygote), _place() as folder:
        source, slower = (_model(folder / f"{number}.onnx", number) for number in (LAYERS, SLOWER))
        found: dict[str, list[tuple[Heat, float]]] = {"the same model": [], "15 % more work": []}
        with _neighbours(os.cpu_count() or 1):
            for run in range(RUNS):
                for kind, candidate in zip(found, (source, slower), strict=True):
                    began = time.monotonic()
                    heat = _measure(zygote, folder / f"run-{run}-{candidate.stem}", source, candidate, seed=run)
                    found[kind].append((heat, time.monotonic() - began))
    figures: dict[str, str | int] = {
        "runs of each": RUNS,
        "processors, load before and after": f"{os.cpu_count()}, {before:.1f}, {os.getloadavg()[0]:.1f}",
    }
    for kind, heats in found.items():
        figures |= {f"{kind}: {name}": value for name, value in _summary(heats).items()}
    return figures


def _measure(zygote: Zygote, scratch: Path, source: Path, candidate: Path, *, seed: int) -> Heat:
    deadline = Deadline(TIMEOUT)
    scratch.mkdir()
    scratch.chmod(0o711)
    try:
        with ExitStack() as stack:
            entrants = {
                name: measuring.enter(
                    stack,
                    Form(name=name, role=name, form="onnx", path=path),
                    sandbox=zygote,
                    scratch=scratch / name,
                    inputs=[_INPUT],
                    declared={},
                    deadline=deadline,
                )
                for name, path in ((SOURCE, source), (CONTROL, source), (_CANDIDATE, candidate))
            }
            return measuring.measure(
                entrants,
                deadline,
                batch=1,
                looks=speeds.schedule(FIRST_LOOK),
                seconds=deadline.left,
                clear=lambda heat: heat.compare(SOURCE, _CANDIDATE).verdict != "inconclusive",
                seed=seed,
            )
    finally:
        discard(scratch)


def _summary(heats: list[tuple[Heat, float]]) -> dict[str, str]:
    compared = [heat.compare(SOURCE, _CANDIDATE) for heat, _ in heats]
    ratios = [one.ratio.value for one in compared]
    slowest = [max(map(max, heat.times(SOURCE))) / statistics.median(map(min, heat.times(SOURCE))) for heat, _ in heats]
    return {
        "verdicts": _counted(one.verdict for one in compared),
        "clocks": _counted(one.clock for one in compared),
        "speed-up": f"median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}",
        "rounds": f"median {statistics.median(heat.rounds for heat, _ in heats):.0f}, at most "
        f"{max(heat.rounds for heat, _ in heats)}",
        "seconds": f"median {statistics.median(seconds for _, seconds in heats):.1f}, at most "
        f"{max(seconds for _, seconds in heats):.1f}",
        "slowest iteration over a fast one": f"median {statistics.median(slowest):.0f} times",
    }


def _counted(words: Iterator[str]) -> str:
    return ", ".join(f"{number} {word}" for word, number in Counter(words).most_common())


def _model(path: Path, layers: int) -> Path:
    """So many equal matrix products, each with its ReLU: the time grows with their number."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    nodes, weights, last = [], [], "x"
    for index in range(layers):
        weight = (rng.standard_normal((WIDTH, WIDTH)) * (2 / WIDTH) ** 0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"h{index}"]))
        last = "y" if index == layers - 1 else f"r{index}"
        nodes.append(helper.make_node("Relu", [f"h{index}"], [last]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@contextmanager
def _neighbours(number: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=_bursts, args=(seed,), daemon=True) for seed in range(number)]
    for one in busy:
        one.start()
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.join()


def _bursts(seed: int) -> None:
    """Compute and pause in turns, each for some tens of milliseconds, for ever."""
    rng = random.Random(seed)
    while True:
        until = time.monotonic() + rng.uniform(0, _BURST)
        while time.monotonic() < until:
            sorted(rng.random() for _ in range(1000))
        time.sleep(rng.uniform(0, _BURST))


@contextmanager
def _place() -> Iterator[Path]:
    """A folder that nobody can pass through, on the way to nobody."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        discard(folder)


if __name__ == "__main__":
    for figure, value in main().items():
        print(f"{figure:<46} {value}")
