"""Puts several forms of one model through the same questions, each form and each comparison in a sandbox child of its own.

Runs in the worker: it moves files and JSON and never opens either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.sandbox.scratch import safe_file
from pipeline.signature import Inspection, Tensor
from pipeline.stage import Context, Json, Passage

LARGEST_MODEL = 4 << 30
_LARGEST_GOLDEN = 4 << 20


class Examination:
    """The questions for one model. Posing them twice poses the same ones."""

    def __init__(self, ctx: Context, name: str, inputs: Sequence[Tensor]) -> None:
        self._ctx = ctx
        self._inputs = [one.model_dump() for one in inputs]
        self._folder = ctx.scratch / f"examination-{name}"
        self._questions = folder(self._folder / "questions")
        calibration = ctx.side_files.get("calibration")
        read = [] if calibration is None else [calibration]
        with ctx.sandbox.open(read=read, scratch=self._questions) as child:
            self._cases = child.call(
                "pipeline.verification:pose",
                inputs=self._inputs,
                folder=str(self._questions),
                calibration=None if calibration is None else str(calibration),
            )

    def answers(self, name: str, form: str, model: Path) -> Path:
        """The folder with the answers of a model of format `form`."""
        answers = folder(self._folder / f"answers-{name}")
        with self._ctx.sandbox.open(read=[model, self._questions], scratch=answers) as child:
            child.call(
                "pipeline.verification:answer",
                form=form,
                model=str(model),
                inputs=self._inputs,
                declared=dict(self._ctx.upload.declared),
                questions=str(self._questions),
                answers=str(answers),
            )
        return answers

    def compare(self, reference: Path, candidate: Path, precision: str) -> Json:
        """The verification of one folder of answers against another."""
        scratch = folder(candidate.with_name(f"{candidate.name}-compared"))
        with self._ctx.sandbox.open(read=[self._questions, reference, candidate], scratch=scratch) as child:
            return child.call(
                "pipeline.verification:compare",
                questions=str(self._questions),
                reference=str(reference),
                candidate=str(candidate),
                precision=precision,
            )

    def golden(self, answers: Path) -> list[Path]:
        """A small question and its answer to keep with the version, or nothing where even the smallest is large."""
        name = self._cases[1]["file"]
        found = [safe_file(place, name, LARGEST_MODEL) for place in (self._questions, answers)]
        if any(one.stat().st_size > _LARGEST_GOLDEN for one in found):
            self._ctx.log("no golden sample is kept: one alone is larger than 4 MiB")
            return []
        kept = [self._folder / "golden-inputs.npz", self._folder / "golden-outputs.npz"]
        for source, copy in zip(found, kept, strict=True):
            copy.write_bytes(source.read_bytes())
        return kept


def inspected(passage: Passage) -> Inspection:
    """What the validate step found."""
    return Inspection.of({name: passage.facts[name] for name in Inspection.model_fields if name in passage.facts})


def folder(path: Path) -> Path:
    """A new folder."""
    path.mkdir(parents=True)
    return path


def made(path: Path) -> Path:
    """A model that a child, which is gone by now, was to leave at `path`."""
    return safe_file(path.parent, path.name, LARGEST_MODEL)
