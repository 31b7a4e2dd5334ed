"""Which form of a version to serve on a device, by what was measured and verified. One rule for whoever asks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

CPU = "cpu"

CLOSE = 0.03
"""Speeds within this of the fastest are a tie."""

_EXACTNESS = ("fp32", "bf16", "fp16", "mixed", "int8")


def runs_on(variant: str, device: str) -> bool:
    """Whether a variant can be used on a device: one that was built for a device (`tensorrt-fp16@sm90`) only there."""
    _, built, target = variant.partition("@")
    return not built or target == device


def best(
    servable: Iterable[str],
    variants: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    *,
    device: str = CPU,
    pins: Mapping[str, str] | None = None,
) -> str | None:
    """The name of the pinned form, else of the one that the evidence speaks for; None where nothing was measured there.

    `servable` names what is published; `variants` are facts of the steps that made variants, `rows` of benchmarks, oldest
    first: what was said last of a name counts. A row without `device` is of a CPU; speed-ups are over the source.
    The fastest wins that is neither withheld nor slower than the source for certain; among those within 3 % of it the
    most exact, then the smallest. Where every form is slower than the source the least slow one is taken, for only
    these are served.
    """
    names = set(servable)
    pinned = (pins or {}).get(device)
    if pinned in names:
        return pinned
    said = {each["name"]: each for each in variants}
    unfit = {name for name, each in said.items() if each.get("withheld") or not each.get("verified")}
    measured = {
        each["name"]: each
        for each in rows
        if each.get("device", CPU) == device and isinstance(each.get("speedup"), int | float)
    }
    fit = [measured[name] for name in names - unfit if name in measured]
    fit = [each for each in fit if each.get("verdict") != "slower"] or fit
    if not fit:
        return None
    fastest = max(each["speedup"] for each in fit)
    close = [each for each in fit if each["speedup"] >= fastest * (1 - CLOSE)]
    ranked = sorted(close, key=lambda each: (_exactness(said.get(each["name"])), each.get("size") or 0, each["name"]))
    return str(ranked[0]["name"])


def _exactness(variant: Mapping[str, Any] | None) -> int:
    precision = (variant or {}).get("precision", "fp32")
    return _EXACTNESS.index(precision) if precision in _EXACTNESS else len(_EXACTNESS)
