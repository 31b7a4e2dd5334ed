"""Where versions come from: declare parents, take them back, read the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from slipway import refs
from slipway.transport import Wire

Json = Mapping[str, Any]
Relation = Literal["fine-tuned-from", "derived-from", "dataset", "code"]
Direction = Literal["up", "down", "both"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A `version`, a `reference` to something elsewhere, or an `artifact`. `depth`: 1 is a parent, -1 what was made of it.

    `hidden`: you may not see it, so it has no name.
    """

    id: str
    kind: str = "version"
    depth: int = 0
    hidden: bool = False
    owner: str | None = None
    name: str | None = None
    version: str | None = None
    status: str | None = None
    verdict: str | None = None
    sha256: str | None = None

    @classmethod
    def read(cls, data: Json) -> Node:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            kind=str(data.get("kind") or "version"),
            depth=int(data.get("depth") or 0),
            hidden=bool(data.get("hidden")),
            owner=data.get("owner"),
            name=data.get("name"),
            version=data.get("version"),
            status=data.get("status"),
            verdict=data.get("verdict"),
            sha256=data.get("sha256"),
        )


@dataclass(frozen=True, kw_only=True)
class Edge:
    """From `child` to `parent`, both ids of nodes. `id` is None where nobody declared it."""

    id: str | None
    child: str
    parent: str
    relation: str
    note: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Edge:
        """Read it from an answer."""
        return cls(
            id=data.get("id"),
            child=str(data["child"]),
            parent=str(data["parent"]),
            relation=str(data.get("relation") or ""),
            note=str(data.get("note") or ""),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The graph around the version `id`. Not `complete`: more lies beyond the depth."""

    id: str
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    complete: bool = True
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Lineage:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            nodes=tuple(Node.read(item) for item in data.get("nodes") or ()),
            edges=tuple(Edge.read(item) for item in data.get("edges") or ()),
            complete=bool(data.get("complete", True)),
            raw=data,
        )


class Lineages:
    """What `Client.lineage` can do."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def read(self, ref: str, *, direction: Direction = "both", depth: int = 5) -> Lineage:
        """Return what the version that `NAME[@REF]` means comes from (`up`) and what came from it (`down`)."""
        return Lineage.read(self._wire.json("GET", _path(ref), params={"direction": direction, "depth": depth}))

    def declare(
        self,
        ref: str,
        relation: Relation,
        *,
        parent: str | None = None,
        reference: str | None = None,
        note: str = "",
    ) -> Edge:
        """Say that a version was made from `parent` (`owner/name@REF`), or with a `reference` that is not on the server."""
        body = {"relation": relation, "parent": parent, "reference": reference, "note": note}
        return Edge.read(self._wire.json("POST", _path(ref), json=body))

    def remove(self, ref: str, edge_id: str) -> None:
        """Take a declared parent back."""
        self._wire.send("DELETE", f"{_path(ref)}/{quote(edge_id, safe='')}")


def _path(ref: str) -> str:
    return refs.version_path(*refs.parse(ref)) + "/lineage"
