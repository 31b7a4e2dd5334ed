"""Measure every form that survived beside the source form, on this machine, in turns."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline import benchmarking as bench
from pipeline.errors import Rejected
from pipeline.examination import folder
from pipeline.formats import find
from pipeline.optimizing import toolchain
from pipeline.signature import Answer, Tensor
from pipeline.stage import Child, Context, Json, Report, Stage

_SOURCE, _CONTROL = "source", "control"
_TIMEOUT, _ROUNDS, _LEAST_ROUNDS = 300.0, 15, 5
_BATCHES = (8, 32)
_THROUGHPUT_ROUNDS = 5
_MEASURING = 0.6
"""Share of the time limit that the paired rounds may take; loading and throughput get the rest."""


class Opened(Answer):
    """Seconds of loading and of the first run."""

    load: float
    first: float


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A form that stands open in its child; `baseline` is the child's memory before it opened anything."""

    child: Child
    opened: Opened
    baseline: int


class Calibrated(Answer):
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Form:
    """One thing to measure."""

    name: str
    role: str
    form: str
    path: Path


class Deadline:
    """The time left for all measuring; asking after it is over refuses the model."""

    def __init__(self, seconds: float) -> None:
        self._limit, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.refusal()
        return left

    def refusal(self) -> Rejected:
        return Rejected(
            "benchmark_timeout",
            f"Measuring did not finish within {self._limit:g} s: the model is too slow for this worker or the limit "
            "(BENCHMARK_TIMEOUT) is too low.",
            limit=self._limit,
        )

    def call(self, child: Child, function: str, **arguments: Json) -> Json:
        """Call a function of `benchmarking` in the child, for no longer than is left."""
        try:
            return child.call(f"{bench.__name__}:{function}", wall=self.left(), **arguments)
        except Rejected as refusal:
            if refusal.code == "time_limit":
                raise self.refusal() from refusal
            raise


def run(ctx: Context) -> Report:
    deadline = Deadline(float(ctx.options.get("benchmark_timeout", _TIMEOUT)))
    forms, inputs = _forms(ctx)
    free = any(one.batched for one in inputs)
    batch = 1 if free else next((one.example[0] for one in inputs if one.example), 1)
    with _opened(ctx, forms, inputs, deadline) as entrants:
        children = {name: one.child for name, one in entrants.items()}
        pace = {name: _calibrated(deadline, child, batch) for name, child in children.items()}
        per_round = sum((bench.SAMPLES + 1) * max(one, bench.SHORTEST_SAMPLE) for one in pace.values())
        wanted = int(ctx.options.get("benchmark_rounds", _ROUNDS))
        rounds = bench.rounds_that_fit(wanted, min(wanted, _LEAST_ROUNDS), per_round, deadline.left() * _MEASURING)
        if rounds == 0:
            raise deadline.refusal()
        ctx.log(f"{rounds} rounds of {len(children)} forms, about {per_round * rounds:.1f} s")
        measured = _measure(deadline, children, pace, batch=batch, rounds=rounds, samples=bench.SAMPLES)
        throughput = _throughput(ctx, deadline, children, _BATCHES if free else ())
        memory = {name: child.peak_memory for name, child in children.items()}
    fastest = {name: [one.fastest for one in found] for name, found in measured.items()}
    control = bench.paired_ratio(fastest[_SOURCE], fastest[_CONTROL])
    rows = []
    for one in forms:
        if one.name == _CONTROL:
            continue
        times = [taken / 1e6 for found in measured[one.name] for sample in found.samples for taken in sample]
        ratio = bench.paired_ratio(fastest[_SOURCE], fastest[one.name])
        p50 = bench.percentile(times, 0.5)
        rows.append(
            {
                "name": one.name,
                "role": one.role,
                "runtime": "torch" if one.form in ("torchscript", "pt2") else "onnxruntime",
                "p50_ms": round(p50, 5),
                "p90_ms": round(bench.percentile(times, 0.9), 5),
                "p99_ms": round(bench.percentile(times, 0.99), 5),
                "iterations": len(times),
                "throughput_per_s": {str(batch): round(batch * 1e3 / p50, 1), **throughput.get(one.name, {})},
                "peak_memory": memory[one.name],
                "model_memory": memory[one.name] - entrants[one.name].baseline,
                "load_ms": round(entrants[one.name].opened.load * 1e3, 3),
                "first_ms": round(entrants[one.name].opened.first * 1e3, 3),
                "size": one.path.stat().st_size,
                "speedup": ratio.facts()["value"],
                "speedup_ci": ratio.facts()["ci"],
                "verdict": "same" if one.name == _SOURCE else bench.verdict(ratio, control),
            }
        )
    for row in rows:
        ctx.log(f"{row['name']}: {row['p50_ms']:.3f} ms, {row['speedup']:.2f} × source, {row['verdict']}")
    facts = control.facts()
    return Report(
        facts={
            "device": device(),
            "protocol": {
                "rounds": rounds,
                "rounds_wanted": wanted,
                "samples": bench.SAMPLES,
                "discarded": 1,
                "batch": batch,
                "threads": 1,
                "statistic": "median over rounds of the paired fastest sample, bootstrap 95 % interval",
                "iterations": {name: bench.iterations(one) for name, one in pace.items()},
            },
            "rows": rows,
            "control": {"ratio": facts["value"], "ci": facts["ci"]},
        }
    )


