"""Which arm of a rollout answers a request. Pure."""

from __future__ import annotations

import hashlib
import random
from typing import Literal
from uuid import UUID

Arm = Literal["control", "candidate"]


def choose(rollout: UUID, weight: float, key: str | None) -> Arm:
    """The candidate for a share `weight` of all requests; for the same key always the same arm, another share of keys each rollout."""
    return "candidate" if _place(rollout, key) < weight else "control"


def _place(rollout: UUID, key: str | None) -> float:
    """In [0, 1): drawn, or the key's own."""
    if key is None:
        return random.random()  # noqa: S311 - a share, not a secret
    digest = hashlib.blake2b(key.encode(), key=rollout.bytes, digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
