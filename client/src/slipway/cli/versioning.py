"""Commands about what becomes of versions: compare them, record what was measured, set their status and notes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from slipway.cli import tables, wording
from slipway.cli.pushing import figures
from slipway.cli.reading import Ref
from slipway.cli.screen import Json, Quiet, session, text
from slipway.cli.tables import table
from slipway.metrics import Metric
from slipway.versions import Comparison

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why, for those who read the audit trail.")]

metrics = typer.Typer(no_args_is_help=True, help="Record what was measured of a version, and see how it went.")


def compare(
    references: Annotated[
        list[str], typer.Argument(metavar="NAME[@REF]...", help="Two to four versions, also of several models.")
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hold versions against each other: metrics, speed, size, licence, toolchain, and what breaks the contract."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.versions.compare(*references)
        screen.result(found.raw, comparison(found))


def status(
    ref: Ref,
    wanted: Annotated[str, typer.Argument(metavar="STATUS", help="training, testing, approved, deprecated, archived.")],
    reason: Reason = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Set a version's status, by legal moves only."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        shown = client.versions.set_status(ref, wanted, reason=reason)
        screen.result(shown.raw, tables.version(shown), bare=shown.status)


def note(
    ref: Ref,
    notes: Annotated[str, typer.Argument(metavar="NOTES", help="What is new, or @FILE.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say anew what a version brings: its release notes, the only thing of it that may change."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        said = Path(notes[1:]).read_text(encoding="utf-8") if notes.startswith("@") else notes
        shown = client.versions.note(ref, said)
        screen.result(shown.raw, tables.version(shown), bare=shown.version)


@metrics.command()
def add(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    values: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="Such as accuracy=0.95 loss=0.11.")],
    dataset: Annotated[str | None, typer.Option(help="What it was measured on.")] = None,
    when: Annotated[datetime | None, typer.Option("--at", help="When it was measured, in UTC; default: now.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Record numbers; nothing is overwritten."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        moment = when and when.replace(tzinfo=when.tzinfo or UTC)
        found = client.metrics.record(ref, figures(values), dataset=dataset, at=moment)
        screen.result({"items": [item.raw for item in found]}, _metrics(found), bare="")


@metrics.command("list")
def list_(  # noqa: PLR0917 - one parameter per option
    ref: Ref,
    name: Annotated[str | None, typer.Option("--name", help="Only this metric.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only on this data set.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what was recorded, by the time of measuring, newest first."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.metrics.history(ref, name=name, dataset=dataset, limit=limit)
        bare = "\n".join(wording.metric(item) for item in found)
        screen.result({"items": [item.raw for item in found]}, _metrics(found), bare=bare)


def comparison(found: Comparison) -> RenderableType:
    """Return a comparison for a person: a column for each version, a row for each fact."""
    made = table("", *(str(one["label"]) for one in found.versions))
    for title, row in _rows(found):
        style = "bold" if len(set(row)) > 1 else ""
        made.add_row(text(title, "dim"), *(text(cell, style) for cell in row))
    return Group(made, *(_step(step) for step in found.contracts))


def _rows(found: Comparison) -> list[tuple[str, list[str]]]:
    versions = found.versions
    rows = [(fact, [_plain(one.get(fact)) for one in versions]) for fact in ("status", "format", "licence")]
    rows.append(("size", [wording.size(one["size"]) for one in versions]))
    for item in found.metrics:
        name = item["name"] + (f" ({item['dataset']})" if item.get("dataset") else "")
        rows.append((name, ["–" if value is None else f"{value:.6g}" for value in item["values"]]))
    rows.append(("best form", [_plain(one.get("best_variant")) for one in versions]))
    rows += [(f"{title} of it", [_measured(one, key) for one in versions]) for title, key in _SPEEDS]
    rows.append(("quality", [_plain((one.get("quality") or {}).get("score")) for one in versions]))
    chains = [dict(one.get("toolchain") or {}) for one in versions]
    tools = sorted({tool for chain in chains for tool in chain if len({each.get(tool) for each in chains}) > 1})
    return rows + [(tool, [_plain(chain.get(tool)) for chain in chains]) for tool in tools]


_SPEEDS = (("p50", "p50_ms"), ("p99", "p99_ms"), ("memory", "peak_memory"))


def _measured(one: Mapping[str, Any], key: str) -> str:
    rows = [row for row in one.get("benchmarks") or () if row.get("name") == one.get("best_variant")]
    value = rows[-1].get(key) if rows else None
    if value is None:
        return "–"
    return wording.size(value) if key == "peak_memory" else wording.milliseconds(value)


def _step(step: Mapping[str, Any]) -> Text:
    title = f"{step['before']} → {step['after']}: "
    if step.get("changes") is None:
        return text(title + "the contract of one is not known", "yellow")
    if not step["changes"]:
        return text(title + "same contract", "green")
    broken = step.get("fits") is False
    said = text(f"{title}a {step['needed']} change", "bold red" if broken else "")
    if broken:
        said.append(", which its number does not say")
    for change in step["changes"]:
        said.append_text(text(f"\n  {change['bump']}: {change['what']}"))
    return said


def _plain(value: Any) -> str:
    return "–" if value in (None, "") else value if isinstance(value, str) else json.dumps(value)


def _metrics(found: Sequence[Metric]) -> RenderableType:
    if not found:
        return Text("No metrics. Record one with: slipway metrics add NAME@VERSION accuracy=0.95", style="dim")
    made = table("metric", "value", "data set", "measured", "by", right=("value",))
    for item in found:
        made.add_row(
            text(item.name, "bold"),
            f"{item.value:.6g}",
            text(item.dataset or ""),
            wording.ago(item.at),
            text(item.recorded_by or "Slipway"),
        )
    return made
