"""Where versions come from, as rows: edges from a version to its parents, without a cycle, and walks along them.

What somebody may not see is a node without a name in their answers, and the walk ends there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, delete, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry import audit, lookup, parents, store
from registry.audit import Actor
from registry.errors import Conflict, Invalid, Missing, Taken
from registry.lookup import Viewer
from registry.parents import DECLARED, OF_MODELS, Relation
from registry.tables import lineage, models, users, versions

Direction = Literal["up", "down", "both"]

MOST_NODES = 1000
"""Versions that an answer holds at most."""
MOST_PARENTS = 100
"""Edges that one version may have to its parents."""
_LONGEST_TOLD = 10
"""Names that a message has room for."""
_LOCK = 0x11_4E_A6_E0
"""Advisory lock that puts new edges between versions in a row: two that close a cycle together must not both be written."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A version at `depth` steps up (positive) or down (negative). `hidden`: the viewer may not see it; no names then."""

    id: UUID
    depth: int
    hidden: bool
    owner: str | None = None
    name: str | None = None
    version: str | None = None
    status: str | None = None
    verdict: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """`edges` are the rows between `nodes` and to references. Not `complete`: there is more beyond the depth or the number."""

    nodes: Sequence[Node]
    edges: Sequence[Row[Any]]
    complete: bool


def declare(
    session: Session,
    viewer: Viewer,
    actor: Actor,
    version_id: UUID,
    relation: Relation,
    *,
    parent: str | None = None,
    reference: str | None = None,
    note: str = "",
) -> Row[Any]:
    """The new edge from a version to its parent. Exactly one of `parent` (a version here) and `reference` is given.

    Raises `Invalid("invalid_parent")`, also for a version that the viewer may not see, `Taken("edge_exists")`, and
    `Conflict("lineage_cycle")` whose `details` name the path.
    """
    edge = _add(session, viewer, version_id, relation, parent=parent, reference=reference, note=note)
    audit.append(session, actor, "lineage.declared", str(version_id), _told(edge))
    return edge


def declare_uploaded(session: Session, viewer: Viewer, actor: Actor, version_id: UUID, form: Mapping[str, Any]) -> None:
    """Write down what an upload's form says of the version's parents. Raises as `declare`."""
    edges = [
        _add(
            session,
            viewer,
            version_id,
            relation,
            parent=form[name] if name == "parent" else None,
            reference=None if name == "parent" else form[name],
            note="declared at upload",
        )
        for name, relation in DECLARED.items()
        if name in form
    ]
    for edge in edges:  # when all rows are locked that will be: the trail's lock comes last
        audit.append(session, actor, "lineage.declared", str(version_id), _told(edge))


def remove(session: Session, actor: Actor, version_id: UUID, edge_id: UUID) -> None:
    """Take an edge away. Raises `Missing`."""
    row = session.execute(
        delete(lineage).where(lineage.c.id == edge_id, lineage.c.version_id == version_id).returning(lineage)
    ).one_or_none()
    if row is None:
        raise Missing("edge_not_found", "This version has no such parent.")
    audit.append(session, actor, "lineage.removed", str(version_id), _told(row))


def tree(session: Session, viewer: Viewer, version_id: UUID, *, direction: Direction = "both", depth: int = 5) -> Tree:
    """What a version comes from and what came from it, at most `depth` steps away. The viewer may see the version itself."""
    found: dict[UUID, int] = {version_id: 0}
    complete = True
    for way, sign in (("up", 1), ("down", -1)):
        if direction in (way, "both"):
            steps = _walk(session, viewer, version_id, up=sign > 0, depth=depth)
            complete &= len(steps) < MOST_NODES and all(step <= depth for step in steps.values())
            found |= {one: sign * step for one, step in steps.items() if step <= depth and one not in found}
    nodes = _nodes(session, viewer, found)
    shown = {node.id for node in nodes if not node.hidden}
    return Tree(nodes=nodes, edges=_edges(session, found, shown, direction), complete=complete)


def up(session: Session, version_ids: Collection[UUID]) -> list[Row[Any]]:
    """The edges from these versions to their parents."""
    return list(session.execute(select(lineage).where(lineage.c.version_id.in_(version_ids)).order_by(*_IN_ORDER)))


