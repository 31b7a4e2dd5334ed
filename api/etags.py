"""Conditional requests (RFC 9110 §13): whether a client has something already, and which state it wants to change."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import Header, Response

from api.errors import Problem

IfMatch = Annotated[
    str | None,
    Header(max_length=200, description="the ETag of what you have seen; 412 where somebody has changed it since"),
]
IfNoneMatch = Annotated[str | None, Header(max_length=1000, description="the ETag of what you have")]

_TAG = re.compile(r'"([1-9][0-9]{0,17})(-[0-9a-f]+)?"')
"""A revision, and a digest where more is shown than the revision counts."""


def tag(response: Response, revision: int) -> None:
    """Name the revision that the answer shows."""
    response.headers["ETag"] = f'"{revision}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether `If-None-Match` names the tag; weak and strong ones count as the same, as GET wants it."""
    given = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    return "*" in given or tag.removeprefix("W/") in given


def revision_in(if_match: str | None) -> int | None:
    """The revision that the asker has seen; None where they do not say, or would take any. 412 for a tag that is not ours."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        detail = "If-Match holds no ETag that this server gave out."
        raise Problem(HTTPStatus.PRECONDITION_FAILED, "precondition_failed", detail)
    return int(found[1])
