"""Commands about a candidate beside what is live: begin, watch, stop, promote; and what became of predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from slipway.cli import wording
from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, examples, plain, session, text, usage
from slipway.cli.tables import table
from slipway.client import Client
from slipway.errors import NotFound
from slipway.rollouts import Rollout

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model.")]
Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="A rollout; without: the newest, or the one that runs.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it stays in the history.")]

STATUS_STYLE = {"running": "cyan", "promoted": "green", "rolled_back": "yellow", "stopped": "dim"}
WIDTH = 40

rollout = typer.Typer(no_args_is_help=True, help="Try a version beside what is live, and let the figures decide.")


@rollout.command(
    "start",
    epilog=examples(
        "slipway rollout start digits@1.1.0 --to production --weight 0.05",
        "slipway rollout start digits@1.1.0 --to production --kind ab --weight 0.5 --sticky user latency_ms=250",
        "slipway rollout start digits@1.1.0 --to production --kind shadow --weight 1 auto_promote=false",
    ),
)
def start(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    rules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RULE=VALUE]...", help="What decides: alpha, max_error_increase, latency_ms, …"),
    ] = None,
    target: Annotated[str, typer.Option("--to", help="development, staging or production.")] = "production",
    kind: Annotated[str, typer.Option(help="canary, ab, or shadow (copies, whose answers nobody sees).")] = "canary",
    weight: Annotated[float, typer.Option(help="Its share of the requests, above 0 up to 1.")] = 0.05,
    sticky: Annotated[str, typer.Option(help="none, user or key: who always meets the same one.")] = "none",
    note: Annotated[str, typer.Option("--note", "-m", help="Why; it stays in the history.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Begin a rollout, if every gate lets the version go there; exit with 3 where one does not."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        told = dict(_rule(each) for each in rules or ())
        made = client.rollouts.start(ref, target, kind=kind, weight=weight, sticky=sticky, rules=told, note=note)
        screen.result(made.raw, _picture(made), bare=made.id)
        screen.hint(f"Look at it with: slipway rollout show {made.model}")


@rollout.command("show", epilog=examples("slipway rollout show digits", "slipway rollout show digits ID --json"))
def show(name: Name, rollout_id: Id = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show both sides with their rates, how sure these are, and what they say so far."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.rollouts.get(name, rollout_id or _newest(client, name))
        screen.result(found.raw, _picture(found), bare=found.decision or found.status)


@rollout.command("list", epilog=examples("slipway rollout list digits", "slipway rollout list digits --status running"))
def list_rollouts(
    name: Name,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Only on this target.")] = None,
    status: Annotated[str | None, typer.Option(help="running, promoted, rolled_back or stopped.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List a model's rollouts, newest first."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.rollouts.find(name, target=target, status=status)
        document = {"items": [item.raw for item in found]}
        screen.result(document, _table(found), bare="\n".join(item.id for item in found))


@rollout.command("stop", epilog=examples("slipway rollout stop digits --reason 'the new cameras are late'"))
def stop(name: Name, rollout_id: Id = None, *, reason: Reason, as_json: Json = False, quiet: Quiet = False) -> None:
    """End a rollout; what was live stays."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        done = client.rollouts.stop(name, rollout_id or _running(client, name), reason=reason)
        screen.result(done.raw, _picture(done), bare=done.id)


