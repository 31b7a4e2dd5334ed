"""Build TensorRT engines of a version for the GPU of this worker, verify them against the ONNX file, race them on the GPU.

An engine is good for one GPU architecture and one version of the library, hence its name: `tensorrt-fp16@sm90`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import speeds
from pipeline import tensorrt_build as trt
from pipeline.errors import Rejected, Unavailable
from pipeline.examination import Examination, folder, made
from pipeline.planning import targets
from pipeline.signature import Tensor
from pipeline.stage import Context, File, Json, Limits, Made, Report, Stage
from pipeline.tensorrt_build import Built, Described, Timed

PREFIX = "tensorrt-"
PRECISIONS = ("fp16", "int8")
_MODULE = trt.__name__
_ROUNDS = 60


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all engines of one attempt share."""

    ctx: Context
    gpu: str
    found: Described
    canonical: File
    source: Path
    inputs: list[Tensor]
    examination: Examination
    reference: Path

    @property
    def limits(self) -> Limits:
        return Limits(gpu=self.gpu, wall=1500.0, cpu=3600, open_files=1024)

    @property
    def largest_batch(self) -> int:
        """As the uploader declared it."""
        config = self.ctx.upload.declared.get("config")
        said = config.get("max_batch") if isinstance(config, dict) else None
        return said if isinstance(said, int) and said > 0 else trt.LARGEST_BATCH


def run(ctx: Context) -> Report:
    """Raises `Unavailable` where the worker has no GPU, or ONNX Runtime silently does without it: `no_gpu`, `gpu_fallback`."""
    gpu = ctx.options.get("gpu")
    if not gpu:
        raise Unavailable("no_gpu", "This worker has no GPU of its own; start gpu workers where nvidia-smi lists one.")
    with ctx.sandbox.open(read=[], scratch=folder(ctx.scratch / "gpu"), limits=Limits(gpu=gpu)) as child:
        found = Described.of(child.call(f"{_MODULE}:describe"))
    if found.sm == "sm00":
        raise Unavailable("no_gpu", "CUDA finds no GPU in the sandbox, though the driver lists one.")
    ctx.log(f"{found.gpu} ({found.sm}), TensorRT {found.tensorrt}, CUDA {found.cuda}")
    canonical = next(one for one in ctx.earlier["convert"].files if one.role == "canonical")
    source = ctx.fetch(canonical)
    inputs = [Tensor.of(one) for one in canonical.meta["inputs"]]
    examination = Examination(ctx, "engines", inputs)
    shared = Bench(
        ctx=ctx,
        gpu=gpu,
        found=found,
        canonical=canonical,
        source=source,
        inputs=inputs,
        examination=examination,
        reference=examination.answers("canonical", "onnx", source),
    )
    variants: list[Json] = []
    rows: list[Json] = []
    files: list[Made] = []
    for precision in wanted(ctx):
        facts, row, file = _make(shared, precision)
        ctx.log(f"{facts['name']}: {'withheld: ' + str(facts['reason']) if facts['withheld'] else 'verified'}")
        variants.append(facts)
        rows += [] if row is None else [row]
        files += [] if file is None else [file]
    return Report(facts={"device": found.model_dump(), "variants": variants, "rows": rows}, files=files)


def wanted(ctx: Context) -> list[str]:
    """The precisions that were asked for; 16 bits where nothing was said."""
    asked = ctx.options.get("variants") or targets(ctx.upload.declared)
    return [one for one in PRECISIONS if f"{PREFIX}{one}" in asked] or ["fp16"]


def _make(shared: Bench, precision: str) -> tuple[Json, Json | None, Made | None]:
    """Facts about one engine, and its measurement and file where it may be used."""
    name = trt.variant_name(precision, shared.found.sm)
    facts: dict[str, Json] = {"name": name, "precision": precision, "size": None, "verification": None}
    work = folder(shared.ctx.scratch / name)
    engine = work / f"{name}.engine"
    try:
        parent, graph = _typed(shared, precision, work)
        spans = trt.profile(shared.inputs, largest_batch=shared.largest_batch)
        built = _build(shared, graph, engine, spans)
        facts["size"], facts["layers"] = built.size, built.layers
        answers = _answers(shared, name, engine)
        facts["verification"] = shared.examination.compare(shared.reference, answers, precision, locate=False)
        if not facts["verification"]["verified"]:
            return facts | {"verified": False, "withheld": True, "reason": facts["verification"]["reason"]}, None, None
        row = _race(shared, name, engine)
    except Rejected as refusal:
        reason = f"{refusal.code}: {refusal.message}"
        return facts | {"verified": False, "withheld": True, "reason": reason}, None, None
    meta = {
        "variant": name,
        "precision": precision,
        "runtime": "tensorrt",
        "parent": parent.sha256,
        "toolchain": shared.found.model_dump(),
        "options": {"profile": {one: list(span) for one, span in spans.items()}, "workspace": trt.WORKSPACE},
        "engine_key": trt.engine_key(shared.found, precision=precision, spans=spans, source=parent.sha256),
        "inputs": shared.canonical.meta["inputs"],
        "outputs": shared.canonical.meta["outputs"],
    }
    done = facts | {"verified": True, "withheld": False, "reason": None, "seconds": round(built.seconds, 1)}
    return done, row, Made(path=engine, role="variant", meta=meta)


