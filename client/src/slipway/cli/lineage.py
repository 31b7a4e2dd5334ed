"""Commands about where a version comes from: draw it, declare a parent, take one back."""

from __future__ import annotations

from typing import Annotated, get_args

import typer
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, usage
from slipway.lineage import Direction, Edge, Lineage, Node, Relation

parents = typer.Typer(no_args_is_help=True, help="Say what a version was made from.")


def lineage(
    ref: Ref,
    direction: Annotated[str, typer.Option(help="up: what it comes from; down: what came from it; both.")] = "both",
    depth: Annotated[int, typer.Option(help="How many steps to go.", min=1, max=20)] = 5,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what a version comes from, what came from it, and which artifact was made of which."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if direction not in get_args(Direction):
            raise usage(f"--direction {direction} is unknown.", "It is up, down or both.")
        found = client.lineage.read(ref, direction=_DIRECTIONS[direction], depth=depth)
        bare = "\n".join(
            _name(node) for node in found.nodes if node.kind == "version" and node.depth and not node.hidden
        )
        screen.result(found.raw, drawn(found), bare=bare)
        if not found.complete:
            screen.hint("There is more: --depth goes further.")


@parents.command()
def add(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    parent: Annotated[str, typer.Argument(help="[OWNER/]NAME@REF here; of a dataset or code its address or name.")],
    relation: Annotated[
        str, typer.Option("--relation", "-r", help="fine-tuned-from, derived-from, dataset or code.")
    ] = "derived-from",
    elsewhere: Annotated[bool, typer.Option("--elsewhere", help="The model is not on this server.")] = False,
    note: Annotated[str, typer.Option(help="What people should know about it.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say that a version was made from another one, or with a dataset or code."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if relation not in _RELATIONS:
            raise usage(f"--relation {relation} is unknown.", f"It is one of {', '.join(_RELATIONS)}.")
        reference = elsewhere or relation in {"dataset", "code"}
        edge = client.lineage.declare(
            ref,
            _RELATIONS[relation],
            parent=None if reference else parent,
            reference=parent if reference else None,
            note=note,
        )
        screen.result(edge.raw, Text(plain(f"{ref} {relation} {parent}: {edge.id}")), bare=edge.id)


@parents.command()
def remove(
    ref: Ref,
    edge_id: Annotated[str, typer.Argument(metavar="EDGE", help="As `slipway lineage --json` shows it.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take back what was said about a parent."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        client.lineage.remove(ref, edge_id)
        screen.result({"removed": edge_id}, Text(plain(f"Taken back: {edge_id}")), bare=edge_id)


_DIRECTIONS: dict[str, Direction] = {one: one for one in get_args(Direction)}
_RELATIONS: dict[str, Relation] = {one: one for one in get_args(Relation)}


def drawn(found: Lineage) -> RenderableType:
    """Return the graph as trees: upwards, downwards, and the artifacts."""
    nodes = {node.id: node for node in found.nodes}
    itself = nodes[found.id]
    declared = [edge for edge in found.edges if nodes[edge.child].kind == "version"]
    up, down = Tree(Text(_name(itself), style="bold")), Tree(Text(_name(itself), style="bold"))
    _grow(up, itself.id, nodes, {(edge.child, edge.parent): edge for edge in declared}, set())
    _grow(down, itself.id, nodes, {(edge.parent, edge.child): edge for edge in declared}, set())
    parts: list[RenderableType] = [Text("comes from", style="dim"), up] if up.children else []
    parts += [Text("led to", style="dim"), down] if down.children else []
    source = next((node for node in found.nodes if node.kind == "artifact" and node.sha256 == itself.sha256), None)
    if source is not None:
        made = Tree(Text(_name(source), style="bold"))
        converted = [edge for edge in found.edges if edge.relation == "converted-from"]
        _grow(made, source.id, nodes, {(edge.parent, edge.child): edge for edge in converted}, set())
        parts += [Text("was converted to", style="dim"), made]
    return (
        Group(*parts) if parts else Text(f"{_name(itself)} comes from nothing that anybody has declared.", style="dim")
    )


def _grow(tree: Tree, at: str, nodes: dict[str, Node], ways: dict[tuple[str, str], Edge], seen: set[str]) -> None:
    """Add what is one step on from `at`; what was drawn before is not drawn again below."""
    seen.add(at)
    for (here, there), edge in ways.items():
        if here != at:
            continue
        label = Text(_name(nodes[there])).append(f"  {plain(edge.relation)}", style="dim")
        if edge.note:
            label.append(f"  {plain(edge.note)}", style="italic dim")
        branch = tree.add(label)
        if there not in seen:
            _grow(branch, there, nodes, ways, seen)


def _name(node: Node) -> str:
    if node.hidden:
        return "(not yours)"
    if node.kind == "version":
        return plain(f"{node.owner}/{node.name}@{node.version}")
    return plain(f"{node.name} {node.sha256[:12]}" if node.sha256 else node.name or node.id)
