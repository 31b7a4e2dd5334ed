"""Numbers and reports in words: pure functions from what the server reports to one line or one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slipway.metrics import Metric
from slipway.records import Run

Facts = Mapping[str, Any]


def size(value: float | None) -> str:
    """Return bytes as people read them, in powers of ten."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f} B"
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:.3g} TB"


def seconds(value: float | None) -> str:
    """Return a duration."""
    if value is None:
        return ""
    minute, hour = 60, 3600
    if value < minute:
        return f"{value:.1f} s"
    if value < hour:
        return f"{int(value // minute)} min {int(value % minute):02} s"
    return f"{int(value // hour)} h {int(value % hour // minute):02} min"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long something is past."""
    if moment is None:
        return ""
    passed = ((now or datetime.now(UTC)) - moment.astimezone(UTC)).total_seconds()
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if passed < limit:
            return f"{max(0, int(passed // unit))} {name} ago"
    days = int(passed // 86400)
    return f"{days} d ago"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def metric(found: Metric) -> str:
    """Return one number with its name and its data set."""
    return f"{found.name} {found.value:.6g}" + (f" ({found.dataset})" if found.dataset else "")


def milliseconds(value: float | None) -> str:
    """Return a latency with three digits."""
    return "–" if value is None else f"{value:#.3g} ms".replace(". ms", " ms")


def error_size(value: float | None) -> str:
    """Return a numeric error: 3e-07, or 0."""
    return "–" if value is None else (f"{value:.0e}" if value else "0")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a verification found over all outputs: the worst error, and how many decisions stayed."""

    verified: bool
    max_error: float | None
    compared: int
    agreed: int
    flips: int
    reason: str | None

    @property
    def decisions(self) -> str:
        """Return the share of decisions that stayed, never rounded up to all of them."""
        if not self.compared:
            return "–"
        share = int(self.agreed / self.compared * 10000) / 100
        return f"{share:g} % of {self.compared}"


def agreement(verification: Facts | None) -> Agreement | None:
    """Sum up a verification; nothing where there was none."""
    if not verification:
        return None
    outputs = [output for output in verification.get("outputs") or () if isinstance(output, Mapping)]
    errors = [float(output["max_abs"]) for output in outputs if output.get("max_abs") is not None]
    decisions = [output["decisions"] for output in outputs if output.get("decisions")]
    return Agreement(
        verified=bool(verification.get("verified")),
        max_error=max(errors, default=None),
        compared=sum(int(item.get("compared") or 0) for item in decisions),
        agreed=sum(int(item.get("agreed") or 0) for item in decisions),
        flips=sum(int(item.get("flips") or 0) for item in decisions),
        reason=verification.get("reason"),
    )


def _scan(facts: Facts) -> str:
    severities = [item.get("severity") for item in facts.get("findings") or ()]
    notes = severities.count("info")
    findings = len(severities) - notes
    antivirus = facts.get("antivirus")
    guard = "no antivirus" if antivirus is None else f"antivirus {antivirus.get('engine') or ''}".strip()
    if antivirus and antivirus.get("complete") is False:
        guard += " (incomplete)"
    parts = [str(facts.get("verdict") or "no verdict"), count(findings, "finding") if findings else "no findings"]
    return ", ".join([*parts, *([count(notes, "note")] if notes else []), guard])


def _validate(facts: Facts) -> str:
    parts = [str(facts.get("format") or "")]
    if facts.get("opset"):
        parts.append(f"opset {facts['opset']}")
    shapes = [_shapes(facts.get(side)) for side in ("inputs", "outputs")]
    if all(shapes):
        parts.append(" → ".join(shapes))
    if facts.get("parameters") is not None:
        parts.append(f"{int(facts['parameters']):,} parameters")
    if facts.get("warnings"):
        parts.append(count(len(facts["warnings"]), "warning"))
    if facts.get("servable") is False:
        parts.append("not servable")
    return ", ".join(part for part in parts if part)


def _shapes(tensors: Iterable[Facts] | None) -> str:
    shown = ["×".join(_axis(axis) for axis in tensor.get("shape") or ()) or "scalar" for tensor in tensors or ()]
    return " + ".join(shown[:2]) + (" + …" if len(shown) > 2 else "")


def _axis(axis: Any) -> str:
    return "?" if axis is None or axis == -1 else str(axis)


def _convert(facts: Facts) -> str:
    parts = [f"exporter {facts['exporter']}"] if facts.get("exporter") else []
    found = agreement(facts.get("verification"))
    if found is None:
        return ", ".join([*parts, "not verified"])
    if not found.verified:
        return ", ".join([*parts, f"not verified: {found.reason or 'no reason given'}"])
    parts.append(f"max error {error_size(found.max_error)}")
    if found.compared:
        parts.append(count(found.flips, "flip"))
    return ", ".join(parts)


