"""Commands about models as such: find, make, change, rate, delete and restore them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slipway.cli import tables
from slipway.cli.screen import Json, Quiet, Screen, session, text, usage
from slipway.models import Model

Name = Annotated[str, typer.Argument(metavar="NAME", help="One of yours, or owner/name.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")]
Card = Annotated[Path | None, typer.Option(help="Model card (Markdown).", exists=True, dir_okay=False, readable=True)]
Description = Annotated[str | None, typer.Option(help="What it is, in a sentence.")]
Type = Annotated[str | None, typer.Option("--type", help="What it does, e.g. classification.")]
Framework = Annotated[str | None, typer.Option(help="What it was made with, e.g. pytorch.")]
Licence = Annotated[str | None, typer.Option(help="SPDX expression, e.g. Apache-2.0.")]
Public = Annotated[bool | None, typer.Option("--public/--private", help="Who may see it: everybody, or you.")]
Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A model, or one of its versions: digits@1.0.0.")]

model = typer.Typer(no_args_is_help=True, help="Make, change, delete and restore a model.")


def models(  # noqa: PLR0917 - one parameter per option
    words: Annotated[str | None, typer.Argument(help="The same as --search.")] = None,
    search: Annotated[
        str | None,
        typer.Option("--search", "-s", help="Words of names, descriptions and cards; the last may be a part."),
    ] = None,
    regex: Annotated[str | None, typer.Option(help="A regular expression for names.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only those with this tag; may be repeated.")] = None,
    model_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    framework: Annotated[str | None, typer.Option(help="Only this framework.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those with a version of this status.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only those that are live there, e.g. production.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="created_at, updated_at, name, downloads or rating; default: the newest first.")
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="The other way round.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="What you have deleted and can restore.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the models you may see."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if words and search:
            raise usage("There are words twice.", "Give them once, with or without --search.")
        found = client.models(
            search=search or words,
            regex=regex,
            tags=tag or (),
            model_type=model_type,
            framework=framework,
            status=status,
            stage=stage,
            owner=owner,
            sort=sort,
            order="asc" if ascending else None,
            deleted=deleted,
            limit=limit,
        )
        bare = "\n".join(item.name for item in found)
        screen.result({"items": [item.raw for item in found]}, tables.models(found), bare=bare)


@model.command()
def create(  # noqa: PLR0917 - one parameter per option
    name: Name,
    description: Description = None,
    model_type: Type = None,
    framework: Framework = None,
    licence: Licence = None,
    tag: Tag = None,
    card: Card = None,
    public: Public = None,
    confirm_name: Annotated[
        bool, typer.Option("--confirm-name", help="The name is no mistake for the one that it is near.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a model before it has a version."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        made = client.models.create(
            name,
            confirm_name=confirm_name,
            description=description,
            model_type=model_type,
            framework=framework,
            licence=licence,
            tags=tag,
            card=_text_of(card),
            visibility=_visibility(public),
        )
        _show(screen, made)


@model.command()
def change(  # noqa: PLR0917 - one parameter per option
    name: Name,
    description: Description = None,
    model_type: Type = None,
    framework: Framework = None,
    licence: Licence = None,
    tag: Annotated[list[str] | None, typer.Option(help="All its tags from now on; may be repeated.")] = None,
    card: Card = None,
    public: Public = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether you still stand by it.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change what is said about a model; refused where somebody else changes it at the same time."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        wanted: dict[str, Any] = {
            "description": description,
            "model_type": model_type,
            "framework": framework,
            "licence": licence,
            "tags": tag,
            "card": _text_of(card),
            "visibility": _visibility(public),
            "is_active": active,
        }
        changes = {field: value for field, value in wanted.items() if value is not None}
        if not changes:
            raise usage("There is nothing to change.", "See slipway model change --help.")
        before = client.model(name)
        _show(screen, client.models.change(name, expected=before.etag, **changes))


@model.command()
def card(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Print a model's card, Markdown."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.models.card(name)
        screen.result({"card": found}, text(found), bare=found)


@model.command()
def delete(
    ref: Ref,
    purge: Annotated[bool, typer.Option("--purge", help="For admins: a whole model, at once and for good.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete a model or one version; refused while it is live somewhere or an alias points at it."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if "@" in ref and purge:
            raise usage("--purge is for whole models.", "Leave the version away.")
        gone = client.models.delete_version(ref) if "@" in ref else client.models.delete(ref, purge=purge)
        until = gone.get("restorable_until")
        screen.result(gone, text(f"{ref} is deleted{'' if until else ' for good'}."), bare="")
        if until:
            screen.hint(f"Until {until[:10]} it can be brought back: slipway model restore {ref}")


@model.command()
def restore(ref: Ref, as_json: Json = False, quiet: Quiet = False) -> None:
    """Bring a deleted model or version back."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        back = client.models.restore_version(ref) if "@" in ref else client.models.restore(ref).raw
        screen.result(back, text(f"{ref} is back."), bare="")


def rate(  # noqa: PLR0917 - one parameter per option
    name: Name,
    score: Annotated[int | None, typer.Argument(help="1 to 5; without it, show what others say.", min=1, max=5)] = None,
    review: Annotated[str, typer.Option(help="Why.")] = "",
    version: Annotated[str | None, typer.Option(help="The version you have tried.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rate somebody's model, or show its ratings."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if score is None:
            found = client.models.ratings(name)
            screen.result({"items": [item.raw for item in found]}, tables.ratings(found))
            return
        said = client.models.rate(name, score, review=review, version=version)
        screen.result(said.raw, text(f"{name}: {said.score} of 5."), bare="")


def _show(screen: Screen, shown: Model) -> None:
    screen.result(shown.raw, tables.model(shown, ()), bare=shown.name)


def _text_of(card: Path | None) -> str | None:
    return card.read_text(encoding="utf-8") if card is not None else None


def _visibility(public: bool | None) -> str | None:
    return None if public is None else "public" if public else "private"
