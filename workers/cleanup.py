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


def retire(session: Session, run_id: UUID, staging: Bucket, quarantine: Bucket) -> None:
    """Empty staging behind a run. Safe to repeat: every key follows from the version, and nothing goes before its copy is checked.

    Raises `DependencyUnavailable` when storage is away or the copy is not what was uploaded.
    """
    version = registry.upload(session, store.version_of(session, run_id))
    upload, _, _ = version.staging_key.partition("/")

    def keep(key: str) -> str:
        if key.startswith(f"{version.id}/"):
            return key  # kept by an earlier run of this version
        target = f"{version.id}/{key.removeprefix(upload + '/')}"
        if quarantine.size(target) is None:
            quarantine.copy(staging, key, target)
        return target

    try:
        original = keep(version.original_key or version.staging_key)
        if quarantine.sha256(original) != version.sha256:
            quarantine.delete([original])
            raise DependencyUnavailable(
                "digest_mismatch", f"The kept copy of {version.filename} is not what was uploaded."
            )
        side_files = {role: {**file, "key": keep(file["key"])} for role, file in version.side_files.items()}
        registry.keep_original(session, version.id, original, side_files)
    except ObjectMissing as error:
        # Somebody emptied the bucket. There is nothing left to keep, and waiting would not bring it back.
        log.exception("cleanup.original_missing", run_id=str(run_id), error=error.message)
    staging.delete([stored.key for prefix in (f"{upload}/", f"runs/{run_id}/") for stored in staging.list(prefix)])
    store.note_cleaned(session, run_id)
