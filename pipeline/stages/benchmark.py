"""Measure every form that survived beside the source form, and beside what is served today, on this machine, in turns."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pipeline import device, extras, measuring, quality, selection, speeds
from pipeline.errors import Rejected
from pipeline.examination import folder, way_of
from pipeline.formats import find
from pipeline.measuring import CONTROL, SOURCE, Deadline, Entrant, Form, Heat
from pipeline.signature import Tensor
from pipeline.stage import Context, File, Json, Made, Report, Stage
from pipeline.toolchain import toolchain

INCUMBENT = "incumbent"

_TIMEOUT, _ROUNDS = 300.0, 15
_BATCHES, _LARGEST = (8, 32), 128
_SWEEP, _SWEEP_TURN = (10, 20), 0.03
"""After how many rounds to look at the larger batches and at more threads, twice as many as were asked for at most;
and how many seconds a turn has there."""

_MEASURING, _SWEEPING = 0.5, 0.3
"""Shares of the time left that the paired rounds may take, and each larger batch."""

_SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """What is measured, and on what."""

    forms: Sequence[Form]
    inputs: Sequence[Tensor]
    incumbent: Json

    @property
    def free(self) -> bool:
        return any(one.batched for one in self.inputs)

    @property
    def batch(self) -> int:
        return 1 if self.free else next((one.example[0] for one in self.inputs if one.example), 1)


@dataclass(kw_only=True)
class Measured:
    """Everything that came of it: the paired rounds, the larger batches, more threads."""

    main: Heat
    entrants: Mapping[str, Entrant]
    memory: Mapping[str, int]
    batches: list[Heat]
    threads: list[Heat]

    @property
    def heats(self) -> list[Heat]:
        return [self.main, *self.batches, *self.threads]


def run(ctx: Context) -> Report:
    deadline = Deadline(float(ctx.options.get("benchmark_timeout", _TIMEOUT)))
    lineup = _lineup(ctx)
    measured = _measure(ctx, lineup, deadline)
    rows = _rows(ctx, lineup, measured)
    for row in rows:
        ctx.log(f"{row['name']}: {row['p50_ms']:.3f} ms, {row['speedup']:.2f} × source, {row['verdict']}")
    facts = {
        "device": device.describe()
        | {"threads": 1, "versions": {one: toolchain()[one] for one in ("python", "torch", "onnxruntime", "numpy")}},
        "protocol": _protocol(ctx, measured),
        "rows": rows,
        "control": _control(measured.main),
        "incumbent": lineup.incumbent and lineup.incumbent | _beside(measured.main),
        "quality": _quality(ctx, rows),
    }
    document = {"samples": 1, **{key: facts[key] for key in ("device", "protocol")}}
    document["measured"] = [heat.evidence() for heat in measured.heats]
    content = gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)
    digest = hashlib.sha256(content).hexdigest()
    path = folder(ctx.scratch / "evidence") / f"benchmark-{digest[:12]}.json.gz"
    path.write_bytes(content)
    facts["evidence"] = {"name": path.name, "sha256": digest, "size": len(content)}
    return Report(facts=facts, files=[Made(path=path, role="evidence", media_type="application/gzip")])


def _lineup(ctx: Context) -> Lineup:
    canonical = next(one for one in ctx.earlier["convert"].files if one.role == "canonical")
    optimized = ctx.earlier["optimize"].files if "optimize" in ctx.earlier else ()
    source = find(ctx.upload.format)
    source.require(ctx.model, ctx.upload.declared)
    forms = [
        Form(name=SOURCE, role=SOURCE, form=source.name, path=ctx.model),
        Form(name=CONTROL, role=CONTROL, form=source.name, path=ctx.model),
        *(
            _form(ctx, one.meta["variant"], one)
            for one in (canonical, *optimized)
            if one.role in ("canonical", "variant")
        ),
    ]
    incumbent, facts = ctx.incumbent(), None
    if incumbent is not None:
        facts = {key: incumbent.meta[key] for key in ("version", "variant")} | {"sha256": incumbent.sha256}
        if _contract(incumbent) == _contract(canonical):
            forms.append(_form(ctx, INCUMBENT, incumbent))
        else:
            facts["reason"] = "It takes or gives something else."
    return Lineup(
        forms=forms, inputs=[Tensor.of(one) for one in ctx.earlier["convert"].facts["inputs"]], incumbent=facts
    )


def _form(ctx: Context, name: str, file: File) -> Form:
    way = way_of(file.meta)
    if way.get("runtime") in extras.EXTRAS:
        extras.require(way["runtime"], file.meta["variant"])
    role = INCUMBENT if name == INCUMBENT else file.role
    return Form(name=name, role=role, form="onnx", path=ctx.fetch(file), way=way)


def _contract(file: File) -> list[tuple[str, Json, Json]]:
    """Names, types and shapes of what goes in and comes out; examples do not matter."""
    return [
        (one["name"], one["dtype"], one["shape"]) for side in ("inputs", "outputs") for one in file.meta.get(side, ())
    ]


def _measure(ctx: Context, lineup: Lineup, deadline: Deadline) -> Measured:
    with ExitStack() as stack:
        began = time.monotonic()
        entrants = _enter(ctx, stack, lineup, deadline)
        opening = time.monotonic() - began
        main = measuring.measure(
            entrants,
            deadline,
            batch=lineup.batch,
            looks=speeds.schedule(_first_look(ctx)),
            seconds=deadline.left * _MEASURING,
            clear=_clear,
        )
        ctx.log(f"{main.rounds} rounds of {len(entrants)} forms at batch {main.batch}, enough: {main.stopped}")
        memory = {name: one.child.peak_memory for name, one in entrants.items()}
        batches = list(_sweep(ctx, lineup, entrants, deadline))
    threads = list(_threaded(ctx, lineup, deadline, opening))
    return Measured(main=main, entrants=entrants, memory=memory, batches=batches, threads=threads)


def _enter(
    ctx: Context, stack: ExitStack, lineup: Lineup, deadline: Deadline, *, threads: int = 1
) -> dict[str, Entrant]:
    entrants = {}
    for one in lineup.forms:
        try:
            entrants[one.name] = measuring.enter(
                stack,
                one,
                sandbox=ctx.sandbox,
                scratch=ctx.scratch / f"{one.name}-{threads}",
                inputs=lineup.inputs,
                declared=ctx.upload.declared,
                deadline=deadline,
                threads=threads,
                samples=ctx.side_files.get("calibration"),
            )
        except Rejected as refusal:
            if one.name != INCUMBENT or deadline.over:
                raise
            ctx.log(f"what is served today does not open here any more: {refusal.message}")
            lineup.incumbent["reason"] = refusal.message
    return entrants


def _clear(heat: Heat) -> bool:
    """Whether more rounds would change nothing: every form's verdict is known."""
    references = [one for one in (SOURCE, INCUMBENT) if one in heat.turns]
    return all(
        heat.compare(reference, one).verdict != "inconclusive"
        for reference in references
        for one in heat.turns
        if one not in (CONTROL, *references)
    )


