"""Whether two forms of a model decide the same: which inputs to ask, how to compare answers, what each precision may cost.

The functions with paths run in sandbox children, each in its own, so that the one that compares sees arrays only and
the form under test never meets the answers it is compared with.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import formats
from pipeline.errors import Rejected
from pipeline.signature import Tensor, shown
from pipeline.stage import Json
from pipeline.trial import Predictor, draw, read, write

_PLANS = ((1, 2, 8, 8, 8, 8), (1, 2, 8), (1, 2))
"""Batch sizes to ask at, twice over; the first plan that stays within `_ELEMENTS`."""

_EDGES = ("zeros", "ones", "small", "large")
_EDGE_BATCH = 2
_CALIBRATION = 64
_ELEMENTS = 1 << 25
"""Drawn values in all questions together; models with larger inputs are asked fewer questions."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a precision may cost. Errors are relative to the RMS of the reference output, kind of input by kind.

    `flips` is the share of decisions that may differ. A decision that differs although the reference prefers its
    own by no more than `tie` × RMS is a tie and not a flip.
    """

    rms_rel: float
    max_rel: float
    cosine: float
    flips: float
    tie: float


BUDGETS = {
    "fp32": Budget(rms_rel=1e-4, max_rel=1e-3, cosine=0.999_99, flips=0.0, tie=1e-4),
    "fp16": Budget(rms_rel=1e-2, max_rel=0.1, cosine=0.999, flips=0.01, tie=1e-3),
    "int8": Budget(rms_rel=0.1, max_rel=1.0, cosine=0.99, flips=0.03, tie=1e-2),
}


def pose(inputs: Json, folder: str, calibration: str | None = None) -> Json:
    """Write the questions into `folder`, one .npz each: seeded, at the edges, and the first of the user's samples."""
    tensors = [Tensor.of(one) for one in inputs]
    free = any(one.batched for one in tensors)
    weight = sum(math.prod(one.sized(1)) for one in tensors)
    plans = _PLANS if free else [(1,) * len(one) for one in _PLANS]
    edge = _EDGE_BATCH if free else 1
    asked = [weight * (2 * sum(one) + len(_EDGES) * edge) for one in plans]
    batches = next((plan for plan, values in zip(plans, asked, strict=True) if values <= _ELEMENTS), plans[-1])
    cases: list[tuple[str, int, dict[str, Any]]] = []
    for kind in ("normal", "uniform"):
        cases += [(kind, one, draw(tensors, batch=one, kind=kind, seed=seed)) for seed, one in enumerate(batches)]
    cases += [(kind, edge, draw(tensors, batch=edge, kind=kind)) for kind in _EDGES]
    if calibration is not None:
        cases += [("sample", size, arrays) for size, arrays in _samples(tensors, read(calibration), free=free)]
    listed = []
    for number, (kind, batch, arrays) in enumerate(cases):
        name = f"{number:03}-{kind}.npz"
        write(str(Path(folder) / name), arrays)
        listed.append({"file": name, "kind": kind, "batch": batch})
    return listed


def answer(*, form: str, model: str, inputs: Json, declared: Json, questions: str, answers: str) -> Json:
    """Run a model of format `form` on every question and write its answers under the same names."""
    predict = load(form, model, inputs, declared)
    for path in sorted(Path(questions).glob("*.npz")):
        write(str(Path(answers) / path.name), predict(read(str(path))))
    return {}


def load(form: str, model: str, inputs: Json, declared: Json) -> Predictor:
    """The predictor of a model of format `form`."""
    module = importlib.import_module(f"{formats.__name__}.{formats.find(form).name}")
    predict: Predictor = module.load(model, inputs, declared)
    return predict


def compare(questions: str, reference: str, candidate: str, precision: str) -> Json:
    """The verification: measured differences between two folders of answers, and the verdict by `precision`."""
    budget = BUDGETS[precision]
    tally = Tally(budget=budget)
    cases = sorted(Path(questions).glob("*.npz"))
    for path in cases:
        kind = path.stem.partition("-")[2]
        tally.add(kind, read(str(Path(reference) / path.name)), read(str(Path(candidate) / path.name)))
    batches = sorted({next((one.shape[0] for one in read(str(path)).values() if one.ndim), 1) for path in cases})
    return tally.verdict() | {"precision": precision, "batches": batches}