def _add(
    session: Session,
    viewer: Viewer,
    version_id: UUID,
    relation: Relation,
    *,
    parent: str | None,
    reference: str | None,
    note: str,
) -> Row[Any]:
    if (parent is None) == (reference is None):
        raise Invalid("invalid_parent", "Give either a parent that is here, or a reference to one that is not.")
    parent_id = None if parent is None else _parent(session, viewer, version_id, relation, parent)
    try:
        elsewhere = None if reference is None else parents.reference(reference)
    except ValueError as error:
        raise Invalid("invalid_parent", f"The reference {error}.") from error
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    if parent_id is not None:
        _refuse_cycle(session, viewer, version_id, parent_id)
    held = select(func.count()).select_from(lineage).where(lineage.c.version_id == version_id)
    if session.execute(held).scalar_one() >= MOST_PARENTS:
        raise Conflict("too_many_parents", f"A version has at most {MOST_PARENTS} parents.")
    values = {"relation": relation, "parent_id": parent_id, "reference": elsewhere, "note": note}
    new = upsert(lineage).values(version_id=version_id, created_by=viewer.user_id, **values).on_conflict_do_nothing()
    try:
        with session.begin_nested():
            edge = session.execute(new.returning(lineage)).one_or_none()
    except IntegrityError as error:
        raise Missing("version_not_found", "The version, or its parent, has been purged meanwhile.") from error
    if edge is None:
        raise Taken("edge_exists", f"This version has that parent as {relation} already.")
    return edge


def _told(edge: Row[Any]) -> dict[str, str]:
    """An edge as the audit trail has it."""
    parent = {"reference": edge.reference} if edge.parent_id is None else {"parent": str(edge.parent_id)}
    return {"edge": str(edge.id), "relation": edge.relation, **parent}


def _parent(session: Session, viewer: Viewer, version_id: UUID, relation: Relation, text: str) -> UUID:
    """`latest` is the newest besides the version itself, which is the newest of its model while it is uploaded."""
    if relation not in OF_MODELS:
        raise Invalid(
            "invalid_parent", f"A {relation} is no version of a model; give its address or name as reference."
        )
    try:
        named = parents.parent(text)
    except ValueError as error:
        raise Invalid("invalid_parent", f"The parent {error}.") from error
    try:
        model = lookup.find_model(session, viewer, named.model)
        row = lookup.find_version(session, model.id, named.version)
    except Missing as error:
        raise Invalid("invalid_parent", f"There is no version {text} that you may see.") from error
    if row.id == version_id and named.version == "latest":
        row = next((one for one in store.list_versions(session, model.id) if one.id != version_id), row)
    found: UUID = row.id
    return found


def _refuse_cycle(session: Session, viewer: Viewer, version_id: UUID, parent_id: UUID) -> None:
    """Raises `Conflict` where the parent comes from the version, through whomever's."""
    if version_id == parent_id:
        path = [version_id, version_id]
    else:
        start = select(literal(parent_id, lineage.c.parent_id.type).label("id")).cte("above", recursive=True)
        above = start.union(
            select(lineage.c.parent_id)
            .join(start, lineage.c.version_id == start.c.id)
            .where(lineage.c.parent_id.is_not(None))
        )
        edges = session.execute(
            select(lineage.c.version_id, lineage.c.parent_id)
            .join(above, lineage.c.version_id == above.c.id)
            .where(lineage.c.parent_id.is_not(None))
        )
        path = _path(((edge.version_id, edge.parent_id) for edge in edges), parent_id, version_id)
    if path:
        named = {node.id: _label(node) for node in _nodes(session, viewer, dict.fromkeys(path, 0))}
        names = [named[one] for one in path]
        told = names if len(names) <= _LONGEST_TOLD else [*names[:4], f"({len(names) - 7} more)", *names[-3:]]
        raise Conflict("lineage_cycle", f"That would be a circle: {' ← '.join(told)}.", {"path": names})


