"""A version with its history and its evidence as one document, for another instance. Reads rows; opens no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline import store
from pipeline.tables import runs, steps
from registry import bundles, models
from registry import store as registry
from registry.bundles import plain
from registry.components import SOURCE

FORMAT = 1
"""Of the document; a reader refuses what it does not know."""
RAW = "application/octet-stream"

Room = Literal["staging", "registry", "quarantine"]

_MODEL = ("id", "name", "owner", "description", "model_type", "framework", "licence", "tags")
_VERSION = (
    "id",
    "version",
    "ordinal",
    "format",
    "servable",
    "filename",
    "size",
    "sha256",
    "declared",
    "verdict",
    "ruleset",
    "status",
    "release_notes",
    "pins",
    "created_at",
    "published_at",
)
_RUN = ("id", "purpose", "status", "code", "detail", "request", "created_at", "finished_at")
_STEP = ("stage", "status", "attempt", "started_at", "finished_at", "code", "detail")


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes that belong to a bundle, and where they are."""

    room: Room
    key: str
    sha256: str


def document(
    session: Session, model: Row[Any], version: Row[Any], *, key_id: str, public_key: str
) -> tuple[dict[str, Any], list[Held]]:
    """What there is to tell, and the bytes it names, every content once. The same rows make the same document."""
    told, held = _files(session, version)
    return {
        "bundle": FORMAT,
        "instance": {"key_id": key_id, "public_key": public_key},
        "model": {name: plain(getattr(model, name)) for name in _MODEL} | {"card": models.card(session, model.id)},
        "version": {
            **{name: plain(getattr(version, name)) for name in _VERSION},
            "uploaded_by": bundles.username(session, version.uploaded_by),
        },
        "history": {"runs": _runs(session, version), **bundles.history(session, version)},
        "files": told,
    }, held


def _runs(session: Session, version: Row[Any]) -> list[dict[str, Any]]:
    """All runs about the version, oldest first, with every step's facts (the evidence) and every event."""
    found = session.execute(
        select(runs).where(runs.c.version_id == version.id).order_by(runs.c.created_at, runs.c.id)
    ).all()
    return [
        {
            **{name: plain(getattr(run, name)) for name in _RUN},
            "steps": [
                {
                    **{name: plain(getattr(step, name)) for name in _STEP},
                    "facts": _without_keys((step.report or {}).get("facts", {})),
                }
                for step in session.execute(select(steps).where(steps.c.run_id == run.id).order_by(steps.c.position))
            ],
            "events": [
                {"seq": event.seq, "kind": event.kind, "at": plain(event.at), "data": event.data}
                for event in store.events_after(session, run.id, -1)
            ],
        }
        for run in found
    ]


def _without_keys(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Where bytes are stored is nobody's business."""
    if "published" not in facts:
        return dict(facts)
    shown = [{name: value for name, value in entry.items() if name != "key"} for entry in facts["published"]]
    return {**facts, "published": shown}


def _files(session: Session, version: Row[Any]) -> tuple[list[dict[str, Any]], list[Held]]:
    kept: Room = "staging" if version.original_key is None else "quarantine"
    told = [_told(version, name=SOURCE, role=SOURCE, meta={"filename": version.filename})]
    held = {version.sha256: Held(room=kept, key=version.original_key or version.staging_key, sha256=version.sha256)}
    for role, side in sorted(version.side_files.items()):
        file = SimpleNamespace(**side)
        told.append(_told(file, name=role, role=role, meta={"filename": file.name}))
        held.setdefault(file.sha256, Held(room=kept, key=file.key, sha256=file.sha256))
    for one in registry.list_artifacts(session, version.id):
        told.append(_told(one, name=one.name, role=one.role, meta=one.meta) | {"media_type": one.media_type})
        held.setdefault(one.sha256, Held(room="registry", key=one.key, sha256=one.sha256))
    return told, list(held.values())


def _told(file: Any, *, name: str, role: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "sha256": file.sha256,
        "size": file.size,
        "media_type": RAW,
        "meta": dict(meta),
    }
