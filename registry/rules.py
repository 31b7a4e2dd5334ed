"""The rules that gates apply, and the evidence that they judge by. Pure.

A rule is a function from evidence and parameters to one `Demand`, and a value in `RULES`; a new rule is one more of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from registry import licences
from registry.demands import Demand, among, bounded, settled

TARGETS = ("development", "staging", "production")
"""Where a version can be deployed."""
NAME = r"[a-z][a-z0-9._-]{0,62}"
"""What the name of an alias or of a deployment's target looks like."""
VALID = "valid"
"""What `Evidence.seal` says of signatures that hold."""
_CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Form:
    """A servable form of a version. `verified` is None where nobody compared it; `p99_ms` by device."""

    name: str
    size: int
    verified: bool | None
    reason: str | None = None
    p99_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric:
    name: str
    value: float
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The version that is somewhere now, and its metrics, newest first."""

    version: str
    metrics: Sequence[Metric]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that gates may know of a version that is to go to `target`.

    `metrics` are newest first; `best` names the form to serve by device; `approved_by` is who approved it for the target.
    `seal` says `valid`, or what is wrong with the signatures, None where nobody looked. `rivals` is by alias or
    deployment's target: one that is missing is not anywhere.
    """

    target: str
    version: str
    uploader: str
    verdict: str
    published: bool
    status: str
    size: int
    deleted: bool = False
    model_active: bool = True
    waiver_over: bool = False
    licence: str | None = None
    forms: Sequence[Form] = ()
    best: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    approved_by: frozenset[str] = frozenset()
    seal: str | None = None
    rivals: Mapping[str, Rival] = field(default_factory=dict)


class Parameters(BaseModel):
    """What a rule wants to be told; nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Ceiling(Parameters):
    ms: float = Field(gt=0, description="milliseconds")
    variant: str | None = Field(default=None, max_length=100, description="default: the best one on the device")
    device: str = Field(default=_CPU, pattern=r"^(cpu|sm[0-9]{2,3})$", description="`cpu`, or such as `sm90`")


class Room(Parameters):
    bytes: int = Field(gt=0, le=1 << 50)
    variant: str | None = Field(default=None, max_length=100, description="default: the best one on a CPU")


class Bound(Parameters):
    metric: str = Field(min_length=1, max_length=64)
    value: float
    dataset: str | None = Field(default=None, max_length=200, description="default: the one measured last")


class Comparison(Parameters):
    metric: str = Field(min_length=1, max_length=64)
    than: str = Field(default="production", pattern=rf"^{NAME}$", description="a deployment's target, or an alias")
    by: float = Field(default=0.0, ge=0, description="how much worse it may be")
    better: Literal["higher", "lower"] = "higher"
    dataset: str | None = Field(default=None, max_length=200, description="default: the one measured last")


class Licences(Parameters):
    licences: list[str] = Field(min_length=1, max_length=100, description="SPDX identifiers")


class Approvals(Parameters):
    count: int = Field(default=1, ge=1, le=20)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a kind of gate judges. `about` is for people."""

    name: str
    about: str
    parameters: type[Parameters]
    judge: Callable[[Evidence, Any], Demand]


def _scan_clean(evidence: Evidence, _: Parameters) -> Demand:
    found = "clean until its waiver ended" if evidence.waiver_over and evidence.verdict == "clean" else evidence.verdict
    return among(f"verdict of the scan of {evidence.version}", found, ["clean"])


def _published(evidence: Evidence, _: Parameters) -> Demand:
    found = "published" if evidence.published else "not published"
    return among(f"publication of {evidence.version}", found, ["published"])


def _available(evidence: Evidence, _: Parameters) -> Demand:
    about = f"status of {evidence.version}"
    if evidence.deleted:
        return among(about, "deleted", ["approved"])
    if not evidence.model_active:
        return among("the model", "inactive", ["active"])
    usable = ["training", "testing", "approved"]
    return among(about, evidence.status, ["approved"], fits=evidence.status in usable)


def _verified(evidence: Evidence, _: Parameters) -> Demand:
    about = "verification of the servable forms"
    wrong = [f"{one.name} is not: {one.reason}" for one in evidence.forms if one.verified is False]
    if wrong:
        return among(about, "; ".join(wrong), ["within budget"])
    unseen = [one.name for one in evidence.forms if one.verified is None]
    if unseen or not evidence.forms:
        why = f"nobody compared {', '.join(unseen)} with the source" if unseen else "nothing of it can be served"
        return among(about, None, ["within budget"], unknown=why)
    return among(about, "within budget", ["within budget"])


def _p99_below(evidence: Evidence, asked: Ceiling) -> Demand:
    name = asked.variant or evidence.best.get(asked.device)
    form = next((one for one in evidence.forms if one.name == name), None)
    about = f"p99 of {name or 'the best form'} on {asked.device}"
    if form is None:
        why = f"it has no {name}" if name else f"nothing of it was measured on {asked.device}"
        return bounded(about, None, unit="ms", at_most=asked.ms, unknown=why)
    why = f"no benchmark measured it on {asked.device}"
    return bounded(about, form.p99_ms.get(asked.device), unit="ms", at_most=asked.ms, unknown=why)