def _path(edges: Iterable[tuple[UUID, UUID]], start: UUID, end: UUID) -> list[UUID]:
    """The shortest way up from `start` to `end`, with `end` before it too; nothing where there is none."""
    above: dict[UUID, list[UUID]] = {}
    for child, parent in edges:
        above.setdefault(child, []).append(parent)
    came: dict[UUID, UUID | None] = {start: None}
    queue = [start]
    for one in queue:
        for following in above.get(one, ()):
            if following not in came:
                came[following] = one
                queue.append(following)
    if end not in came:
        return []
    way, at = [], came[end]
    while at is not None:
        way.append(at)
        at = came[at]
    return [end, *reversed(way), end]


def _walk(session: Session, viewer: Viewer, version_id: UUID, *, up: bool, depth: int) -> dict[UUID, int]:
    """Version → fewest steps to it, one step more than `depth`; on from those only that the viewer may see."""
    here, there = (lineage.c.version_id, lineage.c.parent_id) if up else (lineage.c.parent_id, lineage.c.version_id)
    start = select(literal(version_id, versions.c.id.type).label("id"), literal(0).label("depth"))
    reached = start.cte("reached", recursive=True)
    onward = (
        select(there, reached.c.depth + 1)
        .join(reached, here == reached.c.id)
        .join(versions, versions.c.id == reached.c.id)
        .join(models, models.c.id == versions.c.model_id)
        .where(there.is_not(None), reached.c.depth <= depth, _is_seen(viewer))
    )
    steps = reached.union(onward)
    rows = session.execute(
        select(steps.c.id, func.min(steps.c.depth).label("depth"))
        .where(steps.c.depth > 0)
        .group_by(steps.c.id)
        .order_by(func.min(steps.c.depth), steps.c.id)
        .limit(MOST_NODES)
    )
    return {row.id: row.depth for row in rows}


def _nodes(session: Session, viewer: Viewer, depths: Mapping[UUID, int]) -> list[Node]:
    rows = session.execute(_described(viewer).where(versions.c.id.in_(list(depths))))
    nodes = [
        Node(id=row.id, depth=depths[row.id], hidden=True)
        if not row.seen
        else Node(
            id=row.id,
            depth=depths[row.id],
            hidden=False,
            owner=row.owner,
            name=row.name,
            version=row.version,
            status=row.status,
            verdict=row.verdict,
            sha256=row.sha256,
        )
        for row in rows
    ]
    return sorted(
        nodes, key=lambda node: (node.depth < 0, abs(node.depth), node.name or "", node.version or "", node.id)
    )


def _described(viewer: Viewer) -> Select[Any]:
    return (
        select(
            versions.c.id,
            versions.c.version,
            versions.c.status,
            versions.c.verdict,
            versions.c.sha256,
            models.c.name,
            users.c.username.label("owner"),
            _is_seen(viewer).label("seen"),
        )
        .join(models, models.c.id == versions.c.model_id)
        .join(users, users.c.id == models.c.owner_id)
    )


def _is_seen(viewer: Viewer) -> ColumnElement[bool]:
    return and_(lookup.is_visible(viewer), versions.c.deleted_at.is_(None))


def _edges(
    session: Session, found: Mapping[UUID, int], shown: Collection[UUID], direction: Direction
) -> list[Row[Any]]:
    """The edges among what was found, and to references; those of hidden versions are not told."""
    ids = list(found)
    between = and_(
        lineage.c.parent_id.in_(ids), lineage.c.version_id.in_(ids), or_(*(column.in_(list(shown)) for column in _ENDS))
    )
    upward = [one for one, depth in found.items() if depth >= 0 and one in shown] if direction != "down" else []
    outward = and_(lineage.c.reference.is_not(None), lineage.c.version_id.in_(upward))
    return list(session.execute(select(lineage).where(or_(between, outward)).order_by(*_IN_ORDER)))


_ENDS = (lineage.c.version_id, lineage.c.parent_id)
_IN_ORDER = (lineage.c.created_at, lineage.c.relation, lineage.c.id)


def _label(node: Node) -> str:
    return "(not yours)" if node.hidden else f"{node.owner}/{node.name}@{node.version}"
