"""Conditional requests (RFC 9110 §13): whether a client has something already, and which state it wants to change."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

IfMatch = Annotated[str | None, Header(max_length=200, description="the ETag of what you have read")]
IfNoneMatch = Annotated[str | None, Header(max_length=1000, description="the ETag of what you have")]


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether `If-None-Match` names the tag; weak and strong ones count as the same, as GET wants it."""
    given = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    return "*" in given or tag.removeprefix("W/") in given


def revision(if_match: str | None) -> int | None:
    """The revision that a tag like `"3-9f86d081"` begins with. None: any will do. -1, which nothing has: not one of ours."""
    if if_match is None or if_match.strip() == "*":
        return None
    said = if_match.strip().strip('"').partition("-")[0]
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else -1
