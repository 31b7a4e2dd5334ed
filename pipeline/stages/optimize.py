"""Make variants of the canonical file and keep those that still answer like it; one that does not is withheld.

A quantised one that misses its budget is repaired: its most sensitive layers go back to float, as few as it takes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline import racing, recipes, repairing
from pipeline.errors import Rejected
from pipeline.examination import Examination, digest, folder, made
from pipeline.recipes import NO_GAIN, ONNXRUNTIME, Recipe
from pipeline.run import Purpose
from pipeline.signature import Answer, Tensor, Text
from pipeline.stage import Child, Context, File, Json, Made, Report, Stage
from pipeline.toolchain import installed, toolchain

_LEVELS = ("all", "basic", "extended")
"""Of graph optimisation in ONNX Runtime: which is the fastest depends on the graph, so each is tried."""

_REPAIR_SECONDS = 600.0
_DRAWN = ["normal", "uniform", "zeros", "ones", "small"]
"""Kinds of question within the ranges that a model calibrated on drawn samples has seen."""

_NEEDS_SAMPLES = (
    "needs_calibration: Ranges of activations are found on samples of real inputs. Upload a calibration file (.npz, one "
    'array per input, 64 samples or more), or declare {"calibration": "seeded"} in the config to have them drawn.'
)


class Layer(Answer):
    """What is quantised together: `error` it alone brings about, relative to the outputs, and share of the time."""

    name: Text
    nodes: Annotated[list[Text], Field(min_length=1, max_length=100_000)]
    error: Annotated[float, Field(ge=0)]
    time: Annotated[float, Field(ge=0, le=1)]


class Ranking(Answer):
    layers: Annotated[list[Layer], Field(max_length=1000)]


@dataclass(kw_only=True)
class Yard:
    """What all recipes of one run share. `calibration` is the user's file; `digest` names it, or says `seeded`."""

    ctx: Context
    canonical: File
    source: Path
    inputs: list[Json]
    examination: Examination
    reference: Path
    calibration: Path | None
    digest: str | None
    repair_until: float
    files: list[Made] = field(default_factory=list)
    variants: list[Json] = field(default_factory=list)

    @property
    def read(self) -> list[Path]:
        return [self.source] if self.calibration is None else [self.source, self.calibration]

    @property
    def calibrating(self) -> str | None:
        return None if self.calibration is None else str(self.calibration)

    def keep(self, facts: Json, file: Made | None) -> None:
        self.variants.append(facts)
        self.files += [file] if file is not None else []
        self.ctx.log(f"{facts['name']}: {'withheld: ' + str(facts['reason']) if facts['withheld'] else 'verified'}")

    def file_of(self, names: Collection[str]) -> Path | None:
        """The first kept file of these variants."""
        kept = {one.meta["variant"]: one.path for one in self.files}
        return next((kept[name] for name in names if name in kept), None)


def run(ctx: Context) -> Report:
    canonical = next(one for one in ctx.earlier["convert"].files if one.role == "canonical")
    source = ctx.fetch(canonical)
    inputs = [Tensor.of(one) for one in canonical.meta["inputs"]]
    examination = Examination(ctx, "variants", inputs)
    calibration = ctx.side_files.get("calibration")
    seeded = (ctx.upload.declared.get("config") or {}).get("calibration") == "seeded"
    yard = Yard(
        ctx=ctx,
        canonical=canonical,
        source=source,
        inputs=[one.model_dump() for one in inputs],
        examination=examination,
        reference=examination.answers("canonical", "onnx", source),
        calibration=calibration,
        digest=digest(calibration) if calibration is not None else "seeded" if seeded else None,
        repair_until=time.monotonic() + float(ctx.options.get("repair_timeout", _REPAIR_SECONDS)),
    )
    asked = ctx.options.get("variants")
    for recipe in wanted(asked):
        _carry_out(yard, recipe)
    if asked is not None:
        names = {
            name for one in recipes.discover() if {one.name, one.repair} & set(asked) for name in (one.name, one.repair)
        }
        yard.variants = [one for one in yard.variants if one["name"] in names]
        yard.files = [one for one in yard.files if one.meta["variant"] in names]
    return Report(facts={"variants": yard.variants}, files=yard.files)