@dataclass(kw_only=True)
class _Sums:
    """Running sums over the values of one output under one kind of input."""

    squares: float = 0.0
    errors: float = 0.0
    other: float = 0.0
    product: float = 0.0
    count: int = 0
    max_abs: float = 0.0
    decided: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(kw_only=True)
class Tally:
    """Compares answers pair by pair, outputs in order of their place, and then judges."""

    budget: Budget
    samples: int = 0
    names: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    nan: set[str] = field(default_factory=set)
    sums: dict[tuple[str, str], _Sums] = field(default_factory=dict)

    def add(self, kind: str, reference: dict[str, Any], candidate: dict[str, Any]) -> None:
        """Take in one pair of answers to the same question."""
        if len(reference) != len(candidate):
            self.flaws.append(f"{len(candidate)} outputs where the source has {len(reference)}")
            return
        self.names = self.names or list(reference)
        self.samples += next((len(one) for one in reference.values() if one.ndim), 1)
        for name, left, right in zip(self.names, reference.values(), candidate.values(), strict=True):
            if left.shape != right.shape:
                self.flaws.append(f"output {name} is {shown(right.shape)} where the source gives {shown(left.shape)}")
            elif left.dtype.kind != right.dtype.kind:
                self.flaws.append(f"output {name} is {right.dtype} where the source gives {left.dtype}")
            elif left.size:
                self._measure(name, kind, left, right)

    def _measure(self, name: str, kind: str, left: Any, right: Any) -> None:
        import numpy as np

        if left.dtype.kind == "c":
            left, right = (np.stack([one.real, one.imag], axis=-1) for one in (left, right))
        sums = self.sums.setdefault((name, kind), _Sums())
        if left.dtype.kind != "f":
            sums.decided.append((left.reshape(-1), right.reshape(-1)))
            sums.count += left.size
            return
        a, b = left.astype(np.float64), right.astype(np.float64)
        sane = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~sane], b[~sane], equal_nan=True) or (kind in ("normal", "uniform") and not sane.all()):
            self.nan.add(name)
        if left.ndim == 2 and left.shape[1] > 1 and sane.all():
            sums.decided.append((a, b))
        a, b = a[sane], b[sane]
        sums.squares += float(a @ a)
        sums.other += float(b @ b)
        sums.product += float(a @ b)
        sums.errors += float((a - b) @ (a - b))
        sums.count += a.size
        sums.max_abs = max(sums.max_abs, float(np.abs(a - b).max(initial=0.0)))

    def verdict(self) -> dict[str, Json]:
        """The numbers of each output, whether they stay within the budget, and if not, the first reason."""
        outputs = [self._output(name) for name in self.names]
        reasons = [*dict.fromkeys(self.flaws), *(reason for one in outputs for reason in self._complaints(one))]
        if not self.names and not reasons:
            reasons = ["nothing was compared"]
        return {
            "verified": not reasons,
            "reason": "; ".join(reasons[:5]) or None,
            "samples": self.samples,
            "outputs": outputs,
            "budget": asdict(self.budget),
        }

    def _output(self, name: str) -> dict[str, Json]:
        kinds = {kind: sums for (output, kind), sums in self.sums.items() if output == name}
        worst = {"rms_rel": 0.0, "max_rel": 0.0, "max_abs": 0.0, "cosine": 1.0}
        decisions = {"compared": 0, "agreed": 0, "ties": 0, "flips": 0}
        for sums in kinds.values():
            rms = math.sqrt(sums.squares / sums.count) if sums.count else 0.0
            scale = rms or 1.0
            if sums.squares or sums.errors:
                worst["rms_rel"] = max(worst["rms_rel"], math.sqrt(sums.errors / sums.count) / scale)
                worst["max_rel"] = max(worst["max_rel"], sums.max_abs / scale)
                worst["max_abs"] = max(worst["max_abs"], sums.max_abs)
            if sums.squares and sums.other:
                cosine = sums.product / math.sqrt(sums.squares) / math.sqrt(sums.other)
                worst["cosine"] = min(worst["cosine"], cosine)
            elif sums.errors:
                worst["cosine"] = 0.0
            for left, right in sums.decided:
                for key, number in decide(left, right, margin=self.budget.tie * rms).items():
                    decisions[key] += number
        return {"name": name, **worst, "decisions": decisions, "nan": name in self.nan}

    def _complaints(self, output: dict[str, Json]) -> list[str]:
        budget, name, decisions = self.budget, output["name"], output["decisions"]
        found = []
        if output["nan"]:
            found.append(f"output {name} has NaN or infinite values")
        if output["rms_rel"] > budget.rms_rel:
            found.append(f"output {name} is off by {output['rms_rel']:.2g} of its RMS (allowed {budget.rms_rel:g})")
        if output["max_rel"] > budget.max_rel:
            found.append(f"a value of output {name} is off by {output['max_rel']:.2g} RMS (allowed {budget.max_rel:g})")
        if output["cosine"] < budget.cosine:
            found.append(f"output {name} has cosine {output['cosine']:.6f} (at least {budget.cosine:g})")
        if decisions["flips"] > budget.flips * decisions["compared"]:
            found.append(
                f"{decisions['flips']} of {decisions['compared']} decisions of output {name} differ "
                f"(allowed {budget.flips:.0%})"
            )
        return found


