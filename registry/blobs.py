"""Bytes in the registry bucket: where they lie, and how who lays claim to some and who removes some keep out of each other's way.

Both hold a lock on the digest (an advisory one of Postgres's) until their transaction ends. A claim that is about to be
made waits for a removal under way and finds the bytes gone, so it brings them again; a removal never waits.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from sqlalchemy import func, select
from sqlalchemy.orm import Session

BLOBS = "sha256/"
"""What the keys of the registry bucket begin with."""
_LOCK = 0x626C6F62
"""First half of the advisory locks on digests."""


def key(sha256: str, name: str) -> str:
    """Where bytes lie in the registry bucket: the key names their digest, so it is never written with others."""
    return f"{BLOBS}{sha256[:2]}/{sha256}/{PurePosixPath(name).name}"


def digest(key: str) -> str | None:
    """The digest that a key names, None where it is none of ours."""
    parts = key.split("/")
    return parts[2] if key.startswith(BLOBS) and len(parts) == 4 else None


def hold(session: Session, digests: Collection[str]) -> None:
    """Let nobody remove these bytes until the transaction ends. To be asked before one looks whether they are there."""
    for each in sorted(set(digests)):
        session.execute(select(func.pg_advisory_xact_lock_shared(_LOCK, func.hashtext(each))))


def seize(session: Session, digests: Collection[str]) -> set[str]:
    """Those of them that nobody is laying claim to; nobody can until the transaction ends."""
    return {
        each
        for each in sorted(set(digests))
        if session.execute(select(func.pg_try_advisory_xact_lock(_LOCK, func.hashtext(each)))).scalar_one()
    }
