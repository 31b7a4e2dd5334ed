"""Real models of every format down the running slipway: what became of each, in what time, and what the evidence says.

The samples are those of `tests/zoo`, one after the other, each with an owner of its own: nothing is taken from an
earlier conversion, nothing runs beside an earlier version. `FORMATS` names some of them, separated by spaces.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from slipway import Client, Run

from benchmarks.upload import token
from shared.settings import Settings
from tests.zoo import SAMPLES, Sample

TIMEOUT = 1800.0
HEADINGS = (
    "format",
    "model",
    "outcome",
    "time",
    "best variant",
    "speed-up",
    "verdict",
    "error",
    "decisions that differ",
    "accuracy",
)
_NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One sample's way down: the run that ended, seconds from the first byte to the last event, what is served by default."""

    run: Run
    seconds: float
    best: str | None

    @property
    def promoted(self) -> bool:
        return self.run.status == "succeeded" and self.best is not None

    @property
    def outcome(self) -> str:
        """In a few words."""
        if self.promoted:
            return "promoted"
        return "stored, not served" if self.run.status == "succeeded" else f"{self.run.status}: {self.run.code}"

    @property
    def reason(self) -> str:
        """Why it is not served."""
        said = self.run.detail or "; ".join(self.run.facts("validate").get("warnings", ()))
        return said or "No reason was given."

    @property
    def verification(self) -> Mapping[str, Any]:
        """Of the best variant."""
        made = self.run.facts("optimize").get("variants", ())
        variant = next((one for one in made if one["name"] == self.best), self.run.facts("convert"))
        found: Mapping[str, Any] = variant["verification"]
        return found

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Of the source and of the best variant, where the calibration file has labels."""
        before, after = (one["accuracy"] for one in (self.run.facts("convert")["verification"], self.verification))
        return (before["reference"], after["candidate"]) if before and after else None

    @property
    def speed(self) -> Mapping[str, Any]:
        """The benchmark's row of the best variant."""
        rows = self.run.facts("benchmark")["rows"]
        return next(row for row in rows if row["name"] == self.best)


def send(client: Client, sample: Sample, folder: Path, *, name: str | None = None) -> Arrival:
    """Make a sample, push it as its owner would, and wait until its run is over."""
    path = sample.make(folder)
    calibration = sample.calibration(folder) if sample.calibration else None
    began = time.monotonic()
    run = client.push(path, name or sample.name, calibration=calibration, **sample.declared)
    run = client.wait(run, TIMEOUT)
    seconds = time.monotonic() - began
    version = client.version(f"{run.model}@{run.version}")
    return Arrival(run=run, seconds=seconds, best=version.best_variant if version.servable else None)


def row(sample: Sample, arrival: Arrival) -> tuple[str, ...]:
    """The cells under `HEADINGS`."""
    start = (sample.format, sample.name, arrival.outcome, f"{arrival.seconds:.0f} s")
    if not arrival.promoted:
        return (*start, *[_NOTHING] * (len(HEADINGS) - len(start)))
    speed, verification = arrival.speed, arrival.verification
    bounds = speed["speedup_ci"]
    outputs = verification["outputs"]
    decided = [one["decisions"] for one in outputs if one["decisions"]["compared"]]
    compared, agreed = (sum(one[key] for one in decided) for key in ("compared", "agreed"))
    accuracy = arrival.accuracy
    return (
        *start,
        f"`{arrival.best}`",
        f"{speed['speedup']:.2f}×" + (f" ({bounds[0]:.2f}–{bounds[1]:.2f})" if bounds else ""),
        speed["verdict"],
        f"{max(one['rms_rel'] for one in outputs):.1g}",
        f"{compared - agreed:,} of {compared:,}" if compared else _NOTHING,
        " → ".join(f"{one:.2%}" for one in accuracy) if accuracy else _NOTHING,
    )


def markdown(rows: Iterable[tuple[str, ...]]) -> str:
    """The rows as a table."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> str:
    """The table, and below it why something is not served or was not run."""
    wanted = os.environ.get("FORMATS", "").split() or list(SAMPLES)
    settings, rows, notes = Settings(), [], []
    for sample in sorted((SAMPLES[name] for name in wanted), key=lambda one: (one.format, one.name)):
        if sample.missing:
            notes.append(f"`{sample.name}` was not run: {', '.join(sample.missing)} not installed.")
            continue
        bearer = token(settings, f"{sample.name}-{uuid4().hex[:8]}")
        with tempfile.TemporaryDirectory() as folder, Client(token=bearer) as client:
            arrival = send(client, sample, Path(folder))
        rows.append(row(sample, arrival))
        print(f"  {' | '.join(rows[-1])}", file=sys.stderr)
        if not arrival.promoted:
            notes.append(f"`{sample.name}`: {arrival.reason}")
            print(f"    {arrival.reason}", file=sys.stderr)
    return "\n\n".join([markdown(rows), *notes])


if __name__ == "__main__":
    print(main())