def _first_look(ctx: Context) -> int:
    return max(1, int(ctx.options.get("benchmark_rounds", _ROUNDS)))


def _sweep_looks(ctx: Context) -> list[int]:
    return sorted({min(one, 2 * _first_look(ctx)) for one in _SWEEP})


def _sweep(ctx: Context, lineup: Lineup, entrants: Mapping[str, Entrant], deadline: Deadline) -> Iterable[Heat]:
    """The larger batches, as far as the model takes them and the time reaches."""
    for batch in _batch_sizes(ctx) if lineup.free else ():
        try:
            heat = measuring.measure(
                entrants,
                deadline,
                batch=batch,
                looks=_sweep_looks(ctx),
                seconds=deadline.left * _SWEEPING,
                clear=_clear,
                turn=_SWEEP_TURN,
            )
        except Rejected as refusal:
            _tolerate(ctx, refusal, f"at batch {batch}")
            return
        yield heat


def _batch_sizes(ctx: Context) -> list[int]:
    config = ctx.upload.declared.get("config")
    largest = config.get("max_batch") if isinstance(config, Mapping) else None
    largest = largest if isinstance(largest, int) and largest > 0 else _LARGEST
    return sorted({*(one for one in _BATCHES if one < largest), largest} - {1})


def _threaded(ctx: Context, lineup: Lineup, deadline: Deadline, opening: float) -> Iterable[Heat]:
    """All that the CPU quota gives, for those who serve with more than one thread; only where there is time to open all again."""
    threads = device.cores()
    if threads == 1 or deadline.left < 2 * opening:
        return
    with ExitStack() as stack:
        try:
            entrants = _enter(ctx, stack, lineup, deadline, threads=threads)
            yield measuring.measure(
                entrants,
                deadline,
                batch=lineup.batch,
                looks=_sweep_looks(ctx),
                seconds=deadline.left * _SWEEPING,
                clear=_clear,
                turn=_SWEEP_TURN,
                threads=threads,
            )
        except Rejected as refusal:
            _tolerate(ctx, refusal, f"with {threads} threads")


def _tolerate(ctx: Context, refusal: Rejected, where: str) -> None:
    """What only goes beyond the main measurement is left out where it fails, unless a child spoke out of form."""
    if refusal.code == "answer_invalid":
        raise refusal
    ctx.log(f"not measured {where}: {refusal.message}")


