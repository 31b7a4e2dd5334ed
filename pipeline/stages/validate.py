"""Open the model in a sandbox child, read what it takes and gives, compare that with the declaration, run it once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from pipeline import upload
from pipeline.budgets import max_batch, overrides
from pipeline.errors import Rejected
from pipeline.examination import folder
from pipeline.formats import find, glimpse_of
from pipeline.sandbox import safe_file
from pipeline.signature import Inspection, outputs_matched
from pipeline.stage import Context, Json, Made, Report, Stage

_LARGEST_PACKED = 1 << 30


def run(ctx: Context) -> Report:
    overrides(ctx.upload.declared)
    max_batch(ctx.upload.declared)
    form = find(ctx.upload.format)
    if not form.recognises(glimpse_of(ctx.model)):
        raise Rejected("content_mismatch", f"The stored file is no {form.title} file.", format=form.name)
    form.require(ctx.model, ctx.upload.declared)
    ctx.log(f"opening {ctx.upload.filename} as {form.title}")
    scratch = folder(ctx.scratch / "inspection")
    with ctx.sandbox.open(read=[ctx.model], scratch=scratch) as child:
        answer = child.call(form.function("inspect"), model=str(ctx.model), declared=dict(ctx.upload.declared))
    found = Inspection.of(answer)
    unservable = form.why_unservable(ctx.upload.declared) or found.unservable
    if unservable is None and not (found.inputs and found.outputs and found.forward and found.exporters):
        raise Rejected("answer_invalid", "The sandbox found neither inputs nor outputs, and no reason why.")
    warnings = [
        *found.warnings,
        *outputs_matched(found.outputs, ctx.upload.declared),
        *([unservable] if unservable else []),
    ]
    for warning in warnings:
        ctx.log(f"warning: {warning}")
    facts = found.model_dump(exclude={"config", "packed"})
    if found.config is not None:
        facts["declared"] = declared = _declared(found.config)
        overrides(declared)
        max_batch(declared)
    return Report(
        facts={**facts, "warnings": warnings, "format": form.name, "servable": unservable is None},
        files=[_packed(scratch, role, name) for role, name in found.packed.items()],
    )


def _declared(config: str) -> dict[str, Json]:
    """What a package's config declares, read as if it had come in the upload's form."""
    try:
        settings = cast("dict[str, Json]", upload.FIELDS["config"].read(config))
        texts = {name: json.dumps(settings[name]) for name in ("input_shape", "classes") if name in settings}
        return {"config": settings, **{name: upload.FIELDS[name].read(text) for name, text in texts.items()}}
    except ValueError as error:
        raise Rejected("invalid_config", f"The config in the package {error}.") from error


def _packed(scratch: Path, role: str, name: str) -> Made:
    return Made(path=safe_file(scratch, name, _LARGEST_PACKED), role=role)


STAGE = Stage(name="validate", run=run, queue="cpu", after=("scan",), opens_source=True)
