"""Bytes in storage that nobody has a claim on any longer, found and removed.

A claim is a row: an artifact, a version's original and side files, a run that is not cleaned. Several versions may have
claims on the same bytes, which stay until the last is gone. Never touched: what is younger than the grace (its row may
be on its way), what a live run has reported (it may be about to publish it), and keys of a kind that is not ours.
What a crash leaves is found the next time. Each key is looked at once more right before it goes, in the registry bucket
under the lock of its digest (`registry.blobs`): a run comes to bytes by their digest, which may be that of garbage. Keys
of the other buckets name an upload, a version or a run, and nobody comes to them a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.run import Status
from pipeline.tables import runs, steps
from registry import blobs
from registry.tables import artifacts, models, users, versions
from shared.db import Begin
from shared.storage import Bucket, Stored

log = structlog.get_logger()

BATCH = 100
KEPT = timedelta(days=90)
"""For how long what the engines remember of timings is worth keeping."""
_LIVE = (Status.QUEUED, Status.RUNNING)

Unclaimed = Callable[[Session, Sequence[Stored]], list[Stored]]


@dataclass(kw_only=True)
class Swept:
    """How much was removed, or would be: objects and bytes, by bucket."""

    objects: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


def collect(
    begin: Begin,
    *,
    staging: Bucket,
    registry: Bucket,
    quarantine: Bucket,
    grace: timedelta,
    dry_run: bool = False,
    tell: Callable[[Bucket, Stored], None] | None = None,
) -> Swept:
    """Remove what nobody has a claim on, or only `tell` of it. `grace` must exceed the longest step of a run."""
    swept = Swept()
    limit = datetime.now(UTC) - grace
    rooms: tuple[tuple[Bucket, Unclaimed], ...] = (
        (registry, _unpublished),
        (quarantine, _unkept),
        (staging, _unstaged),
    )
    for bucket, unclaimed in rooms:
        old = (stored for stored in bucket.list() if stored.modified < limit)
        for batch in _batches(old):
            with begin() as session:
                gone = unclaimed(session, batch)
            if gone and not dry_run:
                with begin() as session:
                    if bucket is registry:
                        gone = _seized(session, bucket, gone, limit)
                    gone = unclaimed(session, gone)  # right before it happens: somebody may have come meanwhile
                    bucket.delete([stored.key for stored in gone])
            if tell is not None:
                for stored in gone:
                    tell(bucket, stored)
            swept.objects[bucket.name] += len(gone)
            swept.bytes[bucket.name] += sum(stored.size for stored in gone)
    if swept.objects.total() and not dry_run:
        log.info("garbage.collected", objects=swept.objects.total(), bytes=swept.bytes.total())
    return swept


def expire(begin: Begin, exports: Bucket, retention: timedelta) -> int:
    """Remove exports that are too old, and those of versions that are gone or not clean any longer. How many objects."""
    old = datetime.now(UTC) - retention
    removed = 0
    for batch in _batches(exports.list()):
        ours = {stored.key: version for stored in batch if (version := _id_in(stored.key))}
        there = (versions.c.deleted_at.is_(None), models.c.deleted_at.is_(None))
        fit = (versions.c.id.in_(set(ours.values())), versions.c.verdict == "clean", *there)
        joined = versions.join(models, models.c.id == versions.c.model_id)
        with begin() as session:
            clean = set(session.execute(select(versions.c.id).select_from(joined).where(*fit)).scalars())
        gone = [
            each
            for each in batch
            if each.key in ours and (ours[each.key] not in clean or (each.modified < old and _still(exports, each)))
        ]
        exports.delete([stored.key for stored in gone])
        removed += len(gone)
    if removed:
        log.info("exports.expired", objects=removed)
    return removed


def _still(bucket: Bucket, stored: Stored) -> bool:
    """Whether nobody has written it again since it was listed."""
    return any(now.key == stored.key and now.modified == stored.modified for now in bucket.list(stored.key))


def _unpublished(session: Session, batch: Sequence[Stored]) -> list[Stored]:
    """In the registry: no live run that has made bytes of this digest, and no artifact."""
    ours = {stored.key: digest for stored in batch if (digest := blobs.digest(stored.key))}
    # In the order in which a claim is handed on, so that none is missed on its way.
    reported = select(steps.c.report["files"]).join(runs, runs.c.id == steps.c.run_id).where(runs.c.status.in_(_LIVE))
    coming = {file["sha256"] for files in session.execute(reported).scalars() for file in files or ()}
    claimed = set(session.execute(select(artifacts.c.key).where(artifacts.c.key.in_(ours))).scalars())
    return [
        stored
        for stored in batch
        if stored.key in ours and stored.key not in claimed and ours[stored.key] not in coming
    ]


def _seized(session: Session, bucket: Bucket, batch: Sequence[Stored], limit: datetime) -> list[Stored]:
    """Those that nobody can claim until the transaction ends, and that nobody has written again since they were listed."""
    free = blobs.seize(session, [digest for stored in batch if (digest := blobs.digest(stored.key))])
    return [
        now
        for stored in batch
        if blobs.digest(stored.key) in free
        for now in bucket.list(stored.key)
        if now.key == stored.key and now.modified < limit
    ]


def _unkept(session: Session, batch: Sequence[Stored]) -> list[Stored]:
    """In quarantine: no version, or one whose files rest under other keys by now."""
    ours = {stored.key: version for stored in batch if (version := _id_in(stored.key))}
    rows = session.execute(
        select(versions.c.id, versions.c.original_key, versions.c.side_files).where(
            versions.c.id.in_(set(ours.values()))
        )
    )
    kept = {
        row.id: None if row.original_key is None else {row.original_key, *_keys(row.side_files.values())}
        for row in rows
    }
    return [
        stored
        for stored in batch
        if stored.key in ours
        and (ours[stored.key] not in kept or stored.key not in (kept[ours[stored.key]] or {stored.key}))
    ]


def _unstaged(session: Session, batch: Sequence[Stored]) -> list[Stored]:
    """In staging: uploads of no version, what runs left that are gone or cleaned, memories that are too old to be of use."""
    uploads = {stored.key: str(upload) for stored in batch if (upload := _id_in(stored.key))}
    made = {stored.key: run for stored in batch if (run := _id_in(stored.key, "runs/"))}
    owners = {stored.key: owner for stored in batch if (owner := _id_in(stored.key, "kept/"))}
    first = func.split_part(versions.c.staging_key, "/", 1)
    known = set(session.execute(select(first).where(first.in_(set(uploads.values())))).scalars())
    uncleaned = select(runs.c.id).where(runs.c.id.in_(set(made.values())), runs.c.cleaned_at.is_(None))
    working = set(session.execute(uncleaned).scalars())
    there = set(session.execute(select(users.c.id).where(users.c.id.in_(set(owners.values())))).scalars())
    worn = datetime.now(UTC) - KEPT

    def gone(stored: Stored) -> bool:
        if stored.key in uploads:
            return uploads[stored.key] not in known
        if stored.key in made:
            return made[stored.key] not in working
        return stored.key in owners and (stored.modified < worn or owners[stored.key] not in there)

    return [stored for stored in batch if gone(stored)]


def _keys(files: Iterable[dict[str, str]]) -> Iterator[str]:
    return (file["key"] for file in files)


def _id_in(key: str, prefix: str = "") -> UUID | None:
    """The id that follows the prefix and comes before a slash, or None where the key is none of that kind."""
    name, slash, _ = key.removeprefix(prefix).partition("/")
    try:
        found = UUID(name) if slash and key.startswith(prefix) else None
    except ValueError:
        return None
    return found if str(found) == name else None


def _batches(found: Iterator[Stored]) -> Iterator[list[Stored]]:
    while batch := list(islice(found, BATCH)):
        yield batch
