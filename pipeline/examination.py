"""Puts several forms of one model through the same questions, each form and each comparison in a sandbox child of its own.

Runs in the worker: it moves files and JSON and never opens either.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.budgets import budget_for, config_of, max_batch
from pipeline.decisions import task_of
from pipeline.errors import Rejected
from pipeline.questions import LARGEST_BATCH
from pipeline.sandbox.scratch import safe_file
from pipeline.signature import Inspection, Tensor
from pipeline.stage import Context, Json, Passage
from pipeline.verdict import Divergence, Verification

LARGEST_MODEL = 4 << 30
_LARGEST_GOLDEN = 4 << 20
_LOCATING = 240.0
"""Seconds of wall time to look for where two forms part."""


class Examination:
    """The questions for one model, at batches of up to `largest`. Posing them twice poses the same ones.

    What is not said is taken from the model's config and from what earlier steps found.
    """

    def __init__(self, ctx: Context, name: str, inputs: Sequence[Tensor], *, largest: int | None = None) -> None:
        self._ctx = ctx
        self._inputs = [one.model_dump() for one in inputs]
        self._folder = ctx.scratch / f"examination-{name}"
        posed = folder(self._folder / "questions")
        self.questions, self._labels = posed / "asked", posed / "labels"
        self._calls = itertools.count()
        self._forms: dict[Path, tuple[str, Path]] = {}
        found = inspected(ctx.earlier["validate"]) if "validate" in ctx.earlier else Inspection()
        self._task = task_of(config_of(ctx.upload.declared).get("task")) or task_of(found.notes.get("task"))
        self._classes = found.classes or _declared_classes(ctx.upload.declared)
        calibration = ctx.side_files.get("calibration")
        read = [] if calibration is None else [calibration]
        with ctx.sandbox.open(read=read, scratch=posed) as child:
            self._cases = child.call(
                "pipeline.questions:pose",
                inputs=self._inputs,
                folder=str(posed),
                calibration=None if calibration is None else str(calibration),
                largest=largest or largest_batch(ctx),
                operations=found.flops or 2 * (found.parameters or 0),
            )

    def answers(self, name: str, form: str, model: Path, way: Mapping[str, Json] | None = None) -> Path:
        """The folder with the answers of a model of format `form`; `way` says in which runtime, set how (`formats.onnx`)."""
        answers = folder(self._folder / f"answers-{name}")
        with self._ctx.sandbox.open(read=[model, self.questions], scratch=answers) as child:
            child.call(
                "pipeline.verification:answer",
                form=form,
                model=str(model),
                inputs=self._inputs,
                declared=dict(self._ctx.upload.declared) | dict(way or {}),
                questions=str(self.questions),
                answers=str(answers),
            )
        self._forms[answers] = form, model
        return answers

    def compare(
        self,
        reference: Path,
        candidate: Path,
        precision: str,
        kinds: Sequence[str] | None = None,
        *,
        locate: bool = True,
    ) -> Json:
        """The verification of one folder of answers against another, in the form of `verdict.Verification`.

        It goes by questions of these `kinds` only, where named. Where it fails and the candidate is an ONNX file, `locate`
        says whether to look for the tensor at which they part.
        """
        scratch = self._scratch(candidate, "compared")
        declared = dict(self._ctx.upload.declared)
        read = [self.questions, self._labels, reference, candidate]
        with self._ctx.sandbox.open(read=read, scratch=scratch) as child:
            answer = child.call(
                "pipeline.verification:compare",
                questions=str(self.questions),
                labels=str(self._labels),
                reference=str(reference),
                candidate=str(candidate),
                precision=precision,
                declared=declared,
                task=self._task,
                classes=self._classes,
                kinds=None if kinds is None else list(kinds),
            )
        found = Verification.of(answer)
        if locate and not found.verified and self._forms[candidate][0] == "onnx":
            diverges = self._diverges(reference, candidate, found)
            if diverges is not None:
                found = found.model_copy(
                    update={"diverges": diverges, "reason": f"{found.reason}; {diverges.phrase()}"}
                )
        return found.model_dump()

    def golden(self, answers: Path) -> list[tuple[Path, Json]]:
        """Small questions and their answers to keep with the version, each file with what to say of it.

        The first drawn question, and the first of the user's samples; nothing where even the smallest is large.
        """
        kept: list[tuple[Path, Json]] = []
        for name, kind in (("golden", "normal"), ("golden-sample", "sample")):
            cases = [one["file"] for one in self._cases if one["kind"] == kind]
            for case in cases[1:2] if kind == "normal" else cases[:1]:
                kept += self._golden(name, case, answers)
        return kept

    def _golden(self, name: str, case: str, answers: Path) -> list[tuple[Path, Json]]:
        found = [safe_file(place, case, LARGEST_MODEL) for place in (self.questions, answers)]
        if any(one.stat().st_size > _LARGEST_GOLDEN for one in found):
            self._ctx.log(f"no {name} is kept: one alone is larger than 4 MiB")
            return []
        kept = []
        for source, holds in zip(found, ("inputs", "outputs"), strict=True):
            copy = self._folder / f"{name}-{holds}.npz"
            copy.write_bytes(source.read_bytes())
            kept.append((copy, {"holds": holds}))
        return kept

    def _scratch(self, answers: Path, purpose: str) -> Path:
        return folder(self._folder / f"{answers.name}-{purpose}-{next(self._calls)}")

    def _diverges(self, reference: Path, candidate: Path, found: Verification) -> Divergence | None:
        """Where they part on the question that they differ most in; None where that cannot be told."""
        if found.worst is None or found.worst not in {one["file"] for one in self._cases}:
            return None
        (form, source), (_, model) = self._forms[reference], self._forms[candidate]
        question = self.questions / found.worst
        budget = budget_for(found.precision, self._ctx.upload.declared)
        scratch = self._scratch(candidate, "located")
        try:
            with self._ctx.sandbox.open(read=[source, model, question], scratch=scratch) as child:
                answer = child.call(
                    "pipeline.divergence:locate",
                    wall=_LOCATING,
                    form=form,
                    source=str(source),
                    model=str(model),
                    question=str(question),
                    inputs=self._inputs,
                    declared=dict(self._ctx.upload.declared),
                    tolerance=budget.rms_rel,
                    channel=budget.channel,
                )
        except Rejected as refusal:  # the model is refused for what was measured; this would only have said where
            self._ctx.log(f"where they part could not be found: {refusal.message}")
            return None
        return Divergence.of(answer["diverges"]) if answer["diverges"] is not None else None


def largest_batch(ctx: Context) -> int:
    """The largest batch to ask at: that of the conversion's own examination, else the config's, else a usual one."""
    said = max_batch(ctx.upload.declared) or LARGEST_BATCH
    verification = ctx.earlier["convert"].facts.get("verification") if "convert" in ctx.earlier else None
    return min(said, max(verification["batches"])) if verification else said


def _declared_classes(declared: Mapping[str, Json]) -> list[str]:
    said = declared.get("classes") or config_of(declared).get("classes") or []
    return [str(one) for one in said] if isinstance(said, list) else []


def inspected(passage: Passage) -> Inspection:
    """What the validate step found."""
    return Inspection.of({name: passage.facts[name] for name in Inspection.model_fields if name in passage.facts})


def way_of(meta: Mapping[str, Json]) -> Mapping[str, Json]:
    """In which runtime a variant is run, and how that is set: what `formats.onnx.load` reads of `declared`."""
    return {key: meta[key] for key in ("runtime", "session") if key in meta}


def digest(path: Path | None) -> str | None:
    """The hex SHA-256 of a side file, where there is one."""
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder(path: Path) -> Path:
    """A new folder."""
    path.mkdir(parents=True)
    return path


def made(path: Path) -> Path:
    """A model that a child, which is gone by now, was to leave at `path`."""
    return safe_file(path.parent, path.name, LARGEST_MODEL)
