"""Lineage over HTTP: declare where a version comes from, take it back, and see the graph."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row

from api.deps import Principal, Transaction, require
from api.errors import documented
from api.idempotency import IdempotentRoute
from api.schemas.lineage import Ancestor, DeclaredEdge, Edge, Lineage, NewEdge, Node
from registry import lineage, lookup, store
from registry.lineage import Direction, Tree

router = APIRouter(prefix="/models/{model}/versions/{version}/lineage", tags=["lineage"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Uploader = Annotated[Principal, Depends(require("models:upload"))]

DEEPEST = 20
_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "version_not_found")


@router.get("", summary="Read a version's lineage", responses=documented(*_ABOUT_ONE, "invalid_field"))
def read_lineage(
    model: str,
    version: str,
    asking: Reader,
    session: Transaction,
    *,
    direction: Annotated[Direction, Query(description="up: what it comes from; down: what came from it")] = "both",
    depth: Annotated[int, Query(ge=1, le=DEEPEST, description="steps to go")] = 5,
) -> Lineage:
    """Versions, what they refer to elsewhere, and the artifacts that were made of the version asked for, by digest.

    What you may not see is a node that is `hidden`. `lineage` is the way up as a list.
    """
    owner = lookup.find_model(session, asking.viewer, model)
    row = lookup.find_version(session, owner.id, version)
    found = lineage.tree(session, asking.viewer, row.id, direction=direction, depth=depth)
    artifacts = store.list_artifacts(session, row.id)
    return _drawn(row, found, artifacts)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Declare a parent",
    responses=documented(
        *_ABOUT_ONE,
        "not_granted",
        "invalid_field",
        "invalid_parent",
        "edge_exists",
        "lineage_cycle",
        "too_many_parents",
    ),
)
def declare_parent(model: str, version: str, body: NewEdge, asking: Uploader, session: Transaction) -> DeclaredEdge:
    """That the version was made from another version (`parent`), or with something that is not here (`reference`).

    Datasets and code are always references. A circle is refused with the path that would close.
    """
    owner = lookup.find_model(session, asking.viewer, model, permission="models:upload")
    row = lookup.find_version(session, owner.id, version)
    edge = lineage.declare(
        session,
        asking.viewer,
        asking.actor,
        row.id,
        body.relation,
        parent=body.parent,
        reference=body.reference,
        note=body.note,
    )
    return DeclaredEdge(
        id=edge.id,
        child=str(edge.version_id),
        parent=_end(edge),
        relation=edge.relation,
        note=edge.note,
        created_at=edge.created_at,
    )


@router.delete(
    "/{edge_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Take back a parent",
    responses=documented(*_ABOUT_ONE, "not_granted", "edge_not_found"),
)
def remove_parent(model: str, version: str, edge_id: UUID, asking: Uploader, session: Transaction) -> None:
    """Only what was declared can be taken back; that artifacts were made of one another is a fact."""
    owner = lookup.find_model(session, asking.viewer, model, permission="models:upload")
    row = lookup.find_version(session, owner.id, version)
    lineage.remove(session, asking.actor, row.id, edge_id)


def _drawn(row: Row[Any], found: Tree, artifacts: Sequence[store.Artifact]) -> Lineage:
    names = {node.id: f"hidden-{number}" if node.hidden else str(node.id) for number, node in enumerate(found.nodes)}
    hidden = {node.id for node in found.nodes if node.hidden}
    depths = {node.id: node.depth for node in found.nodes}
    nodes = [
        Node(
            id=names[node.id],
            kind="version",
            depth=node.depth,
            hidden=node.hidden,
            owner=node.owner,
            name=node.name,
            version=node.version,
            status=node.status,
            verdict=node.verdict,
            sha256=node.sha256,
        )
        for node in found.nodes
    ]
    ancestors = [
        Ancestor(id=node.id, name=node.name, version=node.version, depth=node.depth)
        for node in nodes
        if node.depth >= 0
    ]
    references = {
        _end(edge): Node(id=_end(edge), kind="reference", depth=depths[edge.version_id] + 1, name=edge.reference)
        for edge in sorted(found.edges, key=lambda edge: depths[edge.version_id], reverse=True)
        if edge.parent_id is None
    }
    edges = [
        Edge(
            id=edge.id,
            child=names[edge.version_id],
            parent=_end(edge) if edge.parent_id is None else names[edge.parent_id],
            relation=edge.relation,
            note="" if edge.version_id in hidden else edge.note,
            created_at=edge.created_at,
        )
        for edge in found.edges
    ]
    files, made = _converted(row, artifacts)
    return Lineage(
        id=str(row.id),
        lineage=ancestors,
        nodes=[*nodes, *references.values(), *files],
        edges=[*edges, *made],
        complete=found.complete,
    )


def _converted(row: Row[Any], artifacts: Sequence[store.Artifact]) -> tuple[list[Node], list[Edge]]:
    """What was made of the upload and of one another: the digests that the artifacts' meta names as their parents.

    Two artifacts with the same bytes are one node with both names.
    """
    made = [one for one in artifacts if isinstance(one.meta.get("parent"), str)]
    if not made:
        return [], []
    names: dict[str, list[str]] = {row.sha256: ["source"]}
    for one in made:
        names.setdefault(one.meta["parent"], [])
        names.setdefault(one.sha256, []).append(one.name)
    nodes = [
        Node(id=_digest(sha256), kind="artifact", depth=0, name=", ".join(called) or None, sha256=sha256)
        for sha256, called in names.items()
    ]
    pairs = dict.fromkeys((one.sha256, one.meta["parent"]) for one in made if one.sha256 != one.meta["parent"])
    edges = [
        Edge(id=None, child=_digest(child), parent=_digest(parent), relation="converted-from")
        for child, parent in pairs
    ]
    return nodes, edges


def _digest(sha256: str) -> str:
    return f"sha256:{sha256}"


def _end(edge: Row[Any]) -> str:
    return str(edge.parent_id) if edge.parent_id is not None else f"reference:{edge.reference}"