def _rows(ctx: Context, lineup: Lineup, measured: Measured) -> list[dict[str, Json]]:
    main, rows = measured.main, []
    for one in lineup.forms:
        if one.role in (CONTROL, INCUMBENT):
            continue
        entrant = measured.entrants[one.name]
        p50, p90, p99 = speeds.percentiles(main.times(one.name), _SHARES)
        row = {
            "name": one.name,
            "role": one.role,
            "runtime": one.way.get("runtime") or find(one.form).runtime or one.form,
            **{
                key: value
                for name, interval in (("p50_ms", p50), ("p90_ms", p90), ("p99_ms", p99))
                for key, value in ((name, round(interval.value, 5)), (f"{name}_ci", interval.facts(5)["ci"]))
            },
            "cpu_ms": round(speeds.percentile([turn.cpu_seconds * 1e3 for turn in main.turns[one.name]], 0.5), 5),
            "iterations": sum(turn.iterations for turn in main.turns[one.name]),
            "throughput_per_s": {str(heat.batch): _throughput(heat, one.name)[0] for heat in (main, *measured.batches)},
            "peak_memory": measured.memory[one.name],
            "model_memory": measured.memory[one.name] - entrant.baseline,
            "load_ms": round(entrant.opened.load * 1e3, 3),
            "first_ms": round(entrant.opened.first * 1e3, 3),
            "size": one.path.stat().st_size,
            **_verdict(main, SOURCE, one.name),
            "batches": {str(heat.batch): _short(heat, one.name) for heat in (main, *measured.batches)},
            "threads": {str(heat.threads): _short(heat, one.name) for heat in (main, *measured.threads)},
        }
        if INCUMBENT in main.turns:
            row["against_incumbent"] = _verdict(main, INCUMBENT, one.name)
        rows.append(row)
    source = rows[0]
    for row in rows[1:]:
        verification = _verification(ctx, row["name"])
        row["quality"] = quality.score(verification=verification, row=row, source=source, warnings=_warnings(ctx))
    return rows


def _verdict(heat: Heat, reference: str, name: str) -> dict[str, Json]:
    facts = heat.compare(reference, name).facts()
    return facts | {"verdict": "same"} if name == reference else facts


def _short(heat: Heat, name: str) -> dict[str, Json]:
    """What is told of a form at another batch size or with more threads."""
    (p50,) = speeds.percentiles(heat.times(name), (0.5,))
    throughput, bounds = _throughput(heat, name)
    return {
        "p50_ms": round(p50.value, 5),
        "p50_ms_ci": p50.facts(5)["ci"],
        "throughput_per_s": throughput,
        "throughput_per_s_ci": bounds,
        "rounds": heat.rounds,
        **_verdict(heat, SOURCE, name),
    }


def _throughput(heat: Heat, name: str) -> tuple[float, list[float]]:
    """Samples per second one after the other, and its bounds."""
    (p50,) = speeds.percentiles(heat.times(name), (0.5,))
    most, value, least = (round(heat.batch * 1e3 / one, 1) for one in (p50.low, p50.value, p50.high))
    return value, [least, most]


def _protocol(ctx: Context, measured: Measured) -> Json:
    main = measured.main
    return {
        "rounds": main.rounds,
        "rounds_wanted": _first_look(ctx),
        "looks": main.looks,
        "stopped": main.stopped,
        "samples": main.samples,
        "discarded": main.discarded,
        "batch": main.batch,
        "threads": 1,
        "inputs": "calibration" if measured.entrants[SOURCE].opened.sampled else "drawn",
        "statistic": "median over rounds of the paired fastest sample, sign-test interval, 95 % over all looks",
        "iterations": dict(main.repeats),
    }


def _control(heat: Heat) -> Json:
    clock = heat.clock(SOURCE)
    facts = heat.control(clock).facts()
    return {"ratio": facts["value"], "ci": facts["ci"], "clock": clock}


def _beside(heat: Heat) -> dict[str, Json]:
    """How what is served today does beside the new source."""
    return _short(heat, INCUMBENT) if INCUMBENT in heat.turns else {}


def _quality(ctx: Context, rows: Sequence[Mapping[str, Json]]) -> Json:
    """The score of the form that would be served."""
    variants = [one for passage in ctx.earlier.values() for one in passage.facts.get("variants", ())]
    name = selection.best([row["name"] for row in rows if row["role"] != SOURCE], variants, rows)
    return next(({"of": name, **row["quality"]} for row in rows if row["name"] == name), None)


def _verification(ctx: Context, name: str) -> Json:
    optimized = ctx.earlier["optimize"].facts["variants"] if "optimize" in ctx.earlier else ()
    made = next((one for one in optimized if one["name"] == name), None)
    return ctx.earlier["convert"].facts["verification"] if made is None else made["verification"]


def _warnings(ctx: Context) -> list[str]:
    return [one for passage in ctx.earlier.values() for one in passage.facts.get("warnings", ())]


STAGE = Stage(
    name="benchmark",
    run=run,
    queue="bench",
    after=("convert", "optimize"),
    time_limit=900,
    servable_only=True,
    opens_source=True,
)
