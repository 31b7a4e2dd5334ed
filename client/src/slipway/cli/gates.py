"""Commands about what a version must have shown: set gates, ask what they say, approve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from slipway.approvals import Approval
from slipway.cli import wording
from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, examples, plain, session, text, usage
from slipway.cli.tables import table
from slipway.client import Client
from slipway.errors import NotFound
from slipway.gates import Gate, Promotability, Rule

Target = Annotated[str, typer.Argument(metavar="TARGET", help="A deployment's target, or an alias.")]
OfModel = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model; without: all models (for admins).")]

STATE_STYLE = {"passed": "green", "failed": "red", "unknown": "yellow"}

gates = typer.Typer(no_args_is_help=True, help="Set what a version must have shown before it goes anywhere.")


@gates.command("list", epilog=examples("slipway gates list digits", "slipway gates list --json"))
def list_gates(name: OfModel = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """List a model's gates, with those of all models."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.gates.of(name)
        screen.result({"items": [item.raw for item in found]}, _gates(found), bare="\n".join(item.id for item in found))


@gates.command(
    "add",
    epilog=examples(
        "slipway gates add p99_below ms=4 --model digits --target production",
        "slipway gates add metric_not_worse metric=accuracy by=0.01 --model digits",
        "slipway gates add approved count=2 --target production",
    ),
)
def add(  # noqa: PLR0917 - one parameter per option
    rule: Annotated[str, typer.Argument(help="See: slipway gates rules")],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Its parameters.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only for this model; without: for all.")] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="A target, an alias, or * for all.")] = "*",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Set a gate for a model, or for all models."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        told = dict(_parameter(each) for each in parameters or ())
        made = client.gates.add(rule, told, target=target, name=model)
        screen.result(made.raw, _gates([made]), bare=made.id)


@gates.command("remove", epilog=examples("slipway gates remove GATE --model digits"))
def remove(
    gate: Annotated[str, typer.Argument(help="Its id.")],
    model: Annotated[str | None, typer.Option("--model", help="The model that it is of; without: of all.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove a gate."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        client.gates.remove(gate, name=model)
        screen.result({"removed": gate}, Text(f"Removed {plain(gate)}."), bare=gate)


@gates.command("rules", epilog=examples("slipway gates rules", "slipway gates rules --json"))
def rules(as_json: Json = False, quiet: Quiet = False) -> None:
    """List what a gate can ask."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.gates.rules()
        screen.result(
            {"items": [item.raw for item in found]}, _rules(found), bare="\n".join(item.name for item in found)
        )


def why_not(ref: Ref, target: Target = "production", as_json: Json = False, quiet: Quiet = False) -> None:
    """Ask whether a version may go live, and what is missing; exit with 3 where a gate says no."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.gates.why_not(ref, target)
        screen.result(found.raw, _judged(found), bare="\n".join(found.to_change))
        if not found.promotable:
            raise typer.Exit(3)


def approve(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    target: Target = "production",
    comment: Annotated[str, typer.Option("--comment", "-m", help="What you looked at.")] = "",
    revoke: Annotated[bool, typer.Option("--revoke", help="Take your approval back.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Approve a version that somebody else uploaded, for a target."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if revoke:
            done = client.approvals.revoke(ref, _mine(client, ref, target).id)
        else:
            done = client.approvals.approve(ref, target, comment=comment)
        verb = "is no longer approved" if revoke else "is approved"
        human = Text(f"{plain(ref)} {verb} for {plain(done.target)} by {plain(done.approved_by)}.")
        screen.result(done.raw, human, bare=done.id)


def _mine(client: Client, ref: str, target: str) -> Approval:
    name = client.me().username
    for each in client.approvals.of(ref):
        if each.approved_by == name and each.target == target and each.revoked_at is None:
            return each
    raise NotFound("no_approval", f"You have not approved {ref} for {target}.", hint="Look: slipway why-not NAME@V")


def _parameter(said: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is JSON is what it says, any other is text."""
    name, equals, value = said.partition("=")
    if not (name and equals):
        raise usage(f"{said!r} is no parameter.", "Write NAME=VALUE, such as ms=4 or licences='[\"MIT\"]'.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _gates(found: Sequence[Gate]) -> RenderableType:
    if not found:
        return Text("No gates beside those that always count. Set one with: slipway gates add RULE", style="dim")
    made = table("rule", "parameters", "target", "of", "set by", "id")
    for item in found:
        told = ", ".join(f"{name}={value}" for name, value in item.parameters.items() if value is not None)
        of = "all models" if item.scope == "global" else "this model"
        made.add_row(
            text(item.rule, "bold"), text(told), text(item.target), of, text(item.created_by or ""), text(item.id)
        )
    return made


def _rules(found: Sequence[Rule]) -> RenderableType:
    made = table("rule", "parameters", "asks")
    for item in found:
        required = set(item.parameters.get("required") or ())
        names = [name if name in required else f"[{name}]" for name in item.parameters.get("properties") or {}]
        made.add_row(text(item.name, "bold"), text(" ".join(names)), text(item.about))
    return made


def _judged(found: Promotability) -> RenderableType:
    made = table("gate", "says", "because")
    for item in found.gates:
        made.add_row(text(item.rule, "bold"), text(item.state, STATE_STYLE.get(item.state, "")), text(item.reason))
    title = f"{plain(found.model)}@{plain(found.version)}"
    if found.promotable:
        return Group(made, Text(f"{title} may go to {plain(found.target)}.", style="green"))
    count = wording.count(len(found.to_change), "fact")
    wishes = [text(f"  {wish}", "yellow") for wish in found.to_change]
    return Group(
        made, Text(f"{title} may not go to {plain(found.target)}: {count} would have to change.", "red"), *wishes
    )
