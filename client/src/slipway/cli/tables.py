"""What commands print on stdout for a person: tables of what the records hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slipway.cli import wording
from slipway.cli.screen import plain, text
from slipway.cli.timeline import STATUS_STYLE
from slipway.models import Model, Rating
from slipway.records import Key, Run
from slipway.versions import Version

VERDICT_STYLE = {
    "faster": "green",
    "slower": "red",
    "same": "",
    "inconclusive": "yellow",
    "clean": "green",
    "malicious": "bold red",
    "unknown": "yellow",
    "not measured": "dim",
}


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table; the first column is never cut."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1))
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if column in right else "left", no_wrap=index == 0, overflow="fold")
    return made


def runs(found: Sequence[Run]) -> RenderableType:
    """Return the list of runs."""
    if not found:
        return Text("No runs. Start one with: slipway push FILE --name NAME", style="dim")
    made = table("run", "model", "status", "stage", "started", "code")
    for run in found:
        name = f"{run.model}@{run.version}" if run.version else run.model
        status = text(run.status, STATUS_STYLE.get(run.status, "cyan"))
        stage = "" if run.status == "succeeded" else run.stage or ""
        made.add_row(text(run.id), text(name), status, text(stage), wording.ago(run.created_at), text(run.code or ""))
    return made


def models(found: Sequence[Model]) -> RenderableType:
    """Return the list of models."""
    if not found:
        return Text("No models. Push one with: slipway push FILE --name NAME", style="dim")
    made = table("model", "owner", "latest", "live", "rating", "type", "framework", "tags", "changed", "description")
    for model in found:
        made.add_row(
            text(model.name, "bold" if model.is_active else "dim"),
            text(model.owner),
            text(model.latest or "–"),
            text(", ".join(model.stages)),
            f"{model.rating:.1f} ({model.ratings})" if model.rating is not None else "",
            text(model.model_type or ""),
            text(model.framework or ""),
            text(", ".join(model.tags)),
            wording.ago(model.updated_at or model.created_at),
            text(model.description),
        )
    return made


def ratings(found: Sequence[Rating]) -> RenderableType:
    """Return what users think of a model."""
    if not found:
        return Text("Nobody has rated it.", style="dim")
    made = table("user", "score", "version", "given", "review", right=("score",))
    for rating in found:
        made.add_row(
            text(rating.user, "bold"),
            str(rating.score),
            text(rating.version or ""),
            wording.ago(rating.created_at),
            text(rating.review),
        )
    return made


def keys(found: Sequence[Key]) -> RenderableType:
    """Return the list of keys; a secret is not among what it has."""
    if not found:
        return Text("No keys. Make one with: slipway keys create NAME", style="dim")
    made = table("id", "name", "begins with", "scopes", "calls left", "created", "expires", right=("calls left",))
    for key in found:
        made.add_row(
            text(key.id),
            text(key.name),
            text(key.prefix),
            text(", ".join(key.scopes)),
            "any" if key.calls_remaining is None else str(key.calls_remaining),
            wording.ago(key.created_at),
            f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "never",
        )
    return made


def variants(run: Run) -> RenderableType:
    """Return what a run published: name, size, speed, agreement and verdict; then what was withheld and where."""
    rows = wording.variants(run)
    if not rows:
        return text("There is nothing to serve: files of this format are stored and described.", "yellow")
    made = table("artifact", "size", "p50", "speed-up", "same decisions", "max error", "verdict", right=("size", "p50"))
    for row in rows:
        found = row.agreement
        made.add_row(
            text(row.name, "bold"),
            wording.size(row.size),
            wording.milliseconds(row.p50_ms),
            text(row.speedup),
            found.decisions if found else "–",
            wording.error_size(found.max_error) if found else "–",
            text(row.verdict, VERDICT_STYLE.get(row.verdict, "")),
        )
    parts: list[RenderableType] = [made]
    parts += [text(f"withheld: {name} – {reason}", "yellow") for name, reason in wording.withheld(run)]
    device = run.facts("benchmark").get("device") or {}
    if device.get("cpu"):
        threads = f", {wording.count(int(device['threads']), 'thread')}" if device.get("threads") else ""
        parts.append(
            text(f"speed-up over the source form with its confidence interval; {device['cpu']}{threads}", "dim")
        )
    return Group(*parts)


def findings(run: Run) -> RenderableType | None:
    """Return what the scan found, or nothing where it found nothing."""
    found = [item for item in run.facts("scan").get("findings") or () if isinstance(item, dict)]
    if not found:
        return None
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    styles = {"malicious": "bold red", "unknown": "red", "warning": "yellow", "info": "dim"}
    for item in found:
        severity = str(item.get("severity") or "")
        place = plain(item.get("path") or "")
        if item.get("offset") is not None:
            place += f":{plain(item['offset'])}"
        body = Text(plain(item.get("message") or item.get("rule") or ""))
        body.append(f"\n{plain(item.get('rule') or '')}  {place}", style="dim")
        if item.get("advice"):
            body.append(f"\n{plain(item['advice'])}", style="cyan")
        made.add_row(Text(f"  {plain(severity)}", style=styles.get(severity, "")), body)
    return made


def gates(run: Run) -> RenderableType | None:
    """Return the gates that stayed closed, or nothing."""
    closed = [item for item in run.facts("promote").get("gates") or () if not item.get("passed")]
    if not closed:
        return None
    lines = [text(f"  {item.get('gate')}: {item.get('reason') or 'no reason given'}", "red") for item in closed]
    return Group(*lines)


def rebuilt(facts: Mapping[str, Any]) -> RenderableType:
    """Return the artifacts of a rebuild with both digests, and where the toolchains differ."""
    made = table("artifact", "recorded", "rebuilt")
    for item in facts.get("artifacts") or ():
        style = "dim" if item.get("same") else "bold red"
        digests = (str(item.get(which) or "not made")[:16] for which in ("recorded", "rebuilt"))
        made.add_row(text(item.get("name") or "", "bold"), *(text(digest, style) for digest in digests))
    tools = facts.get("toolchain") or {}
    lines = [text(f"  {name}: {was.get('recorded')} → {was.get('present')}") for name, was in sorted(tools.items())]
    return Group(made, *lines)


def model(shown: Model, versions: Sequence[Version]) -> RenderableType:
    """Return one model and its versions."""
    about = Table.grid(padding=(0, 2))
    about.add_column(style="dim")
    about.add_column(overflow="fold")
    facts = {
        "owner": shown.owner,
        "description": shown.description,
        "type": shown.model_type,
        "framework": shown.framework,
        "licence": shown.licence,
        "tags": ", ".join(shown.tags),
        "visibility": shown.visibility,
        "live": ", ".join(shown.stages),
        "endpoint": shown.endpoint_url if shown.stages else None,
        "rating": f"{shown.rating:.1f} of 5, by {shown.ratings}" if shown.rating is not None else None,
        "downloads": shown.downloads,
    }
    for name, value in facts.items():
        if value:
            about.add_row(name, text(value))
    listed = table(
        "version", "no.", "aliases", "status", "format", "size", "scan", "published", "run", right=("no.", "size")
    )
    for item in versions:
        listed.add_row(
            text(item.version, "bold"),
            str(item.ordinal or ""),
            text(", ".join(item.aliases), "cyan"),
            text(item.status),
            text(item.format),
            wording.size(item.size),
            text(item.verdict, VERDICT_STYLE.get(item.verdict, "")),
            wording.ago(item.published_at) or "no",
            text(item.run or "", "dim"),
        )
    return Group(Text(plain(shown.name), style="bold"), about, Text(), listed)


def version(shown: Version) -> RenderableType:
    """Return one version and what is stored for it."""
    about = Table.grid(padding=(0, 2))
    about.add_column(style="dim")
    about.add_column(overflow="fold")
    facts = {
        "number": shown.ordinal,
        "file": f"{shown.filename}, {wording.size(shown.size)}",
        "sha256": shown.sha256,
        "format": shown.format,
        "framework": shown.framework,
        "servable": {True: "yes", False: "no: it is stored, not served"}.get(shown.servable)
        if shown.servable is not None
        else None,
        "scan": shown.verdict,
        "status": shown.status,
        "aliases": ", ".join(shown.aliases),
        "uploaded by": shown.uploaded_by,
        "notes": shown.release_notes,
        "metrics": ", ".join(wording.metric(one) for one in shown.metrics),
        "published": wording.ago(shown.published_at) or "no",
        "best": shown.best_variant,
        "pinned": ", ".join(f"{variant} on {device}" for device, variant in sorted(shown.pinned.items())),
        "run": shown.run,
    }
    for name, value in facts.items():
        if value:
            about.add_row(name, text(value, VERDICT_STYLE.get(str(value), "")))
    stored = table("artifact", "role", "size", "sha256", right=("size",))
    for item in shown.artifacts:
        stored.add_row(text(item.name, "bold"), text(item.role), wording.size(item.size), text(item.sha256, "dim"))
    title = Text(plain(f"{shown.model}@{shown.version}"), style="bold")
    return Group(title, about, *((Text(), stored) if shown.artifacts else ()))