def wanted(asked: Sequence[str] | None) -> list[Recipe]:
    """The recipes that can be carried out here: all, or those of the variants asked for and whose files they take up."""
    known = {name for one in recipes.discover() for name in (one.name, one.repair)}
    chosen = recipes.discover() if asked is None else [recipes.find(name) for name in asked if name in known]
    needed = {one.name for one in chosen} | {recipes.find(name).name for one in chosen for name in one.of}
    return [
        one
        for one in recipes.discover()
        if one.name in needed and one.offered(toolchain(), installed=one.package is None or installed(one.package))
    ]


def _carry_out(yard: Yard, recipe: Recipe) -> None:
    if recipe.of:
        other = yard.file_of(recipe.of)
        if other is not None:
            yard.keep(*_run_elsewhere(yard, recipe, other))
        return
    if recipe.calibrated and yard.digest is None:
        yard.keep(_withheld(_facts(recipe), _NEEDS_SAMPLES), None)
        return
    path = folder(yard.ctx.scratch / recipe.name) / f"{recipe.name}.onnx"
    try:
        with yard.ctx.sandbox.open(read=yard.read, scratch=path.parent) as child:
            child.call(
                f"{recipes.module(recipe)}:make",
                source=str(yard.source),
                destination=str(path),
                inputs=yard.inputs,
                calibration=yard.calibrating,
                keep=[],
                **recipe.options,
            )
        facts, file = _judged(yard, recipe, path, keep=[])
    except Rejected as refusal:
        yard.keep(_withheld(_facts(recipe), f"{refusal.code}: {refusal.message}"), None)
        return
    yard.keep(facts, file)
    if file is None and recipe.repair is not None:
        yard.keep(*_repaired(yard, replace(recipe, name=recipe.repair, precision="mixed"), of=recipe))


def _judged(yard: Yard, recipe: Recipe, path: Path, *, keep: Sequence[str]) -> tuple[Json, Made | None]:
    """Choose how the variant is to be run, verify it as it will be run, and say what came of it."""
    session, speeds = _session(yard, recipe, path)
    verification = _verified(yard, recipe, path, f"{recipe.name}-judged", session=session)
    facts = _facts(recipe) | {
        "size": made(path).stat().st_size,
        "session": session,
        "session_speeds": speeds,
        "verification": verification,
        "verified": verification["verified"],
        "withheld": not verification["verified"],
        "reason": verification["reason"],
    }
    return facts, _made(yard, recipe, path, session=session, keep=keep) if verification["verified"] else None


def _verified(
    yard: Yard, recipe: Recipe, path: Path, name: str, *, session: Mapping[str, Json], locate: bool = True
) -> Json:
    """The verification; of a form with ranges fixed on samples, by questions from within these ranges only."""
    way = {"runtime": recipe.runtime, "session": session}
    answers = yard.examination.answers(name, "onnx", made(path), way)
    kinds = None
    if recipe.ranged:
        kinds = ["sample"] if yard.calibration is not None else _DRAWN
    return yard.examination.compare(yard.reference, answers, recipe.budget, kinds, locate=locate)


def _session(yard: Yard, recipe: Recipe, path: Path) -> tuple[Mapping[str, Json], Json]:
    """How the runtime is to be set, and how many times as fast as the first each setting was that was tried."""
    if recipe.runtime != ONNXRUNTIME:
        return recipe.session, {}
    ways = [dict(recipe.session) | {"level": level} for level in _LEVELS]
    try:
        raced = [(made(path), {"runtime": ONNXRUNTIME, "session": one}) for one in ways]
        best, speeds = _race(yard, raced, recipe.name)
    except Rejected as refusal:  # three sessions at once are too much for a model that runs well in one
        yard.ctx.log(f"{recipe.name} keeps the default level: {refusal.message}")
        return ways[0], {}
    return ways[best], dict(zip(_LEVELS, speeds, strict=True))


