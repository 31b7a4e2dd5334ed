"""Where a rollback leads: to what was live before and is still good. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class Past:
    """One deployment of a target's history. `good`: its version could be deployed today, by what always counts."""

    id: UUID
    version_id: UUID
    status: str
    good: bool


def previous(history: Sequence[Past]) -> Past | None:
    """The newest deployment that another one took the place of, of another version than the newest one's, and still good.

    `history` is newest first. A version that was last rolled back from, or ended, is not gone back to: twice rolled
    back is twice as far back. None where nothing is left.
    """
    if not history:
        return None
    last: dict[UUID, Past] = {}
    for past in history:
        last.setdefault(past.version_id, past)
    for past in history[1:]:
        superseded = last[past.version_id] is past and past.status == "superseded"
        if superseded and past.version_id != history[0].version_id and past.good:
            return past
    return None