def decide(reference: Any, candidate: Any, *, margin: float) -> dict[str, int]:
    """Compare decisions: the largest of each row of scores, or each value where there are no scores (one axis).

    Where they differ it is a tie if the reference's own choice leads the other by no more than `margin`.
    """
    import numpy as np

    if reference.ndim == 1:
        agreed = int((reference == candidate).sum())
        return {"compared": reference.size, "agreed": agreed, "ties": 0, "flips": reference.size - agreed}
    rows = np.arange(len(reference))
    chosen, other = reference.argmax(axis=1), candidate.argmax(axis=1)
    lead = reference[rows, chosen] - reference[rows, other]
    agreed = int((chosen == other).sum())
    ties = int(((chosen != other) & (lead <= margin)).sum())
    return {"compared": len(rows), "agreed": agreed, "ties": ties, "flips": len(rows) - agreed - ties}


def errors(verification: Json) -> tuple[int, float]:
    """How far off a verified form is, for ranking: flips, then the worst RMS error, below 1e-6 all the same."""
    outputs = verification["outputs"]
    flips = sum(one["decisions"]["flips"] for one in outputs)
    return flips, max([1e-6, *(one["rms_rel"] for one in outputs)])


def _samples(tensors: Sequence[Tensor], given: dict[str, Any], *, free: bool) -> list[tuple[int, dict[str, Any]]]:
    """The user's samples cut into batches, or nothing where they do not fit the inputs."""
    if len(tensors) == 1 and tensors[0].name not in given:
        fitting = [one for one in given.values() if _fits(tensors[0], one)]
        given = {tensors[0].name: fitting[0]} if fitting else {}
    if not all(one.name in given and _fits(one, given[one.name]) for one in tensors):
        raise Rejected(
            "calibration_mismatch",
            "The calibration file must hold an array for each input, samples along the first axis: "
            + ", ".join(f"{one.name} {shown(one.shape)}" for one in tensors)
            + ".",
        )
    size = 8 if free else next(one.example[0] for one in tensors if one.example)
    count = min(_CALIBRATION, *(len(given[one.name]) for one in tensors))
    return [
        (size, {one.name: given[one.name][start : start + size].astype(one.dtype) for one in tensors})
        for start in range(0, count - size + 1, size)
    ]


def _fits(tensor: Tensor, array: Any) -> bool:
    wanted = (tensor.shape or [])[1:]
    return bool(
        array.ndim == len(wanted) + 1
        and array.dtype.kind in "fiub"
        and all(one in (None, size) for one, size in zip(wanted, array.shape[1:], strict=True))
    )
