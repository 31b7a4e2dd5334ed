"""Commands for admins about what was done and what was logged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from slipway.cli.screen import Json, Quiet, session, text, usage
from slipway.cli.tables import table
from slipway.errors import SlipwayError
from slipway.trails import Entry, LogRecord

_UNITS = {"m": 60, "h": 3600, "d": 86400}
Since = Annotated[str | None, typer.Option(help="30m, 12h, 7d, or a time such as 2026-05-03T12:00.")]


def audit(  # noqa: PLR0917 - one parameter per option
    actor: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as user.deleted.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this id.")] = None,
    since: Since = None,
    check: Annotated[bool, typer.Option("--check", help="Read the whole trail: was anything changed?")] = False,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read the audit trail, newest first, or have it checked (exit code 1: something was changed or removed)."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        if check:
            found = client.audit.check()
            if not found.intact:
                listed = [f"{each['what']}: {each['first']} to {each['last']}" for each in found.faults]
                raise SlipwayError("audit_broken", "The audit trail is not as it was written.", details=listed)
            signed = "none is signed" if found.signed is None else f"signed up to {found.signed}"
            human = Text(f"{found.entries} entries, intact, {signed}.")
            screen.result(found.raw, human, bare=found.head)
            return
        entries = client.audit.list(actor=actor, action=action, subject=subject, since=_moment(since), limit=limit)
        document = {"items": [entry.raw for entry in entries]}
        screen.result(document, _entries(entries), bare="\n".join(str(entry.id) for entry in entries))


def server_logs(  # noqa: PLR0917 - one parameter per option
    level: Annotated[str | None, typer.Option(help="This one and worse: warning, error.")] = None,
    since: Since = None,
    trace: Annotated[str | None, typer.Option(help="Only of this request, by the trace id of its answer.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read what the server's processes logged, newest first: warnings, errors, refused requests."""
    with session(as_json=as_json, quiet=quiet) as (client, screen):
        found = client.server_logs.list(level=level, start_time=_moment(since), trace_id=trace, limit=limit)
        document = {"items": [record.raw for record in found]}
        screen.result(document, _records(found), bare="\n".join(record.event for record in found))


def _entries(found: Sequence[Entry]) -> RenderableType:
    made = table("no.", "when", "who", "what", "about", "details", right=("no.",))
    for entry in found:
        details = ", ".join(f"{name}={value}" for name, value in entry.details.items())
        made.add_row(
            str(entry.id),
            f"{entry.at:%Y-%m-%d %H:%M:%S}" if entry.at else "",
            text(entry.actor, "bold"),
            text(entry.action),
            text(entry.subject, "dim"),
            text(details),
        )
    return made


def _records(found: Sequence[LogRecord]) -> RenderableType:
    if not found:
        return Text("Nothing was kept.", style="dim")
    made = table("when", "level", "process", "event", "what", "trace")
    styles = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
    for record in found:
        said = [record.endpoint, record.status_code, record.error]
        made.add_row(
            f"{record.timestamp:%Y-%m-%d %H:%M:%S}" if record.timestamp else "",
            text(record.level, styles.get(record.level, "")),
            text(record.process),
            text(record.event, "bold"),
            text(" ".join(str(each) for each in said if each is not None)),
            text(record.trace_id or "", "dim"),
        )
    return made


def _moment(said: str | None) -> datetime | None:
    if said is None:
        return None
    number, unit = said[:-1], said[-1:]
    if number.isdecimal() and unit in _UNITS:
        return datetime.now(UTC) - timedelta(seconds=int(number) * _UNITS[unit])
    try:
        return datetime.fromisoformat(said).astimezone(UTC)
    except ValueError as error:
        raise usage(f"{said} is no time.", "Write 30m, 12h, 7d or 2026-05-03T12:00.") from error
