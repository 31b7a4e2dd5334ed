"""Whether the bytes that rows name are there, after both came back from a backup; runs go on from where their bytes allow it.

A dump is of one moment and the buckets are copied after it. What was published rests under its digest and does not move.
A run that ended in between has left staging: its original is found in quarantine, under the key that cleaning up gives it,
and what its steps had made is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline import engine
from pipeline.run import Cancel, Retry, Status, StepStatus
from pipeline.staging import resting_key
from pipeline.tables import runs, steps
from registry import store as registry
from registry.tables import versions
from shared.db import Begin
from shared.storage import Bucket

What = Literal["missing", "altered"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An object that is not what the rows of `version` (`model@version`) say."""

    version: str
    bucket: str
    key: str
    what: What


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A run under way of which something is gone that an earlier step had made: it goes on from `stage`."""

    run_id: UUID
    stage: str


@dataclass(kw_only=True)
class Checked:
    """`found`: versions whose original was in quarantine although their rows knew it in staging."""

    objects: int = 0
    faults: list[Fault] = field(default_factory=list)
    found: list[UUID] = field(default_factory=list)
    repeated: list[Repeated] = field(default_factory=list)


class Shelf:
    """A bucket, listed once. With `digests` every object is read."""

    def __init__(self, bucket: Bucket, *, digests: bool) -> None:
        self.bucket = bucket
        self._digests = digests
        self._sizes = {stored.key: stored.size for stored in bucket.list()}

    def fault(self, key: str, size: int, sha256: str) -> What | None:
        found = self._sizes.get(key)
        if found is None:
            found = self.bucket.size(key)  # it may have come since
        if found is None:
            return "missing"
        altered = found != size or (self._digests and self.bucket.sha256(key) != sha256)
        return "altered" if altered else None


def check(
    begin: Begin, *, staging: Bucket, registry: Bucket, quarantine: Bucket, digests: bool = False, repair: bool = False
) -> Checked:
    """Hold every version against storage. Only with `repair` are rows changed: originals found, runs repeated.

    To be asked while no other process of Slipway works.
    """
    staged, published, kept = (Shelf(each, digests=digests) for each in (staging, registry, quarantine))
    checked = Checked()
    with begin() as session:
        ids = list(session.execute(select(versions.c.id).order_by(versions.c.id)).scalars())
    for version_id in ids:
        with begin() as session:
            _check_published(session, version_id, published, checked)
            _check_original(session, version_id, staged, kept, checked, repair=repair)
            _check_runs(session, version_id, staged, checked, repair=repair)
    return checked


def _check_published(session: Session, version_id: UUID, shelf: Shelf, checked: Checked) -> None:
    label = _label(registry.upload(session, version_id))
    for one in registry.list_artifacts(session, version_id):
        checked.objects += 1
        if what := shelf.fault(one.key, one.size, one.sha256):
            checked.faults.append(Fault(version=label, bucket=shelf.bucket.name, key=one.key, what=what))


def _check_original(
    session: Session, version_id: UUID, staged: Shelf, kept: Shelf, checked: Checked, *, repair: bool
) -> None:
    row = registry.upload(session, version_id)
    if row.original_key is None and _is_cleaned(session, version_id):
        return  # it was gone before the backup, and the log has said so
    shelf, key = (staged, row.staging_key) if row.original_key is None else (kept, row.original_key)
    checked.objects += 1 + len(row.side_files)
    faults = list(_faults(row, key, shelf, lambda key: key))
    if faults and shelf is staged and not list(_faults(row, key, kept, lambda key: resting_key(version_id, key))):
        checked.found.append(version_id)
        if repair:
            resting = {
                role: {**file, "key": resting_key(version_id, file["key"])} for role, file in row.side_files.items()
            }
            registry.keep_original(session, version_id, resting_key(version_id, key), resting)
        return
    checked.faults += faults


def _faults(row: Row[Any], key: str, shelf: Shelf, where: Callable[[str], str]) -> Iterator[Fault]:
    """Of the original and its side files, each looked for at `where(key)`."""
    files = [(key, row.size, row.sha256)]
    files += [(file["key"], file["size"], file["sha256"]) for file in row.side_files.values()]
    for name, size, sha256 in files:
        if what := shelf.fault(where(name), size, sha256):
            yield Fault(version=_label(row), bucket=shelf.bucket.name, key=where(name), what=what)


def _check_runs(session: Session, version_id: UUID, staged: Shelf, checked: Checked, *, repair: bool) -> None:
    """A step that has passed and whose files are gone is done again, and all behind it."""
    live = (runs.c.version_id == version_id, runs.c.status.in_((Status.QUEUED, Status.RUNNING)))
    for run_id in session.execute(select(runs.c.id).where(*live)).scalars().all():
        passed = session.execute(
            select(steps.c.stage, steps.c.report)
            .where(steps.c.run_id == run_id, steps.c.status == StepStatus.PASSED)
            .order_by(steps.c.position)
        )
        for stage, report in passed:
            files = report["files"]
            checked.objects += len(files)
            if any(staged.fault(file["key"], file["size"], file["sha256"]) for file in files):
                checked.repeated.append(Repeated(run_id=run_id, stage=stage))
                if repair:
                    engine.send(session, run_id, Cancel())
                    engine.send(session, run_id, Retry(stage=stage))
                break


def _is_cleaned(session: Session, version_id: UUID) -> bool:
    cleaned = select(runs.c.id).where(runs.c.version_id == version_id, runs.c.cleaned_at.is_not(None))
    return session.execute(cleaned.limit(1)).one_or_none() is not None


def _label(row: Row[Any]) -> str:
    return f"{row.model}@{row.version}"