def _typed(shared: Bench, precision: str, work: Path) -> tuple[File, Path]:
    """The file whose graph holds the precision, and which published file it comes from."""
    if precision == "fp16":
        graph = folder(work / "typed") / "fp16.onnx"
        with shared.ctx.sandbox.open(read=[shared.source], scratch=graph.parent) as child:
            child.call(f"{_MODULE}:halve", source=str(shared.source), destination=str(graph))
        return shared.canonical, made(graph)
    passage = shared.ctx.earlier.get("optimize")
    for file in passage.files if passage else ():
        if file.meta.get("precision") != precision:
            continue
        path = shared.ctx.fetch(file)
        with shared.ctx.sandbox.open(read=[path], scratch=folder(work / f"look-{file.sha256[:8]}")) as child:
            if child.call(f"{_MODULE}:quantised", source=str(path)) is True:
                return file, path
    raise Rejected(
        "not_calibrated", "An int8 engine is built from a calibrated int8 variant (QDQ), and this version has none."
    )


def _build(shared: Bench, graph: Path, engine: Path, spans: dict[str, trt.Span]) -> Built:
    cache = trt.timing_cache_name(shared.found)
    known, timing = shared.ctx.kept(cache), engine.parent / "timing.cache"
    read = [graph] if known is None else [graph, known]
    with shared.ctx.sandbox.open(read=read, scratch=engine.parent, limits=shared.limits) as child:
        answer = child.call(
            f"{_MODULE}:build",
            source=str(graph),
            destination=str(engine),
            spans={name: list(span) for name, span in spans.items()},
            timing=str(timing),
            known=None if known is None else str(known),
        )
    shared.ctx.keep(cache, made(timing))
    made(engine)
    return Built.of(answer)


def _answers(shared: Bench, name: str, engine: Path) -> Path:
    """The engine's answers to the questions that the canonical file has answered on a CPU."""
    answers = folder(shared.ctx.scratch / f"answers-{name}")
    questions = shared.examination.questions
    with shared.ctx.sandbox.open(read=[engine, questions], scratch=answers, limits=shared.limits) as child:
        child.call(
            f"{_MODULE}:answer",
            engine=str(engine),
            questions=str(questions),
            answers=str(answers),
            largest=shared.largest_batch,
        )
    return answers


def _race(shared: Bench, name: str, engine: Path) -> Json:
    scratch = folder(shared.ctx.scratch / f"race-{name}")
    with shared.ctx.sandbox.open(read=[engine, shared.source], scratch=scratch, limits=shared.limits) as child:
        timed = Timed.of(
            child.call(
                f"{_MODULE}:race",
                engine=str(engine),
                onnx=str(shared.source),
                inputs=[one.model_dump() for one in shared.inputs],
                batch=1,
                rounds=_ROUNDS,
            )
        )
        memory = child.peak_memory
    return row(name, timed, device=shared.found.sm, size=engine.stat().st_size, memory=memory)


def row(name: str, timed: Timed, *, device: str, size: int, memory: int) -> Json:
    """The measurement as benchmarks tell it; `speedup` is over ONNX Runtime on the same GPU."""
    if timed.provider != trt.PROVIDER:
        raise Unavailable("gpu_fallback", f"ONNX Runtime ran on {timed.provider}; this worker needs onnxruntime-gpu.")
    ratio, control = speeds.ratio(timed.onnx, timed.engine, looks=1), speeds.ratio(timed.onnx, timed.control, looks=1)
    times = [taken / 1e6 for taken in timed.engine]
    return {
        "name": name,
        "role": "variant",
        "runtime": "tensorrt",
        "device": device,
        "baseline": f"onnx-fp32 on {timed.provider}",
        "p50_ms": round(speeds.percentile(times, 0.5), 5),
        "p90_ms": round(speeds.percentile(times, 0.9), 5),
        "p99_ms": round(speeds.percentile(times, 0.99), 5),
        "iterations": len(times),
        "peak_memory": memory,
        "size": size,
        "speedup": ratio.facts()["value"],
        "speedup_ci": ratio.facts()["ci"],
        "verdict": speeds.verdict(ratio, control),
    }


STAGE = Stage(
    name="tensorrt",
    run=run,
    queue="gpu",
    after=("convert", "optimize"),
    time_limit=3600,
    servable_only=True,
    max_attempts=5,
    optional=True,
    offers=tuple(f"{PREFIX}{precision}" for precision in PRECISIONS),
)
