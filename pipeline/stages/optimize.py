"""Make variants of the canonical file and keep those that still answer like it; one that does not is withheld."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import Rejected
from pipeline.examination import Examination, folder, made
from pipeline.optimizing import RECIPES, Recipe, toolchain
from pipeline.signature import Tensor
from pipeline.stage import Context, File, Json, Made, Report, Stage


def run(ctx: Context) -> Report:
    canonical = next(one for one in ctx.earlier["convert"].files if one.role == "canonical")
    source = ctx.fetch(canonical)
    inputs = [Tensor.of(one) for one in canonical.meta["inputs"]]
    examination = Examination(ctx, "variants", inputs)
    reference = examination.answers("canonical", "onnx", source)
    variants: list[Json] = []
    files: list[Made] = []
    for recipe in RECIPES:
        facts, file = _make(
            ctx, recipe, canonical=canonical, source=source, examination=examination, reference=reference
        )
        ctx.log(f"{recipe.name}: {'withheld: ' + str(facts['reason']) if facts['withheld'] else 'verified'}")
        variants.append(facts)
        files += [file] if file is not None else []
    return Report(facts={"variants": variants}, files=files)


def _make(
    ctx: Context, recipe: Recipe, *, canonical: File, source: Path, examination: Examination, reference: Path
) -> tuple[Json, Made | None]:
    path = folder(ctx.scratch / recipe.name) / f"{recipe.name}.onnx"
    facts: dict[str, Json] = {"name": recipe.name, "precision": recipe.precision, "size": None, "verification": None}
    try:
        with ctx.sandbox.open(read=[source], scratch=path.parent) as child:
            child.call(recipe.function, source=str(source), destination=str(path), **recipe.options)
        facts["size"] = made(path).stat().st_size
        answers = examination.answers(recipe.name, "onnx", path)
        facts["verification"] = examination.compare(reference, answers, recipe.precision)
    except Rejected as refusal:
        return facts | {"verified": False, "withheld": True, "reason": f"{refusal.code}: {refusal.message}"}, None
    verified = facts["verification"]["verified"]
    facts |= {"verified": verified, "withheld": not verified, "reason": facts["verification"]["reason"]}
    meta = {
        "variant": recipe.name,
        "precision": recipe.precision,
        "parent": canonical.sha256,
        "toolchain": dict(toolchain()),
        "options": dict(recipe.options),
        "inputs": canonical.meta["inputs"],
        "outputs": canonical.meta["outputs"],
    }
    return facts, Made(path=path, role="variant", meta=meta) if verified else None


STAGE = Stage(name="optimize", run=run, queue="convert", after=("convert",), time_limit=1800, servable_only=True)
