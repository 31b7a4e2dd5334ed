"""Gates: what a version must have shown before it goes to a target. Pure: evidence in, verdict out.

A gate is data: the name of a rule and its parameters. What is unknown never passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from pydantic import ValidationError

from registry.demands import Demand, State, smallest
from registry.errors import Invalid
from registry.rules import NAME, RULES, Evidence, Parameters

EVERY = "*"
TARGET = rf"^(\*|{NAME})$"
"""What a gate may be for: a deployment's target, an alias, or all of them."""

Scope = Literal["always", "global", "model"]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A rule with its parameters, for a target. `scope` says whose: all versions' `always`, or as an admin or owner wants."""

    rule: str
    target: str = EVERY
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scope: Scope = "always"
    id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one gate says. `needed` is the least that has to change for it, None where it passed."""

    gate: Gate
    state: State
    reason: str
    found: float | str | None = None
    needed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Promotability:
    """What all gates together say. `to_change` is the smallest set of facts that would have to change."""

    target: str
    outcomes: tuple[Outcome, ...]
    to_change: tuple[str, ...]

    @property
    def promotable(self) -> bool:
        return all(each.state == "passed" for each in self.outcomes)

    @property
    def failing(self) -> tuple[Outcome, ...]:
        return tuple(each for each in self.outcomes if each.state != "passed")


ALWAYS = (Gate(rule="scan_clean"), Gate(rule="published"), Gate(rule="available"))
"""What counts for every version and every target, whatever anybody says."""


def promotability(evidence: Evidence, gates: Sequence[Gate]) -> Promotability:
    """What the gates that always count and these say of a version. A gate that cannot be judged refuses."""
    outcomes, demands, unreadable = [], [], []
    for gate in (*ALWAYS, *gates):
        try:
            demand = _demand(gate, evidence)
        except Invalid as error:
            needed = f"the gate {gate.rule} of {gate.scope} scope: unknown ({error.message}) → one that can be judged"
            outcomes.append(Outcome(gate=gate, state="unknown", reason=error.message, needed=needed))
            unreadable.append(needed)
            continue
        demands.append(demand)
        needed_or_none = None if demand.state == "passed" else demand.wish()
        outcomes.append(
            Outcome(gate=gate, state=demand.state, reason=demand.told(), found=demand.found, needed=needed_or_none)
        )
    wishes = [demand.wish() for demand in smallest(demands)]
    return Promotability(target=evidence.target, outcomes=tuple(outcomes), to_change=(*wishes, *unreadable))


def checked(rule: str, parameters: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The parameters as they are kept, defaults included. Raises `Invalid("invalid_gate")` for what no rule takes."""
    if not re.fullmatch(TARGET, target):
        raise Invalid("invalid_gate", f"{target!r} is neither a deployment's target, nor the name of an alias, nor *.")
    found: dict[str, Any] = _read(rule, parameters).model_dump()
    return found


def rivals_asked(gates: Sequence[Gate]) -> set[str]:
    """The aliases and targets that these gates compare with."""
    return {str(gate.parameters.get("than", "production")) for gate in gates if gate.rule == "metric_not_worse"}


def _demand(gate: Gate, evidence: Evidence) -> Demand:
    parameters = _read(gate.rule, gate.parameters)
    return RULES[gate.rule].judge(evidence, parameters)


def _read(rule: str, parameters: Mapping[str, Any]) -> Parameters:
    if rule not in RULES:
        raise Invalid("invalid_gate", f"There is no rule {rule!r}; there are {', '.join(RULES)}.")
    try:
        return RULES[rule].parameters.model_validate(dict(parameters))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in each['loc']) or 'parameters'}: {each['msg']}" for each in error.errors()
        )
        raise Invalid("invalid_gate", f"{rule} does not take these parameters: {wrong}.") from error


def facts(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON, for clients and for the record."""
    gate = outcome.gate
    return {
        "rule": gate.rule,
        "parameters": dict(gate.parameters),
        "target": gate.target,
        "scope": gate.scope,
        "gate": None if gate.id is None else str(gate.id),
        "state": outcome.state,
        "reason": outcome.reason,
        "found": outcome.found,
        "needed": outcome.needed,
    }