def _size_below(evidence: Evidence, asked: Room) -> Demand:
    name = asked.variant or evidence.best.get(_CPU)
    if name is None:
        return bounded("size of the uploaded file", evidence.size, unit="bytes", at_most=asked.bytes)
    size = next((one.size for one in evidence.forms if one.name == name), None)
    return bounded(f"size of {name}", size, unit="bytes", at_most=asked.bytes, unknown=f"it has no {name}")


def _metric_at_least(evidence: Evidence, asked: Bound) -> Demand:
    about, found, why = _metric(evidence, asked.metric, asked.dataset)
    return bounded(about, found, at_least=asked.value, unknown=why)


def _metric_at_most(evidence: Evidence, asked: Bound) -> Demand:
    about, found, why = _metric(evidence, asked.metric, asked.dataset)
    return bounded(about, found, at_most=asked.value, unknown=why)


def _metric_not_worse(evidence: Evidence, asked: Comparison) -> Demand:
    rival = evidence.rivals.get(asked.than)
    if rival is None and asked.than in (*TARGETS, evidence.target):
        return settled(f"{asked.metric} beside {asked.than}", f"nothing is {asked.than} yet")
    own = _newest(evidence.metrics, asked.metric, asked.dataset)
    about, found, why = _metric(evidence, asked.metric, asked.dataset if own is None else own.dataset)
    if rival is None:
        return bounded(about, None, unknown=f"there is no {asked.than} to compare with")
    if rival.version == evidence.version:
        return settled(f"{asked.metric} beside {asked.than}", f"{rival.version} is {asked.than} itself")
    same = [one for one in rival.metrics if own is None or one.dataset == own.dataset]
    theirs = _newest(same, asked.metric, asked.dataset)
    if theirs is None:
        return bounded(about, None, unknown=f"{rival.version}, which is {asked.than}, has no such metric")
    if asked.better == "higher":
        return bounded(about, found, at_least=theirs.value - asked.by, unknown=why)
    return bounded(about, found, at_most=theirs.value + asked.by, unknown=why)


def _licence_in(evidence: Evidence, asked: Licences) -> Demand:
    about = "licence"
    if not evidence.licence:
        return among(about, None, asked.licences, unknown="none was declared")
    fits = licences.offers(evidence.licence, asked.licences)
    return among(about, evidence.licence, asked.licences, fits=fits)


def _approved(evidence: Evidence, asked: Approvals) -> Demand:
    others = evidence.approved_by - {evidence.uploader}
    about = f"approvals for {evidence.target} by people other than {evidence.uploader}"
    return bounded(about, len(others), at_least=asked.count)


def _signed(evidence: Evidence, _: Parameters) -> Demand:
    return among("signature of the manifest", evidence.seal, [VALID], unknown="nobody looked at it")


def _metric(evidence: Evidence, name: str, dataset: str | None) -> tuple[str, float | None, str]:
    about = f"{name} on {dataset}" if dataset else name
    found = _newest(evidence.metrics, name, dataset)
    return about, None if found is None else found.value, f"none was recorded for {evidence.version}"


def _newest(metrics: Sequence[Metric], name: str, dataset: str | None) -> Metric | None:
    return next((one for one in metrics if one.name == name and dataset in (None, one.dataset)), None)


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="scan_clean", about="the scan found it clean", parameters=Parameters, judge=_scan_clean),
        Rule(name="published", about="its intake has published it", parameters=Parameters, judge=_published),
        Rule(
            name="available",
            about="it is neither deleted nor deprecated nor archived, and its model is active",
            parameters=Parameters,
            judge=_available,
        ),
        Rule(
            name="verified",
            about="every servable form answers like the source, within its budget",
            parameters=Parameters,
            judge=_verified,
        ),
        Rule(name="p99_below", about="the 99th percentile of latency", parameters=Ceiling, judge=_p99_below),
        Rule(name="size_below", about="the bytes of the form to serve", parameters=Room, judge=_size_below),
        Rule(
            name="metric_at_least", about="a recorded metric is high enough", parameters=Bound, judge=_metric_at_least
        ),
        Rule(name="metric_at_most", about="a recorded metric is low enough", parameters=Bound, judge=_metric_at_most),
        Rule(
            name="metric_not_worse",
            about="a metric beside that of the version which is somewhere now, on the same dataset",
            parameters=Comparison,
            judge=_metric_not_worse,
        ),
        Rule(name="licence_in", about="its licence is one of these", parameters=Licences, judge=_licence_in),
        Rule(
            name="approved",
            about="so many people who did not upload it approve of it for the target",
            parameters=Approvals,
            judge=_approved,
        ),
        Rule(
            name="signed",
            about="its manifest bears a signature that is trusted here, and names every published file's digest",
            parameters=Parameters,
            judge=_signed,
        ),
    )
}
