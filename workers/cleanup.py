"""What happens to the bytes of a run that is over: the original to quarantine storage, the rest away."""

from __future__ import annotations

from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from pipeline import store
from registry import store as registry
from shared.errors import DependencyUnavailable, ObjectMissing
from shared.storage import Bucket

log = structlog.get_logger()


def keep(session: Session, run_id: UUID, staging: Bucket, quarantine: Bucket) -> bool:
    """Bring what was uploaded to rest in quarantine storage. True when that happened just now; doing it twice is doing it once.

    Raises `DependencyUnavailable` when storage is away or the copy is not what was uploaded.
    """
    version = registry.upload(session, store.version_of(session, run_id))
    if version.original_key is not None:
        return False
    upload, _, _ = version.staging_key.partition("/")

    def copied(key: str) -> str:
        target = f"{version.id}/{key.removeprefix(upload + '/')}"
        if quarantine.size(target) is None:
            quarantine.copy(staging, key, target)
        return target

    try:
        original = copied(version.staging_key)
        if quarantine.sha256(original) != version.sha256:
            quarantine.delete([original])
            raise DependencyUnavailable(
                "digest_mismatch", f"The kept copy of {version.filename} is not what was uploaded."
            )
        side_files = {role: {**file, "key": copied(file["key"])} for role, file in version.side_files.items()}
    except ObjectMissing as error:
        # Somebody emptied the bucket. There is nothing left to keep, and waiting would not bring it back.
        log.exception("cleanup.original_missing", run_id=str(run_id), error=error.message)
        return False
    registry.keep_original(session, version.id, original, side_files)
    return True


def empty(session: Session, run_id: UUID, staging: Bucket) -> None:
    """Remove what a run and its upload have left in staging. Only behind `keep`."""
    upload, _, _ = registry.upload(session, store.version_of(session, run_id)).staging_key.partition("/")
    staging.delete([stored.key for prefix in (f"{upload}/", f"runs/{run_id}/") for stored in staging.list(prefix)])
