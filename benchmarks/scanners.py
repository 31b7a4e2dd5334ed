"""What each scanner lets through of the corpus: ours beside picklescan, modelscan, fickling and modelaudit.

`python -m benchmarks.scanners` prints the table of docs/scanners.md, and below it what each missed, with `--missed`.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers import MISSING, NAMES, program, verdicts
from pipeline.readers import examine
from tests.corpus import CANARY, Sample, benign, hostile


def main() -> dict[str, Any]:
    """For each scanner: hostile files stopped and let through, benign files passed and stopped."""
    return {name: row["figures"] for name, row in measured()[0].items()}


def measured() -> tuple[dict[str, dict[str, Any]], dict[str, Counter[str]]]:
    """For each scanner `figures` and what it `missed` and what it gave false `alarms` about; and how many there are."""
    with tempfile.TemporaryDirectory() as folder:
        written: dict[Path, tuple[Sample, bool]] = {}
        for bad, samples in ((True, hostile()), (False, benign())):
            for sample in samples:
                place = Path(folder) / str(len(written))
                place.mkdir()
                written[sample.write(place)] = sample, bad
        rows = {"slipway": _row({str(path): _stopped(path) for path in written}, written)}
        for name in NAMES:
            if program(name) is None:
                rows[name] = {"figures": MISSING, "missed": [], "alarms": []}
            else:
                version, stopped = verdicts(name, written)
                rows[f"{name} {version}"] = _row(stopped, written)
        totals = {
            key: Counter(sample.attack for sample, bad in written.values() if bad == (key == "missed"))
            for key in ("missed", "alarms")
        }
        return rows, totals


def _stopped(path: Path) -> bool:
    return bool(examine(str(path), path.name)["verdict"] != "clean")


def _row(stopped: Mapping[str, bool], written: Mapping[Path, tuple[Sample, bool]]) -> dict[str, Any]:
    missed = [sample for path, (sample, bad) in written.items() if bad and not stopped[str(path)]]
    alarms = [sample for path, (sample, bad) in written.items() if not bad and stopped[str(path)]]
    bad_ones = sum(bad for _, bad in written.values())
    return {
        "figures": {
            "hostile stopped": bad_ones - len(missed),
            "hostile let through": len(missed),
            "that act when loaded, let through": sum(sample.loader is not None for sample in missed),
            "benign passed": len(written) - bad_ones - len(alarms),
            "benign stopped": len(alarms),
            "acted": CANARY.exists(),
        },
        "missed": missed,
        "alarms": alarms,
    }


def _print(rows: Mapping[str, Mapping[str, Any]], totals: Mapping[str, Counter[str]]) -> None:
    headings = [
        "scanner",
        "hostile stopped",
        "let through",
        "of these act when loaded",
        "benign passed",
        "false alarms",
    ]
    print("| " + " | ".join(headings) + " |")
    print("|---" + "|---:" * (len(headings) - 1) + "|")
    for name, row in rows.items():
        figures = row["figures"]
        if isinstance(figures, str):
            print(f"| {name} | {figures} |" + " |" * (len(headings) - 2))
            continue
        print("| " + " | ".join([name, *(str(value) for key, value in figures.items() if key != "acted")]) + " |")
    print()
    present = {name: row for name, row in rows.items() if isinstance(row["figures"], dict)}
    for what, key in (("let through, by class of attack", "missed"), ("stopped, by framework", "alarms")):
        names = Counter(sample.attack for row in present.values() for sample in row[key])
        print(f"| {what} | of |" + "".join(f" {name.split()[0]} |" for name in present))
        print("|---|---:|" + "---:|" * len(present))
        for attack in sorted(names):
            counts = [sum(sample.attack == attack for sample in row[key]) for row in present.values()]
            print(f"| {attack} | {totals[key][attack]} |" + "".join(f" {count} |" for count in counts))
        print()
    if "--missed" in sys.argv:
        for name, row in present.items():
            for key in ("missed", "alarms"):
                for sample in row[key]:
                    print(f"{name} {key}: {sample.name}")


if __name__ == "__main__":
    _print(*measured())
