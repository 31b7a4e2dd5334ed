"""Commands about what is live where: deploy, list, take down, go back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from slipway.cli import wording
from slipway.cli.aliasing import pointing
from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, text, usage
from slipway.cli.tables import table
from slipway.deployments import Deployment

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model.")]
Target = Annotated[str, typer.Option("--target", "-t", help="development, staging or production.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it stays in the history.")]

STATUS_STYLE = {"live": "green", "superseded": "dim", "rolled_back": "yellow", "ended": "dim"}


def deploy(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    target: Annotated[str, typer.Option("--to", help="development, staging or production.")],
    config: Annotated[str | None, typer.Option(help="A JSON object, or @FILE that holds one.")] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it stays in the history.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put a version live on a target, if every gate lets it; exit with 3 where one does not."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        done = client.deployments.deploy(ref, target, config=_object(config), reason=reason)
        screen.result(done.raw, _told(done, "is live on"), bare=done.id)


def deployments(  # noqa: PLR0917 - one parameter per option
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this model's.")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Only on this target.")] = None,
    history: Annotated[bool, typer.Option("--all", "-a", help="Also what is not live any more.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List what is live; with --all, also what was."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.deployments.find(name, target=target, status=None if history else "live", limit=limit)
        document = {"items": [item.raw for item in found]}
        screen.result(document, _table(found), bare="\n".join(item.id for item in found))


def undeploy(name: Name, target: Target, reason: Reason, as_json: Json = False, quiet: Quiet = False) -> None:
    """Take down what is live on a target; nothing takes its place."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        done = client.deployments.end(name, client.deployments.live(name, target).id, reason=reason)
        screen.result(done.raw, _told(done, "was taken down from"), bare=done.id)


def rollback(
    name: Name,
    alias: Annotated[str | None, typer.Argument(metavar="[ALIAS]", help="One of its aliases.")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Instead: what is live there.")] = None,
    *,
    reason: Reason,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Point an alias where it pointed before, or make live again what was live on a target; both skip what is not clean."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if alias is not None and target is None:
            moved = client.aliases.rollback(name, alias, reason=reason)
            screen.result(moved.raw, pointing(moved), bare=moved.version)
        elif target is not None and alias is None:
            done = client.deployments.rollback(name, target, reason=reason)
            screen.result(done.raw, _told(done, "is live again on"), bare=done.version)
        else:
            raise usage("Name an alias or a --target, and one of them only.", "slipway rollback --help")


def _told(done: Deployment, verb: str) -> RenderableType:
    return Text(f"{plain(done.model)}@{plain(done.version)} {verb} {plain(done.target)}.")


def _table(found: Sequence[Deployment]) -> RenderableType:
    if not found:
        return Text("Nothing is deployed. Deploy with: slipway deploy NAME@V --to staging", style="dim")
    made = table("model", "version", "target", "status", "since", "by", "why", "ended because")
    for item in found:
        made.add_row(
            text(f"{item.owner}/{item.model}", "bold"),
            text(item.version),
            text(item.target),
            text(item.status, STATUS_STYLE.get(item.status, "")),
            wording.ago(item.deployed_at),
            text(item.deployed_by),
            text(item.note),
            text(item.reason or ""),
        )
    return Group(made)


def _object(said: str | None) -> dict[str, Any]:
    """Read a JSON object from an option, or from the file that it names."""
    if said is None:
        return {}
    try:
        found = json.loads(Path(said[1:]).read_text(encoding="utf-8") if said.startswith("@") else said)
    except ValueError as error:
        raise usage(
            f"The configuration is no JSON: {error}.", "Write --config '{\"replicas\": 2}' or --config @FILE."
        ) from error
    if not isinstance(found, dict):
        raise usage("The configuration is no JSON object.", "Write --config '{\"replicas\": 2}' or --config @FILE.")
    return found