@rollout.command("promote", epilog=examples("slipway rollout promote digits --reason 'seen enough'"))
def promote(name: Name, rollout_id: Id = None, *, reason: Reason, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make the candidate live without waiting for the figures; the gates count all the same."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        done = client.rollouts.promote(name, rollout_id or _running(client, name), reason=reason)
        screen.result(done.raw, _picture(done), bare=done.id)


def feedback(
    prediction: Annotated[
        str, typer.Argument(metavar="PREDICTION", help="The header Slipway-Prediction of its answer.")
    ],
    right: Annotated[bool | None, typer.Option("--right/--wrong", help="Whether it was right.")] = None,
    label: Annotated[str | None, typer.Option(help="Instead: what is right.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell what became of a prediction, once for each."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if (right is None) == (label is None):
            raise usage("Say --right, --wrong or --label, one of them.", "slipway feedback --help")
        told = client.feedback(prediction, correct=right, label=label)
        word = "right" if told["right"] else "wrong"
        screen.result(told, Text(f"Recorded: that prediction was {word}."), bare=word)


def _newest(client: Client, name: str) -> str:
    for found in client.rollouts.find(name, limit=1):
        return found.id
    raise NotFound(
        "rollout_not_found", f"{name} has no rollout.", hint=f"slipway rollout start {name}@V --to production"
    )


def _running(client: Client, name: str) -> str:
    found = client.rollouts.find(name, status="running")
    if not found:
        raise NotFound("rollout_not_found", f"No rollout of {name} runs.", hint=f"slipway rollout list {name}")
    if len(found) > 1:
        raise usage(f"{name} has rollouts on {', '.join(item.target for item in found)}; name one.", "Add its ID.")
    return found[0].id


def _rule(said: str) -> tuple[str, Any]:
    name, separator, value = said.partition("=")
    if not separator or not name:
        raise usage(f"{said} is no RULE=VALUE.", "For example latency_ms=250.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _table(found: Sequence[Rollout]) -> RenderableType:
    if not found:
        return Text("No rollouts. Begin one with: slipway rollout start NAME@V --to production", style="dim")
    made = table("rollout", "target", "live", "candidate", "kind", "share", "status", "begun", "by", "ended because")
    for item in found:
        made.add_row(
            text(item.id),
            text(item.target),
            text(item.control),
            text(item.candidate),
            text(item.kind),
            f"{item.weight:.3g}",
            text(item.status, STATUS_STYLE.get(item.status, "")),
            wording.ago(item.started_at),
            text(item.started_by),
            text(item.reason or ""),
        )
    return made


def _picture(found: Rollout) -> RenderableType:
    """Both sides as bars over one scale, and what they say."""
    head = Text(f"{plain(found.owner)}/{plain(found.model)} on {plain(found.target)}: ", style="bold")
    head.append(
        f"{plain(found.candidate)} beside {plain(found.control)}, {plain(found.kind)} of {100 * found.weight:.3g} %, "
    )
    head.append(plain(found.status.replace("_", " ")), style=STATUS_STYLE.get(found.status, ""))
    return Group(head, *_bars(found.metrics), _latencies(found.arms), text(found.verdict))


def _bars(metrics: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for metric in metrics:
        sides = {side: metric[side] for side in ("control", "candidate")}
        most = max((side["high"] for side in sides.values() if side["of"]), default=0.0) or 1.0
        made = table(
            plain(metric["what"]), "bad", "of", "rate", f"0 to {100 * most:.3g} %", right=("bad", "of", "rate")
        )
        for name, side in sides.items():
            rate = "–" if side["rate"] is None else f"{100 * side['rate']:.3g} %"
            made.add_row(name, f"{side['bad']:,}", f"{side['of']:,}", rate, _bar(side, most))
        lines += [made, Text(_evidence(metric), style="dim")]
    return lines


def _bar(side: Mapping[str, Any], most: float) -> str:
    """The interval as a line with the rate on it."""
    if not side["of"]:
        return ""
    low, rate, high = (min(WIDTH - 1, int(side[edge] / most * WIDTH)) for edge in ("low", "rate", "high"))
    return "".join("●" if at == rate else "─" if low <= at <= high else " " for at in range(WIDTH)).rstrip()


def _evidence(metric: Mapping[str, Any]) -> str:
    worse, fit = metric["worse"], metric["not_worse"]
    return (
        f"evidence for worse {worse['evidence']:,.4g} of {worse['needed']:,.4g}, "
        f"for not worse by {100 * metric['margin']:.3g} % {fit['evidence']:,.4g} of {fit['needed']:,.4g}"
    )


def _latencies(arms: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    columns = ("p50_ms", "p95_ms", "p99_ms")
    right = ("requests", *(each.replace("_", " ") for each in columns), "right", "wrong")
    made = table("answers", *right, right=right)
    for name, arm in arms.items():
        figures = ("–" if arm[each] is None else f"{arm[each]:.3g}" for each in columns)
        made.add_row(text(name), f"{arm['requests']:,}", *figures, f"{arm['right']:,}", f"{arm['wrong']:,}")
    return made
