"""Open the model in a sandbox child, read what it takes and gives, compare that with the declaration, run it once."""

from __future__ import annotations

from pipeline.errors import Rejected
from pipeline.examination import folder
from pipeline.formats import find, glimpse_of
from pipeline.signature import Inspection
from pipeline.stage import Context, Report, Stage


def run(ctx: Context) -> Report:
    form = find(ctx.upload.format)
    if not form.recognises(glimpse_of(ctx.model)):
        raise Rejected("content_mismatch", f"The stored file is no {form.title} file.", format=form.name)
    ctx.log(f"opening {ctx.upload.filename} as {form.title}")
    with ctx.sandbox.open(read=[ctx.model], scratch=folder(ctx.scratch / "inspection")) as child:
        answer = child.call(form.function("inspect"), model=str(ctx.model), declared=dict(ctx.upload.declared))
    found = Inspection.of(answer)
    unservable = form.unservable or found.unservable
    if unservable is None and not (found.inputs and found.outputs and found.forward and found.exporters):
        raise Rejected("answer_invalid", "The sandbox found neither inputs nor outputs, and no reason why.")
    warnings = [*found.warnings, *([unservable] if unservable else [])]
    for warning in warnings:
        ctx.log(f"warning: {warning}")
    return Report(
        facts={**found.model_dump(), "warnings": warnings, "format": form.name, "servable": unservable is None},
    )


STAGE = Stage(name="validate", run=run, queue="cpu", after=("scan",))
