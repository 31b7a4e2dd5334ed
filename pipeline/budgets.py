"""What a change of precision may cost, by default and where a model's own config says otherwise. Knows numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from pipeline.errors import Rejected
from pipeline.stage import Json

MAX_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a precision may cost. Errors are relative to the RMS of the reference output, kind of input by kind.

    `flips` is the share of decisions that may differ; where the reference prefers its own by no more than `tie` × RMS,
    a difference is a tie and not a flip. `ranks` is the same for the set of the best few classes. `channel` is the error
    of channels of one kind relative to their own RMS; one that went silent is off by exactly 1. `accuracy` is how much
    may be lost of the share of samples that agree with the user's labels.
    """

    rms_rel: float
    max_rel: float
    cosine: float
    flips: float
    tie: float
    channel: float
    ranks: float
    accuracy: float


BUDGETS = {
    "fp32": Budget(
        rms_rel=1e-4, max_rel=1e-3, cosine=0.999_99, flips=0.0, tie=1e-4, channel=0.2, ranks=0.0, accuracy=0.0
    ),
    "fp16": Budget(
        rms_rel=1e-2, max_rel=0.1, cosine=0.999, flips=0.01, tie=1e-3, channel=0.5, ranks=0.05, accuracy=0.01
    ),
    "int8": Budget(rms_rel=0.1, max_rel=1.0, cosine=0.99, flips=0.03, tie=1e-2, channel=0.9, ranks=0.2, accuracy=0.02),
}
BUDGETS["mixed"] = BUDGETS["int8"]

LIMITS = {
    "fp32": Budget(
        rms_rel=1e-2, max_rel=0.1, cosine=0.999, flips=0.02, tie=1e-2, channel=0.9, ranks=0.1, accuracy=0.01
    ),
    "fp16": Budget(rms_rel=0.05, max_rel=0.5, cosine=0.99, flips=0.05, tie=1e-2, channel=0.9, ranks=0.2, accuracy=0.02),
    "int8": Budget(rms_rel=0.3, max_rel=3.0, cosine=0.95, flips=0.1, tie=5e-2, channel=0.95, ranks=0.5, accuracy=0.05),
}
"""How far a model's config may loosen a budget. It may tighten one as it likes."""
LIMITS["mixed"] = LIMITS["int8"]

_AT_LEAST = frozenset({"cosine"})
"""Where more is stricter."""


def budget_for(precision: str, declared: Mapping[str, Json]) -> Budget:
    """The budget of `precision` for a model of which `declared` was said; `mixed` goes by what was said of int8 too."""
    said = overrides(declared)
    changes = (said.get("int8", {}) if precision == "mixed" else {}) | said.get(precision, {})
    return replace(BUDGETS[precision], **changes)


def overridden(precision: str, declared: Mapping[str, Json]) -> dict[str, Json]:
    """What the config changed of a budget: `{"flips": {"default": 0.03, "used": 0.05}}`."""
    default, used = asdict(BUDGETS[precision]), asdict(budget_for(precision, declared))
    return {name: {"default": default[name], "used": used[name]} for name in default if default[name] != used[name]}


def overrides(declared: Mapping[str, Json]) -> dict[str, dict[str, float]]:
    """The config's `budgets`, by precision. Raises `Rejected("invalid_budget")` for what is unknown or too loose."""
    said = config_of(declared).get("budgets")
    if said is None:
        return {}
    if not isinstance(said, Mapping) or not all(isinstance(one, Mapping) for one in said.values()):
        raise _invalid('must map precisions to numbers, for example {"int8": {"flips": 0.05}}', "budgets")
    unknown = sorted(str(one) for one in said if one not in BUDGETS)
    if unknown:
        raise _invalid(f"knows no precision {', '.join(unknown)}; there are {', '.join(BUDGETS)}", "budgets")
    return {
        precision: {str(name): _within(precision, str(name), value) for name, value in changes.items()}
        for precision, changes in said.items()
    }


def max_batch(declared: Mapping[str, Json]) -> int | None:
    """The config's `max_batch`, the largest batch that the model is meant for. Raises `Rejected("invalid_max_batch")`."""
    said = config_of(declared).get("max_batch")
    if said is not None and (isinstance(said, bool) or not isinstance(said, int) or not 1 <= said <= MAX_BATCH):
        raise Rejected(
            "invalid_max_batch", f"config.max_batch must be a whole number from 1 to {MAX_BATCH}.", declared=said
        )
    return said


def config_of(declared: Mapping[str, Json]) -> Mapping[str, Json]:
    """The user's config, empty where there is none."""
    config = declared.get("config")
    return config if isinstance(config, Mapping) else {}


def _within(precision: str, name: str, value: Json) -> float:
    where = f"budgets.{precision}.{name}"
    if name not in {one.name for one in fields(Budget)}:
        raise _invalid(f"is unknown; there are {', '.join(one.name for one in fields(Budget))}", where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise _invalid("must be a number from 0 up", where)
    loosest = getattr(LIMITS[precision], name)
    if name in _AT_LEAST and not loosest <= value <= 1:
        raise _invalid(f"may be from {loosest:g} to 1, not {value:g}", where)
    if name not in _AT_LEAST and value > loosest:
        raise _invalid(f"may be at most {loosest:g}, not {value:g}", where)
    return float(value)


def _invalid(what: str, where: str) -> Rejected:
    return Rejected("invalid_budget", f"config.{where} {what}.", field=f"config.{where}")
