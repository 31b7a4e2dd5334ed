"""What happens to the bytes of a run that is over: the original to quarantine storage, the rest away.

No transaction is open while bytes move. Keys name the upload, the version and the attempt, so whatever is repeated after a
crash is repeated with the same result, and a run that is taken up again meanwhile writes under other keys.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row

from pipeline import store
from pipeline.staging import resting_key
from registry import store as registry
from shared.db import Begin
from shared.errors import DependencyUnavailable
from shared.storage import Bucket

log = structlog.get_logger()


def retire(begin: Begin, run_id: UUID, staging: Bucket, quarantine: Bucket) -> bool:
    """Do what is due for a run that is over. True when its original has only now come to rest in quarantine storage.

    Then staging is still full, because addresses that were handed out lead there: call again once they have expired.
    Raises `DependencyUnavailable` when storage is away or the copy is not what was uploaded.
    """
    with begin() as session:
        version = registry.upload(session, store.version_of(session, run_id))
    if version.original_key is None:
        kept = _keep(version, staging, quarantine)
        if kept is not None:
            original, side_files = kept
            with begin() as session:
                if store.load(session, run_id, lock=True).status.terminal:
                    registry.keep_original(session, version.id, original, side_files)
            return True
        # Somebody emptied the bucket. There is nothing left to keep, and waiting would not bring it back.
        log.error("cleanup.original_missing", run_id=str(run_id), key=version.staging_key)
    _empty(begin, run_id, version, staging)
    return False


def _keep(version: Row[Any], staging: Bucket, quarantine: Bucket) -> tuple[str, dict[str, Any]] | None:
    """Copy the original and its side files: where they are now, or None where the original is gone."""

    def copied(key: str) -> str:
        target = resting_key(version.id, key)
        if quarantine.size(target) is None:
            quarantine.copy(staging, key, target)
        return target

    if staging.size(version.staging_key) is None:
        return None
    original = copied(version.staging_key)
    if quarantine.sha256(original) != version.sha256:
        quarantine.delete([original])
        raise DependencyUnavailable("digest_mismatch", f"The kept copy of {version.filename} is not what was uploaded.")
    return original, {role: {**file, "key": copied(file["key"])} for role, file in version.side_files.items()}


def _empty(begin: Begin, run_id: UUID, version: Row[Any], staging: Bucket) -> None:
    """Remove what the run and its upload have left in staging, unless somebody has taken the run up again."""
    upload, _, _ = version.staging_key.partition("/")
    keys = [stored.key for prefix in (f"{upload}/", f"runs/{run_id}/") for stored in staging.list(prefix)]
    with begin() as session:
        if not store.load(session, run_id, lock=True).status.terminal:
            return
        store.note_cleaned(session, run_id)
    staging.delete(keys)
