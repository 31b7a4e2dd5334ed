"""The net score: one figure from 0 to 1 for a version, from evidence that Slipway holds. Pure.

`docs/net-score.md` has it for people. Every sub-score says why it is what it is. What nothing is known of is None and
does not count: no figure is made up, and `known` says how much of the whole the score stands on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from registry import licences
from registry.licences import Verdict

MIB, GIB = 1 << 20, 1 << 30

DEVICES: Mapping[str, tuple[int, int]] = {
    "raspberry_pi": (64 * MIB, GIB),
    "jetson_nano": (256 * MIB, 4 * GIB),
    "desktop_pc": (GIB, 16 * GIB),
    "aws_server": (8 * GIB, 128 * GIB),
}
"""Device class → bytes of a model that it takes easily (1) and not at all (0); between them the logarithm counts."""

WEIGHTS: Mapping[str, float] = {
    "ramp_up": 0.15,
    "licence": 0.15,
    "reproducibility": 0.15,
    "dataset_and_code": 0.15,
    "performance_claims": 0.15,
    "size": 0.1,
    "reviewedness": 0.1,
    "lineage": 0.05,
}

_TOLERANCE = 0.05
"""How far a claimed accuracy may be above the measured one before the claim is worth nothing."""
_PER_WAIVER = 0.25
_SECTIONS: Mapping[str, re.Pattern[str]] = {
    "usage": re.compile(
        r"^#{1,6}.*\b(usage|use|uses|how to|quick ?start|getting started|inference)\b", re.MULTILINE | re.IGNORECASE
    ),
    "training": re.compile(r"^#{1,6}.*\b(training|trained|data(set)?s?|fine-?tun\w+)\b", re.MULTILINE | re.IGNORECASE),
    "evaluation": re.compile(
        r"^#{1,6}.*\b(evaluation|results?|metrics?|benchmarks?|performance)\b", re.MULTILINE | re.IGNORECASE
    ),
    "limitations": re.compile(
        r"^#{1,6}.*\b(limitations?|risks?|bias|out[- ]of[- ]scope|caveats?)\b", re.MULTILINE | re.IGNORECASE
    ),
}
_EXAMPLE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A metric that somebody declared, beside what Slipway measured on `samples` samples with labels."""

    name: str
    claimed: float
    measured: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is held about a version. None: nobody has looked, or nothing was measured.

    `size`: bytes of its best form. `rebuilt`: whether the newest rebuild gave the same bytes. `parents`: net scores of
    the versions that it comes from. `waivers`: those that the scan leant on.
    """

    description: str = ""
    card: str | None = None
    card_file: bool = False
    interface: bool = False
    licence: str | None = None
    wanted_licence: str | None = None
    rebuilt: bool | None = None
    toolchain: bool = False
    training_config: bool = False
    requirements: bool = False
    datasets: int = 0
    code: int = 0
    metrics_with_dataset: int = 0
    claims: Sequence[Claim] = ()
    size: int | None = None
    approvals: int = 0
    rating: float | None = None
    ratings: int = 0
    waivers: int = 0
    parents: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class SubScore:
    """`value` from 0 to 1, or None where there is no evidence. `because` in a few words; `parts` where it has some."""

    name: str
    weight: float
    value: float | None
    because: str
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NetScore:
    """`known`: the share of the weight that there is evidence for."""

    net_score: float
    known: float
    sub_scores: Sequence[SubScore]


def score(evidence: Evidence) -> NetScore:
    """The weighted mean of the sub-scores that are known; some always are: whether there is a licence shows by itself."""
    found = [replace(judge(evidence), name=name, weight=WEIGHTS[name]) for name, judge in _JUDGES.items()]
    known = [(one.weight, one.value) for one in found if one.value is not None]
    weight = sum(share for share, _ in known)
    return NetScore(
        net_score=round(sum(share * value for share, value in known) / weight, 2),
        known=round(weight / sum(WEIGHTS.values()), 2),
        sub_scores=found,
    )


def _ramp_up(given: Evidence) -> SubScore:
    """How soon somebody who finds the model can use it."""
    card = given.card or ""
    sections = [name for name, pattern in _SECTIONS.items() if pattern.search(card)]
    parts = {
        "description": 0.2 * (len(given.description.strip()) >= 20),
        "card": 0.2 * (bool(card.strip()) or given.card_file),
        "sections": 0.3 * len(sections) / len(_SECTIONS),
        "example": 0.2 * bool(_EXAMPLE.search(card)),
        "interface": 0.1 * given.interface,
    }
    missing = [name for name in _SECTIONS if name not in sections]
    has = [name for name, value in parts.items() if value]
    because = f"there is {', '.join(has)}" if has else "there is no description, no card and no interface"
    if card and missing:
        because += f"; the card says nothing of {', '.join(missing)}"
    return _sub(sum(parts.values()), because, parts)


def _licence(given: Evidence) -> SubScore:
    if not given.licence:
        return _sub(0.0, "no licence is declared: nobody but the owner may use it")
    try:
        model = licences.parse(given.licence)
    except ValueError:
        return _sub(0.25, f"{given.licence} is no SPDX expression")
    if "unknown" in licences.families(model):
        return _sub(0.5, f"{licences.written(model)} is declared, but Slipway does not know what it allows")
    if given.wanted_licence is None:
        return _sub(1.0, f"{licences.written(model)} is declared and known")
    answer = licences.check(project=licences.parse(given.wanted_licence), model=model)
    return _sub(
        {Verdict.COMPATIBLE: 1.0, Verdict.UNKNOWN: 0.5, Verdict.INCOMPATIBLE: 0.0}[answer.verdict],
        answer.reason.rstrip("."),
    )


def _reproducibility(given: Evidence) -> SubScore:
    """A rebuild is half of it; where nobody has tried, the rest counts alone."""
    shares = {
        "toolchain": (0.2, given.toolchain),
        "training_config": (0.2, given.training_config),
        "requirements": (0.1, given.requirements),
    }
    if given.rebuilt is not None:
        shares["rebuild"] = (0.5, given.rebuilt)
    parts = {name: share * held for name, (share, held) in shares.items()}
    rebuilt = {
        None: "nobody has rebuilt it",
        True: "a rebuild gave the same bytes",
        False: "a rebuild gave other bytes",
    }
    lacking = [name for name, (_, held) in shares.items() if not held and name != "rebuild"]
    because = rebuilt[given.rebuilt] + (f"; there is no {' and no '.join(lacking)}" if lacking else "")
    return _sub(sum(parts.values()) / sum(share for share, _ in shares.values()), because, parts)


def _dataset_and_code(given: Evidence) -> SubScore:
    parts = {
        "dataset": 0.4 * (given.datasets > 0),
        "code": 0.4 * (given.code > 0),
        "metrics": 0.2 * (given.metrics_with_dataset > 0),
    }
    lacking = [name for name, value in parts.items() if not value]
    because = (
        f"nothing names its {', '.join(lacking)}" if lacking else "dataset, code and metrics on a dataset are named"
    )
    return _sub(sum(parts.values()), because, parts)


def _performance_claims(given: Evidence) -> SubScore:
    """A claim that is met is worth 1, also where it was modest; above the measured figure it loses its worth quickly."""
    if not given.claims:
        return _sub(None, "no declared metric could be held against a measured one")
    parts = {one.name: max(0.0, 1 - max(0.0, one.claimed - one.measured) / _TOLERANCE) for one in given.claims}
    said = [
        f"{one.name} {one.claimed:.4g} claimed, {one.measured:.4g} measured on {one.samples} samples"
        for one in given.claims
    ]
    return _sub(sum(parts.values()) / len(parts), "; ".join(said), parts)


def _size(given: Evidence) -> SubScore:
    if given.size is None:
        return _sub(None, "its size is not known")
    parts = {name: _fits(given.size, easy, most) for name, (easy, most) in DEVICES.items()}
    return _sub(sum(parts.values()) / len(parts), f"its best form has {given.size:,} bytes", parts)


def _fits(size: int, easy: int, most: int) -> float:
    return min(1.0, max(0.0, math.log(most / max(size, 1)) / math.log(most / easy)))


def _reviewedness(given: Evidence) -> SubScore:
    shares = {
        "approvals": (0.5, 1.0 if given.approvals else 0.0),
        "waivers": (0.25, max(0.0, 1 - _PER_WAIVER * given.waivers)),
    }
    if given.rating is not None:
        shares["ratings"] = (0.25, (given.rating - 1) / 4)
    because = f"{_counted(given.approvals, 'approval')}, {_counted(given.waivers, 'waiver')} that the scan leant on"
    because += (
        f", rated {given.rating:.1f} of 5 by {given.ratings}" if given.rating is not None else ", nobody has rated it"
    )
    value = sum(share * held for share, held in shares.values()) / sum(share for share, _ in shares.values())
    return _sub(value, because, {name: share * held for name, (share, held) in shares.items()})


def _lineage(given: Evidence) -> SubScore:
    if not given.parents:
        return _sub(None, "no version that it comes from is here for you to see, or has a score")
    value = sum(given.parents) / len(given.parents)
    return _sub(value, f"the mean net score of {_counted(len(given.parents), 'version')} that it comes from")


_JUDGES: Mapping[str, Callable[[Evidence], SubScore]] = {
    "ramp_up": _ramp_up,
    "licence": _licence,
    "reproducibility": _reproducibility,
    "dataset_and_code": _dataset_and_code,
    "performance_claims": _performance_claims,
    "size": _size,
    "reviewedness": _reviewedness,
    "lineage": _lineage,
}


def _sub(value: float | None, because: str, parts: Mapping[str, float] | None = None) -> SubScore:
    rounded = {name: round(part, 3) for name, part in (parts or {}).items()}
    return SubScore(
        name="", weight=0.0, value=None if value is None else round(value, 3), because=because, parts=rounded
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
