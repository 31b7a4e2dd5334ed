"""Where the bytes of an upload lie until they belong to a version, and how those that never will are found again.

Keys are `{upload_id}/model/{name}` for the model and `{upload_id}/{role}/{name}` for what came with it. Objects under other
keys of the bucket are none of this module's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from pipeline.upload import key_name

if TYPE_CHECKING:
    from shared.storage import Bucket, Stored

log = structlog.get_logger()

MODEL = "model"
_BATCH = 200


def staging_key(upload_id: UUID, role: str, filename: str) -> str:
    """The key of one file of an upload; `role` is `model` for the model itself."""
    return f"{upload_id}/{role}/{key_name(filename)}"


def resting_key(version_id: UUID, key: str) -> str:
    """Where a staged file of a version comes to rest in quarantine storage."""
    _, _, rest = key.partition("/")
    return f"{version_id}/{rest}"


def sweep_staging(
    staging: Bucket, known: Callable[[Sequence[str]], set[str]], older_than: timedelta
) -> tuple[int, int]:
    """Remove what uploads left that were killed: how many unfinished transfers and how many objects there were.

    `known` says which model keys belong to a version; those uploads stay, whole. `older_than` must exceed the longest
    upload, or a running one would lose its bytes.
    """
    transfers = sweep_transfers(staging, older_than)
    objects = 0
    for batch in _batches(_forgotten(staging, datetime.now(UTC) - older_than)):
        kept = known([key for keys in batch for key in keys if key.split("/")[1] == MODEL])
        gone = [key for keys in batch if not kept.intersection(keys) for key in keys]
        if gone:
            staging.delete(gone)
            objects += len(gone)
    if objects:
        log.info("staging.swept", objects=objects)
    return transfers, objects


def sweep_transfers(bucket: Bucket, older_than: timedelta) -> int:
    """Abort what was begun in parts and never completed, whoever began it: an upload, a stage, a copy. How many there were.

    `older_than` must exceed the longest of them.
    """
    limit = datetime.now(UTC) - older_than
    dead = [unfinished for unfinished in bucket.multiparts() if unfinished.started < limit]
    for unfinished in dead:
        bucket.abort(unfinished)
    if dead:
        log.info("storage.transfers_aborted", bucket=bucket.name, transfers=len(dead))
    return len(dead)


def _forgotten(staging: Bucket, limit: datetime) -> Iterator[list[str]]:
    """The keys of each upload of which nothing has been written since `limit`. Storage lists an upload's keys together."""
    ours = (stored for stored in staging.list() if _upload_of(stored.key))
    for _, group in groupby(ours, key=lambda stored: _upload_of(stored.key)):
        files: list[Stored] = list(group)
        if max(stored.modified for stored in files) < limit:
            yield [stored.key for stored in files]


def _upload_of(key: str) -> str | None:
    """The upload that a key belongs to, or None where it is not one of ours."""
    first, _, rest = key.partition("/")
    try:
        return first if rest.count("/") == 1 and str(UUID(first)) == first else None
    except ValueError:
        return None


def _batches(groups: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    batch: list[list[str]] = []
    for group in groups:
        batch.append(group)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
