"""What happens to the bytes of a run that is over: the original to quarantine storage, the rest away."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from registry import store as registry
from shared.errors import DependencyUnavailable
from shared.storage import Bucket


def retire(session: Session, run_id: UUID, version: Row[Any], staging: Bucket, quarantine: Bucket) -> None:
    """Empty staging behind a run. Safe to repeat: every key follows from the version, and nothing goes before its copy is checked.

    Raises `DependencyUnavailable` when storage is away or the copy is not what was uploaded.
    """
    upload, _, _ = version.staging_key.partition("/")

    def keep(key: str) -> str:
        target = f"{version.id}/{key.removeprefix(upload + '/')}"
        if quarantine.size(target) is None:
            quarantine.copy(staging, key, target)
        return target

    original = keep(version.staging_key)
    if quarantine.sha256(original) != version.sha256:
        quarantine.delete([original])
        raise DependencyUnavailable(
            "digest_mismatch", f"The quarantined copy of {version.filename} is not what was uploaded."
        )
    side_files = {
        role: file if file["key"].startswith(f"{version.id}/") else {**file, "key": keep(file["key"])}
        for role, file in version.side_files.items()
    }
    registry.keep_original(session, version.id, original, side_files)
    staging.delete([stored.key for prefix in (f"{upload}/", f"runs/{run_id}/") for stored in staging.list(prefix)])
