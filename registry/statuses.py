"""What a version may become next. Pure: knows no row, no clock, no user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from registry.errors import Conflict

Status = Literal["training", "testing", "approved", "deprecated", "archived"]

STATUSES: tuple[Status, ...] = get_args(Status)

NEXT: Mapping[Status, tuple[Status, ...]] = {
    "training": ("testing", "archived"),
    "testing": ("training", "approved", "archived"),
    "approved": ("testing", "deprecated", "archived"),
    "deprecated": ("approved", "archived"),
    "archived": ("deprecated",),
}
"""What is archived comes back as deprecated: it was taken out of use, so somebody has to approve it anew."""


def refuse_unless_legal(current: Status, wanted: Status, *, ready: bool) -> None:
    """Raises `Conflict` unless a version may go from `current` to `wanted`.

    `ready`: it is published and clean, which only `approved` asks for. Staying where one is is no move and is legal.
    """
    if wanted == current:
        return
    allowed = NEXT[current]
    if wanted not in allowed:
        detail = f"A version that is {current} becomes {' or '.join(allowed)}, not {wanted}."
        raise Conflict("illegal_status", detail, {"status": current, "allowed": list(allowed)})
    if wanted == "approved" and not ready:
        raise Conflict("illegal_status", "Only a version that is published and clean can be approved.")
