"""Commands about names that move: promote a version to one, roll one back, see where it was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from slipway.aliases import ANYWHERE, Alias, Move
from slipway.cli import wording
from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, plain, session, text
from slipway.cli.tables import table

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model: one of yours, or OWNER/NAME.")]
AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="Such as production, champion or default.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why, for those who read the history.")]
Expected = Annotated[
    str, typer.Option(help="Only if it points at this version now (or `nowhere`), so that nobody is overwritten.")
]

alias = typer.Typer(no_args_is_help=True, help="List a model's aliases, see where one was, take one away.")


def promote(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    name: AliasName,
    reason: Reason,
    expected: Expected = ANYWHERE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Point an alias at a version. A protected one, such as production, takes models:deploy and passes the gates."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        believed = None if expected == "nowhere" else expected
        moved = client.aliases.move(ref, name, reason=reason, expected=believed)
        screen.result(moved.raw, pointing(moved), bare=moved.version)


def activate(ref: Ref, reason: Reason = "", as_json: Json = False, quiet: Quiet = False) -> None:
    """Make a version its model's default: the one to use unless one knows better."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        moved = client.aliases.activate(ref, reason=reason)
        screen.result(moved.raw, pointing(moved), bare=moved.version)


@alias.command("list")
def list_(model: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """List where a model's aliases point."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.aliases(model)
        bare = "\n".join(f"{item.name} {item.version}" for item in found)
        screen.result({"items": [item.raw for item in found]}, _aliases(found), bare=bare)


@alias.command()
def history(
    model: Name,
    name: AliasName,
    limit: Annotated[int, typer.Option(help="How many moves at most.", min=1)] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show every move of an alias, newest first: from where to where, when, who, why."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.aliases.history(model, name, limit=limit)
        bare = "\n".join(item.version or "-" for item in found)
        screen.result({"items": [item.raw for item in found]}, _history(found), bare=bare)


@alias.command()
def at(
    model: Name,
    name: AliasName,
    moment: Annotated[
        datetime, typer.Argument(metavar="TIME", help="Such as 2026-05-03 or 2026-05-03T12:00:00, in UTC.")
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where an alias pointed at a moment: what was production on 3 May?"""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.aliases.get(model, name, at=moment.replace(tzinfo=moment.tzinfo or UTC))
        screen.result(found.raw, pointing(found), bare=found.version)


@alias.command()
def remove(model: Name, name: AliasName, reason: Reason = "", as_json: Json = False, quiet: Quiet = False) -> None:
    """Take an alias away; its history stays, and a rollback brings it back."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        client.aliases.remove(model, name, reason=reason)
        screen.result({"removed": name}, Text(f"{plain(name)} points nowhere now."), bare="")


def pointing(found: Alias) -> RenderableType:
    line = Text(plain(found.name), style="bold").append(f" → {plain(found.version)}", style="cyan")
    by = f"  {wording.ago(found.moved_at)} by {plain(found.moved_by or 'Slipway')}"
    return line.append(by + (f": {plain(found.reason)}" if found.reason else ""), style="dim")


def _aliases(found: Sequence[Alias]) -> RenderableType:
    if not found:
        return Text("No aliases. Make one with: slipway promote NAME@VERSION ALIAS --reason WHY", style="dim")
    made = table("alias", "version", "protected", "moved", "by", "reason")
    for item in found:
        made.add_row(
            text(item.name, "bold"),
            text(item.version, "cyan"),
            "yes" if item.protected else "",
            wording.ago(item.moved_at),
            text(item.moved_by or "Slipway"),
            text(item.reason),
        )
    return made


def _history(found: Sequence[Move]) -> RenderableType:
    made = table("when", "from", "to", "by", "reason")
    for item in found:
        made.add_row(
            f"{item.at:%Y-%m-%d %H:%M:%S}" if item.at else "",
            text(item.previous or "–"),
            text(item.version or "taken away", "cyan"),
            text(item.moved_by or "Slipway"),
            text(item.reason),
        )
    return made
