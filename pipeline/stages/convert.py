"""Write the model as canonical ONNX by every way known for its format, and keep the one that answers like the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.errors import Rejected
from pipeline.examination import Examination, digest, folder, inspected, largest_batch, made
from pipeline.foreign import out_of_memory
from pipeline.formats import Format, find
from pipeline.run import Purpose
from pipeline.signature import Answer, Tensor, Text
from pipeline.stage import Context, Json, Made, Report, Stage
from pipeline.toolchain import toolchain
from pipeline.verification import errors

CANONICAL = "onnx-fp32"
_MUCH_BETTER = 10
_SMALL = 2
_SHAPING = ("input_shape", "classes", "config", "framework", "model_type")
"""What of the declared can shape the converted file or its verification; descriptions and tags cannot."""


class Written(Answer):
    """What the canonical file holds; the names are those in the graph."""

    opset: int
    nodes: int
    size: int
    inputs: list[Text]
    outputs: list[Text]
    indices: dict[Text, Annotated[int, Field(ge=1)]]


@dataclass(frozen=True, kw_only=True)
class Export:
    """One way tried: the file where it wrote one, its answers and the verification where it ran, else why not."""

    exporter: str
    model: Path | None = None
    answers: Path | None = None
    written: Written | None = None
    verification: Json = None
    reason: str | None = None

    def refused(self, refusal: Rejected) -> Export:
        return replace(self, reason=f"{refusal.code}: {refusal.message}")

    @property
    def ok(self) -> bool:
        return self.verification is not None and self.verification["verified"]

    def facts(self) -> Json:
        return {
            "exporter": self.exporter,
            "ok": self.ok,
            "reason": self.reason or (self.verification or {}).get("reason"),
            "verification": self.verification,
        }


def run(ctx: Context) -> Report:
    form, found = find(ctx.upload.format), inspected(ctx.earlier["validate"])
    form.require(ctx.model, ctx.upload.declared)
    outcome = _try_all(ctx, form, "free", inputs=found.inputs, outputs=found.outputs, exporters=found.exporters)
    tried = outcome.tried
    warnings: list[str] = []
    if not any(one.ok for one in tried) and any(one.batched for one in found.inputs):
        pinned = [[_pinned(one) for one in side] for side in (found.inputs, found.outputs)]
        warnings = [f"No exporter keeps the batch size free: it is fixed at {pinned[0][0].example[0]}."]
        outcome = _try_all(ctx, form, "fixed", inputs=pinned[0], outputs=pinned[1], exporters=found.exporters)
        tried = [*tried, *outcome.tried]
    inputs, outputs = outcome.inputs, outcome.outputs
    best = _best(tried)
    if best is None or best.model is None or best.answers is None or best.written is None or not outcome.examination:
        raise _refusal(tried)
    ctx.log(f"keeping the {best.exporter} export")
    meta = {
        "variant": CANONICAL,
        "precision": "fp32",
        "parent": ctx.upload.sha256,
        "toolchain": dict(toolchain()),
        "options": {"exporter": best.exporter, "opset": best.written.opset},
        "inputs": [one.model_dump() for one in inputs if one.name in best.written.inputs],
        "outputs": [
            one.model_copy(update={"name": name}).model_dump()
            for one, name in zip(outputs, best.written.outputs, strict=True)
        ],
    }
    golden = [
        Made(path=path, role="sample", meta={"of": CANONICAL, **said})
        for path, said in outcome.examination.golden(best.answers)
    ]
    return Report(
        facts={
            "exporter": best.exporter,
            "tried": [one.facts() for one in tried],
            "opset": best.written.opset,
            "nodes": best.written.nodes,
            "size": best.written.size,
            "inputs": [one.model_dump() for one in inputs],
            "outputs": meta["outputs"],
            "warnings": warnings,
            "verification": best.verification,
        },
        files=[Made(path=best.model, role="canonical", meta=meta), *golden],
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of all exporters for one signature; `inputs` with what the graphs say of their range."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    tried: Sequence[Export]
    examination: Examination | None = None


def _try_all(
    ctx: Context,
    form: Format,
    name: str,
    *,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    exporters: Sequence[str],
) -> Outcome:
    """Write first and ask later: what an input may hold is best read off the graphs."""
    written = [
        _export(ctx, form, one, folder(ctx.scratch / f"{name}-{one}"), inputs=inputs, outputs=outputs)
        for one in exporters
    ]
    inputs = [_ranged(one, written) for one in inputs]
    if not any(one.written for one in written):
        return Outcome(inputs=inputs, outputs=outputs, tried=written)
    examination, reference = _examine(ctx, form, name, inputs)
    tried = [_verify(examination, reference, one) for one in written]
    for one in tried:
        ctx.log(f"{one.exporter}: {'verified' if one.ok else one.facts()['reason']}")
    return Outcome(inputs=inputs, outputs=outputs, tried=tried, examination=examination)


def _export(
    ctx: Context, form: Format, exporter: str, work: Path, *, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> Export:
    exported, model = folder(work / "exported") / "exported.onnx", folder(work / "canonical") / f"{CANONICAL}.onnx"
    export = Export(exporter=exporter)
    try:
        with ctx.sandbox.open(read=[ctx.model], scratch=exported.parent) as child:
            child.call(
                form.function("export"),
                model=str(ctx.model),
                destination=str(exported),
                exporter=exporter,
                inputs=[one.model_dump() for one in inputs],
                outputs=[one.model_dump() for one in outputs],
                declared=dict(ctx.upload.declared),
            )
        with ctx.sandbox.open(read=[made(exported)], scratch=model.parent) as child:
            answer = child.call("pipeline.canonical:finish", source=str(exported), destination=str(model))
        return replace(export, model=made(model), written=Written.of(answer))
    except Rejected as refusal:
        return export.refused(refusal)


def _examine(ctx: Context, form: Format, name: str, inputs: Sequence[Tensor]) -> tuple[Examination, Path]:
    """The examination and the source's own answers, at the largest batch for which it has memory and time."""
    largest = largest_batch(ctx) if any(one.batched for one in inputs) else 1
    while True:
        examination = Examination(ctx, f"{name}-{largest}", inputs, largest=largest)
        try:
            return examination, examination.answers("source", form.name, ctx.model)
        except Rejected as refusal:
            short = refusal.code in ("memory_limit", "time_limit") or out_of_memory(refusal)
            if not short or largest <= _SMALL:
                raise
            ctx.log(f"asking at smaller batches than {largest}: {refusal.message}")
            largest = max(_SMALL, largest // 4)


def _verify(examination: Examination, reference: Path, export: Export) -> Export:
    if export.model is None:
        return export
    try:
        answers = examination.answers(export.exporter, "onnx", export.model)
        return replace(export, answers=answers, verification=examination.compare(reference, answers, "fp32"))
    except Rejected as refusal:
        return export.refused(refusal)


def _ranged(tensor: Tensor, exports: Sequence[Export]) -> Tensor:
    """The input with the smallest range that a graph reads it in."""
    found = [one.written.indices[tensor.name] for one in exports if one.written and tensor.name in one.written.indices]
    return tensor.model_copy(update={"below": min(found)}) if found else tensor


def _best(tried: Sequence[Export]) -> Export | None:
    """The first that verifies, unless a later one has fewer flips or a tenth of its error."""
    best: Export | None = None
    for one in tried:
        if not one.ok:
            continue
        if best is None:
            best = one
            continue
        (flips, error), (least, smallest) = errors(one.verification), errors(best.verification)
        if flips < least or (flips == least and error * _MUCH_BETTER < smallest):
            best = one
    return best


def _refusal(tried: Sequence[Export]) -> Rejected:
    said = "; ".join(dict.fromkeys(f"{one.exporter}: {one.facts()['reason']}" for one in tried))
    facts = [one.facts() for one in tried]
    if any(one.verification is not None for one in tried):
        return Rejected("not_equivalent", f"The converted model does not answer like the source. {said}", tried=facts)
    return Rejected("conversion_failed", f"The model could not be converted to ONNX. {said}", tried=facts)


def _pinned(tensor: Tensor) -> Tensor:
    if not tensor.batched or tensor.shape is None:
        return tensor
    return tensor.model_copy(update={"shape": [tensor.example[0] if tensor.example else 1, *tensor.shape[1:]]})


def depends(ctx: Context) -> Json:
    """The file, what validation found in it (not how long it took), what was declared of it, the calibration, the tools."""
    return {
        "sha256": ctx.upload.sha256,
        "format": ctx.upload.format,
        "found": inspected(ctx.earlier["validate"]).model_dump(exclude={"forward"}),
        "declared": {name: value for name, value in ctx.upload.declared.items() if name in _SHAPING},
        "calibration": digest(ctx.side_files.get("calibration")),
        "toolchain": dict(toolchain()),
    }


STAGE = Stage(
    name="convert",
    run=run,
    depends=depends,
    queue="convert",
    after=("scan", "validate"),
    time_limit=1800,
    servable_only=True,
    opens_source=True,
    purposes=(Purpose.INTAKE, Purpose.REBUILD),
)