def _race(yard: Yard, ways: Sequence[tuple[Path, Json]], name: str) -> tuple[int, list[float | None]]:
    scratch = folder(yard.ctx.scratch / f"{name}-race")
    with yard.ctx.sandbox.open(read=[path for path, _ in ways], scratch=scratch) as child:
        described = [{"model": str(path), "declared": declared} for path, declared in ways]
        answer = child.call(f"{racing.__name__}:race", ways=described, inputs=yard.inputs)
    return racing.winner(racing.Times.by(answer, len(ways)))


def _run_elsewhere(yard: Yard, recipe: Recipe, other: Path) -> tuple[Json, Made | None]:
    """A file that was kept, in another runtime: only where that is faster here, and verified like everything else."""
    path = folder(yard.ctx.scratch / recipe.name) / f"{recipe.name}.onnx"
    shutil.copyfile(other, path)
    held = next(one for one in yard.files if one.path == other)
    try:
        ways = [(other, {"runtime": held.meta["runtime"], "session": held.meta["session"]})]
        ways.append((path, {"runtime": recipe.runtime, "session": recipe.session}))
        best, speeds = _race(yard, ways, recipe.name)
        facts, file = _judged(yard, recipe, path, keep=[])
    except Rejected as refusal:
        return _withheld(_facts(recipe), f"{refusal.code}: {refusal.message}"), None
    facts |= {"session_speeds": {held.meta["variant"]: 1.0, recipe.runtime: speeds[1]}}
    if file is not None and not best:
        said = f"{NO_GAIN}: On this machine it is {speeds[1]} times as fast as {held.meta['variant']}, which is kept."
        return _withheld(facts, said), None
    return facts, file


def _repaired(yard: Yard, recipe: Recipe, *, of: Recipe) -> tuple[Json, Made | None]:
    """The variant with the fewest layers in float that meets the budget, or why there is none."""
    work = folder(yard.ctx.scratch / recipe.name)
    try:
        with yard.ctx.sandbox.open(read=yard.read, scratch=work) as child:
            bench = _bench(yard, recipe, of, child, work)
            found = repairing.search([one.name for one in bench.layers], bench.meets)
        repair = bench.cost(found)
        if found.kept is None:
            said = f"not_repaired: No part of it in int8 meets the budget ({found.trials} trials)."
            facts = _facts(recipe) | {"verification": bench.last, "repair": repair}
            return _withheld(facts, said), None
        path = folder(yard.ctx.scratch / f"{recipe.name}-kept") / f"{recipe.name}.onnx"
        shutil.copyfile(made(bench.tried[frozenset(found.kept)]), path)
        facts, file = _judged(yard, recipe, path, keep=bench.nodes(found.kept))
    except Rejected as refusal:
        return _withheld(_facts(recipe), f"{refusal.code}: {refusal.message}"), None
    return facts | {"repair": repair}, file


def _bench(yard: Yard, recipe: Recipe, of: Recipe, child: Child, work: Path) -> Bench:
    child.call(
        "pipeline.quantizing:open_bench",
        module=recipes.module(of),
        source=str(yard.source),
        scratch=str(work),
        inputs=yard.inputs,
        calibration=yard.calibrating,
        options=dict(of.options),
    )
    answer = child.call("pipeline.quantizing:rank", wall=max(1.0, yard.repair_until - time.monotonic()))
    return Bench(yard=yard, recipe=recipe, child=child, work=work, layers=Ranking.of(answer).layers)


