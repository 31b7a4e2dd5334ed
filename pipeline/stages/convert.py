"""Write the model as canonical ONNX by every way known for its format, and keep the one that answers like the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Rejected
from pipeline.examination import Examination, folder, inspected, made
from pipeline.formats import Format, find
from pipeline.optimizing import toolchain
from pipeline.signature import Answer, Tensor, Text
from pipeline.stage import Context, Json, Made, Report, Stage
from pipeline.verification import errors

CANONICAL = "onnx-fp32"
_MUCH_BETTER = 10


class Written(Answer):
    """What the canonical file holds; the names are those in the graph."""

    opset: int
    nodes: int
    size: int
    inputs: list[Text]
    outputs: list[Text]


@dataclass(frozen=True, kw_only=True)
class Export:
    """One way tried: the file and its answers where it wrote one, the verification where it ran, else why not."""

    exporter: str
    model: Path | None = None
    answers: Path | None = None
    written: Written | None = None
    verification: Json = None
    reason: str | None = None

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
    inputs, outputs = found.inputs, found.outputs
    examination, tried = _try_all(ctx, form, "free", inputs=inputs, outputs=outputs, exporters=found.exporters)
    warnings: list[str] = []
    if not any(one.ok for one in tried) and any(one.batched for one in inputs):
        inputs, outputs = [_pinned(one) for one in inputs], [_pinned(one) for one in outputs]
        warnings = [f"No exporter keeps the batch size free: it is fixed at {inputs[0].example[0]}."]
        examination, again = _try_all(ctx, form, "fixed", inputs=inputs, outputs=outputs, exporters=found.exporters)
        tried += again
    best = _best(tried)
    if best is None or best.model is None or best.answers is None or best.written is None:
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
        Made(path=path, role="sample", meta={"of": CANONICAL, "holds": holds})
        for path, holds in zip(examination.golden(best.answers), ("inputs", "outputs"), strict=False)
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


def _try_all(
    ctx: Context,
    form: Format,
    name: str,
    *,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    exporters: Sequence[str],
) -> tuple[Examination, list[Export]]:
    examination = Examination(ctx, name, inputs)
    reference = examination.answers("source", form.name, ctx.model)
    tried: list[Export] = []
    for exporter in exporters:
        work = folder(ctx.scratch / f"{name}-{exporter}")
        export = _export(
            ctx,
            form,
            exporter,
            work=work,
            examination=examination,
            reference=reference,
            inputs=inputs,
            outputs=outputs,
        )
        ctx.log(f"{exporter}: {'verified' if export.ok else export.facts()['reason']}")
        tried.append(export)
    return examination, tried


def _export(
    ctx: Context,
    form: Format,
    exporter: str,
    *,
    work: Path,
    examination: Examination,
    reference: Path,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> Export:
    exported, model = folder(work / "exported") / "exported.onnx", folder(work / "canonical") / f"{CANONICAL}.onnx"
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
        written = Written.of(answer)
        answers = examination.answers(exporter, "onnx", made(model))
        verification = examination.compare(reference, answers, "fp32")
    except Rejected as refusal:
        return Export(exporter=exporter, reason=f"{refusal.code}: {refusal.message}")
    return Export(exporter=exporter, model=model, answers=answers, written=written, verification=verification)


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


STAGE = Stage(name="convert", run=run, queue="convert", after=("scan", "validate"), time_limit=1800, servable_only=True)
