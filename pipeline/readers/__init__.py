"""Static analysis by content: which bytes were understood, by which reader, and what in them is not harmless.

One reader is one file of this package that ends in `READER = Reader(...)` (`READERS = (...)` where several share one
engine) or, for archives of a known layout, in `LAYOUTS = (Layout(...), ...)`. Standard library only, nothing is executed: made to run inside the sandbox.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.readers.archive import Layout
from pipeline.readers.inspection import Inspection, Limits, Reader
from pipeline.readers.source import Source


def discover(package: str = __name__) -> tuple[tuple[Reader, ...], tuple[Layout, ...]]:
    """All readers in the order in which they are asked, and all layouts of archives."""
    readers: list[Reader] = []
    layouts: list[Layout] = []
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        loaded = importlib.import_module(f"{package}.{module.name}")
        reader = getattr(loaded, "READER", None)
        if reader is not None:
            readers.append(reader)
        readers.extend(getattr(loaded, "READERS", ()))
        layouts.extend(getattr(loaded, "LAYOUTS", ()))
    return tuple(sorted(readers, key=lambda reader: (reader.rank, reader.name))), tuple(layouts)


def ruleset() -> str:
    """Names the rules a verdict was reached by: every reader with its version."""
    readers, layouts = discover()
    return " ".join(
        sorted([f"{one.name}/{one.version}" for one in readers] + [f"{one.name}/{one.version}" for one in layouts])
    )


def examine(
    path: str, filename: str, limits: Mapping[str, float] | None = None, unpack_to: str | None = None
) -> dict[str, Any]:
    """Judge one file. `filename` names it in findings; `limits` overrides fields of `Limits`.

    Into the folder `unpack_to`, if given, goes the content of every packed archive member, for an antivirus to see.

    Returns `{verdict: clean | malicious | unknown, findings: […], stops: {rule: severity}, left_out: n,
    bytes: {reader: n}, seen: n, summary, ruleset}`; `stops` has every rule that keeps the file from passing, also where
    findings are left out. `seen` counts the file's bytes and all that was unpacked from it, `bytes` says which reader
    understood how many of them: in a clean file, all.
    `summary` is what `replay` needs: `{names: [{reader, name, path}], parts: [{path, reader}]}`.
    """
    readers, layouts = discover()
    inspection = Inspection(
        limits=Limits(**(limits or {})),  # type: ignore[arg-type]
        readers=readers,
        layouts=layouts,
        unpack_to=Path(unpack_to) if unpack_to else None,
    )
    with Path(path).open("rb", buffering=0) as file:
        source = Source(file=file, start=0, size=Path(path).stat().st_size)
        inspection.expect(source.size)
        inspection.examine(source, filename)
    inspection.settle(filename)
    return {**inspection.as_json(), "seen": inspection.seen, "ruleset": ruleset()}


def replay(names: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """What today's lists refuse of the names that a summary says were let pass, as `{reader, name, path, severity}`.

    A hit is one that a new reading would find as well. No hit says little: only a new reading sees what is not a name.
    """
    recalls = {reader.name: reader.recall for reader in discover()[0] if reader.recall is not None}
    hits = []
    for seen in names:
        recall = recalls.get(seen["reader"])
        severity = None if recall is None else recall(seen["name"])
        if severity is not None:
            hits.append({**seen, "severity": severity.name.lower()})
    return hits
