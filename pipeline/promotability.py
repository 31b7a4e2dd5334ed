"""Whether a version may go to a target: brings together what runs, people and signatures have shown, and has the gates judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from pipeline import evidence, selection, store
from registry import promotion, seals, signatures
from registry import store as registry
from registry.gates import Gate, Promotability, promotability, rivals_asked
from registry.rules import Evidence, Form
from registry.seals import Manifest
from registry.store import Artifact
from shared.errors import ObjectMissing


class Shelf(Protocol):
    """Where manifests lie. Raises `ObjectMissing`, `DependencyUnavailable`."""

    def read(self, key: str) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What signatures are verified with: the stored manifests, and the public keys (base64) that count here."""

    shelf: Shelf
    keys: Sequence[str]


def judge(session: Session, model: Row[Any], version: Row[Any], target: str, trust: Trust) -> Promotability:
    """What all gates that count for this model and target say of the version. Changes nothing."""
    gates = promotion.gates_for(session, model.id, target)
    return promotability(_evidence(session, model, version.id, target=target, gates=gates, trust=trust), gates)


def refuse_unless_promotable(
    session: Session, model: Row[Any], version: Row[Any], target: str, trust: Trust
) -> Promotability:
    """Judge under a lock of the version, which must go on to hold what was decided: its verdict waits for the transaction.

    Raises `Conflict("gate_failed")`, whose details are the failing gates. The caller holds the model's lock.
    """
    registry.lock_version(session, version.id)
    judged = judge(session, model, version, target, trust)
    promotion.refuse_unless(judged, version.version)
    return judged


def sealed(session: Session, version: Row[Any], trust: Trust) -> tuple[list[Manifest], str]:
    """A version's manifests with their signatures, and what these are worth together: `valid`, or what is wrong.

    Reads the manifests from storage. Raises `DependencyUnavailable`.
    """
    stored = registry.list_artifacts(session, version.id)
    signed = signatures.of_version(session, version.id)
    manifests = [
        Manifest(
            name=one.name,
            sha256=one.sha256,
            content=_read(trust.shelf, one.key),
            signatures=signed.get(one.sha256, ()),
        )
        for one in stored
        if one.role == seals.MANIFEST
    ]
    published = {one.name: one.sha256 for one in stored if one.role != seals.MANIFEST}
    return manifests, seals.seal(manifests, published, trust.keys, source=version.sha256, version=version.version)


def _read(shelf: Shelf, key: str) -> bytes | None:
    try:
        return shelf.read(key)
    except ObjectMissing:
        return None


def _evidence(
    session: Session, model: Row[Any], version_id: UUID, *, target: str, gates: Sequence[Gate], trust: Trust
) -> Evidence:
    (row,) = promotion.standing(session, [version_id])
    forms, best = _forms(session, row, registry.list_artifacts(session, version_id))
    _, seal = sealed(session, row, trust) if any(gate.rule == "signed" for gate in gates) else ((), None)
    return replace(
        promotion.basics(row, model, target),
        forms=forms,
        best=best,
        metrics=promotion.recorded(session, version_id),
        approved_by=promotion.approvers(session, version_id, target),
        seal=seal,
        rivals=promotion.rivals(session, model.id, rivals_asked(gates)),
    )


def _forms(session: Session, row: Row[Any], stored: Sequence[Artifact]) -> tuple[list[Form], dict[str, str]]:
    """The servable forms with what was shown of each, and the one to serve by device."""
    variants, rows = evidence.of_version(session, row.id)
    said = {each["name"]: each for each in variants}
    conversion = store.published_by(session, row.id).get("convert", {}).get("facts", {}).get("verification") or {}
    devices = dict.fromkeys((selection.CPU, *(each.get("device", selection.CPU) for each in rows), *row.pins))
    servable = [one for one in stored if one.role in evidence.SERVABLE]
    forms = []
    for one in servable:
        known = said.get(one.name, conversion if one.role == "canonical" else {})
        verified = known.get("verified")
        forms.append(
            Form(
                name=one.name,
                size=one.size,
                verified=None if verified is None else bool(verified) and not known.get("withheld"),
                reason=known.get("reason"),
                p99_ms={
                    each.get("device", selection.CPU): each["p99_ms"]
                    for each in rows
                    if each["name"] == one.name and each.get("p99_ms") is not None
                },
            )
        )
    names = [one.name for one in servable]
    canonical = next((one.name for one in servable if one.role == "canonical"), None)
    chosen = {device: selection.best(names, variants, rows, device=device, pins=row.pins) for device in devices}
    chosen[selection.CPU] = chosen[selection.CPU] or canonical
    return forms, {device: name for device, name in chosen.items() if name is not None}
