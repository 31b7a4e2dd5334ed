"""Where versions come from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import SHA, VERSION, WHEN, example
from api.schemas.files import Verdict
from registry.parents import LONGEST, Relation

_EDGE_ID = "1f0e3dad-9990-4b1c-8a2f-3c59dc048e88"
_PARENT = "6512bd43-d9ca-4e02-9c99-0b0a82652dca"


class NewEdge(BaseModel):
    relation: Relation
    parent: Annotated[str, Field(max_length=300)] | None = Field(
        default=None, description="a version here that you may see: `name@1.0.0`, `owner/name@latest`"
    )
    reference: Annotated[str, Field(max_length=LONGEST)] | None = Field(
        default=None, description="or the address or name of something that is not here"
    )
    note: str = Field(default="", max_length=1000)

    model_config = example(relation="fine-tuned-from", parent="grace/base@2.1.0", note="20 epochs on the new digits")


class Edge(BaseModel):
    """From `child` to `parent`, each the `id` of a node. `id` is null where nobody declared it: one artifact made of another."""

    id: UUID | None
    child: str
    parent: str
    relation: Literal["fine-tuned-from", "derived-from", "dataset", "code", "converted-from"]
    note: str = ""
    created_at: datetime | None = None


class Node(BaseModel):
    """`version`: one here · `reference`: something elsewhere · `artifact`: a file of the version asked for."""

    id: str
    kind: Literal["version", "reference", "artifact"]
    depth: int = Field(description="steps from the version asked for: 1 a parent, -1 what was made from it")
    hidden: bool = Field(default=False, description="true: you may not see it; it has no name, and the walk ends there")
    owner: str | None = None
    name: str | None = Field(default=None, description="the model's, the artifact's; of a reference its text")
    version: str | None = None
    status: str | None = None
    verdict: Verdict | None = None
    sha256: str | None = None


class Ancestor(BaseModel):
    id: str
    name: str | None
    version: str | None
    depth: int


_SELF = {
    "id": VERSION,
    "kind": "version",
    "depth": 0,
    "hidden": False,
    "owner": "ada",
    "name": "digits",
    "version": "1.0.0",
    "status": "approved",
    "verdict": "clean",
    "sha256": SHA,
}
_BASE = _SELF | {"id": _PARENT, "depth": 1, "owner": "grace", "name": "base", "version": "2.1.0"}
_EDGE = {
    "id": _EDGE_ID,
    "child": VERSION,
    "parent": _PARENT,
    "relation": "fine-tuned-from",
    "note": "20 epochs on the new digits",
    "created_at": WHEN,
}


class DeclaredEdge(Edge):
    model_config = example(**_EDGE)


class Lineage(BaseModel):
    """A graph of what the version comes from and what came from it."""

    id: str = Field(description="the version asked for")
    lineage: list[Ancestor] = Field(description="the version and what it comes from here, as a list by depth")
    nodes: list[Node]
    edges: list[Edge]
    complete: bool = Field(description="false: more lies beyond the depth, or beyond 1,000 versions")

    model_config = example(
        id=VERSION,
        lineage=[
            {"id": VERSION, "name": "digits", "version": "1.0.0", "depth": 0},
            {"id": _PARENT, "name": "base", "version": "2.1.0", "depth": 1},
        ],
        nodes=[_SELF, _BASE],
        edges=[_EDGE],
        complete=True,
    )
