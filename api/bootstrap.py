"""`python -m api.bootstrap`: what a new installation needs before its first request – buckets, an admin and a key.

Safe to repeat, and safe to run twice at once. The key is written to `$SLIPWAY_HOME/admin.key` and printed once.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from sqlalchemy import text

from registry import audit, keys, people
from shared import observe
from shared.db import Begin, connect, transactions
from shared.settings import Settings
from shared.storage import Storage
from shared.tokens import digest, new_key

ADMIN = "admin"
ONE_AT_A_TIME = 0x534C4950
"""Number of the advisory lock that two bootstraps meet at."""


def main() -> None:
    settings = Settings()
    observe.configure(fmt=settings.log_format, level=settings.log_level)
    storage = Storage(**settings.storage)
    for room in ("staging", "registry", "quarantine", "exports"):
        bucket = storage.bucket(settings.bucket(room))
        bucket.ensure()
        bucket.prove_encryption()
    path = settings.slipway_home / "admin.key"
    key = first_admin(transactions(connect(settings.sqlalchemy_url, pool_size=1)), path)
    if key is not None:
        sys.stdout.write(f"The first admin's API key, also in {path}. It is not shown again:\n{key}\n")


def first_admin(begin: Begin, path: Path) -> str | None:
    """The key of the first admin, where there was nobody yet. Says on stderr what is wrong with a key file that is there."""
    with begin() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ONE_AT_A_TIME})
        if people.anybody(session):
            kept = path.read_text().strip() if path.exists() else None
            if kept is None:
                sys.stderr.write(f"There are users already, and no key in {path}; none was made.\n")
            elif keys.by_digest(session, digest(kept)) is None:
                sys.stderr.write(f"The key in {path} is not one of this database; nothing was changed.\n")
            return None
        key = new_key()
        admin = people.register(session, username=ADMIN, password_hash=None, permissions=[ADMIN])
        keys.add(
            session,
            user_id=admin.id,
            name="bootstrap",
            prefix=key.prefix,
            digest=key.digest,
            scopes=["admin"],
            expires_at=None,
        )
        told = {"username": admin.username, "permissions": list(admin.direct), "roles": []}
        audit.append(session, audit.SLIPWAY, "user.registered", str(admin.id), told)
        # Before the commit: a key of nobody does no harm, an admin whose key nobody has could never be reached.
        _write_secret(path, key.text)
    return key.text


def _write_secret(path: Path, secret: str) -> None:
    """For the owner's eyes, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".admin.key-")  # 0600 from the start
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    main()
