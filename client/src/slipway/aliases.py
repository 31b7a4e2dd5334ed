"""Aliases: names such as `production` that move from version to version, and remember where they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from slipway import refs
from slipway.records import Json, moment
from slipway.transport import Wire, given

ANYWHERE = "*"
"""For `expected`: wherever the alias points now."""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """Where an alias points; `revision` is the number of the move that made it point there."""

    name: str
    version: str
    protected: bool = False
    revision: int = 0
    moved_at: datetime | None = None
    moved_by: str | None = None
    reason: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Alias:
        """Read it from an answer."""
        return cls(
            name=str(data["name"]),
            version=str(data["version"]),
            protected=bool(data.get("protected")),
            revision=int(data.get("revision") or 0),
            moved_at=moment(data.get("moved_at")),
            moved_by=data.get("moved_by"),
            reason=str(data.get("reason") or ""),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move of an alias; `version` is None where it was taken away, `previous` where it pointed nowhere before."""

    id: int
    version: str | None
    previous: str | None = None
    at: datetime | None = None
    moved_by: str | None = None
    reason: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Move:
        """Read it from an answer."""
        return cls(
            id=int(data["id"]),
            version=data.get("version"),
            previous=data.get("previous"),
            at=moment(data.get("at")),
            moved_by=data.get("moved_by"),
            reason=str(data.get("reason") or ""),
            raw=data,
        )


class Aliases:
    """The aliases of models. `client.aliases(NAME)` lists them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __call__(self, name: str) -> list[Alias]:
        """Return a model's aliases and where they point."""
        return [Alias.read(item) for item in self._wire.pages(f"{refs.model_path(name)}/aliases", {})]

    def get(self, name: str, alias: str, *, at: datetime | None = None) -> Alias:
        """Return where an alias points, or pointed `at` a moment (with its zone)."""
        wanted = given({"at": at and at.isoformat()})
        return Alias.read(self._wire.json("GET", _path(name, alias), params=wanted))

    def move(self, ref: str, alias: str, *, reason: str = "", expected: str | None = ANYWHERE) -> Alias:
        """Point an alias of the model at the version that `NAME[@REF]` means.

        `expected` is the version that it points at as far as you know, None for nowhere: raises Conflict (`alias_moved`)
        where somebody was first. Raises Conflict too for a version that is not fit, or that a gate says no to.
        """
        name, version = refs.parse(ref)
        return Alias.read(self._wire.json("PUT", _path(name, alias), json=_place(version, reason, expected)))

    def activate(self, ref: str, *, reason: str = "", expected: str | None = ANYWHERE) -> Alias:
        """Make a version its model's default: as `move`, of the alias `default`."""
        name, version = refs.parse(ref)
        path = f"{refs.model_path(name)}/activate"
        return Alias.read(self._wire.json("PUT", path, json=_place(version, reason, expected)))

    def rollback(self, name: str, alias: str, *, reason: str) -> Alias:
        """Point an alias where it pointed before, past versions that are no longer published and clean."""
        return Alias.read(self._wire.json("POST", f"{_path(name, alias)}:rollback", json={"reason": reason}))

    def remove(self, name: str, alias: str, *, reason: str = "") -> None:
        """Take an alias away; its history stays."""
        self._wire.send("DELETE", _path(name, alias), params={"reason": reason})

    def history(self, name: str, alias: str, *, limit: int | None = 100) -> list[Move]:
        """Return the moves of an alias, newest first; `limit=None` for all of them."""
        found = self._wire.pages(f"{_path(name, alias)}/history", {}, limit, by="before")
        return [Move.read(item) for item in found]


def _path(name: str, alias: str) -> str:
    return f"{refs.model_path(name)}/aliases/{quote(alias, safe='')}"


def _place(version: str, reason: str, expected: str | None) -> dict[str, Any]:
    return {"version": version, "reason": reason} | ({} if expected == ANYWHERE else {"expected": expected})