def _optimize(facts: Facts) -> str:
    variants = list(facts.get("variants") or ())
    withheld = [variant for variant in variants if variant.get("withheld")]
    kept = f"{count(len(variants) - len(withheld), 'variant')} kept"
    return f"{kept}, withheld: {', '.join(str(item.get('name')) for item in withheld)}" if withheld else kept


def _benchmark(facts: Facts) -> str:
    rows = [row for row in facts.get("rows") or () if row.get("role") != "source" and row.get("speedup")]
    if not rows:
        return f"{count(len(facts.get('rows') or ()), 'form')} measured"
    best = max(rows, key=lambda row: float(row["speedup"]))
    return f"{best['name']}: {speedup(best)}, {best.get('verdict') or 'no verdict'}"


def _compare(facts: Facts) -> str:
    artifacts = list(facts.get("artifacts") or ())
    other = [str(item["name"]) for item in artifacts if not item.get("same")]
    said = f"differs: {', '.join(other)}" if other else f"{count(len(artifacts), 'artifact')} with the same bytes"
    tools = ", ".join(sorted(facts.get("toolchain") or ()))
    return f"{said}; other versions of {tools}" if tools else said


def _promote(facts: Facts) -> str:
    gates = list(facts.get("gates") or ())
    closed = [str(gate.get("gate")) for gate in gates if not gate.get("passed")]
    passed = f"{len(gates) - len(closed)} of {count(len(gates), 'gate')} passed" if gates else ""
    published = f"{count(len(facts.get('published') or ()), 'file')} published"
    return ", ".join(part for part in (published, passed, f"closed: {', '.join(closed)}" if closed else "") if part)


_SUMMARIES: Mapping[str, Callable[[Facts], str]] = {
    "scan": _scan,
    "validate": _validate,
    "convert": _convert,
    "optimize": _optimize,
    "tensorrt": _optimize,
    "benchmark": _benchmark,
    "promote": _promote,
    "compare": _compare,
}


def summary(stage: str, facts: Facts | None) -> str:
    """Return one line about what a stage reported; nothing where this client does not know such a report."""
    if not facts or stage not in _SUMMARIES:
        return ""
    try:
        if facts.get("skipped"):
            return f"left out: {facts['skipped']}"
        taken = f", taken from run {facts['cached_from']}" if facts.get("cached") else ""
        return _SUMMARIES[stage](facts) + taken
    except (AttributeError, KeyError, TypeError, ValueError):
        return "(reported in a form that this client does not know)"


def ending(run: Run) -> str:
    """Return what a run that succeeded did to its version."""
    match run.purpose:
        case "variant":
            return "has new variants"
        case "rebuild":
            return "was rebuilt: " + _compare(run.facts("compare"))
        case "rescan":
            return "was scanned again"
        case _:
            return "was promoted"


def speedup(row: Facts) -> str:
    """Return how often faster than the source, with its confidence interval: 1.84× (1.79–1.90)."""
    if row.get("speedup") is None:
        return "–"
    interval = row.get("speedup_ci")
    shown = f" ({float(interval[0]):.2f}–{float(interval[1]):.2f})" if interval else ""
    return f"{float(row['speedup']):.2f}×{shown}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published form of a version, with the evidence for it."""

    name: str
    role: str
    size: int | None
    p50_ms: float | None
    speedup: str
    agreement: Agreement | None
    verdict: str


def variants(run: Run) -> list[Row]:
    """Return what a run published beside what was measured of it, below the source that it was measured against."""
    measured = {str(row.get("name")): row for row in run.facts("benchmark").get("rows") or ()}
    checks = {item.get("name"): item.get("verification") for item in run.facts("optimize").get("variants") or ()}
    published = list(run.facts("promote").get("published") or ())
    forms = [row for row in measured.values() if row.get("role") == "source"]
    forms += [item for role in ("canonical", "variant") for item in published if item.get("role") == role]
    rows = []
    for form in forms:
        name, role = str(form.get("name")), str(form["role"])
        row = measured.get(name, {})
        is_source = role == "source"
        check = run.facts("convert").get("verification") if role == "canonical" else checks.get(name)
        rows.append(
            Row(
                name=name,
                role=role,
                size=form.get("size"),
                p50_ms=row.get("p50_ms"),
                speedup="1 (reference)" if is_source else speedup(row),
                agreement=agreement(check),
                verdict="–" if is_source else str(row.get("verdict") or "not measured"),
            )
        )
    return rows


def withheld(run: Run) -> list[tuple[str, str]]:
    """Return the variants that were made and not let through, each with the reason."""
    variants_made = run.facts("optimize").get("variants") or ()
    return [(str(item.get("name")), str(item.get("reason") or "")) for item in variants_made if item.get("withheld")]