def device() -> Json:
    """The machine and the libraries that the figures hold for."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "kind": "cpu",
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": 1,
        "system": f"{platform.system()} {platform.release()}",
        "versions": {name: toolchain()[name] for name in ("python", "torch", "onnxruntime", "numpy")},
    }


def _forms(ctx: Context) -> tuple[list[Form], list[Tensor]]:
    canonical = next(one for one in ctx.earlier["convert"].files if one.role == "canonical")
    optimized = ctx.earlier["optimize"].files if "optimize" in ctx.earlier else ()
    files = [canonical, *(one for one in optimized if one.role == "variant")]
    source = find(ctx.upload.format).name
    forms = [
        Form(name=_SOURCE, role=_SOURCE, form=source, path=ctx.model),
        Form(name=_CONTROL, role=_CONTROL, form=source, path=ctx.model),
        *(Form(name=one.meta["variant"], role=one.role, form="onnx", path=ctx.fetch(one)) for one in files),
    ]
    return forms, [Tensor.of(one) for one in ctx.earlier["convert"].facts["inputs"]]


@contextlib.contextmanager
def _opened(
    ctx: Context, forms: Sequence[Form], inputs: Sequence[Tensor], deadline: Deadline
) -> Iterator[dict[str, Entrant]]:
    described, declared = [one.model_dump() for one in inputs], dict(ctx.upload.declared)
    with contextlib.ExitStack() as stack:
        entrants: dict[str, Entrant] = {}
        for one in forms:
            scratch = folder(ctx.scratch / f"benchmark-{one.name}")
            child = stack.enter_context(ctx.sandbox.open(read=[one.path], scratch=scratch))
            baseline = child.peak_memory
            answer = deadline.call(
                child, "open_model", form=one.form, model=str(one.path), inputs=described, declared=declared
            )
            entrants[one.name] = Entrant(child=child, opened=Opened.of(answer), baseline=baseline)
        yield entrants


def _calibrated(deadline: Deadline, child: Child, batch: int) -> float:
    return Calibrated.of(deadline.call(child, "calibrate", batch=batch)).seconds


def _measure(
    deadline: Deadline,
    children: Mapping[str, Child],
    pace: Mapping[str, float],
    *,
    batch: int,
    rounds: int,
    samples: int,
) -> dict[str, list[bench.Sample]]:
    def turn(child: Child, repeat: int) -> bench.Sample:
        return bench.Sample.of(deadline.call(child, "sample", batch=batch, repeat=repeat, samples=samples))

    turns = {name: partial(turn, child, bench.iterations(pace[name])) for name, child in children.items()}
    return bench.interleave(turns, rounds)


def _throughput(
    ctx: Context, deadline: Deadline, children: Mapping[str, Child], batches: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Samples per second at larger batches, by form and batch; a batch that would not fit into the time is left out."""
    found: dict[str, dict[str, float]] = {name: {} for name in children}
    contenders = {name: child for name, child in children.items() if name != _CONTROL}
    for batch in batches:
        try:
            pace = {name: _calibrated(deadline, child, batch) for name, child in contenders.items()}
        except Rejected as refusal:
            if refusal.code != "forward_failed":
                raise
            ctx.log(f"no throughput at batch {batch}: {refusal.message}")
            break
        per_round = sum(2 * max(one, bench.SHORTEST_SAMPLE) for one in pace.values())
        if not bench.rounds_that_fit(_THROUGHPUT_ROUNDS, _THROUGHPUT_ROUNDS, per_round, deadline.left() / 2):
            ctx.log(f"no throughput at batch {batch}: there is no time left for it")
            break
        measured = _measure(deadline, contenders, pace, batch=batch, rounds=_THROUGHPUT_ROUNDS, samples=1)
        for name, samples in measured.items():
            typical = bench.percentile([one.fastest for one in samples], 0.5)
            found[name][str(batch)] = round(batch / typical, 1)
    return found


STAGE = Stage(
    name="benchmark", run=run, queue="bench", after=("convert", "optimize"), time_limit=900, servable_only=True
)
