"""Versions held against each other: whether a number says what changed, and what sets two to four of them apart.

Reads what runs have shown; the decisions are `registry.contracts`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from pipeline import evidence, selection, store
from registry import contracts, metrics
from registry import store as registry
from registry.contracts import Contract

Pair = tuple[Row[Any], Row[Any]]
"""A model and one of its versions."""


def contract(reports: Mapping[str, Any], version: Row[Any], *, converted: bool | None = None) -> Contract | None:
    """What a version takes and gives by the reports of the run that let it in; None where no run has.

    `converted`: take the canonical form's word, which may call outputs differently, or else validation's; by default
    that of the canonical form where there is one.
    """
    if "validate" not in reports:
        return None
    facts: dict[str, Any] = dict(reports["validate"]["facts"])
    if converted is not False and "convert" in reports:
        made = reports["convert"]["facts"]
        facts |= {side: made[side] for side in ("inputs", "outputs") if made.get(side)}
    return Contract.read(facts, version.declared)


def refuse_unless_number_fits(session: Session, version: Row[Any]) -> None:
    """Raises `Conflict("version_breaks_contract")` where a version's number says less than what changed since the one before.

    Before its run has shown what it is, what its uploader has declared counts. Nothing is said where nothing is known.
    """
    published = {row.version: row for row in registry.other_published(session, version)}
    number = contracts.predecessor(version.version, published)
    if number is None:
        return
    before_reports = store.published_by(session, published[number].id)
    before = contract(before_reports, published[number])
    if before is None:
        return
    reports = store.published_by(session, version.id)
    converted = "convert" in reports and "convert" in before_reports
    before = contract(before_reports, published[number], converted=converted) or before
    after = contract(reports, version, converted=converted) or before.declaring(version.declared)
    contracts.refuse_unless_honest(number, version.version, contracts.compare(before, after))


def compared(session: Session, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Two to four versions side by side, and what sets each apart from the first.

    `versions` is one entry each; `metrics` one for each name and data set with the values in the order of `versions`;
    `contracts` one for each version after the first; `differs` names the facts in which they are not all alike.
    """
    latest = metrics.latest(session, [row.id for _, row in pairs])
    reports = [store.published_by(session, row.id) for _, row in pairs]
    converted = all("convert" in each for each in reports)
    found = [contract(said, row, converted=converted) for said, (_, row) in zip(reports, pairs, strict=True)]
    subjects = [
        {
            **_subject(session, owner, row, said),
            "contract": None if promises is None else asdict(promises),
        }
        for (owner, row), said, promises in zip(pairs, reports, found, strict=True)
    ]
    return {
        "versions": subjects,
        "metrics": side_by_side([[_figure(one) for one in latest[row.id]] for _, row in pairs]),
        "contracts": [
            broken(subjects[0], other, found[0], promises)
            for other, promises in zip(subjects[1:], found[1:], strict=True)
        ],
        "differs": [fact for fact in _FACTS if any(each[fact] != subjects[0][fact] for each in subjects[1:])],
    }


def side_by_side(figures: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Of each metric and data set the values in the order of the versions, None where one has none. Pure."""
    keys = sorted({(one["name"], one["dataset"] or "") for each in figures for one in each})
    values = [{(one["name"], one["dataset"] or ""): one["value"] for one in each} for each in figures]
    return [
        {"name": name, "dataset": dataset or None, "values": [each.get((name, dataset)) for each in values]}
        for name, dataset in keys
    ]


def broken(
    first: Mapping[str, Any], other: Mapping[str, Any], before: Contract | None, after: Contract | None
) -> dict[str, Any]:
    """What changed in the contract between two versions, in the direction of their numbers. Pure.

    `fits` says whether the number says as much as the change; None where a contract is unknown or the two are versions of
    different models, whose numbers have nothing to do with each other.
    """
    same_line = first["model_id"] == other["model_id"]
    if same_line and contracts.below(other["version"], first["version"]):
        first, other, before, after = other, first, after, before
    said: dict[str, Any] = {"before": first["label"], "after": other["label"]}
    if before is None or after is None:
        return said | {"changes": None, "needed": None, "fits": None}
    changes = contracts.compare(before, after)
    return said | {
        "changes": [asdict(each) for each in changes],
        "needed": contracts.needed(changes),
        "fits": contracts.honest(first["version"], other["version"], changes) if same_line else None,
    }


_FACTS = ("format", "framework", "size", "licence", "status", "verdict", "servable", "toolchain")


def _subject(session: Session, owner: Row[Any], row: Row[Any], reports: Mapping[str, Any]) -> dict[str, Any]:
    artifacts = registry.list_artifacts(session, row.id)
    variants, rows = evidence.of_version(session, row.id)
    servable = [one for one in artifacts if one.role in evidence.SERVABLE]
    canonical = next((one for one in servable if one.role == "canonical"), None)
    best = selection.best([one.name for one in servable], variants, rows, pins=row.pins)
    return {
        "label": f"{owner.owner}/{owner.name}@{row.version}",
        "id": row.id,
        "model_id": owner.id,
        "model": owner.name,
        "owner": owner.owner,
        "version": row.version,
        "ordinal": row.ordinal,
        "format": row.format,
        "framework": row.declared.get("framework") or owner.framework,
        "size": row.size,
        "sha256": row.sha256,
        "licence": row.declared.get("licence") or owner.licence,
        "status": row.status,
        "verdict": row.verdict,
        "servable": row.servable,
        "created_at": row.created_at,
        "published_at": row.published_at,
        "toolchain": dict(canonical.meta.get("toolchain", {})) if canonical else {},
        "best_variant": best or (canonical.name if canonical else None),
        "variants": [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in servable],
        "device": reports.get("benchmark", {}).get("facts", {}).get("device"),
        "benchmarks": last_said(rows),
        "quality": reports.get("benchmark", {}).get("facts", {}).get("quality"),
    }


def last_said(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each form and device what was measured last. Pure."""
    return list({(row["name"], row.get("device", selection.CPU)): row for row in rows}.values())


def _figure(row: Row[Any]) -> dict[str, Any]:
    return {"name": row.name, "dataset": row.dataset, "value": row.value}
