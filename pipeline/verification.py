"""Whether two forms of a model decide the same: how to run them on the questions and how to compare their answers.

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

from pipeline import decisions, detections, formats
from pipeline.budgets import Budget, budget_for, overridden
from pipeline.measures import ChannelSums, Sums, halves, worst_channel
from pipeline.questions import ORDINARY, labels_of
from pipeline.signature import shown
from pipeline.stage import Json
from pipeline.trial import Predictor, read, write


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


def compare(
    *,
    questions: str,
    labels: str,
    reference: str,
    candidate: str,
    precision: str,
    declared: Json,
    task: str | None,
    classes: Sequence[str],
    kinds: Sequence[str] | None = None,
) -> Json:
    """The verification (`verdict.Verification`) of two folders of answers by the budget of `precision`.

    `kinds` narrows it to some kinds of question.
    """
    tally = Tally(budget=budget_for(precision, declared), task=task, classes=list(classes))
    found = sorted(Path(questions).glob("*.npz"))
    cases = [one for one in found if kinds is None or one.stem.partition("-")[2] in kinds]
    batches = set()
    for path in cases:
        kind = path.stem.partition("-")[2]
        pair = [read(str(Path(folder) / path.name)) for folder in (reference, candidate)]
        tally.add(kind, *pair, case=path.name, known=labels_of(labels, path.name))
        batches.add(next((one.shape[0] for one in read(str(path)).values() if one.ndim), 1))
    return tally.verdict() | {
        "precision": precision,
        "batches": sorted(batches),
        "overridden": overridden(precision, declared),
    }


@dataclass(kw_only=True)
class _Output:
    """What is known of one output beside its errors: its range, its channels, and what it decides.

    `mixed` says that its channels may be of different kinds and scales, so that each must be judged on its own.
    """

    low: float = math.inf
    high: float = -math.inf
    nan: bool = False
    decides: str | None = None
    top: int = 0
    mixed: bool = False
    channels: list[ChannelSums] = field(default_factory=list)

    @property
    def shares(self) -> bool:
        """Whether all values are between 0 and 1."""
        return self.low >= 0 and self.high <= 1

    def see(self, a: Any, b: Any) -> None:
        """Take in the values of reference and candidate, all of them finite, of an ordinary question.

        Probabilities are of one scale by nature: there a channel may be as small as it likes.
        """
        import numpy as np

        self.low, self.high = min(self.low, float(a.min())), max(self.high, float(a.max()))
        axes = [1] if a.ndim == 2 else [1, a.ndim - 1] if a.ndim > 2 else []
        one = any(np.allclose(a.sum(axis=axis), 1, atol=1e-3) for axis in axes)
        self.mixed |= not (one or (a.ndim == 2 and self.shares))
        self.channels = self.channels or [ChannelSums(axis=axis) for axis in axes]
        for channel in self.channels:
            channel.add(a, b)


@dataclass(kw_only=True)
class Tally:
    """Compares answers pair by pair, outputs in order of their place, and then judges.

    `task` is one that `decisions.task_of` gives; `classes` are the names of the classes where they are known.
    """

    budget: Budget
    task: str | None = None
    classes: list[str] = field(default_factory=list)
    samples: int = 0
    flaws: list[str] = field(default_factory=list)
    outputs: dict[str, _Output] = field(default_factory=dict)
    sums: dict[tuple[str, str | None, str], Sums] = field(default_factory=dict)
    layout: detections.Layout | None = None
    images: list[tuple[Any, Any]] = field(default_factory=list)
    known: int = 0
    right: list[int] = field(default_factory=lambda: [0, 0])
    worst: tuple[float, str | None] = (0.0, None)

    def add(
        self, kind: str, reference: dict[str, Any], candidate: dict[str, Any], *, case: str = "", known: Any = None
    ) -> None:
        """Take in one pair of answers to the same question, `known` being the user's labels of its samples."""
        if len(reference) != len(candidate):
            self.flaws.append(f"{len(candidate)} outputs where the source has {len(reference)}")
            return
        if not self.outputs:
            self.outputs = {name: _Output() for name in reference}
            self.layout = detections.find(reference, self.task, len(self.classes))
        names = list(self.outputs)
        left, right = (dict(zip(names, one.values(), strict=True)) for one in (reference, candidate))
        self.samples += next((len(one) for one in left.values() if one.ndim), 1)
        fitting = [self._fits(name, left[name], right[name]) for name in names]
        if not all(fitting):
            return
        found = self._boxes(left, right)
        for name in names:
            if left[name].size and not self._told_by_boxes(name, left[name]):
                found = max(found, self._measure(name, kind, left[name], right[name]))
        if found > self.worst[0]:
            self.worst = found, case or None
        if known is not None:
            self._score(left, right, known)

    def verdict(self) -> dict[str, Json]:
        """The numbers of each output, whether they stay within the budget, and if not, the first reasons."""
        leads = self._matched()
        outputs = [self._judged(name, leads) for name in self.outputs]
        reasons = [*dict.fromkeys(self.flaws), *(reason for one in outputs for reason in self._complaints(one))]
        accuracy = self._accuracy()
        if accuracy is not None and self.right[0] - self.right[1] > max(1, self.budget.accuracy * self.known):
            reasons.append(
                f"{accuracy['candidate'] * 100:.4g} % of the labels are met where the source meets "
                f"{accuracy['reference'] * 100:.4g} % (allowed are {self.budget.accuracy * 100:g} points less)"
            )
        if not self.outputs and not reasons:
            reasons = ["nothing was compared"]
        return {
            "verified": not reasons,
            "reason": "; ".join(reasons[:5])[:4000] or None,
            "samples": self.samples,
            "task": self.task,
            "outputs": outputs,
            "accuracy": accuracy,
            "budget": asdict(self.budget),
            "worst": self.worst[1],
        }

    def _fits(self, name: str, left: Any, right: Any) -> bool:
        wanted, found = list(left.shape), list(right.shape)
        if self._finished(name) and len(wanted) == len(found):  # the number of boxes is a decision, not a shape
            axis = 0 if self.layout is not None and self.layout.flat else 1
            wanted[axis : axis + 1] = found[axis : axis + 1] = []
        if wanted != found:
            self.flaws.append(f"output {name} is {shown(right.shape)} where the source gives {shown(left.shape)}")
        elif left.dtype.kind != right.dtype.kind:
            self.flaws.append(f"output {name} is {right.dtype} where the source gives {left.dtype}")
        else:
            return True
        return False

    def _finished(self, name: str) -> bool:
        return self.layout is not None and self.layout.finished and name in self.layout.names

    def _told_by_boxes(self, name: str, array: Any) -> bool:
        """Whether all that the output says is in the boxes that are matched, like their number."""
        return self._finished(name) or (self.layout is not None and self.layout.finished and array.ndim < 2)

    def _boxes(self, left: dict[str, Any], right: dict[str, Any]) -> float:
        """Keep the boxes of each image until all have been seen; answers with 1 where their number differs."""
        if self.layout is None:
            return 0.0
        pairs = list(zip(*(detections.boxes(self.layout, one) for one in (left, right)), strict=True))
        self.images += pairs
        return float(any(len(one) != len(other) for one, other in pairs))

    def _measure(self, name: str, kind: str, left: Any, right: Any) -> float:
        """Add one pair of arrays to the sums; answers with its own error."""
        import numpy as np

        left, right = halves(left, right)
        sums, output = self.sums.setdefault((name, None, kind), Sums()), self.outputs[name]
        numeric = left.dtype.kind == "f" or (left.dtype.kind in "iu" and left.dtype.itemsize == 1 and left.ndim > 1)
        if not numeric:
            output.decides = "label"
            leads = decisions.labels(left, right)
            sums.choices.add(leads)
            return float((leads >= 0).mean())
        a, b = left.astype(np.float64), right.astype(np.float64)
        sane = np.isfinite(a) & np.isfinite(b)
        nan = not np.array_equal(a[~sane], b[~sane], equal_nan=True) or (kind in ORDINARY[:2] and not sane.all())
        output.nan |= nan
        differing = self._decide(output, sums, a, b, sane)
        if sane.all() and kind in ORDINARY:
            output.see(a, b)
            for group, axis, first, last in self._groups(name):
                part = [np.take(one, range(first, last), axis=axis).reshape(-1) for one in (a, b)]
                self.sums.setdefault((name, group, kind), Sums()).add(*part)
        error = sums.add(a[sane], b[sane])
        return math.inf if nan else max(differing, error)

    def _decide(self, output: _Output, sums: Sums, a: Any, b: Any, sane: Any) -> float:
        import numpy as np

        if self.layout is not None:
            return 0.0
        scores = [decisions.rows(one, self.task, len(self.classes)) for one in (a, b, sane)]
        if scores[0] is not None:
            whole = scores[2].all(axis=1)
            mine, theirs = scores[0][whole], scores[1][whole]
            if not len(mine):
                return 0.0
            output.decides = "class"
            leads = decisions.choices(mine, theirs)
            sums.choices.add(leads)
            output.top, sets, orders = decisions.ranks(mine, theirs)
            sums.sets.add(sets)
            sums.orders.add(orders)
            return float((leads > 0).mean())
        if decisions.single(a, self.task):
            output.decides = "sign"
            sums.singles.append(np.stack([a[sane].reshape(-1), b[sane].reshape(-1)]))
        return 0.0

    def _groups(self, name: str) -> list[tuple[str, int, int, int]]:
        layout = self.layout
        if layout is None or layout.axis is None or name not in layout.names:
            return []
        return [(group, layout.axis, first, last) for group, first, last in layout.groups]

    def _matched(self) -> dict[str, int]:
        """Match the boxes of all images; the pairs are measured as groups of the output that holds the boxes."""
        count = decisions.Count()
        if self.layout is None:
            return count.told(0.0)
        least = detections.threshold([one for one, _ in self.images])
        for reference, candidate in self.images:
            found = detections.match(reference, candidate, least)
            count.add(found.leads)
            if self.layout.finished:
                for group, columns in (("boxes", slice(0, 4)), ("scores", slice(4, 5))):
                    sums = self.sums.setdefault((self.layout.names[0], group, "matched"), Sums())
                    sums.add(found.reference[:, columns].reshape(-1), found.candidate[:, columns].reshape(-1))
        best = max((float(one[0, 4]) for one, _ in self.images if len(one)), default=0.0)
        return count.told(self.budget.tie * best)

    def _judged(self, name: str, matched: dict[str, int]) -> dict[str, Json]:
        output, margin = self.outputs[name], self.budget.tie
        parts = {key[1:]: sums for key, sums in self.sums.items() if key[0] == name}
        whole = [sums for (group, _), sums in parts.items() if group is None]
        found = {"compared": 0, "agreed": 0, "ties": 0, "flips": 0}
        sets, reordered = dict(found), 0
        threshold = 0.5 if output.shares else 0.0
        for sums in whole:
            for pair in sums.singles:
                sums.choices.add(decisions.signs(pair[0], pair[1], threshold))
            found = _plus(found, sums.choices.told(margin * sums.rms))
            sets = _plus(sets, sums.sets.told(margin * sums.rms))
            reordered += sums.orders.told(margin * sums.rms)["flips"]
            sums.singles.clear()
        boxed = self.layout is not None and self.layout.names[0] == name
        grouped = {
            group: _worst([sums for (one, _), sums in parts.items() if one == group])
            for group in dict.fromkeys(group for group, _ in parts if group is not None)
        }
        return {
            "name": name,
            **_worst(whole or [*parts.values()]),
            "decides": "boxes" if boxed else output.decides,
            "decisions": matched if boxed else found,
            "ranks": {**sets, "top": output.top, "reordered": reordered} if output.top > 1 else None,
            "channels": worst_channel(output.channels) if output.mixed else None,
            "groups": [
                {"name": group, "rms_rel": one["rms_rel"], "cosine": one["cosine"]} for group, one in grouped.items()
            ],
            "nan": output.nan,
        }

    def _complaints(self, output: dict[str, Json]) -> list[str]:
        budget, name, decided, ranks = self.budget, output["name"], output["decisions"], output["ranks"]
        found = []
        if output["nan"]:
            found.append(f"output {name} has NaN or infinite values")
        silent = output["channels"]
        if silent is not None and silent["error"] > budget.channel:
            found.append(
                f"channel {silent['worst']} on axis {silent['axis']} of output {name} is off by {silent['error']:.2g} of "
                f"the RMS of its kind (allowed {budget.channel:g})"
            )
        found += [
            f"the {group['name']} in output {name} are off by {group['rms_rel']:.2g} of their RMS (allowed "
            f"{budget.rms_rel:g}), cosine {group['cosine']:.6f} (at least {budget.cosine:g})"
            for group in output["groups"]
            if group["rms_rel"] > budget.rms_rel or group["cosine"] < budget.cosine
        ]
        if output["rms_rel"] > budget.rms_rel:
            found.append(f"output {name} is off by {output['rms_rel']:.2g} of its RMS (allowed {budget.rms_rel:g})")
        if output["max_rel"] > budget.max_rel:
            found.append(f"a value of output {name} is off by {output['max_rel']:.2g} RMS (allowed {budget.max_rel:g})")
        if output["cosine"] < budget.cosine:
            found.append(f"output {name} has cosine {output['cosine']:.6f} (at least {budget.cosine:g})")
        if decided["flips"] > budget.flips * decided["compared"]:
            found.append(
                f"{decided['flips']} of {decided['compared']} decisions of output {name} differ "
                f"(allowed {budget.flips * 100:g} %)"
            )
        if ranks is not None and ranks["flips"] > budget.ranks * ranks["compared"]:
            found.append(
                f"the best {ranks['top']} classes of output {name} are others in {ranks['flips']} of {ranks['compared']} "
                f"rows (allowed {budget.ranks * 100:g} %)"
            )
        return found

    def _score(self, left: dict[str, Any], right: dict[str, Any], known: Any) -> None:
        right_ones = [decisions.correct(one, known, self.classes, self.task) for one in (left, right)]
        if None not in right_ones:
            self.known += known.size
            self.right = [total + (one or 0) for total, one in zip(self.right, right_ones, strict=True)]

    def _accuracy(self) -> dict[str, Json] | None:
        if not self.known:
            return None
        reference, candidate = (one / self.known for one in self.right)
        return {"samples": self.known, "reference": reference, "candidate": candidate}


def errors(verification: Json) -> tuple[int, float]:
    """How far off a verified form is, for ranking: flips, then the worst RMS error, below 1e-6 all the same."""
    outputs = verification["outputs"]
    flips = sum(one["decisions"]["flips"] for one in outputs)
    return flips, max([1e-6, *(one["rms_rel"] for one in outputs)])


def _worst(sums: Sequence[Sums]) -> dict[str, float]:
    found = [one.facts() for one in sums]
    return {
        key: (min if key == "cosine" else max)([one[key] for one in found], default=1.0 if key == "cosine" else 0.0)
        for key in ("rms_rel", "max_rel", "max_abs", "cosine")
    }


def _plus(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {key: value + other[key] for key, value in one.items()}
