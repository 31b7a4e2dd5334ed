"""What a gate asks of one fact, whether it is met, and what would do. Pure; knows no gate and no model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["passed", "failed", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A fact (`about` names it), what was `found`, and the bounds or the set that it must lie in.

    `found` is None where nobody knows; `unknown` then says why. Something unknown never meets a demand.
    """

    about: str
    state: State
    found: float | str | None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    one_of: frozenset[str] | None = None
    unknown: str | None = None

    def told(self) -> str:
        """What was found and what is asked: `p99 of onnx-fp32 on cpu: 5.3 ms, asked ≤ 4 ms`."""
        asked = self._asked()
        return f"{self.about}: {self._found()}" + (f", asked {asked}" if asked else "")

    def wish(self) -> str:
        """The least that has to change: `p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms`."""
        return f"{self.about}: {self._found()} → {self._asked() or 'known'}"

    def _found(self) -> str:
        if self.found is None:
            return f"unknown ({self.unknown})"
        return self.found if isinstance(self.found, str) else _number(self.found, self.unit)

    def _asked(self) -> str:
        if self.one_of is not None:
            return " or ".join(sorted(self.one_of)) or "nothing that all gates allow"
        low = None if self.at_least is None else f"≥ {_number(self.at_least, self.unit)}"
        high = None if self.at_most is None else f"≤ {_number(self.at_most, self.unit)}"
        both = low is not None and high is not None
        impossible = self.at_least is not None and self.at_most is not None and self.at_least > self.at_most
        if impossible:
            return f"{low} and {high}, which cannot be both"
        return f"{low} and {high}" if both else low or high or ""


def bounded(
    about: str,
    found: float | None,
    *,
    unit: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    unknown: str | None = None,
) -> Demand:
    """A number that must lie within bounds, up to what floating point makes of it. One that is not finite is unknown."""
    if found is not None and not math.isfinite(found):
        found, unknown = None, "what was recorded is not a finite number"
    state: State = "unknown"
    if found is not None:
        low = at_least is None or found >= at_least or math.isclose(found, at_least, rel_tol=1e-9)
        high = at_most is None or found <= at_most or math.isclose(found, at_most, rel_tol=1e-9)
        state = "passed" if low and high else "failed"
    return Demand(about=about, state=state, found=found, unit=unit, at_least=at_least, at_most=at_most, unknown=unknown)


def among(
    about: str, found: str | None, allowed: Iterable[str], *, fits: bool | None = None, unknown: str | None = None
) -> Demand:
    """A text that must be one of those `allowed`; `fits` where that takes more than comparing."""
    one_of = frozenset(allowed)
    met = found in one_of if fits is None else fits
    state: State = "unknown" if found is None else "passed" if met else "failed"
    return Demand(about=about, state=state, found=found, one_of=one_of, unknown=unknown)


def settled(about: str, found: str) -> Demand:
    """Met as it is: there is nothing that could be asked."""
    return Demand(about=about, state="passed", found=found)


def smallest(demands: Iterable[Demand]) -> list[Demand]:
    """The fewest changes that meet all demands: one for each fact that does not do, as strict as the strictest asks.

    Demands that are met count too where they are about the same fact, so that no wish breaks what holds.
    """
    merged: dict[tuple[str, bool], Demand] = {}
    for demand in demands:
        fact = demand.about, demand.one_of is None
        merged[fact] = _both(merged[fact], demand) if fact in merged else demand
    return [demand for demand in merged.values() if demand.state != "passed"]


def _both(one: Demand, other: Demand) -> Demand:
    worse = one if one.state != "passed" else other
    sets = [each.one_of for each in (one, other) if each.one_of is not None]
    return replace(
        worse,
        at_least=max((each.at_least for each in (one, other) if each.at_least is not None), default=None),
        at_most=min((each.at_most for each in (one, other) if each.at_most is not None), default=None),
        one_of=frozenset.intersection(*sets) if sets else None,
    )


def _number(value: float, unit: str) -> str:
    return f"{value:.12g} {unit}".rstrip()
