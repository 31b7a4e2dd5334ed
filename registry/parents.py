"""What a version may be said to come from, and how that is written. Pure.

A parent is a version here (`name@1.0.0`, `owner/name@latest`) or something elsewhere, by its address or its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

Relation = Literal["fine-tuned-from", "derived-from", "dataset", "code"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OF_MODELS: frozenset[Relation] = frozenset({"fine-tuned-from", "derived-from"})
"""Relations whose parent may be a version here: what is trained on a dataset comes from no model of ours by that."""

LONGEST = 2048
_SCHEMES = frozenset({"https", "http", "s3", "gs", "hf", "doi"})


class Parent(NamedTuple):
    """A version here: `model` by id, name or `owner/name`, and which of its versions."""

    model: str
    version: str


DECLARED: Mapping[str, Relation] = {
    "parent": "derived-from",
    "model_url": "derived-from",
    "dataset_url": "dataset",
    "code_url": "code",
}
"""What the fields of an upload that tell of its parents say."""


def parent(text: str) -> Parent:
    """`name@1.0.0`, `owner/name@latest`; without @ it is the latest. Raises `ValueError`."""
    name, at, version = text.strip().partition("@")
    version = version if at else "latest"
    if not name or not version or len(text) > 300 or not text.isprintable() or name.count("/") > 1:
        raise ValueError("does not name a version such as digits@1.0.0 or ada/digits@latest")
    return Parent(name, version)


def reference(text: str) -> str:
    """The address or name of something elsewhere. Raises `ValueError`, also for addresses that a page must not link."""
    text = text.strip()
    if not text or len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"is not an address or a name of 1 to {LONGEST:,} characters on one line")
    if ":" not in text:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError("is not an address") from error
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"has a colon, so it has to be an address that begins with {', '.join(sorted(_SCHEMES))}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or a password, which everybody would see")
    if parts.scheme in ("https", "http") and (not parts.hostname or port == 0):
        raise ValueError("is an address without a host")
    return text


def address(text: str) -> str:
    """A reference that is an address of the web. Raises `ValueError`."""
    if urlsplit(text.strip()).scheme not in ("https", "http"):
        raise ValueError("is not an address that begins with https://")
    return reference(text)