@dataclass(kw_only=True)
class Bench:
    """A child that holds the quantiser open, the layers (the most sensitive first) and the files tried by what was kept."""

    yard: Yard
    recipe: Recipe
    child: Child
    work: Path
    layers: Sequence[Layer]
    tried: dict[frozenset[str], Path] = field(default_factory=dict)
    last: Json = None

    def meets(self, kept: Collection[str]) -> bool:
        """Make the form in which these layers are kept in float and verify it as `optimize` verifies every variant."""
        left = self.yard.repair_until - time.monotonic()
        if left <= 0:
            raise Rejected("repair_timeout", f"The repair did not come to an end in time ({len(self.tried)} trials).")
        path = self.work / f"trial-kept-{len(self.tried)}.onnx"
        self.child.call("pipeline.quantizing:build", wall=left, destination=str(path), keep=self.nodes(kept))
        name = f"{self.recipe.name}-{len(self.tried)}"
        self.last = _verified(self.yard, self.recipe, path, name, session=self.recipe.session, locate=False)
        self.tried[frozenset(kept)] = path
        said = "met" if self.last["verified"] else f"missed: {self.last['reason']}"
        self.yard.ctx.log(f"{self.recipe.name} with {len(kept)} of {len(self.layers)} layers in float: {said}")
        return bool(self.last["verified"])

    def nodes(self, kept: Collection[str]) -> list[str]:
        return sorted(node for one in self.layers if one.name in kept for node in one.nodes)

    def cost(self, found: repairing.Repair) -> Json:
        """What it cost: nodes kept in float `of` those that int8 has a form of, their share of the time, bytes."""
        kept = set(found.kept or ())
        return {
            "layers": [one.name for one in self.layers if one.name in kept],
            "kept": len(self.nodes(kept)),
            "of": sum(len(one.nodes) for one in self.layers),
            "tried": found.trials,
            "time_share": round(sum(one.time for one in self.layers if one.name in kept), 4),
            "size": None if found.kept is None else made(self.tried[frozenset(kept)]).stat().st_size,
            "ranking": [{"layer": one.name, "error": float(f"{one.error:.3g}")} for one in self.layers[:20]],
        }


def _facts(recipe: Recipe) -> dict[str, Json]:
    start = {"name": recipe.name, "precision": recipe.precision, "runtime": recipe.runtime}
    return start | {"size": None, "verification": None}


def _withheld(facts: Json, reason: str) -> Json:
    return facts | {"verified": False, "withheld": True, "reason": reason}


def _made(yard: Yard, recipe: Recipe, path: Path, *, session: Mapping[str, Json], keep: Sequence[str]) -> Made:
    options = dict(recipe.options) | ({"keep": list(keep)} if keep else {})
    options |= {"calibration": yard.digest} if recipe.calibrated else {}
    meta = {
        "variant": recipe.name,
        "precision": recipe.precision,
        "runtime": recipe.runtime,
        "session": dict(session),
        "parent": yard.canonical.sha256,
        "toolchain": dict(toolchain()),
        "fingerprint": recipes.fingerprint(recipes.find(recipe.name), toolchain()),
        "options": options,
        "inputs": yard.canonical.meta["inputs"],
        "outputs": yard.canonical.meta["outputs"],
    }
    return Made(path=path, role="variant", meta=meta)


def depends(ctx: Context) -> Json:
    """The canonical file and what is known of its inputs, the recipes that are asked for, budgets, calibration, tools."""
    canonical = next(one for one in ctx.earlier["convert"].files if one.role == "canonical")
    return {
        "sha256": canonical.sha256,
        "inputs": canonical.meta["inputs"],
        "outputs": canonical.meta["outputs"],
        "recipes": [[one.name, recipes.fingerprint(one, toolchain())] for one in wanted(ctx.options.get("variants"))],
        "declared": {name: ctx.upload.declared.get(name) for name in ("config", "classes", "model_type")},
        "calibration": digest(ctx.side_files.get("calibration")),
    }


STAGE = Stage(
    name="optimize",
    run=run,
    depends=depends,
    queue="convert",
    after=("convert",),
    time_limit=3600,
    servable_only=True,
    purposes=(Purpose.INTAKE, Purpose.REBUILD),
    offers=tuple(name for one in recipes.discover() for name in (one.name, one.repair) if name),
)
